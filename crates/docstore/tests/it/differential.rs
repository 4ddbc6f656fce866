//! Whatever SQL is asked on the way, the answer is the evaluator's.
//!
//! Documents and filters are drawn from few names and values, so that they meet often, and from
//! those where SQL and MongoDB differ: booleans, arrays, numbers near each other, null.

use crate::support::{Fixture, NOW, collection, facts};
use headwater_docstore::{Batch, Bounds, Facts, Filter, Query};
use proptest::prelude::*;
use proptest::sample::select;
use std::ops::ControlFlow;

fn scalar() -> impl Strategy<Value = String> {
    select(vec![
        "null",
        "true",
        "false",
        "0",
        "1",
        "1.0",
        "-0.0",
        "2",
        "2.5",
        "0.1",
        "0.30000000000000004",
        "0.3",
        "1e300",
        "9007199254740992",
        "9007199254740993",
        "9007199254740993.0",
        "-1",
        "9223372036854775807",
        "9223372036854775808",
        "\"\"",
        "\"a\"",
        "\"b\"",
        "\"[\"",
        "\"[1]\"",
        "\"{}\"",
        "\"1\"",
        "\"ä\"",
        "\"a\\u0000b\"",
        "{}",
        "[]",
    ])
    .prop_map(str::to_owned)
}

fn name() -> impl Strategy<Value = &'static str> {
    select(vec!["a", "b", "0", "1", "a-b", "$x"])
}

fn value() -> impl Strategy<Value = String> {
    scalar().prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(|v| format!("[{}]", v.join(","))),
            prop::collection::vec((name(), inner), 0..3).prop_map(object),
        ]
    })
}

