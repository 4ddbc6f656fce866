//! What a query is beyond its values: facts in columns, escaped keys, sorts, and what is refused.

use crate::support::Fixture;
use headwater_docstore::{Filter, FilterError, Sort, SortError};

#[test]
fn a_devices_dollar_keys_are_found_escaped() {
    let mut fixture = Fixture::new();
    fixture.insert_payloads(&[
        r#"{"$date": "2020-01-01T00:00:00Z"}"#,
        r#"{"_$date": "x"}"#,
        r#"{"$gt": 5}"#,
    ]);
    assert_eq!(
        fixture.offsets(r#"{"payload._$date": "2020-01-01T00:00:00Z"}"#),
        [0]
    );
    assert_eq!(fixture.offsets(r#"{"payload.__$date": "x"}"#), [1]);
    assert_eq!(fixture.offsets(r#"{"payload._$gt": {"$gte": 5}}"#), [2]);
}

#[test]
fn facts_are_found_through_columns() {
    let mut fixture = Fixture::new();
    let payloads: Vec<String> = (0..9).map(|n| n.to_string()).collect();
    fixture.insert_payloads(&payloads);
    let all: Vec<u64> = (0..9).collect();
    for (filter, offsets, why) in [
        (r#"{"topic": "a/1"}"#, vec![1, 4, 7], "equal"),
        (
            r#"{"topic": {"$in": ["a/1", "b/0", 5]}}"#,
            vec![1, 2, 4, 5, 7, 8],
            "$in",
        ),
        (
            r#"{"topic": {"$ne": "a/1"}}"#,
            vec![0, 2, 3, 5, 6, 8],
            "$ne",
        ),
        (r#"{"topic": {"$gt": "a/1"}}"#, vec![2, 5, 8], "$gt"),
        (
            r#"{"topic": "no such"}"#,
            vec![],
            "a topic that is not there",
        ),
        (
            r#"{"topic": {"$ne": "no such"}}"#,
            all.clone(),
            "and its complement",
        ),
        (
            r#"{"topic": {"$exists": true}}"#,
            all.clone(),
            "always there",
        ),
        (r#"{"topic": 5}"#, vec![], "another type"),
        (r#"{"topic": null}"#, vec![], "not null"),
        (
            r#"{"ts": {"$gte": 1700000007000}}"#,
            vec![7, 8],
            "milliseconds",
        ),
        (
            r#"{"ts": {"$lt": {"$date": "2023-11-14T22:13:21Z"}}}"#,
            vec![0],
            "a date",
        ),
        (
            r#"{"ts": {"$date": 1700000003000}}"#,
            vec![3],
            "a date of milliseconds",
        ),
        (
            r#"{"ts": {"$in": [1700000003000, {"$date": "2023-11-14T22:13:20Z"}]}}"#,
            vec![0, 3],
            "$in",
        ),
        (
            r#"{"ts": "2023-11-14T22:13:20Z"}"#,
            vec![],
            "a string is no date",
        ),
        (
            r#"{"kafka_topic": "mqtt", "partition": 0, "offset": {"$gt": 6.5}}"#,
            vec![7, 8],
            "position",
        ),
        (
            r#"{"offset": {"$nin": [1, 2, 3]}}"#,
            vec![0, 4, 5, 6, 7, 8],
            "$nin",
        ),
        (
            r#"{"client": "client", "qos": 1, "retain": false, "offset": 2}"#,
            vec![2],
            "in the body",
        ),
        (r#"{"retain": 0}"#, vec![], "false is not 0"),
        (r#"{"_id": "x"}"#, vec![], "no position"),
        (
            r#"{"_id": {"$ne": "6b61666b-6100-4000-8000-000000000001/0/3"}}"#,
            vec![0, 1, 2, 4, 5, 6, 7, 8],
            "all but one",
        ),
        (
            r#"{"_id": {"$gt": "6b61666b-6100-4000-8000-000000000001/0/6"}}"#,
            vec![7, 8],
            "as text",
        ),
        (
            r#"{"topic.x": {"$exists": false}, "offset": 1}"#,
            vec![1],
            "nothing is below a column",
        ),
        (
            r#"{"$or": [{"topic": "a/1", "offset": {"$lt": 2}}, {"payload": 8}]}"#,
            vec![1, 8],
            "$or",
        ),
        (
            r#"{"$nor": [{"topic": "a/1"}, {"payload": 8}]}"#,
            vec![0, 2, 3, 5, 6],
            "$nor",
        ),
    ] {
        assert_eq!(fixture.offsets(filter), offsets, "{filter}: {why}");
    }
}

#[test]
fn what_is_not_understood_is_named() {
    for (filter, named) in [
        (r#"{"a": {"$regex": "x"}}"#, "$regex is not an operator"),
        (r#"{"a": {"$gt": 1, "b": 2}}"#, "b is not an operator"),
        (r#"{"$where": "1"}"#, "$where is not an operator"),
        (
            r#"{"$and": [{"a": {"$elemMatch": {"b": 1}}}]}"#,
            "$elemMatch is not an operator",
        ),
        (r#"{"a": {"b": {"$gt": 1}}}"#, "$gt is not an operator"),
        (r#"{"a": {"b": 1, "$gt": 1}}"#, "$gt is not an operator"),
        (r#"{"a": {"$in": 5}}"#, "$in needs an array"),
        (
            r#"{"$or": []}"#,
            "$or needs an array of at least one filter",
        ),
        (
            r#"{"$and": [1]}"#,
            "$and needs an array of at least one filter",
        ),
        (r#"{"a": {"$not": 5}}"#, "$not needs an object of operators"),
        (
            r#"{"a": {"$not": {}}}"#,
            "$not needs an object of operators",
        ),
        (
            r#"{"ts": {"$gt": {"$date": "soon"}}}"#,
            "$date needs a value of that type",
        ),
        (r#"{"ts": 1.5}"#, "ts needs a date"),
        ("[]", "a filter is an object"),
        ("{", "not JSON"),
        (r#"{"a": 1} x"#, "not JSON"),
        ("", "not JSON"),
    ] {
        let error = Filter::parse(filter).unwrap_err().to_string();
        assert!(error.contains(named), "{filter}: {error}");
    }
    let FilterError::UnknownOperator { operator } =
        Filter::parse(&format!(r#"{{"${}": 1}}"#, "x".repeat(5000))).unwrap_err()
    else {
        panic!("an unknown operator");
    };
    assert_eq!(operator.len(), 64, "what is said back is bounded");
}

#[test]
fn sorts_are_in_mongodbs_order_of_types() {
    let mut fixture = Fixture::new();
    // In ascending order as they stand; the same for equal ones.
    let payloads = [
        r#"{"a": []}"#,
        r#"{"b": 1}"#,
        r#"{"a": null}"#,
        r#"{"a": -1.5}"#,
        r#"{"a": [7, 0]}"#,
        r#"{"a": 3}"#,
        r#"{"a": ""}"#,
        r#"{"a": "x"}"#,
        r#"{"a": {"b": 1}}"#,
        r#"{"a": [[1]]}"#,
        r#"{"a": false}"#,
        r#"{"a": true}"#,
    ];
    fixture.insert_payloads(&payloads);
    assert_eq!(
        fixture.sorted(r#"{"payload.a": 1}"#, 0, None),
        (0..12).collect::<Vec<u64>>()
    );
    assert_eq!(
        fixture.sorted(r#"{"payload.a": -1}"#, 0, None),
        [11, 10, 9, 8, 7, 6, 4, 5, 3, 0, 1, 2],
        "descending, an array stands for its greatest"
    );
    assert_eq!(
        fixture.sorted(r#"{"payload.a": 1}"#, 2, Some(3)),
        [2, 3, 4],
        "the same cut out"
    );
    let second = fixture.sorted(r#"{"payload.b": -1, "payload.a": -1}"#, 0, Some(3));
    assert_eq!(second, [1, 11, 10], "the second key decides among equals");
}

#[test]
fn sorts_that_make_no_sense_are_refused() {
    for (sort, error) in [
        (
            r#"{"a": 2}"#,
            SortError::Direction {
                path: "a".to_owned(),
            },
        ),
        (
            r#"{"a": "asc"}"#,
            SortError::Direction {
                path: "a".to_owned(),
            },
        ),
        (
            r#"{"$natural": 1}"#,
            SortError::Path {
                path: "$natural".to_owned(),
            },
        ),
        (
            r#"{"a..b": 1}"#,
            SortError::Path {
                path: "a..b".to_owned(),
            },
        ),
        (
            r#"{"a": 1, "a": -1}"#,
            SortError::Twice {
                path: "a".to_owned(),
            },
        ),
        ("1", SortError::NotAnObject),
    ] {
        assert_eq!(Sort::parse(sort), Err(error), "{sort}");
    }
}
