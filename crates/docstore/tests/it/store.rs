//! Documents go in once and come out as they are.

use crate::support::{Fixture, KAFKA_TOPIC, NOW, collection, facts, find, json, offset};
use headwater_docstore::{
    Batch, Bounds, Cursor, Facts, Filter, InsertError, Inserted, Namespace, OpenError, Options,
    Position, Query, Sort, Store,
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
    let first = fixture.writer.insert(&batch, &[], NOW).unwrap();
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
    let second = fixture.writer.insert(&batch, &[], NOW).unwrap();
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
    let inserted = fixture.writer.insert(&batch, &[], NOW).unwrap();
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
    assert_eq!(fixture.writer.insert(&batch, &[], NOW).unwrap().written, 2);
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
    fixture
        .writer
        .insert(&Batch::new(), &[cursor(10)], NOW)
        .unwrap();
    assert_eq!(
        fixture.reader.cursor("s", KAFKA_TOPIC, 3).unwrap(),
        Some(10)
    );
    fixture
        .writer
        .insert(&Batch::new(), &[cursor(4)], NOW)
        .unwrap();
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
    assert!(fixture.writer.insert(&batch, &[cursor], NOW).is_err());
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
    assert_eq!(writer.insert(&batch, &[], NOW).unwrap().already_there, 1);
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
                writer.insert(&batch, &[], NOW).unwrap();
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

/// Documents at `offsets`, whose records tell an ancient time, come at `now_ms`.
fn come(fixture: &mut Fixture, offsets: std::ops::Range<u64>, now_ms: i64) {
    let mut batch = Batch::new();
    for offset in offsets {
        let ancient = Facts {
            ts_ms: 0,
            ..facts(offset)
        };
        batch.push(&collection(), &ancient);
    }
    fixture.writer.insert(&batch, &[], now_ms).unwrap();
}

fn of_1000_ms() -> Fixture {
    Fixture::with(Options {
        retention_ms: Some(1000),
        ..Options::default()
    })
}

#[test]
fn documents_stay_by_when_they_came_and_not_by_what_their_records_tell() {
    let mut fixture = of_1000_ms();
    come(&mut fixture, 0..5, 10_000);
    come(&mut fixture, 5..8, 10_500);
    assert_eq!(fixture.writer.remove_old(11_000, 10).unwrap(), 0);
    assert_eq!(fixture.writer.remove_old(11_010, 3).unwrap(), 3);
    assert_eq!(fixture.offsets("{}"), [3, 4, 5, 6, 7], "in bounded batches");
    assert_eq!(fixture.writer.remove_old(11_010, 10).unwrap(), 2);
    // What comes where all that was there has gone is new all the same.
    assert_eq!(fixture.writer.remove_old(11_510, 10).unwrap(), 3);
    come(&mut fixture, 8..9, 11_511);
    assert_eq!(fixture.writer.remove_old(12_511, 10).unwrap(), 0);
    assert_eq!(fixture.offsets("{}"), [8]);
    assert_eq!(fixture.writer.remove_old(20_000, 10).unwrap(), 1);
}

#[test]
fn retention_holds_over_restarts_clocks_that_go_back_and_rows_out_of_order() {
    let mut fixture = of_1000_ms();
    come(&mut fixture, 10..12, 10_000);
    // The clock goes back, then on: what came under it stays with what came before.
    come(&mut fixture, 12..13, 9_000);
    // A store that is built anew from the log begins below.
    come(&mut fixture, 3..4, 10_900);
    come(&mut fixture, 13..14, 10_905);
    let Fixture { folder, writer, .. } = fixture;
    drop(writer);
    let options = Options {
        retention_ms: Some(1000),
        ..Options::default()
    };
    let store = Store::open(folder.path(), options).unwrap();
    let mut fixture = Fixture {
        writer: store.writer().unwrap(),
        reader: store.reader().unwrap(),
        store,
        folder,
    };
    come(&mut fixture, 14..15, 10_906);
    assert_eq!(
        fixture.writer.remove_old(11_900, 10).unwrap(),
        0,
        "none too early"
    );
    assert_eq!(fixture.offsets("{}"), [3, 10, 11, 12, 13, 14]);
    assert_eq!(fixture.writer.remove_old(12_000, 10).unwrap(), 6);
}

#[test]
fn store_of_version_1_is_brought_up_and_its_documents_count_as_new() {
    let mut fixture = of_1000_ms();
    come(&mut fixture, 0..3, 0);
    let Fixture {
        folder,
        writer,
        reader,
        store,
    } = fixture;
    drop((writer, reader, store));
    let old = rusqlite::Connection::open(folder.path().join("documents-000001.sqlite")).unwrap();
    old.execute_batch("DROP TABLE arrivals; PRAGMA user_version = 1")
        .unwrap();
    let now_ms: i64 = old
        .query_row("SELECT unixepoch() * 1000", [], |row| row.get(0))
        .unwrap();
    drop(old);
    let options = Options {
        retention_ms: Some(1_000_000),
        ..Options::default()
    };
    let store = Store::open(folder.path(), options).unwrap();
    let mut writer = store.writer().unwrap();
    assert_eq!(writer.remove_old(now_ms + 999_000, 10).unwrap(), 0);
    assert_eq!(writer.remove_old(now_ms + 1_100_000, 10).unwrap(), 3);
}

#[test]
fn document_that_is_refused_is_named_and_the_rest_goes_in_without_it() {
    let mut fixture = Fixture::new();
    fixture.insert_payloads(&["0"]);
    let other = rusqlite::Connection::open(fixture.folder.path().join("documents-000001.sqlite"));
    other
        .unwrap()
        .execute_batch(
            "CREATE TRIGGER poison BEFORE INSERT ON documents_1 WHEN NEW.doc LIKE '%poison%'
             BEGIN SELECT RAISE(ABORT, 'no poison'); END",
        )
        .unwrap();
    let batch = |skipped: Option<u64>| {
        let mut batch = Batch::new();
        for offset in (1..4).filter(|offset| Some(*offset) != skipped) {
            let payload: &[u8] = if offset == 2 { b"poison" } else { b"1" };
            let facts = Facts {
                payload: Some(payload),
                ..facts(offset)
            };
            batch.push(&collection(), &facts);
        }
        batch
    };
    let error = fixture.writer.insert(&batch(None), &[], NOW).unwrap_err();
    let InsertError::Refused {
        namespace,
        position,
        source,
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!((namespace, position.offset), (collection(), 2));
    assert!(source.to_string().contains("no poison"), "{source}");
    assert_eq!(fixture.offsets("{}"), [0]);
    fixture.writer.insert(&batch(Some(2)), &[], NOW).unwrap();
    assert_eq!(fixture.offsets("{}"), [0, 1, 3]);
}
