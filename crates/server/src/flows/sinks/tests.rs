use std::ops::ControlFlow;

use headwater_bridge::{FlowConfig, SinkConfig};
use headwater_commitlog::fs::RealFs;
use headwater_commitlog::record::RecordBody;
use headwater_commitlog::{Admin, Append, AppendData, Options, TopicConfig, Unit};
use headwater_docstore::{Bounds, Query, Store};

use super::*;

/// A log, a store and one sink from the topic "t", without threads.
struct House {
    dir: tempfile::TempDir,
    log: Log,
    store: Store,
    flows: Arc<Current>,
    counters: Arc<SinkCounters>,
}

fn flows() -> Flows {
    let config = FlowConfig {
        sink: vec![SinkConfig::new("t", "d.c")],
        ..FlowConfig::default()
    };
    Flows::compile(&config).unwrap()
}

impl House {
    fn new(partitions: u32) -> Self {
        Self::with(partitions, u64::MAX)
    }

    fn with(partitions: u32, backlog_bytes_max: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            backlog_bytes_max,
            ..Options::new(dir.path())
        };
        let log = Log::open(Arc::new(RealFs), options).unwrap();
        let store = Store::open(&dir.path().join("store"), store_options()).unwrap();
        let house = Self {
            dir,
            log,
            store,
            flows: Arc::new(Current::new(flows())),
            counters: Arc::default(),
        };
        house.administer(Admin::CreateTopic {
            name: "t".to_owned(),
            partitions,
            config: TopicConfig::default().with("retention.ms", "1").unwrap(),
        });
        house
    }

    fn sinks(&self) -> Sinks {
        Sinks::new(
            self.log.clone(),
            Arc::clone(&self.flows),
            self.store.writer().unwrap(),
            self.store.reader().unwrap(),
            Arc::default(),
            Arc::clone(&self.counters),
            DurationMs::days(30),
        )
        .unwrap()
    }

    fn waiting(&self, signal: &Arc<Signal>) -> Waiting {
        Waiting::new(
            self.log.clone(),
            Arc::clone(&self.flows),
            self.store.clone(),
            Arc::clone(signal),
            Arc::clone(&self.counters),
            DurationMs::days(30),
        )
    }

    /// Another program that reads the store while what is there becomes documents and the process is
    /// killed, until it commits.
    fn read_by_another(&self) -> rusqlite::Connection {
        let file = self.dir.path().join("store/documents-000001.sqlite");
        let other = rusqlite::Connection::open(file).unwrap();
        let mut sinks = self.sinks();
        until_idle(&mut sinks);
        other
            .execute_batch("BEGIN; SELECT count(*) FROM documents_1")
            .unwrap();
        drop(sinks);
        let name = self.flows.load().sinks()[0].name().to_owned();
        self.log.release_hold(&name, self.id("t", 0));
        other
    }

    fn administer(&self, admin: Admin) {
        let unit = Unit {
            admin: vec![admin],
            ..Unit::default()
        };
        self.log.commit(unit).unwrap();
    }

    fn id(&self, topic: &str, index: usize) -> PartitionId {
        self.log.topic(topic).unwrap().partitions[index]
    }

    /// A record of the year 1970.
    fn produce(&self, index: usize, value: &[u8]) {
        let mut unit = Unit::default();
        unit.appends.push(Append {
            partition: self.id("t", index),
            data: AppendData::Record {
                timestamp_ms: 1,
                body: RecordBody::new(None, Some(value), []),
            },
        });
        self.log.commit(unit).unwrap();
    }

    fn documents(&self) -> Vec<serde_json::Value> {
        let namespace = Namespace::parse("d.c").unwrap();
        let mut found = Vec::new();
        let mut reader = self.store.reader().unwrap();
        reader
            .find(
                &namespace,
                &Query::default(),
                &Bounds::default(),
                &mut |line| {
                    found.push(serde_json::from_str(line).unwrap());
                    ControlFlow::Continue(())
                },
            )
            .unwrap();
        found
    }

    fn letters(&self) -> Vec<Vec<(String, String)>> {
        let partition = self.log.partition(self.id(DEAD_LETTERS, 0)).unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let records = partition.records(0, 1 << 20).unwrap();
        records
            .map(|record| {
                let record = record.unwrap();
                assert!(record.timestamp_ms > 1, "kept from now on");
                let headers = record.headers.iter();
                headers
                    .map(|(name, value)| (name.to_owned(), text(value.unwrap())))
                    .collect()
            })
            .collect()
    }
}

