//! Commit, read, close, open again, crash, open again.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use headwater_commitlog::fs::RealFs;
use headwater_commitlog::{
    Admin, Append, AppendData, CommitError, Log, NameError, OpenError, Position, ReadError,
    TableChange, TableId, TopicConfig, Unit,
};

use crate::support::*;

#[test]
fn records_read_back_after_close_and_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let partitions = create(&log, "telemetry", 2);
    for number in 0..50u32 {
        let receipt = log.commit(unit([
            record(partitions[0], format!("a{number}").as_bytes()),
            record(partitions[1], format!("b{number}").as_bytes()),
        ]));
        let offset = u64::from(number);
        let positions: Vec<_> = receipt.unwrap().positions.into_vec();
        let expected = partitions
            .iter()
            .map(|&partition| Position { partition, offset });
        assert_eq!(positions, expected.collect::<Vec<_>>());
    }
    log.close().unwrap();
    let expect = |log: &Log| {
        for (partition, letter) in [(partitions[0], 'a'), (partitions[1], 'b')] {
            let values = values(log, partition, 0);
            assert_eq!(values.len(), 50);
            for (number, value) in values.iter().enumerate() {
                assert_eq!(*value, format!("{letter}{number}").into_bytes());
            }
        }
    };
    let log = open(dir.path());
    assert_eq!(
        log.stats().recovered_commits,
        0,
        "a closed log needs no recovery"
    );
    expect(&log);
    // A copy of the directory of a running log is what kill -9 leaves.
    log.commit(Unit {
        tables: vec![put(16, "k", "v")],
        ..Unit::default()
    })
    .unwrap();
    let crashed = tempfile::tempdir().unwrap();
    copy(&dir.path().join("data"), &crashed.path().join("data"));
    let recovered = open(crashed.path());
    assert_eq!(recovered.stats().recovered_commits, 1);
    assert_eq!(recovered.table_row(TableId(16), b"k").unwrap(), "v");
    expect(&recovered);
}

#[test]
fn a_failing_unit_fails_alone_and_answers_keep_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let partition = create(&log, "t", 1)[0];
    let (sender, receiver) = mpsc::channel();
    let seen = Arc::new(Mutex::new(Vec::new()));
    for round in 0..10 {
        let (sender, seen) = (sender.clone(), Arc::clone(&seen));
        let wrong = Append {
            partition: headwater_commitlog::PartitionId(999),
            ..record(partition, b"x")
        };
        let units = vec![
            unit([record(partition, b"good")]),
            unit([record(partition, b"half"), wrong]),
            Unit::default(),
            unit([record(partition, b"good")]),
        ];
        log.submit(
            units,
            Box::new(move |results| {
                seen.lock().unwrap().push(round);
                sender.send(results).unwrap();
            }),
        );
    }
    for round in 0..10 {
        let results = receiver.recv().unwrap();
        let first = results[0].as_ref().unwrap().positions[0].offset;
        assert_eq!(first, round * 2);
        assert!(matches!(
            results[1],
            Err(CommitError::UnknownPartition { .. })
        ));
        assert!(results[2].as_ref().unwrap().positions.is_empty());
        assert_eq!(results[3].as_ref().unwrap().positions[0].offset, first + 1);
    }
    assert_eq!(*seen.lock().unwrap(), (0..10).collect::<Vec<_>>());
    assert!(
        values(&log, partition, 0)
            .iter()
            .all(|value| value == b"good")
    );
}

#[test]
fn an_empty_unit_passes_without_a_commit() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.commit(Unit::default()).unwrap();
    assert_eq!((log.stats().commits, log.stats().syncs), (0, 0));
}

