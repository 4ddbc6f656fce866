//! A topic that is emptied before it is deleted: nothing comes to it unseen.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use headwater_commitlog::record::RecordBody;
use headwater_commitlog::{
    Admin, Append, AppendData, CommitError, Log, PartitionId, Position, Unit,
};

use crate::support::*;

/// A record for `partition`, and one in `owed` that says where the first one went.
fn publish(partition: PartitionId, owed: PartitionId, fallback: Option<PartitionId>) -> Unit {
    let room = RecordBody::new(None, Some(&[0; Position::LEN]), []);
    let data = AppendData::Reference {
        timestamp_ms: NOW_MS,
        to: 0,
        body: room,
    };
    let reference = Append {
        partition: owed,
        data,
    };
    Unit {
        fallback,
        ..unit([record(partition, b"message"), reference])
    }
}

fn end(log: &Log, partition: PartitionId) -> u64 {
    log.partition(partition).unwrap().high_watermark()
}

#[test]
fn a_record_whose_partition_goes_takes_its_fallback() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let (going, stays) = (create(&log, "going", 2), create(&log, "stays", 2));
    let (kept, owed) = (stays[0], stays[1]);
    let commit = |fallback| log.commit(publish(going[0], owed, fallback));
    let at = |receipt: Result<headwater_commitlog::Receipt, _>| receipt.unwrap().positions[0];
    assert_eq!(at(commit(Some(kept))).partition, going[0]);
    log.refuse_appends(going[0], true);
    let refused = CommitError::UnknownPartition {
        partition: going[0],
    };
    assert_eq!(commit(None).unwrap_err(), refused);
    let moved = at(commit(Some(kept)));
    assert_eq!((moved.partition, moved.offset), (kept, 0));
    assert_eq!(values(&log, owed, 1)[0], moved.to_bytes());
    // A producer is told, and a partition more would not be known to who empties the topic.
    let batch = produce(&log, going[0], (-1, -1, -1), &[b"x"]);
    assert_eq!(batch.unwrap_err(), refused);
    let grow = Admin::AddPartitions {
        name: "going".into(),
        total: 3,
    };
    let unknown = CommitError::UnknownTopic {
        name: "going".into(),
    };
    assert_eq!(admin(&log, grow.clone()).unwrap_err(), unknown);
    log.refuse_appends(going[0], false);
    admin(&log, grow).unwrap();
    assert_eq!(at(commit(Some(kept))).partition, going[0]);
    let name = "going".into();
    admin(&log, Admin::DeleteTopic { name }).unwrap();
    assert_eq!(at(commit(Some(kept))).partition, kept);
    assert_eq!(commit(None).unwrap_err(), refused);
    log.close().unwrap();
    assert_eq!(values(&open(dir.path()), kept, 0).len(), 2);
}

#[test]
fn behind_the_barrier_nothing_comes_to_a_closed_partition() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let (going, stays) = (create(&log, "going", 1), create(&log, "stays", 2));
    let (going, kept, owed) = (going[0], stays[0], stays[1]);
    let stop = Arc::new(AtomicBool::new(false));
    let publishers: Vec<_> = (0..4)
        .map(|_| {
            let (log, stop) = (log.clone(), Arc::clone(&stop));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Acquire) {
                    let unit = publish(going, owed, Some(kept));
                    log.submit(vec![unit.clone(), unit], Box::new(|_| {}));
                    log.commit(publish(going, owed, Some(kept))).unwrap();
                }
            })
        })
        .collect();
    for _ in 0..200 {
        log.refuse_appends(going, true);
        log.commit(Unit::default()).unwrap();
        let (closed_at, kept_at) = (end(&log, going), end(&log, kept));
        let settled = end(&log, owed);
        assert!(settled >= closed_at, "what refers there is applied too");
        while end(&log, kept) < kept_at + 5 {
            std::thread::yield_now();
        }
        assert_eq!(end(&log, going), closed_at);
        log.refuse_appends(going, false);
        while end(&log, going) < closed_at + 5 {
            std::thread::yield_now();
        }
    }
    stop.store(true, Ordering::Release);
    publishers
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
}
