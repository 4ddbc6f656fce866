use std::future::poll_fn;
use std::path::Path;

use headwater_commitlog::fs::{Fs, PowerCutFs};
use headwater_commitlog::record::RecordBody;
use headwater_commitlog::{Options, TopicConfig};

use super::*;

/// Generous: nothing here takes a second by itself, except the wait before a second try.
const DEADLINE: Duration = Duration::from_secs(60);
const KEPT: PartitionId = PartitionId(1);

/// A log with the topic "t", a kept topic and one shard, which the test plays.
struct House {
    fs: PowerCutFs,
    log: Log,
    inboxes: Arc<[Inbox<Mail>]>,
    internal: Internal,
}

impl House {
    fn new() -> Self {
        let house = Self::open(PowerCutFs::default());
        for (name, partitions) in [("kept", 1), ("t", 2)] {
            let create = Admin::CreateTopic {
                name: name.to_owned(),
                partitions,
                config: TopicConfig::default(),
            };
            let unit = Unit {
                admin: vec![create],
                ..Unit::default()
            };
            house.log.commit(unit).unwrap();
        }
        assert_eq!(house.log.topic("kept").unwrap().partitions, [KEPT]);
        house
    }

    fn open(fs: PowerCutFs) -> Self {
        fs.create_dir(Path::new("/data")).ok();
        let log = Log::open(Arc::new(fs.clone()), Options::new("/data")).unwrap();
        Self {
            fs,
            log,
            inboxes: [Inbox::new()].into(),
            internal: Internal {
                owed: KEPT,
                kept: KEPT,
            },
        }
    }

    fn retirements(&self) -> Retirements {
        let inboxes = Arc::clone(&self.inboxes);
        Retirements::start(self.log.clone(), inboxes, self.internal).unwrap()
    }

    /// What a route's record for "t" does: the partition it is stored in.
    fn routed(&self) -> PartitionId {
        let mut unit = Unit {
            fallback: Some(KEPT),
            ..Unit::default()
        };
        unit.appends.push(Append {
            partition: self.log.topic("t").unwrap().partitions[0],
            data: AppendData::Record {
                timestamp_ms: 1,
                body: RecordBody::new(None, Some(b"x"), []),
            },
        });
        self.log.commit(unit).unwrap().positions[0].partition
    }

    /// What the shard is asked next.
    fn question(&self) -> Going {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let mut mail = Vec::new();
        runtime.block_on(async {
            let asked = poll_fn(|cx| self.inboxes[0].poll_take(cx, &mut mail));
            tokio::time::timeout(DEADLINE, asked).await.unwrap();
        });
        assert_eq!(mail.len(), 1);
        match mail.remove(0) {
            Mail::Input(Input::Retire { going, .. }) => going,
            _ => panic!("another input"),
        }
    }

    fn decided(&self) -> usize {
        let mut rows = 0;
        self.log
            .scan_table(TableId::DELETIONS, &mut |_, _| rows += 1);
        rows
    }
}

/// Plays the shard to the end of the topic.
fn until_deleted(house: &House, retirements: &Retirements) {
    for _ in 0..2 {
        retirements.owes(house.question(), Vec::new(), true);
    }
    let until = Instant::now() + DEADLINE;
    while house.log.topic("t").is_some() {
        assert!(Instant::now() < until, "it is not deleted");
        std::thread::yield_now();
    }
    assert_eq!(house.decided(), 0);
}

fn delete(retirements: &Retirements) -> Receiver<Result<(), CommitError>> {
    let (sender, receiver) = channel();
    let done = move |result| sender.send(result).unwrap();
    retirements.delete_topic("t", Box::new(done));
    receiver
}

/// Owed of the kept topic by an entry that is too large to be committed again.
fn impossible(house: &House) -> OwedReference {
    let partition = house.routed();
    assert_ne!(partition, KEPT);
    let bytes = usize::try_from(house.log.unit_bytes_max()).unwrap() + 1;
    OwedReference {
        sequence: 1,
        position: to_broker(Position {
            partition,
            offset: 0,
        }),
        entry: vec![0; bytes].into(),
    }
}

#[test]
fn failed_deletion_leaves_the_topic_closed_and_is_tried_again() {
    let house = House::new();
    let retirements = house.retirements();
    let reference = impossible(&house);
    let deleted = delete(&retirements);
    retirements.owes(house.question(), vec![reference], true);
    let failed = deleted.recv_timeout(DEADLINE).unwrap();
    assert!(
        matches!(failed, Err(CommitError::TooLarge { .. })),
        "{failed:?}"
    );
    // A record went past the topic: it may never be seen with that hole.
    assert_eq!(house.routed(), KEPT);
    until_deleted(&house, &retirements);
}

#[test]
fn deletion_that_the_end_cuts_off_is_done_after_the_restart() {
    let house = House::new();
    let retirements = house.retirements();
    let deleted = delete(&retirements);
    house.question();
    assert_eq!(house.routed(), KEPT);
    retirements.stop();
    let cut_off = deleted.recv_timeout(DEADLINE).unwrap();
    assert_eq!(cut_off, Err(CommitError::Closed));
    assert_eq!(house.decided(), 1);

    // Killed, and started again: the closing was in memory only.
    let house = House::open(house.fs.killed());
    let retirements = house.retirements();
    assert_eq!(house.routed(), KEPT);
    until_deleted(&house, &retirements);
}