fn store_options() -> headwater_docstore::Options {
    headwater_docstore::Options {
        retention_ms: Some(30 * 24 * 3_600_000),
        ..headwater_docstore::Options::default()
    }
}

fn until_idle(sinks: &mut Sinks) {
    for _ in 0..100 {
        if !sinks.turn().unwrap() {
            return;
        }
    }
    panic!("there is no end");
}

#[test]
fn every_partition_has_its_turn_beside_a_backlog() {
    const PARTITIONS: u32 = 24;
    let house = House::new(PARTITIONS);
    let long = vec![b'x'; 512 << 10];
    for index in 0..PARTITIONS as usize {
        for _ in 0..3 {
            house.produce(index, &long);
        }
    }
    let mut sinks = house.sinks();
    for _ in 0..2 {
        assert!(sinks.turn().unwrap());
    }
    for ((_, _, index), standing) in &sinks.standings {
        assert!(standing.next > 0, "partition {index} has had no turn");
    }
    until_idle(&mut sinks);
    assert_eq!(house.documents().len(), 3 * PARTITIONS as usize);
}

#[test]
fn what_is_no_document_yet_is_held_before_anything_can_be_trimmed() {
    let house = House::new(2);
    house.produce(0, b"1");
    house.produce(1, b"1");
    assert_eq!(
        house.log.retention_due(wall_ms()).len(),
        2,
        "old enough to go"
    );
    let mut sinks = house.sinks();
    assert_eq!(house.log.retention_due(wall_ms()), []);
    until_idle(&mut sinks);
    sinks.sync_if_due(true);
    assert_eq!(house.log.retention_due(wall_ms()).len(), 2, "let go again");
}

#[test]
fn records_that_were_removed_are_counted_once() {
    let house = House::new(1);
    for _ in 0..5 {
        house.produce(0, b"1");
    }
    let mut sinks = house.sinks();
    house.administer(Admin::TrimTo {
        partition: house.id("t", 0),
        offset: 5,
    });
    until_idle(&mut sinks);
    drop(sinks);
    until_idle(&mut house.sinks());
    assert_eq!(house.counters.removed.load(Ordering::Relaxed), 5);
    house.produce(0, b"1");
    until_idle(&mut house.sinks());
    assert_eq!(house.documents().len(), 1);
    assert_eq!(house.counters.removed.load(Ordering::Relaxed), 5);
}

