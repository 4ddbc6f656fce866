//! What a query may cost.

use crate::support::{Fixture, collection, find};
use headwater_docstore::{
    Bounds, FILTER_DEPTH_MAX, FILTER_TERMS_MAX, Filter, FilterError, FindError, INDEXES_MAX,
    IndexError, Query, Sort,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

fn filled() -> Fixture {
    let mut fixture = Fixture::new();
    let payloads: Vec<String> = (0..3000).map(|n| format!(r#"{{"n": {n}}}"#)).collect();
    fixture.insert_payloads(&payloads);
    fixture
}

fn by_n(limit: Option<u64>) -> Query {
    Query {
        sort: Sort::parse(r#"{"payload.n": -1}"#).unwrap(),
        limit,
        ..Query::default()
    }
}

#[test]
fn a_query_ends_at_its_limit_of_documents() {
    let mut fixture = filled();
    let bounds = Bounds {
        scanned_max: 100,
        ..Bounds::default()
    };
    let error = find(&mut fixture.reader, &by_n(Some(1)), &bounds).unwrap_err();
    assert!(matches!(error, FindError::Scanned(100)), "{error}");
    let first = Query {
        limit: Some(100),
        ..Query::default()
    };
    assert_eq!(
        find(&mut fixture.reader, &first, &bounds).unwrap().len(),
        100
    );
}

#[test]
fn a_sort_needs_memory_for_its_limit_only() {
    let mut fixture = filled();
    let bounds = Bounds {
        sort_bytes_max: 16 * 1024,
        ..Bounds::default()
    };
    let error = find(&mut fixture.reader, &by_n(None), &bounds).unwrap_err();
    assert!(matches!(error, FindError::SortTooLarge(_)), "{error}");
    let lines = find(&mut fixture.reader, &by_n(Some(2)), &bounds).unwrap();
    assert!(lines[0].contains(r#""n": 2999"#), "{}", lines[0]);
    assert!(lines[1].contains(r#""n": 2998"#), "{}", lines[1]);
}

#[test]
fn a_query_ends_at_its_deadline() {
    let mut fixture = filled();
    let bounds = Bounds {
        deadline: Some(Instant::now()),
        ..Bounds::default()
    };
    let error = find(&mut fixture.reader, &Query::default(), &bounds).unwrap_err();
    assert!(matches!(error, FindError::Deadline), "{error}");
    // The next one is not touched by it.
    assert_eq!(
        find(&mut fixture.reader, &Query::default(), &Bounds::default())
            .unwrap()
            .len(),
        3000
    );
}

#[test]
fn a_query_is_cancelled_from_outside() {
    let mut fixture = filled();
    let cancel = Arc::new(AtomicBool::new(false));
    let bounds = Bounds {
        cancel: Some(Arc::clone(&cancel)),
        ..Bounds::default()
    };
    let mut seen = 0;
    let result = fixture
        .reader
        .find(&collection(), &Query::default(), &bounds, &mut |_| {
            seen += 1;
            cancel.store(true, Ordering::Relaxed);
            std::ops::ControlFlow::Continue(())
        });
    assert!(matches!(result, Err(FindError::Cancelled)), "{result:?}");
    assert!(seen < 3000, "{seen}");
}

#[test]
fn a_filter_is_bounded_in_depth_and_size() {
    let nested = |depth| format!("{}{{}}{}", r#"{"$and":["#.repeat(depth), "]}".repeat(depth));
    assert!(Filter::parse(&nested(FILTER_DEPTH_MAX)).is_ok());
    assert_eq!(
        Filter::parse(&nested(FILTER_DEPTH_MAX + 1)),
        Err(FilterError::TooDeep)
    );
    assert!(Filter::parse(&nested(10_000)).is_err());
    let not = format!("{{\"a\":{}1{}}}", r#"{"$not":"#.repeat(60), "}".repeat(60));
    assert_eq!(Filter::parse(&not), Err(FilterError::TooDeep));
    let list = format!("{{\"a\":{{\"$in\":[{}1]}}}}", "1,".repeat(FILTER_TERMS_MAX));
    assert_eq!(Filter::parse(&list), Err(FilterError::TooManyTerms));
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(300_000));
    assert_eq!(Filter::parse(&long), Err(FilterError::TooLong));
    let path = format!("{{\"{}\":1}}", "a.".repeat(200));
    assert_eq!(Filter::parse(&path), Err(FilterError::LongPath));
}

#[test]
fn a_large_filter_is_answered() {
    let mut fixture = filled();
    let list: Vec<String> = (0..15_000).map(|n| n.to_string()).collect();
    let filter = format!("{{\"payload.n\":{{\"$in\":[{}]}}}}", list.join(","));
    assert_eq!(fixture.offsets(&filter).len(), 3000);
    let branches = vec![r#"{"payload.n":5}"#; 3000].join(",");
    assert_eq!(fixture.offsets(&format!("{{\"$or\":[{branches}]}}")), [5]);
    let branches = vec![r#"{"topic":"a/0"}"#; 9000].join(",");
    assert_eq!(
        fixture.offsets(&format!("{{\"$or\":[{branches}]}}")).len(),
        1000
    );
}

#[test]
fn a_collection_has_a_bounded_number_of_indexes() {
    let mut fixture = filled();
    for n in 0..INDEXES_MAX {
        fixture
            .writer
            .create_index(&collection(), &format!("payload.f{n}"))
            .unwrap();
    }
    let result = fixture.writer.create_index(&collection(), "payload.more");
    assert!(matches!(result, Err(IndexError::TooMany(_))), "{result:?}");
    for path in ["", "payload.0", "payload.a'b", "payload.\"", "ts", "a b"] {
        let result = fixture.writer.create_index(&collection(), path);
        assert!(
            matches!(result, Err(IndexError::Path(_))),
            "{path}: {result:?}"
        );
    }
}