fn object(fields: Vec<(&'static str, String)>) -> String {
    let fields: Vec<String> = fields.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
    format!("{{{}}}", fields.join(","))
}

/// A value that may stand in a filter: without `$` keys.
fn operand() -> impl Strategy<Value = String> {
    value().prop_map(|text| text.replace("\"$x\"", "\"_$x\""))
}

fn path() -> impl Strategy<Value = String> {
    let below = prop::collection::vec(name(), 0..3).prop_map(|names| {
        let names = names.join(".").replace("$x", "_$x");
        if names.is_empty() {
            "payload".to_owned()
        } else {
            format!("payload.{names}")
        }
    });
    let fact = select(vec![
        "topic",
        "ts",
        "client",
        "qos",
        "retain",
        "kafka_topic",
        "partition",
        "offset",
        "_id",
        "headers.h",
        "payload_kind",
        "none",
        "topic.a",
    ]);
    prop_oneof![3 => below, 1 => fact.prop_map(str::to_owned)]
}

fn fact_value() -> impl Strategy<Value = String> {
    select(vec![
        "\"a/0\"",
        "\"b/0\"",
        "\"client\"",
        "\"mqtt\"",
        "\"json\"",
        "\"text\"",
        "\"v\"",
        "1",
        "3",
        "1700000003000",
        "{\"$date\":1700000005000}",
        "{\"$date\":\"2023-11-14T22:13:27Z\"}",
        "\"6b61666b-6100-4000-8000-000000000001/0/3\"",
        "null",
        "false",
    ])
    .prop_map(str::to_owned)
}

fn test() -> impl Strategy<Value = String> {
    let operand = || prop_oneof![3 => operand(), 1 => fact_value()].boxed();
    let compared = (
        select(vec!["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]),
        operand(),
    )
        .prop_map(|(operator, value)| format!("\"{operator}\":{value}"));
    let listed = (
        select(vec!["$in", "$nin"]),
        prop::collection::vec(operand(), 0..4),
    )
        .prop_map(|(operator, values)| format!("\"{operator}\":[{}]", values.join(",")));
    let exists = any::<bool>().prop_map(|b| format!("\"$exists\":{b}"));
    let one = prop_oneof![4 => compared, 2 => listed, 1 => exists];
    let tests =
        prop::collection::vec(one, 1..3).prop_map(|tests| format!("{{{}}}", tests.join(",")));
    prop_oneof![
        3 => tests.clone(),
        1 => tests.prop_map(|tests| format!("{{\"$not\":{tests}}}")),
        2 => operand(),
    ]
}

fn filter() -> impl Strategy<Value = String> {
    let field = (path(), test()).prop_map(|(path, test)| format!("{{\"{path}\":{test}}}"));
    field.prop_recursive(3, 10, 3, |inner| {
        (
            select(vec!["$and", "$or", "$nor"]),
            prop::collection::vec(inner, 1..4),
        )
            .prop_map(|(operator, filters)| format!("{{\"{operator}\":[{}]}}", filters.join(",")))
    })
}

fn fill(fixture: &mut Fixture, payloads: &[String]) {
    let mut batch = Batch::new();
    for (offset, payload) in payloads.iter().enumerate() {
        let plain = facts(offset as u64);
        let headers: [(&str, Option<&[u8]>); 2] = [("h", Some(b"v")), ("h", None)];
        let record = Facts {
            topic: plain.topic.filter(|_| offset % 4 != 3),
            headers: &headers[..offset % 3],
            payload: Some(payload.as_bytes()),
            ..plain
        };
        batch.push(&collection(), &record);
    }
    fixture.writer.insert(&batch, &[], NOW).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn find_is_the_evaluator_over_all_documents(
        payloads in prop::collection::vec(value(), 1..24),
        filters in prop::collection::vec(filter(), 12),
        indexed in any::<bool>(),
    ) {
        let mut fixture = Fixture::new();
        fill(&mut fixture, &payloads);
        if indexed {
            for path in ["payload.a", "payload.a.b", "payload", "client", "headers.h"] {
                fixture.writer.create_index(&collection(), path).unwrap();
            }
        }
        let all = fixture.find(&Query::default());
        prop_assert_eq!(all.len(), payloads.len());
        for text in filters {
            // A double for `ts` is refused, which is tested elsewhere.
            let Ok(filter) = Filter::parse(&text) else { continue };
            let mut expected: Vec<&String> =
                all.iter().filter(|line| filter.matches(line) == Some(true)).collect();
            let query = Query { filter, ..Query::default() };
            let mut found = fixture.find(&query);
            found.sort();
            expected.sort();
            prop_assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{}", text);
            let counted =
                fixture.reader.count(&collection(), &query.filter, &Bounds::default()).unwrap();
            prop_assert_eq!(counted, found.len() as u64, "{}", text);
        }
    }

    #[test]
    fn a_filter_and_its_negation_part_the_documents(
        payloads in prop::collection::vec(value(), 1..12),
        filter in filter(),
    ) {
        let mut fixture = Fixture::new();
        fill(&mut fixture, &payloads);
        let Ok(_) = Filter::parse(&filter) else { return Ok(()) };
        let mut both = fixture.offsets(&filter);
        both.extend(fixture.offsets(&format!("{{\"$nor\":[{filter}]}}")));
        both.sort_unstable();
        prop_assert_eq!(both, (0..payloads.len() as u64).collect::<Vec<_>>());
    }

    #[test]
    fn a_limited_sort_is_the_head_of_the_whole(
        payloads in prop::collection::vec(value(), 1..24),
        descending in any::<bool>(),
        skip in 0usize..4,
        limit in 0usize..8,
    ) {
        let mut fixture = Fixture::new();
        fill(&mut fixture, &payloads);
        let sort = format!("{{\"payload.a\":{}}}", if descending { -1 } else { 1 });
        let whole = fixture.sorted(&sort, 0, None);
        let head: Vec<u64> =
            whole.into_iter().skip(skip).take(limit).collect();
        prop_assert_eq!(fixture.sorted(&sort, skip as u64, Some(limit as u64)), head);
    }

    #[test]
    fn parse_is_total(text: String, filter in filter()) {
        let _any = Filter::parse(&text);
        prop_assert!(Filter::parse(&filter).is_ok() || filter.contains("\"ts\""), "{}", filter);
    }
}

#[test]
fn find_stops_when_told() {
    let mut fixture = Fixture::new();
    fixture.insert_payloads(&["1", "2", "3"]);
    let mut seen = 0;
    let found = fixture
        .reader
        .find(
            &collection(),
            &Query::default(),
            &Bounds::default(),
            &mut |_| {
                seen += 1;
                ControlFlow::Break(())
            },
        )
        .unwrap();
    assert_eq!((seen, found.documents), (1, 1));
}
