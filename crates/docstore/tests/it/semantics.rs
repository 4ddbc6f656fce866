//! MongoDB's rules, case by case, each with the place it comes from.
//!
//! A document here is `{"a": VALUE}` or what stands there; each case asks the evaluator alone and,
//! with the same values under `payload`, the store with all that SQL does on the way.

use crate::support::Fixture;
use headwater_docstore::Filter;

/// Filter, document, whether it matches, why.
type Case = (&'static str, &'static str, bool, &'static str);

fn check(cases: &[Case]) {
    for (filter, document, expected, why) in cases {
        let parsed = Filter::parse(filter).unwrap_or_else(|error| panic!("{filter}: {error}"));
        assert_eq!(
            parsed.matches(document),
            Some(*expected),
            "{filter} on {document}: {why}"
        );
    }
    // And through the store: every document at once, so that SQL must choose.
    let mut fixture = Fixture::new();
    let documents: Vec<&str> = cases.iter().map(|case| case.1).collect();
    fixture.insert_payloads(&documents);
    for (offset, (filter, document, expected, why)) in cases.iter().enumerate() {
        let filter = below_payload(&serde_json::from_str(filter).unwrap());
        let offsets = fixture.offsets(&filter.to_string());
        let found = offsets.contains(&(offset as u64));
        assert_eq!(
            found, *expected,
            "{filter} on {document} in the store: {why}"
        );
    }
}

/// The same filter with `payload.` before each path.
fn below_payload(filter: &serde_json::Value) -> serde_json::Value {
    let fields = filter.as_object().unwrap().iter().map(|(key, value)| {
        if key.starts_with('$') {
            let branches = value
                .as_array()
                .unwrap()
                .iter()
                .map(below_payload)
                .collect();
            (key.clone(), serde_json::Value::Array(branches))
        } else {
            (format!("payload.{key}"), value.clone())
        }
    });
    serde_json::Value::Object(fields.collect())
}

#[test]
fn equality() {
    check(&[
        (r#"{"a": 1}"#, r#"{"a": 1}"#, true, "the same number"),
        (
            r#"{"a": 1}"#,
            r#"{"a": 1.0}"#,
            true,
            "numbers are equal across types",
        ),
        (
            r#"{"a": 1.5}"#,
            r#"{"a": 1.50}"#,
            true,
            "and however they are written",
        ),
        (
            r#"{"a": 0.1}"#,
            r#"{"a": 0.1}"#,
            true,
            "SQLite's rounding does not matter",
        ),
        (
            r#"{"a": 0.1}"#,
            r#"{"a": 0.1000000000001}"#,
            false,
            "nor does the breadth it is given",
        ),
        (
            r#"{"a": 1}"#,
            r#"{"a": "1"}"#,
            false,
            "a string is no number",
        ),
        (
            r#"{"a": 1}"#,
            r#"{"a": true}"#,
            false,
            "true is no number, though SQL says 1",
        ),
        (r#"{"a": true}"#, r#"{"a": 1}"#, false, "nor the other way"),
        (r#"{"a": false}"#, r#"{"a": 0}"#, false, "nor false"),
        (
            r#"{"a": ""}"#,
            r#"{"a": null}"#,
            false,
            "an empty string is not null",
        ),
        (
            r#"{"a": {"$eq": "x"}}"#,
            r#"{"a": "x"}"#,
            true,
            "$eq is the same",
        ),
        (
            r#"{"a": 9007199254740993}"#,
            r#"{"a": 9007199254740992}"#,
            false,
            "beyond 2^53",
        ),
        (
            r#"{"a": 9007199254740993}"#,
            r#"{"a": 9007199254740992.0}"#,
            false,
            "exact, too",
        ),
        (r#"{"a": 1e308}"#, r#"{"a": 1e308}"#, true, "a large double"),
        (
            r#"{"a": 5e-324}"#,
            r#"{"a": 5e-324}"#,
            true,
            "the least double",
        ),
        (r#"{"a": 0}"#, r#"{"a": -0.0}"#, true, "the zeros are one"),
        (
            r#"{"a": "ä\"\\"}"#,
            r#"{"a": "\u00e4\u0022\u005c"}"#,
            true,
            "escapes are not seen",
        ),
        (
            r#"{"a": "😀"}"#,
            r#"{"a": "\ud83d\ude00"}"#,
            true,
            "a pair of surrogates",
        ),
        (
            r#"{"a": "x\u0000y"}"#,
            r#"{"a": "x\u0000y"}"#,
            true,
            "a NUL inside",
        ),
        (
            r#"{"a": "x\u0000y"}"#,
            r#"{"a": "x\u0000z"}"#,
            false,
            "a NUL does not end it",
        ),
        (r#"{"a": "x"}"#, r#"{"a": "x\u0000y"}"#, false, "nor here"),
        (
            r#"{"a": {"$lt": "x\u0000y"}}"#,
            r#"{"a": "x"}"#,
            true,
            "nor in comparisons",
        ),
    ]);
}

#[test]
fn null_and_missing() {
    check(&[
        (r#"{"a": null}"#, r#"{"a": null}"#, true, "null is null"),
        (
            r#"{"a": null}"#,
            r#"{"b": 1}"#,
            true,
            "null matches a missing field",
        ),
        (
            r#"{"a.b": null}"#,
            r#"{"a": 5}"#,
            true,
            "nothing is below a scalar",
        ),
        (r#"{"a": null}"#, r#"{"a": 0}"#, false, "0 is not null"),
        (
            r#"{"a": {"$ne": null}}"#,
            r#"{"b": 1}"#,
            false,
            "the complement",
        ),
        (
            r#"{"a": {"$ne": null}}"#,
            r#"{"a": 0}"#,
            true,
            "the complement",
        ),
        (
            r#"{"a": {"$in": [null]}}"#,
            r#"{"b": 1}"#,
            true,
            "$in with null too",
        ),
        (
            r#"{"a": {"$nin": [null]}}"#,
            r#"{"b": 1}"#,
            false,
            "and $nin",
        ),
        (
            r#"{"a": {"$gte": null}}"#,
            r#"{"b": 1}"#,
            true,
            "$gte null is null or missing",
        ),
        (
            r#"{"a": {"$lte": null}}"#,
            r#"{"a": null}"#,
            true,
            "$lte null too",
        ),
        (
            r#"{"a": {"$gt": null}}"#,
            r#"{"a": null}"#,
            false,
            "nothing is greater than null",
        ),
        (
            r#"{"a": {"$gt": null}}"#,
            r#"{"a": 1}"#,
            false,
            "another type, type bracketing",
        ),
        (
            r#"{"a": {"$exists": true}}"#,
            r#"{"a": null}"#,
            true,
            "null exists",
        ),
        (
            r#"{"a": {"$exists": true}}"#,
            r#"{"b": 1}"#,
            false,
            "missing does not",
        ),
        (
            r#"{"a": {"$exists": false}}"#,
            r#"{"b": 1}"#,
            true,
            "it does not exist",
        ),
        (
            r#"{"a": {"$exists": false}}"#,
            r#"{"a": null}"#,
            false,
            "null exists",
        ),
        (
            r#"{"a": {"$exists": 1}}"#,
            r#"{"a": 1}"#,
            true,
            "any true value",
        ),
        (
            r#"{"a": {"$exists": 0}}"#,
            r#"{"a": 1}"#,
            false,
            "any false value",
        ),
        (
            r#"{"a.b": {"$exists": false}}"#,
            r#"{"a": 5}"#,
            true,
            "nothing below a scalar",
        ),
        (
            r#"{"a": null}"#,
            r#"{"a": [1, null]}"#,
            true,
            "an element is null",
        ),
        (
            r#"{"a": null}"#,
            r#"{"a": []}"#,
            false,
            "an empty array is not null",
        ),
        (
            r#"{"a.b": null}"#,
            r#"{"a": [{"b": 1}, {"c": 2}]}"#,
            true,
            "missing in one element",
        ),
        (
            r#"{"a.b": null}"#,
            r#"{"a": [{"b": 1}]}"#,
            false,
            "missing in none",
        ),
        (
            r#"{"a.b": null}"#,
            r#"{"a": [1, 2]}"#,
            false,
            "elements without fields lead nowhere",
        ),
        (
            r#"{"a.b": null}"#,
            r#"{"a": []}"#,
            false,
            "no element, no value",
        ),
        (
            r#"{"a.b": {"$exists": false}}"#,
            r#"{"a": []}"#,
            true,
            "so it does not exist",
        ),
    ]);
}

#[test]
fn comparisons_stay_within_a_type() {
    check(&[
        (
            r#"{"a": {"$gt": 1}}"#,
            r#"{"a": 1.5}"#,
            true,
            "across int and double",
        ),
        (r#"{"a": {"$gt": 1}}"#, r#"{"a": 1}"#, false, "strictly"),
        (r#"{"a": {"$gte": 1}}"#, r#"{"a": 1.0}"#, true, "or equal"),
        (
            r#"{"a": {"$lt": 1}}"#,
            r#"{"a": 0.9999999999999999}"#,
            true,
            "a hair less",
        ),
        (r#"{"a": {"$lt": 1}}"#, r#"{"a": 1}"#, false, "strictly"),
        (r#"{"a": {"$lte": 1}}"#, r#"{"a": 1}"#, true, "or equal"),
        (
            r#"{"a": {"$gt": 1}}"#,
            r#"{"a": "2"}"#,
            false,
            "a string is not greater than a number",
        ),
        (
            r#"{"a": {"$lt": "z"}}"#,
            r#"{"a": 1}"#,
            false,
            "nor a number less than a string",
        ),
        (
            r#"{"a": {"$gt": 0}}"#,
            r#"{"a": true}"#,
            false,
            "true is no number",
        ),
        (
            r#"{"a": {"$gt": false}}"#,
            r#"{"a": true}"#,
            true,
            "booleans compare",
        ),
        (
            r#"{"a": {"$gt": "a"}}"#,
            r#"{"a": "ab"}"#,
            true,
            "strings byte by byte",
        ),
        (
            r#"{"a": {"$lt": "a"}}"#,
            r#"{"a": "Z"}"#,
            true,
            "no collation",
        ),
        (
            r#"{"a": {"$gt": "z"}}"#,
            r#"{"a": "ä"}"#,
            true,
            "no collation",
        ),
        (
            r#"{"a": {"$gt": {"b": 1}}}"#,
            r#"{"a": {"b": 2}}"#,
            true,
            "objects field by field",
        ),
        (
            r#"{"a": {"$gt": {"b": 1}}}"#,
            r#"{"a": {"b": "x"}}"#,
            true,
            "types first",
        ),
        (
            r#"{"a": {"$lt": {"b": 1}}}"#,
            r#"{"a": {}}"#,
            true,
            "the shorter is less",
        ),
        (
            r#"{"a": {"$gt": 1, "$lt": 3}}"#,
            r#"{"a": 2}"#,
            true,
            "both",
        ),
        (
            r#"{"a": {"$gt": 1, "$lt": 3}}"#,
            r#"{"a": 3}"#,
            false,
            "both",
        ),
        (
            r#"{"a": {"$gt": {"$numberDouble": "NaN"}}}"#,
            r#"{"a": 1}"#,
            false,
            "NaN is below none",
        ),
        (
            r#"{"a": {"$lt": {"$numberDouble": "Infinity"}}}"#,
            r#"{"a": 1e308}"#,
            true,
            "infinite",
        ),
        (
            r#"{"a": {"$gt": 9223372036854775806}}"#,
            r#"{"a": 9223372036854775807}"#,
            true,
            "int64",
        ),
        (
            r#"{"a": {"$gt": 9223372036854775807}}"#,
            r#"{"a": 9223372036854775808}"#,
            true,
            "beyond",
        ),
    ]);
}

#[test]
fn arrays() {
    check(&[
        (r#"{"a": 2}"#, r#"{"a": [1, 2]}"#, true, "any element"),
        (
            r#"{"a": [1, 2]}"#,
            r#"{"a": [1, 2]}"#,
            true,
            "or the whole array",
        ),
        (
            r#"{"a": [2, 1]}"#,
            r#"{"a": [1, 2]}"#,
            false,
            "in its order",
        ),
        (
            r#"{"a": [1]}"#,
            r#"{"a": [[1], 2]}"#,
            true,
            "an element that is an array",
        ),
        (r#"{"a": 1}"#, r#"{"a": [[1], 2]}"#, false, "not deeper"),
        (
            r#"{"a": {"$gt": 1, "$lt": 3}}"#,
            r#"{"a": [0, 5]}"#,
            true,
            "each by another element",
        ),
        (
            r#"{"a": {"$gt": 5}}"#,
            r#"{"a": [1, 5]}"#,
            false,
            "no element",
        ),
        (
            r#"{"a": {"$gt": [1]}}"#,
            r#"{"a": [1, 0]}"#,
            true,
            "arrays compare as arrays",
        ),
        (
            r#"{"a": {"$ne": 2}}"#,
            r#"{"a": [1, 2]}"#,
            false,
            "$ne: no element may be equal",
        ),
        (r#"{"a": {"$ne": 3}}"#, r#"{"a": [1, 2]}"#, true, "none is"),
        (
            r#"{"a": {"$nin": [1, 9]}}"#,
            r#"{"a": [1, 2]}"#,
            false,
            "$nin: no element in the list",
        ),
        (
            r#"{"a": {"$in": [9, 2]}}"#,
            r#"{"a": [1, 2]}"#,
            true,
            "$in: any element",
        ),
        (
            r#"{"a": {"$in": [[1, 2]]}}"#,
            r#"{"a": [1, 2]}"#,
            true,
            "or the whole array",
        ),
        (
            r#"{"a": {"$in": []}}"#,
            r#"{"a": 1}"#,
            false,
            "nothing is in an empty list",
        ),
        (
            r#"{"a": {"$nin": []}}"#,
            r#"{"b": 1}"#,
            true,
            "everything is outside of it",
        ),
        (
            r#"{"a": {"$not": {"$gt": 1}}}"#,
            r#"{"a": [0, 5]}"#,
            false,
            "$not: no element may be",
        ),
        (
            r#"{"a": {"$not": {"$gt": 1}}}"#,
            r#"{"a": "x"}"#,
            true,
            "also of another type",
        ),
        (
            r#"{"a": {"$not": {"$gt": 1}}}"#,
            r#"{"b": 1}"#,
            true,
            "also missing",
        ),
        (
            r#"{"a": {"$not": {"$gt": 1, "$lt": 3}}}"#,
            r#"{"a": 5}"#,
            true,
            "not both",
        ),
        (
            r#"{"a.b": 2}"#,
            r#"{"a": [{"b": 1}, {"b": 2}]}"#,
            true,
            "through an array of objects",
        ),
        (
            r#"{"a.b": 2}"#,
            r#"{"a": [{"b": [1, 2]}]}"#,
            true,
            "and the array at its end",
        ),
        (
            r#"{"a.b": 2}"#,
            r#"{"a": [[{"b": 2}]]}"#,
            false,
            "not through an array in an array",
        ),
        (r#"{"a.0": 1}"#, r#"{"a": [1, 2]}"#, true, "by place"),
        (
            r#"{"a.0": 2}"#,
            r#"{"a": [1, 2]}"#,
            false,
            "that place only",
        ),
        (
            r#"{"a.0": 1}"#,
            r#"{"a": {"0": 1}}"#,
            true,
            "or a field of that name",
        ),
        (
            r#"{"a.0": 1}"#,
            r#"{"a": [{"0": 1}]}"#,
            true,
            "or that of an element",
        ),
        (
            r#"{"a.1.b": 4}"#,
            r#"{"a": [5, {"b": 4}]}"#,
            true,
            "beyond a place",
        ),
        (
            r#"{"a.1.b": 4}"#,
            r#"{"a": [5, [{"b": 4}]]}"#,
            true,
            "and through the array there",
        ),
        (r#"{"a.0.1": 4}"#, r#"{"a": [[2, 4]]}"#, true, "two places"),
        (
            r#"{"a.00": 1}"#,
            r#"{"a": [1]}"#,
            false,
            "00 is a name, not a place",
        ),
        (
            r#"{"a.2": {"$exists": true}}"#,
            r#"{"a": [1, 2]}"#,
            false,
            "no such place",
        ),
        (
            r#"{"a.b.c": 1}"#,
            r#"{"a": [{"b": [{"c": 1}]}]}"#,
            true,
            "arrays at every level",
        ),
        (
            r#"{"a": {"$exists": true}}"#,
            r#"{"a": []}"#,
            true,
            "an empty array exists",
        ),
    ]);
}

#[test]
fn objects_and_logic() {
    check(&[
        (
            r#"{"a": {"b": 1}}"#,
            r#"{"a": {"b": 1}}"#,
            true,
            "a whole object",
        ),
        (
            r#"{"a": {"b": 1}}"#,
            r#"{"a": {"b": 1, "c": 2}}"#,
            false,
            "all of it",
        ),
        (
            r#"{"a": {"b": 1}}"#,
            r#"{"a": [{"b": 1.0}]}"#,
            true,
            "as an element, numbers equal",
        ),
        (r#"{"a": {}}"#, r#"{"a": {}}"#, true, "the empty object"),
        (r#"{}"#, r#"{"a": 1}"#, true, "no condition"),
        (
            r#"{"a": 1, "b": 2}"#,
            r#"{"a": 1, "b": 2}"#,
            true,
            "implicit and",
        ),
        (r#"{"a": 1, "b": 2}"#, r#"{"a": 1}"#, false, "implicit and"),
        (
            r#"{"$and": [{"a": 1}, {"b": 2}]}"#,
            r#"{"a": 1, "b": 2}"#,
            true,
            "$and",
        ),
        (
            r#"{"$or": [{"a": 1}, {"b": 2}]}"#,
            r#"{"b": 2}"#,
            true,
            "$or",
        ),
        (
            r#"{"$or": [{"a": 1}, {"b": 2}]}"#,
            r#"{"b": 3}"#,
            false,
            "$or",
        ),
        (
            r#"{"$or": [{"a": 1}, {"b": [1]}]}"#,
            r#"{"b": [1]}"#,
            true,
            "$or with what SQL cannot say",
        ),
        (
            r#"{"$nor": [{"a": 1}, {"b": 2}]}"#,
            r#"{"b": 3}"#,
            true,
            "$nor",
        ),
        (
            r#"{"$nor": [{"a": 1}, {"b": 2}]}"#,
            r#"{"a": 1}"#,
            false,
            "$nor",
        ),
        (
            r#"{"$or": [{}, {"a": 1}]}"#,
            r#"{"b": 3}"#,
            true,
            "an empty branch is true",
        ),
    ]);
    let ordered = Filter::parse(r#"{"a": {"b": 1, "c": 2}}"#).unwrap();
    assert_eq!(ordered.matches(r#"{"a": {"b": 1, "c": 2}}"#), Some(true));
    assert_eq!(
        ordered.matches(r#"{"a": {"c": 2, "b": 1}}"#),
        Some(false),
        "the order of fields"
    );
}
