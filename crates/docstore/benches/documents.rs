//! What a document costs: making its text, writing it, finding it.
//!
//! `cargo bench -p headwater-docstore`. Divan's times are wall-clock and share the disk with whoever
//! else is at work; `cargo bench -p headwater-docstore -- --cpu` prints documents per CPU second,
//! checkpoints and syncs included, which is the figure to compare.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a bench ends at the first thing that goes wrong"
)]

use divan::Bencher;
use headwater_docstore::{
    Batch, Bounds, Facts, Filter, Namespace, Options, Position, Query, Reader, Sort, Store, Writer,
};
use std::ops::ControlFlow;
use tempfile::TempDir;
use uuid::Uuid;

const BATCH: u64 = 1000;
const STORED: u64 = 100_000;

fn main() {
    if std::env::args().any(|argument| argument == "--cpu") {
        cpu();
    } else {
        divan::main();
    }
}

struct Load {
    _folder: TempDir,
    writer: Writer,
    reader: Reader,
    namespace: Namespace,
    topics: Vec<String>,
    batch: Batch,
    next: u64,
}

impl Load {
    fn new(topics: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path(), Options::default()).expect("a store");
        Self {
            writer: store.writer().expect("its writer"),
            reader: store.reader().expect("a reader"),
            _folder: folder,
            namespace: Namespace::parse("headwater.messages").expect("a name"),
            topics: (0..topics)
                .map(|n| format!("sensors/site-{n}/telemetry"))
                .collect(),
            batch: Batch::new(),
            next: 0,
        }
    }

    fn make(&mut self, documents: u64) {
        self.batch.clear();
        for n in self.next..self.next + documents {
            let topic = usize::try_from(n * 7919).unwrap_or(0) % self.topics.len();
            let payload = format!(
                r#"{{"temp": {}.5, "hum": {}, "ok": true}}"#,
                n % 100,
                n % 60
            );
            self.batch.push(
                &self.namespace,
                &Facts {
                    position: Position {
                        topic: Uuid::from_u128(7),
                        partition: u32::try_from(topic % 4).unwrap_or(0),
                        offset: n,
                    },
                    kafka_topic: "mqtt",
                    ts_ms: 1_795_368_451_123 + i64::try_from(n / 10).unwrap_or(0),
                    topic: self.topics.get(topic).map(String::as_str),
                    client: Some("device-000017"),
                    qos: Some(1),
                    retain: Some(false),
                    headers: &[],
                    payload: Some(payload.as_bytes()),
                },
            );
        }
        self.next += documents;
    }

    fn insert(&mut self) {
        self.writer.insert(&self.batch, &[], 0).expect("inserted");
    }

    fn fill(topics: usize) -> Self {
        let mut load = Self::new(topics);
        while load.next < STORED {
            load.make(BATCH);
            load.insert();
        }
        load
    }

    fn find(&mut self, filter: &str, sort: &str, limit: Option<u64>) -> u64 {
        let query = Query {
            filter: Filter::parse(filter).expect("a filter"),
            sort: Sort::parse(sort).expect("a sort"),
            skip: 0,
            limit,
        };
        let found = self
            .reader
            .find(&self.namespace, &query, &Bounds::default(), &mut |line| {
                divan::black_box(line);
                ControlFlow::Continue(())
            });
        found.expect("found").documents
    }
}

#[divan::bench(name = "make/1000", args = [10])]
fn make(bencher: Bencher<'_, '_>, topics: usize) {
    let mut load = Load::new(topics);
    bencher.counter(BATCH).bench_local(|| load.make(BATCH));
}

#[divan::bench(name = "insert/1000", args = [10, 10_000])]
fn insert(bencher: Bencher<'_, '_>, topics: usize) {
    let mut load = Load::fill(topics);
    bencher.counter(BATCH).bench_local(|| {
        load.make(BATCH);
        load.insert();
    });
}

const FILTERS: [(&str, &str, &str, Option<u64>); 5] = [
    (
        "newest 100 of a topic",
        r#"{"topic":"sensors/site-3/telemetry"}"#,
        r#"{"ts":-1}"#,
        Some(100),
    ),
    ("newest 100", "{}", r#"{"ts":-1}"#, Some(100)),
    (
        "scan for a field",
        r#"{"payload.temp":{"$gt":98}}"#,
        "{}",
        None,
    ),
    (
        "scan, sort, first 100",
        "{}",
        r#"{"payload.temp":-1}"#,
        Some(100),
    ),
    ("all", "{}", "{}", None),
];

#[divan::bench(name = "find/100000", args = 0..FILTERS.len(), sample_count = 10)]
fn find(bencher: Bencher<'_, '_>, which: usize) {
    let mut load = Load::fill(100);
    let (_, filter, sort, limit) = FILTERS[which];
    bencher.bench_local(|| load.find(filter, sort, limit));
}

/// User and system time of this process, in seconds.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .expect("a name")
        .split(' ')
        .collect();
    let ticks = |n: usize| fields[n].parse::<f64>().expect("a number");
    // Fields 14 and 15 of proc(5), counted from the state; a tick is 10 ms everywhere.
    (ticks(12) + ticks(13)) / 100.0
}

fn cpu() {
    for topics in [10, 10_000] {
        let mut load = Load::new(topics);
        let start = cpu_seconds();
        while load.next < 500_000 {
            load.make(2000);
        }
        let made = cpu_seconds() - start;
        load.next = 0;
        let start = cpu_seconds();
        while load.next < 500_000 {
            load.make(2000);
            load.insert();
            if load.next.is_multiple_of(100_000) {
                load.writer.sync().expect("synced");
            }
        }
        let seconds = cpu_seconds() - start;
        println!(
            "{topics} topics: {:.0} documents per CPU second made and inserted; {:.0} made only",
            500_000.0 / seconds,
            500_000.0 / made
        );
    }
    let mut load = Load::fill(100);
    for (name, filter, sort, limit) in FILTERS {
        let start = (cpu_seconds(), std::time::Instant::now());
        let mut found = 0;
        for _ in 0..10 {
            found = load.find(filter, sort, limit);
        }
        let wall = start.1.elapsed().as_secs_f64() * 100.0;
        println!(
            "{name}: {found} of {STORED}, {:.2} ms CPU, {wall:.2} ms",
            (cpu_seconds() - start.0) * 100.0
        );
    }
}
