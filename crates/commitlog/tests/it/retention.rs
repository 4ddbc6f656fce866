//! What may go, what is held, and what trimming leaves.

use std::sync::Arc;

use headwater_commitlog::fs::RealFs;
use headwater_commitlog::{Admin, CommitError, Log, ReadError};

use crate::support::*;

#[test]
fn trimming_moves_the_start_exactly_and_whole_segments_leave() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let partition = create_with(&log, "t", 1, &[("segment.bytes", "4000")])[0];
    for number in 0..100u8 {
        log.commit(unit([record(partition, &[number; 300])]))
            .unwrap();
    }
    let size = log.partition(partition).unwrap().size_bytes();
    admin(
        &log,
        Admin::TrimTo {
            partition,
            offset: 55,
        },
    )
    .unwrap();
    // Backwards changes nothing.
    admin(
        &log,
        Admin::TrimTo {
            partition,
            offset: 3,
        },
    )
    .unwrap();
    let past = admin(
        &log,
        Admin::TrimTo {
            partition,
            offset: 101,
        },
    );
    let (offset, high_watermark) = (101, 100);
    assert_eq!(
        past,
        Err(CommitError::OffsetOutOfRange {
            offset,
            high_watermark
        })
    );
    let check = |log: &Log| {
        let reader = log.partition(partition).unwrap();
        assert_eq!(
            (reader.log_start_offset(), reader.high_watermark()),
            (55, 100)
        );
        assert!(reader.size_bytes() < size / 2 + 4000);
        assert!(matches!(
            reader.read(54, 100),
            Err(ReadError::OffsetOutOfRange { .. })
        ));
        let values = values(log, partition, 55);
        assert_eq!((values.len(), values[0][0]), (45, 55));
    };
    check(&log);
    log.close().unwrap();
    let log = open(dir.path());
    check(&log);
    let left = std::fs::read_dir(dir.path().join("data/log/t-0"))
        .unwrap()
        .count();
    assert!(left < 3 * 7, "{left} files");
    // All of it: the log goes on at the same offset.
    admin(
        &log,
        Admin::TrimTo {
            partition,
            offset: 100,
        },
    )
    .unwrap();
    assert_eq!(log.partition(partition).unwrap().size_bytes(), 0);
    drop(log);
    let log = open(dir.path());
    let receipt = log.commit(unit([record(partition, b"next")])).unwrap();
    assert_eq!(receipt.positions[0].offset, 100);
}

#[test]
fn retention_names_what_may_go_by_age_and_by_size_but_not_what_is_held() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let aged = [("segment.bytes", "4000"), ("retention.ms", "1000")];
    let sized = [("segment.bytes", "4000"), ("retention.bytes", "9000")];
    let aged = create_with(&log, "aged", 1, &aged)[0];
    let sized = create_with(&log, "sized", 1, &sized)[0];
    let kept = create_with(&log, "__headwater_owed", 1, &[])[0];
    for number in 0..50i64 {
        let appends = [aged, sized, kept].map(|id| record_at(id, &[1; 300], NOW_MS + number));
        log.commit(unit(appends)).unwrap();
    }
    assert!(log.retention_due(NOW_MS).iter().all(|(id, _)| *id == sized));
    let due = log.retention_due(NOW_MS + 1020);
    let offset = |due: &[_], wanted| {
        due.iter()
            .find(|(id, _)| *id == wanted)
            .map(|(_, offset): &(_, u64)| *offset)
    };
    let by_age = offset(&due, aged).unwrap();
    assert!((10..=20).contains(&by_age), "{by_age}");
    let left = log.partition(sized).unwrap();
    admin(
        &log,
        Admin::TrimTo {
            partition: sized,
            offset: offset(&due, sized).unwrap(),
        },
    )
    .unwrap();
    assert!(
        (9000..13000).contains(&left.size_bytes()),
        "{}",
        left.size_bytes()
    );
    assert_eq!(offset(&due, kept), None, "the system's own topics keep all");
    // The whole partition is too old, the newest segment too.
    assert_eq!(offset(&log.retention_due(NOW_MS + 5000), aged), Some(50));
    log.hold("sink", aged, 7);
    log.hold("deliver", aged, 30);
    assert_eq!(offset(&log.retention_due(NOW_MS + 5000), aged), Some(7));
    log.release_hold("sink", aged);
    assert_eq!(offset(&log.retention_due(NOW_MS + 5000), aged), Some(30));
}

#[test]
fn appends_are_refused_when_a_held_backlog_is_too_long() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.backlog_bytes_max = 5000;
    let log = Log::open(Arc::new(RealFs), options).unwrap();
    let partition = create(&log, "t", 1)[0];
    let append = || log.commit(unit([record(partition, &[1; 1000])]));
    log.hold("sink", partition, 0);
    let refused = (0..10).find_map(|_| append().err()).unwrap();
    assert!(
        matches!(
            refused,
            CommitError::BacklogFull {
                held_bytes: 5000..,
                ..
            }
        ),
        "{refused}"
    );
    let end = log.partition(partition).unwrap().high_watermark();
    log.hold("sink", partition, end);
    append().unwrap();
}

#[test]
fn what_was_there_before_a_hold_of_the_whole_partition_is_no_backlog() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.backlog_bytes_max = 5000;
    let log = Log::open(Arc::new(RealFs), options).unwrap();
    let partition = create_with(&log, "t", 1, &[("retention.ms", "1")])[0];
    let append = || log.commit(unit([record_at(partition, &[1; 1000], 1)]));
    let taken = || (0..20).take_while(|_| append().is_ok()).count();
    for _ in 0..10 {
        append().unwrap();
    }
    let due = log.retention_due(NOW_MS);
    assert_eq!(due, [(partition, 10)], "old enough to go");
    log.hold_whole("sink", partition);
    assert_eq!(log.retention_due(NOW_MS), []);
    for _ in 0..2 {
        append().unwrap();
    }
    // To say it again starts nothing anew: what is held is bounded.
    log.hold_whole("sink", partition);
    assert!((2..=4).contains(&taken()), "5000 bytes in all");
    log.hold("sink", partition, 0);
    assert_eq!(taken(), 0, "it stands at the beginning");
    let end = log.partition(partition).unwrap().high_watermark();
    log.hold("sink", partition, end);
    append().unwrap();
    log.release_hold("sink", partition);
    log.hold_whole("sink", partition);
    assert!((5..=6).contains(&taken()), "begun anew");
    log.release_hold("sink", partition);
    assert_eq!(taken(), 20, "nobody holds");
}