#[test]
fn a_reference_holds_the_position_of_the_append_it_names() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let (data, owed) = (
        create(&log, "t", 1)[0],
        create(&log, "__headwater_owed", 1)[0],
    );
    log.commit(unit([record(data, b"before")])).unwrap();
    let reference = |to, value: &[u8]| Append {
        partition: owed,
        data: AppendData::Reference {
            timestamp_ms: NOW_MS,
            to,
            body: body(value),
        },
    };
    log.commit(unit([record(data, b"message"), reference(0, &[0xee; 15])]))
        .unwrap();
    let mut expected = data.0.to_be_bytes().to_vec();
    expected.extend(1u64.to_be_bytes());
    expected.extend([0xee; 3]);
    assert_eq!(values(&log, owed, 0), [expected]);
    for (to, value) in [(1, &[0; 15][..]), (0, &[0; 11])] {
        let refused = log.commit(unit([record(data, b"x"), reference(to, value)]));
        assert_eq!(refused, Err(CommitError::BadReference { append: 1, to }));
    }
}

#[test]
fn topics_are_created_deleted_and_created_again_as_new_ones() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let config = TopicConfig::default();
    let make = |name: &str| Admin::CreateTopic {
        name: name.into(),
        partitions: 1,
        config: config.clone(),
    };
    let first = create(&log, "t", 1)[0];
    let first_id = log.topic("t").unwrap().id;
    let reader = log.partition(first).unwrap();
    log.commit(unit([record(first, b"old")])).unwrap();
    assert_eq!(
        admin(&log, make("t")),
        Err(CommitError::TopicExists { name: "t".into() })
    );
    assert_eq!(
        admin(&log, make("a/b")),
        Err(CommitError::InvalidName(NameError::Character))
    );
    admin(&log, Admin::DeleteTopic { name: "t".into() }).unwrap();
    assert!(matches!(reader.read(0, 100), Err(ReadError::Deleted)));
    let gone = admin(&log, Admin::DeleteTopic { name: "t".into() });
    assert_eq!(gone, Err(CommitError::UnknownTopic { name: "t".into() }));
    let second = create(&log, "t", 1)[0];
    assert!(second > first, "a partition's number is never used again");
    assert_ne!(log.topic("t").unwrap().id, first_id);
    assert_eq!(log.partition(second).unwrap().high_watermark(), 0);
    admin(
        &log,
        Admin::AddPartitions {
            name: "t".into(),
            total: 3,
        },
    )
    .unwrap();
    let partitions = log.topic("t").unwrap().partitions.clone();
    log.commit(unit(partitions.iter().map(|id| record(*id, b"new"))))
        .unwrap();
    log.close().unwrap();
    let log = open(dir.path());
    assert_eq!(log.topic("t").unwrap().partitions, partitions);
    assert_eq!(log.partition(partitions[2]).unwrap().index(), 2);
    partitions
        .iter()
        .for_each(|id| assert_eq!(values(&log, *id, 0), [b"new"]));
    assert!(create(&log, "u", 1)[0] > partitions[2]);
}

#[test]
fn tables_change_with_their_unit_and_survive_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let partition = create(&log, "t", 1)[0];
    let mut big = unit([record(partition, &[7; 60_000])]);
    big.tables = vec![put(16, "a", "1"), put(16, "b", "2"), put(17, "a", "3")];
    log.commit(big).unwrap();
    // Several times the write-ahead bound.
    for _ in 0..200 {
        log.commit(unit([record(partition, &[7; 60_000])])).unwrap();
    }
    let delete = TableChange {
        table: TableId(16),
        key: "a".into(),
        value: None,
    };
    log.commit(Unit {
        tables: vec![delete],
        ..Unit::default()
    })
    .unwrap();
    assert!(log.stats().checkpoints > 1, "{:?}", log.stats());
    drop(log);
    let log = open(dir.path());
    let mut rows = Vec::new();
    log.scan_table(TableId(16), &mut |key, value| {
        rows.push((key.clone(), value.clone()))
    });
    assert_eq!(rows, [("b".into(), "2".into())]);
    assert_eq!(log.table_row(TableId(17), b"a").unwrap(), "3");
    assert_eq!(values(&log, partition, 0).len(), 201);
    let wal: u64 = std::fs::read_dir(dir.path().join("data/wal"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name().to_string_lossy().ends_with(".wal"))
        .map(|entry| entry.metadata().unwrap().len())
        .sum();
    assert!(wal <= 4 << 20, "{wal}");
}

