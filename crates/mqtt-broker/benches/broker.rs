//! What a message costs from the bytes of a read to the bytes of a write, without sockets or log.
//!
//! Named operation/size. A verdict is a ratio within one run: 3.1.1, clean Sessions, 64 bytes.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a bench that fails to set its scene should stop"
)]

use std::sync::Arc;

use bytes::{Buf, Bytes};
use divan::Bencher;
use divan::counter::ItemsCount;
use headwater_mqtt_broker::{
    Config, ConnectionId, Effect, Input, Now, Peer, Shard, Shared, distribute,
};

fn main() {
    divan::main();
}

const NOW: Now = Now {
    mono_ms: 1,
    wall_ms: 1,
};

/// One shard whose commits are true at once.
struct Bench {
    shared: Arc<Shared>,
    shard: Shard,
    effects: Vec<Effect>,
    next: u64,
    written: usize,
}

impl Bench {
    fn new() -> Self {
        let shared = Arc::new(Shared::new(Config::default()));
        let shard = Shard::new(shared.clone(), 0);
        Self {
            shared,
            shard,
            effects: Vec::new(),
            next: 0,
            written: 0,
        }
    }

    fn give(&mut self, input: Input) {
        self.shard.handle(NOW, input, &mut self.effects);
        while let Some(effect) = self.effects.pop() {
            match effect {
                Effect::Flush(connection) => {
                    let output = self.shard.output(connection).expect("open");
                    self.written += output.remaining();
                    output.advance(output.remaining());
                }
                Effect::Commit(commit) => {
                    let mut into = [Vec::new()];
                    distribute(
                        &self.shared,
                        vec![(commit, Ok(Default::default()))],
                        &mut into,
                    );
                    let [inputs] = into;
                    for input in inputs {
                        self.shard.handle(NOW, input, &mut self.effects);
                    }
                }
                _ => {}
            }
        }
    }

    fn connect(&mut self) -> ConnectionId {
        self.next += 1;
        let connection = ConnectionId(self.next);
        self.give(Input::Opened {
            connection,
            peer: Peer { address: None },
            limits: Arc::default(),
            handshake_ms: 0,
        });
        let id = format!("{:08x}", self.next);
        let mut connect = vec![0x10, 20, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 8];
        connect.extend_from_slice(id.as_bytes());
        self.send(connection, connect.into());
        connection
    }

    fn send(&mut self, connection: ConnectionId, bytes: Bytes) {
        self.give(Input::Received { connection, bytes });
    }

    fn subscribe(&mut self, connection: ConnectionId, filter: &str, qos: u8) {
        let mut packet = vec![0x82, 0, 0, 1, 0, u8::try_from(filter.len()).expect("short")];
        packet.extend_from_slice(filter.as_bytes());
        packet.push(qos);
        packet[1] = u8::try_from(packet.len() - 2).expect("short");
        self.send(connection, packet.into());
    }
}

/// `count` PUBLISHes of 64 bytes in one read.
fn read_of(count: usize, topic: &str, qos: u8) -> Bytes {
    let mut read = Vec::new();
    for id in 1..=count {
        let head = 2 + topic.len() + usize::from(qos > 0) * 2;
        read.extend_from_slice(&[0x30 | qos << 1, u8::try_from(head + 64).expect("short"), 0]);
        read.push(u8::try_from(topic.len()).expect("short"));
        read.extend_from_slice(topic.as_bytes());
        if qos > 0 {
            read.extend_from_slice(&u16::try_from(id).expect("few").to_be_bytes());
        }
        read.extend_from_slice(&[b'x'; 64]);
    }
    read.into()
}

/// The PUBACKs of packet identifiers `from..from + count`, which come round at 65,535.
fn acks(from: &mut u16, count: usize) -> Bytes {
    let mut all = Vec::with_capacity(count * 4);
    for _ in 0..count {
        *from = from.checked_add(1).unwrap_or(1);
        all.extend_from_slice(&[0x40, 2]);
        all.extend_from_slice(&from.to_be_bytes());
    }
    all.into()
}

const BATCH: usize = 100;

#[divan::bench(name = "publish_qos0/1_to_1")]
fn qos0_one_to_one(bencher: Bencher<'_, '_>) {
    let mut bench = Bench::new();
    let (publisher, subscriber) = (bench.connect(), bench.connect());
    bench.subscribe(subscriber, "bench/topic", 0);
    let read = read_of(BATCH, "bench/topic", 0);
    bencher
        .counter(ItemsCount::new(BATCH))
        .bench_local(|| bench.send(publisher, read.clone()));
    assert!(bench.written > 0);
}

#[divan::bench(name = "publish_qos1/1_to_1_with_acknowledgements")]
fn qos1_one_to_one(bencher: Bencher<'_, '_>) {
    let mut bench = Bench::new();
    let (publisher, subscriber) = (bench.connect(), bench.connect());
    bench.subscribe(subscriber, "bench/topic", 1);
    let read = read_of(BATCH, "bench/topic", 1);
    let mut last = 0;
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        bench.send(publisher, read.clone());
        bench.send(subscriber, acks(&mut last, BATCH));
    });
}

#[divan::bench(name = "publish_qos0/1_to_1000")]
fn qos0_fan_out(bencher: Bencher<'_, '_>) {
    let mut bench = Bench::new();
    let publisher = bench.connect();
    for _ in 0..1_000 {
        let subscriber = bench.connect();
        bench.subscribe(subscriber, "bench/topic", 0);
    }
    let read = read_of(8, "bench/topic", 0);
    bencher
        .counter(ItemsCount::new(8_000_usize))
        .bench_local(|| bench.send(publisher, read.clone()));
}

/// Every PUBLISH to another topic: no match is remembered.
#[divan::bench(name = "match/100000_subscriptions")]
fn matching(bencher: Bencher<'_, '_>) {
    let mut bench = Bench::new();
    let publisher = bench.connect();
    for index in 0..100_000 {
        let subscriber = if index % 100 == 0 {
            bench.connect()
        } else {
            ConnectionId(bench.next)
        };
        let filter = match index % 3 {
            0 => format!("site/{index}/temp"),
            1 => format!("site/{index}/+"),
            _ => format!("site/+/{index}/#"),
        };
        bench.subscribe(subscriber, &filter, 0);
    }
    let reads: Vec<Bytes> = (0..50_000)
        .map(|index| read_of(1, &format!("site/{}/temp", index * 2), 0))
        .collect();
    let mut at = 0;
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| {
        at = (at + 1) % reads.len();
        bench.send(publisher, reads[at].clone());
    });
}