#[test]
fn document_that_the_store_refuses_is_one_dead_letter_and_the_sink_goes_on() {
    let house = House::new(1);
    house.produce(0, b"\"first\"");
    until_idle(&mut house.sinks());
    let file = house.dir.path().join("store/documents-000001.sqlite");
    let trigger = "CREATE TRIGGER poison BEFORE INSERT ON documents_1 WHEN NEW.doc LIKE '%poison%'
                   BEGIN SELECT RAISE(ABORT, 'no poison'); END";
    rusqlite::Connection::open(file)
        .unwrap()
        .execute_batch(trigger)
        .unwrap();
    for value in ["\"a\"", "\"poison\"", "\"b\"", "\"more poison\"", "\"c\""] {
        house.produce(0, value.as_bytes());
    }
    // The letter is in the log, the sink's position is not: as after a crash.
    let mut sinks = house.sinks();
    assert!(sinks.turn().unwrap());
    assert_eq!(house.letters().len(), 1);
    assert_eq!(house.documents().len(), 1);
    drop(sinks);
    until_idle(&mut house.sinks());
    let payloads: Vec<String> = (house.documents().iter())
        .map(|document| document["payload"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(payloads, ["first", "a", "b", "c"]);
    let letters = house.letters();
    assert_eq!(letters.len(), 2, "none twice: {letters:?}");
    assert_eq!(house.counters.dead.load(Ordering::Relaxed), 2);
    for (letter, offset) in letters.iter().zip(["2", "4"]) {
        for (name, value) in [
            ("headwater-dead-reason", "document"),
            ("headwater-dead-flow", "sink/t/d.c"),
            ("headwater-dead-offset", offset),
        ] {
            let header = (name.to_owned(), value.to_owned());
            assert!(letter.contains(&header), "{header:?} in {letter:?}");
        }
        assert!(letter.iter().any(|(_, value)| value.contains("no poison")));
    }
}

#[test]
fn document_of_an_old_record_stays() {
    let house = House::new(1);
    house.produce(0, b"1");
    let mut sinks = house.sinks();
    until_idle(&mut sinks);
    sinks.remove_old().unwrap();
    let documents = house.documents();
    assert_eq!(documents.len(), 1);
    assert_eq!(
        documents[0]["ts"]["$date"], "1970-01-01T00:00:00.001Z",
        "its time is data"
    );
}

/// Has the store fail wherever a sink's position moves.
fn break_store(house: &House) {
    let file = house.dir.path().join("store/documents-000001.sqlite");
    let trigger = "CREATE TRIGGER broken BEFORE INSERT ON cursors
                   BEGIN SELECT RAISE(ABORT, 'broken'); END";
    let store = rusqlite::Connection::open(file).unwrap();
    store.execute_batch(trigger).unwrap();
}

#[test]
fn old_documents_go_also_while_the_store_takes_no_new_ones() {
    let house = House::new(1);
    let mut batch = Batch::new();
    let facts = Facts {
        position: Position {
            topic: Uuid::nil(),
            partition: 0,
            offset: 0,
        },
        kafka_topic: "old",
        ts_ms: 1,
        topic: None,
        client: None,
        qos: None,
        retain: None,
        headers: &[],
        payload: None,
    };
    batch.push(&Namespace::parse("d.c").unwrap(), &facts);
    let mut sinks = house.sinks();
    sinks.writer.insert(&batch, &[], 1).unwrap();
    assert_eq!(house.documents().len(), 1);
    break_store(&house);
    house.produce(0, b"1");
    assert!(sinks.round().is_err());
    assert_eq!(house.documents().len(), 0);
}

#[test]
fn failing_store_is_not_tried_again_with_every_record() {
    let house = House::new(1);
    break_store(&house);
    house.produce(0, b"1");
    let sinks = house.sinks();
    let signal = Arc::clone(&sinks.signal);
    let begun = Instant::now();
    let thread = std::thread::spawn(move || sinks.run());
    let until = begun + Duration::from_secs(60);
    while house.counters.failures.load(Ordering::Relaxed) < 4 {
        assert!(Instant::now() < until, "it is not tried again");
        signal.raise();
        std::thread::yield_now();
    }
    // Three waits lie between four tries: RETRY.0, twice and four times that.
    assert!(begun.elapsed() >= RETRY.0 * 7, "{:?}", begun.elapsed());
    signal.stop();
    thread.join().unwrap();
}

#[test]
fn store_that_another_program_reads_makes_the_sinks_wait_and_hold() {
    let house = House::new(1);
    house.produce(0, b"1");
    let other = house.read_by_another();
    assert_eq!(house.log.retention_due(wall_ms()).len(), 1);
    let signal = Arc::new(Signal::default());
    let mut waiting = house.waiting(&signal);
    assert!(waiting.open().unwrap().is_none());
    let due = house.log.retention_due(wall_ms());
    assert_eq!(due, [], "where the sink stands is not known yet");
    let [sentence] = &house.counters.troubles.sentences()[..] else {
        panic!("one sentence for one partition");
    };
    assert!(sentence.contains("end that program"), "{sentence}");
    let begun = Instant::now();
    assert!(waiting.open().unwrap().is_none());
    assert!(begun.elapsed() >= waiting::BUSY_WAIT, "queries may end");
    house.produce(0, b"2");
    let thread = std::thread::spawn(move || waiting.run(None));
    other.execute_batch("COMMIT").unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while house.documents().len() < 2 {
        assert!(Instant::now() < deadline, "the second document");
        std::thread::yield_now();
    }
    assert_eq!(house.counters.troubles.sentences(), [""; 0]);
    signal.stop();
    thread.join().unwrap();
    assert_eq!(house.log.retention_due(wall_ms()).len(), 1, "let go again");
}

#[test]
fn what_the_log_has_is_no_backlog_while_another_program_reads_the_store() {
    let house = House::with(1, 5000);
    for _ in 0..10 {
        house.produce(0, &[b'x'; 1000]);
    }
    let other = house.read_by_another();
    let mut waiting = house.waiting(&Arc::default());
    assert!(waiting.open().unwrap().is_none());
    assert_eq!(house.log.retention_due(wall_ms()), [], "all is held");
    house.produce(0, b"taken");
    other.execute_batch("COMMIT").unwrap();
    let mut sinks = waiting.open().unwrap().unwrap();
    until_idle(&mut sinks);
    assert_eq!(house.documents().len(), 11);
}