#[test]
fn a_unit_of_the_largest_size_finds_room_whatever_lies_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let topic = create(&log, "t", 2);
    let size = usize::try_from(log.unit_bytes_max()).unwrap();
    let rows = |bytes: usize| {
        let one = put(16, "k", "");
        let count = bytes / (16 + one.key.len());
        vec![one; count]
    };
    for round in 1..12 {
        // Not waited for: it gathers in groups with the large ones.
        let small = unit([record(topic[0], &vec![7; size / round])]);
        let value = vec![7; size / 2];
        let mut large = unit([record(topic[1], &value)]);
        let left = size - large.size_bytes();
        large.tables = rows(left);
        assert!(size - large.size_bytes() < 32);
        let mut too_large = unit([record(topic[1], &value)]);
        too_large.tables = rows(left + 32);
        let submissions: Vec<_> = [small, large, too_large]
            .into_iter()
            .map(|unit| {
                let log = &log;
                move || log.commit(unit)
            })
            .collect();
        let results = std::thread::scope(|scope| {
            let threads: Vec<_> = submissions
                .into_iter()
                .map(|one| scope.spawn(one))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap().map(drop))
                .collect::<Vec<_>>()
        });
        assert!(
            matches!(
                &results[..],
                [
                    Ok(()) | Err(CommitError::TooLarge { .. }),
                    Ok(()),
                    Err(CommitError::TooLarge { .. })
                ]
            ),
            "{round}: {results:?}"
        );
    }
    assert!(log.stats().checkpoints > 1, "{:?}", log.stats());
}

#[test]
fn idempotent_producers_are_answered_as_kafka_answers_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    let partition = create(&log, "t", 1)[0];
    let id = admin(&log, Admin::AllocateProducerId)
        .unwrap()
        .producer_id
        .unwrap();
    assert_eq!(produce(&log, partition, (id, 0, 0), &[b"a", b"b"]), Ok(0));
    assert_eq!(produce(&log, partition, (id, 0, 2), &[b"c"]), Ok(2));
    for close in [false, true, false] {
        let duplicate = produce(&log, partition, (id, 0, 0), &[b"a", b"b"]);
        assert_eq!(
            duplicate,
            Err(CommitError::DuplicateSequence { base_offset: 0 })
        );
        let gap = produce(&log, partition, (id, 0, 4), &[b"e"]);
        let (given, expected) = (4, 3);
        let out_of_order = CommitError::OutOfOrderSequence {
            producer_id: id,
            given,
            expected,
        };
        assert_eq!(gap, Err(out_of_order));
        if close {
            log.close().unwrap();
        } else {
            drop(log);
        }
        log = open(dir.path());
    }
    assert_eq!(produce(&log, partition, (id, 1, 0), &[b"d"]), Ok(3));
    let fenced = produce(&log, partition, (id, 0, 3), &[b"d"]);
    assert_eq!(
        fenced,
        Err(CommitError::InvalidProducerEpoch {
            given: 0,
            current: 1
        })
    );
    let next = admin(&log, Admin::AllocateProducerId)
        .unwrap()
        .producer_id
        .unwrap();
    assert!(next > id, "a producer id is never given twice");
    assert_eq!(values(&log, partition, 0), [b"a", b"b", b"c", b"d"]);
}

#[test]
fn a_duplicate_in_the_same_group_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let partition = create(&log, "t", 1)[0];
    let same = || {
        let data = AppendData::Batch(batch((7, 0, 0), &[b"once"]));
        unit([Append { partition, data }])
    };
    let (sender, receiver) = mpsc::channel();
    log.submit(
        vec![same(), same()],
        Box::new(move |results| sender.send(results).unwrap()),
    );
    let results = receiver.recv().unwrap();
    assert!(results[0].is_ok());
    assert_eq!(
        results[1],
        Err(CommitError::DuplicateSequence { base_offset: 0 })
    );
    assert_eq!(values(&log, partition, 0), [b"once"]);
}

