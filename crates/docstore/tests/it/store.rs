//! Documents go in once and come out as they are.

use crate::support::{Fixture, KAFKA_TOPIC, collection, facts, find, json, offset};
use headwater_docstore::{
    Batch, Bounds, Cursor, Facts, Filter, Inserted, Namespace, OpenError, Options, Position, Query,
    Sort, Store,
};
use std::ops::ControlFlow;
use uuid::Uuid;

#[test]
fn a_document_has_the_fields_scripts_depend_on() {
    let mut fixture = Fixture::new();
    fixture.insert_payloads(&[r#"{"temp": 21.50, "ok": true}"#]);
    let lines = fixture.find(&Query::default());
    assert_eq!(lines.len(), 1);
    assert_eq!(
        json(&lines[0]),
        serde_json::json!({
            "_id": "6b61666b-6100-4000-8000-000000000001/0/0",
            "topic": "a/0",
            "ts": {"$date": "2023-11-14T22:13:20.000Z"},
            "client": "client",
            "qos": 1,
            "retain": false,
            "kafka_topic": "mqtt",
            "partition": 0,
            "offset": 0,
            "headers": {},
            "payload": {"temp": 21.5, "ok": true},
            "payload_kind": "json",
        })
    );
    assert!(lines[0].contains("21.50"), "a number keeps its digits");
}

#[test]
fn written_twice_is_written_once() {
    let mut fixture = Fixture::new();
    let mut batch = Batch::new();
    batch.push(&collection(), &facts(7));
    let first = fixture.writer.insert(&batch, &[]).unwrap();
    assert_eq!(
        first,
        Inserted {
            written: 1,
            already_there: 0
        }
    );

    batch.clear();
    batch.push(
        &collection(),
        &Facts {
            payload: Some(b"other"),
            ..facts(7)
        },
    );
    batch.push(&collection(), &facts(8));
    batch.push(&collection(), &facts(8));
    let second = fixture.writer.insert(&batch, &[]).unwrap();
    assert_eq!(
        second,
        Inserted {
            written: 1,
            already_there: 2
        }
    );

    let lines = fixture.find(&Query::default());
    assert_eq!(
        lines.iter().map(|line| offset(line)).collect::<Vec<_>>(),
        [7, 8]
    );
    assert_eq!(
        json(&lines[0])["payload"],
        serde_json::json!({}),
        "the first one stays"
    );
}

#[test]
fn every_position_is_a_document_of_its_own() {
    let mut fixture = Fixture::new();
    let position = facts(0).position;
    let positions = [
        position,
        Position {
            partition: 1,
            ..position
        },
        Position {
            topic: Uuid::from_u128(9),
            ..position
        },
        Position {
            offset: 1 << 40,
            ..position
        },
        Position {
            offset: (1 << 40) - 1,
            ..position
        },
        Position {
            offset: i64::MAX as u64,
            partition: u32::MAX,
            ..position
        },
    ];
    let mut batch = Batch::new();
    for position in positions {
        batch.push(
            &collection(),
            &Facts {
                position,
                ..facts(0)
            },
        );
    }
    let inserted = fixture.writer.insert(&batch, &[]).unwrap();
    assert_eq!(inserted.written, positions.len() as u64);
    for Position {
        topic,
        partition,
        offset,
    } in positions
    {
        let filter = format!(r#"{{"_id": "{topic}/{partition}/{offset}"}}"#);
        assert_eq!(fixture.offsets(&filter), [offset]);
    }
    assert_eq!(
        fixture.offsets(r#"{"offset": {"$gte": 1099511627776}}"#),
        [1 << 40, i64::MAX as u64]
    );
    assert_eq!(fixture.offsets(r#"{"partition": 1}"#), [0]);
}

#[test]
fn the_same_record_may_stand_in_two_collections() {
    let mut fixture = Fixture::new();
    let other = Namespace::parse("iot.\"quoted\"").unwrap();
    let mut batch = Batch::new();
    for namespace in [&collection(), &other, &collection()] {
        batch.push(namespace, &facts(0));
    }
    assert_eq!(fixture.writer.insert(&batch, &[]).unwrap().written, 2);
    let mut names = fixture.reader.collections().unwrap();
    names.sort();
    let mut expected = vec![collection(), other];
    expected.sort();
    assert_eq!(names, expected);
}

#[test]
fn a_cursor_moves_with_its_documents_and_never_back() {
    let mut fixture = Fixture::new();
    let cursor = |next_offset| Cursor {
        name: "s",
        topic: KAFKA_TOPIC,
        partition: 3,
        next_offset,
    };
    assert_eq!(fixture.reader.cursor("s", KAFKA_TOPIC, 3).unwrap(), None);
    fixture.writer.insert(&Batch::new(), &[cursor(10)]).unwrap();
    assert_eq!(
        fixture.reader.cursor("s", KAFKA_TOPIC, 3).unwrap(),
        Some(10)
    );
    fixture.writer.insert(&Batch::new(), &[cursor(4)]).unwrap();
    assert_eq!(
        fixture.writer.cursor("s", KAFKA_TOPIC, 3).unwrap(),
        Some(10)
    );
    assert_eq!(fixture.reader.cursor("s", KAFKA_TOPIC, 0).unwrap(), None);
    assert_eq!(
        fixture.reader.cursor("other", KAFKA_TOPIC, 3).unwrap(),
        None
    );
}

#[test]
fn a_refused_batch_leaves_neither_documents_nor_cursors() {
    let mut fixture = Fixture::new();
    let mut batch = Batch::new();
    batch.push(&Namespace::parse("new.one").unwrap(), &facts(0));
    let beyond = Position {
        offset: u64::MAX,
        ..facts(0).position
    };
    batch.push(
        &collection(),
        &Facts {
            position: beyond,
            ..facts(0)
        },
    );
    let cursor = Cursor {
        name: "s",
        topic: KAFKA_TOPIC,
        partition: 0,
        next_offset: 1,
    };
    assert!(fixture.writer.insert(&batch, &[cursor]).is_err());
    assert_eq!(fixture.reader.collections().unwrap(), []);
    assert_eq!(fixture.reader.cursor("s", KAFKA_TOPIC, 0).unwrap(), None);
    // And the numbers it had given out are forgotten: what comes next is right.
    fixture.insert_payloads(&["1", "2"]);
    assert_eq!(fixture.offsets("{}"), [0, 1]);
    assert_eq!(fixture.offsets(r#"{"topic": "a/1"}"#), [1]);
}

#[test]
fn documents_are_there_after_reopening() {
    let mut fixture = Fixture::new();
    fixture.insert_payloads(&["1", "2", "3"]);
    let folder = fixture.folder;
    drop((fixture.writer, fixture.reader, fixture.store));
    let store = Store::open(folder.path(), Options::default()).unwrap();
    let mut reader = store.reader().unwrap();
    assert_eq!(
        find(&mut reader, &Query::default(), &Bounds::default())
            .unwrap()
            .len(),
        3
    );
    // The writer finds the numbers given out before.
    let mut writer = store.writer().unwrap();
    let mut batch = Batch::new();
    batch.push(&collection(), &facts(1));
    assert_eq!(writer.insert(&batch, &[]).unwrap().already_there, 1);
}

#[test]
fn there_is_one_writer_at_a_time() {
    let fixture = Fixture::new();
    assert!(matches!(
        fixture.store.writer(),
        Err(OpenError::WriterTaken)
    ));
    drop(fixture.writer);
    assert!(fixture.store.writer().is_ok());
}

#[test]
fn a_reader_sees_one_state_while_the_writer_goes_on() {
    let mut fixture = Fixture::new();
    fixture.insert_payloads(&["1", "2", "3"]);
    let writer = &mut fixture.writer;
    let mut seen = 0;
    let mut write_next = 100;
    fixture
        .reader
        .find(
            &collection(),
            &Query::default(),
            &Bounds::default(),
            &mut |_| {
                let mut batch = Batch::new();
                batch.push(&collection(), &facts(write_next));
                writer.insert(&batch, &[]).unwrap();
                write_next += 1;
                seen += 1;
                ControlFlow::Continue(())
            },
        )
        .unwrap();
    assert_eq!(seen, 3);
    assert_eq!(fixture.offsets("{}"), [0, 1, 2, 100, 101, 102]);
}

#[test]
fn ts_sorts_skips_and_limits() {
    let mut fixture = Fixture::new();
    fixture.insert_payloads(&["0", "1", "2", "3", "4"]);
    assert_eq!(fixture.sorted(r#"{"ts": -1}"#, 0, Some(2)), [4, 3]);
    assert_eq!(fixture.sorted(r#"{"ts": 1}"#, 3, None), [3, 4]);
    assert_eq!(
        fixture.sorted(r#"{"topic": -1, "ts": 1}"#, 0, None),
        [2, 1, 4, 0, 3]
    );
    assert_eq!(fixture.sorted("{}", 1, Some(0)), Vec::<u64>::new());
    assert_eq!(fixture.sorted(r#"{"payload": -1}"#, 1, Some(2)), [3, 2]);
    assert_eq!(
        fixture.sorted(r#"{"payload": 1}"#, 9, Some(2)),
        Vec::<u64>::new()
    );
}

#[test]
fn an_unknown_collection_is_empty() {
    let mut fixture = Fixture::new();
    fixture.insert_payloads(&["1"]);
    let other = Namespace::parse("no.such").unwrap();
    let counted = fixture
        .reader
        .count(&other, &Filter::all(), &Bounds::default())
        .unwrap();
    assert_eq!(counted, 0);
}

#[test]
fn an_index_changes_no_answer() {
    let mut fixture = Fixture::new();
    let payloads: Vec<String> = (0..500)
        .map(|n| match n % 5 {
            0 => format!(r#"{{"t": {n}}}"#),
            1 => format!(r#"{{"t": {n}.5}}"#),
            2 => format!(r#"{{"t": [{n}, "x"]}}"#),
            3 => format!(r#"[{{"t": {n}}}]"#),
            _ => r#"{"t": null, "u": [1]}"#.to_owned(),
        })
        .collect();
    fixture.insert_payloads(&payloads);
    let filters = [
        r#"{"payload.t": 10}"#,
        r#"{"payload.t": {"$gt": 490}}"#,
        r#"{"payload.t": "x"}"#,
        r#"{"payload.t": null}"#,
        r#"{"payload.t": {"$in": [3, 6.5, 12]}}"#,
        r#"{"payload.t": {"$ne": 10}}"#,
        r#"{"payload.t": {"$exists": true}}"#,
    ];
    let before: Vec<Vec<u64>> = filters
        .iter()
        .map(|filter| fixture.offsets(filter))
        .collect();
    assert_eq!(before[1], [491, 492, 493, 495, 496, 497, 498]);
    fixture
        .writer
        .create_index(&collection(), "payload.t")
        .unwrap();
    fixture
        .writer
        .create_index(&collection(), "payload.t")
        .unwrap();
    for (filter, before) in filters.iter().zip(before) {
        assert_eq!(fixture.offsets(filter), before, "{filter}");
    }
    // It is used: far fewer documents are taken into hand than there are.
    let query = Query {
        filter: Filter::parse(filters[0]).unwrap(),
        sort: Sort::default(),
        ..Query::default()
    };
    let found = fixture
        .reader
        .find(&collection(), &query, &Bounds::default(), &mut |_| {
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(found.scanned < 400, "{found:?}");
}

#[test]
fn what_is_older_goes_in_bounded_batches() {
    let mut fixture = Fixture::new();
    let other = Namespace::parse("other.place").unwrap();
    let mut batch = Batch::new();
    for at in 0..10_u32 {
        let old = Facts {
            ts_ms: i64::from(at) * 100,
            ..facts(u64::from(at))
        };
        batch.push(&collection(), &old);
    }
    let timeless = Facts {
        ts_ms: -1,
        ..facts(10)
    };
    batch.push(&collection(), &timeless);
    batch.push(
        &other,
        &Facts {
            ts_ms: 0,
            ..facts(11)
        },
    );
    fixture.writer.insert(&batch, &[]).unwrap();
    assert_eq!(fixture.writer.remove_older(500, 3).unwrap(), 3);
    assert_eq!(
        fixture.offsets("{}"),
        [3, 4, 5, 6, 7, 8, 9, 10],
        "the oldest go first"
    );
    assert_eq!(fixture.writer.remove_older(500, 10).unwrap(), 3);
    assert_eq!(fixture.offsets("{}"), [5, 6, 7, 8, 9, 10]);
    assert_eq!(fixture.writer.remove_older(500, 10).unwrap(), 0);
}