#[test]
fn offsets_are_found_by_time() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let partition = create_with(&log, "t", 1, &[("segment.bytes", "20000")])[0];
    for number in 0..300i64 {
        log.commit(unit([record_at(partition, &[1; 300], 1000 + number * 10)]))
            .unwrap();
    }
    let check = |log: &Log| {
        let partition = log.partition(partition).unwrap();
        for (time, expected) in [
            (0, Some((0, 1000))),
            (1000, Some((0, 1000))),
            (1001, Some((1, 1010))),
            (2495, Some((150, 2500))),
            (3990, Some((299, 3990))),
            (3991, None),
        ] {
            assert_eq!(partition.offset_for_time(time).unwrap(), expected, "{time}");
        }
        assert_eq!(partition.max_timestamp().unwrap(), Some((299, 3990)));
    };
    check(&log);
    log.close().unwrap();
    check(&open(dir.path()));
}

#[test]
fn a_second_process_is_refused_with_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let _log = open(dir.path());
    let Err(refused) = Log::open(Arc::new(RealFs), options(dir.path())) else {
        panic!("two logs")
    };
    assert!(matches!(refused, OpenError::Locked { .. }));
    assert!(
        refused.to_string().contains("in use by another process"),
        "{refused}"
    );
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).close().unwrap();
    for (text, newer) in [
        ("version = 2\nfeatures = 0\n", true),
        ("version = 1\nfeatures = 4\n", true),
        ("hello", false),
    ] {
        let path = dir.path().join("data/format");
        std::fs::write(&path, text).unwrap();
        let Err(refused) = Log::open(Arc::new(RealFs), options(dir.path())) else {
            panic!("{text} was opened")
        };
        assert_eq!(
            matches!(refused, OpenError::Newer { .. }),
            newer,
            "{refused}"
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn a_damaged_frame_before_a_valid_one_is_reported_and_not_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let partition = create(&log, "t", 1)[0];
    for value in [b"first", b"other", b"third"] {
        log.commit(unit([record(partition, value)])).unwrap();
    }
    let crashed = tempfile::tempdir().unwrap();
    copy(&dir.path().join("data"), &crashed.path().join("data"));
    let wal = crashed.path().join("data/wal");
    let name = std::fs::read_dir(&wal)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "wal"))
        .unwrap();
    let whole = std::fs::read(&name).unwrap();
    let flip = |needle: &[u8]| {
        let mut bytes = whole.clone();
        let at = bytes
            .windows(5)
            .position(|window| window == needle)
            .unwrap();
        bytes[at] ^= 1;
        std::fs::write(&name, bytes).unwrap();
    };
    flip(b"other");
    let Err(refused) = Log::open(Arc::new(RealFs), options(crashed.path())) else {
        panic!("damage was skipped")
    };
    let OpenError::Damaged { file, .. } = &refused else {
        panic!("{refused}")
    };
    assert_eq!(*file, name);
    // The last frame alone may be torn.
    flip(b"third");
    let log = open(crashed.path());
    assert_eq!(values(&log, partition, 0), [b"first", b"other"]);
    assert!(log.stats().torn_bytes > 0);
}

#[test]
fn a_flipped_bit_in_a_segment_is_never_served() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let partition = create(&log, "t", 1)[0];
    log.commit(unit([record(partition, b"payload")])).unwrap();
    log.close().unwrap();
    let path = dir.path().join("data/log/t-0/00000000000000000000.log");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() - 4;
    bytes[at] ^= 0x10;
    std::fs::write(&path, bytes).unwrap();
    let log = open(dir.path());
    let damaged = log.partition(partition).unwrap().read(0, 1000);
    assert!(
        matches!(damaged, Err(ReadError::Damaged { at: 0, .. })),
        "{damaged:?}"
    );
}

#[test]
fn what_is_whole_before_damage_is_still_served() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let partition = create(&log, "t", 1)[0];
    for _ in 0..3 {
        log.commit(unit([record(partition, &[b'x'; 100])])).unwrap();
    }
    let path = dir.path().join("data/log/t-0/00000000000000000000.log");
    let good = std::fs::read(&path).unwrap();
    let len = good.len() / 3;
    let partition = log.partition(partition).unwrap();
    // Of the second batch: its base offset, its format's version, a record.
    for (at, what) in [(7, "base offset"), (16, "magic"), (len - 10, "record")] {
        let mut bytes = good.clone();
        bytes[len + at] ^= 0x10;
        std::fs::write(&path, &bytes).unwrap();
        let read = partition.read(0, 1 << 20).unwrap();
        assert_eq!(read, good[..len], "{what}");
        let damaged = partition.read(1, 1 << 20);
        let at = len as u64;
        assert!(
            matches!(damaged, Err(ReadError::Damaged { at: found, .. }) if found == at),
            "{what}: {damaged:?}"
        );
    }
}

#[test]
fn a_last_batch_with_a_damaged_base_offset_is_damage_not_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let partition = create(&log, "t", 1)[0];
    for _ in 0..3 {
        log.commit(unit([record(partition, b"x")])).unwrap();
    }
    let path = dir.path().join("data/log/t-0/00000000000000000000.log");
    let mut bytes = std::fs::read(&path).unwrap();
    // The third batch says that it is the first: it looks as if it lay before what is asked for.
    let third = bytes.len() / 3 * 2;
    bytes[third + 7] = 0;
    std::fs::write(&path, bytes).unwrap();
    let read = log.partition(partition).unwrap().read(2, 1000);
    assert!(matches!(read, Err(ReadError::Damaged { .. })), "{read:?}");
}

#[test]
fn lost_indexes_are_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let partition = create_with(&log, "t", 1, &[("segment.bytes", "50000")])[0];
    for number in 0..400u32 {
        log.commit(unit([record(partition, &[number as u8; 500])]))
            .unwrap();
    }
    log.close().unwrap();
    let folder = dir.path().join("data/log/t-0");
    let mut indexes = std::collections::BTreeMap::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension != "log") {
            indexes.insert(path.clone(), std::fs::read(&path).unwrap());
            std::fs::remove_file(path).unwrap();
        }
    }
    assert!(indexes.len() >= 8 && indexes.values().any(|bytes| bytes.len() > 40));
    let log = open(dir.path());
    assert_eq!(values(&log, partition, 0).len(), 400);
    log.close().unwrap();
    for (path, bytes) in indexes {
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "{}", path.display());
    }
}

#[test]
fn a_unit_that_expects_another_row_is_refused_as_the_order_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let change = |expects: Option<&'static str>, value: Option<&'static str>| Unit {
        tables: vec![TableChange {
            value: value.map(|value| Bytes::from_static(value.as_bytes())),
            ..put(16, "k", "")
        }],
        expects: vec![TableChange {
            value: expects.map(|value| Bytes::from_static(value.as_bytes())),
            ..put(16, "k", "")
        }],
        ..Unit::default()
    };
    // All in one submission, so that some are decided before any is applied.
    let units = vec![
        change(None, Some("1")),
        change(None, Some("2")),
        change(Some("1"), Some("3")),
        change(Some("1"), None),
        change(Some("3"), None),
        change(None, Some("4")),
    ];
    let (sender, answers) = mpsc::channel();
    log.submit(
        units,
        Box::new(move |all| {
            for answer in all {
                sender.send(answer.map(drop)).unwrap();
            }
        }),
    );
    let refused = Err(CommitError::RowChanged);
    let expected = [Ok(()), refused.clone(), Ok(()), refused, Ok(()), Ok(())];
    assert_eq!(answers.iter().collect::<Vec<_>>(), expected);
    let row = log.table_row(put(16, "k", "").table, b"k");
    assert_eq!(row.as_deref(), Some(&b"4"[..]));
}
