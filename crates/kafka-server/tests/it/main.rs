//! The public face, spoken to in bytes written by hand from the protocol's specification.

#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests: clippy.toml's leave ends at the functions that carry #[test]"
)]

mod disk;
mod memory;

use std::sync::Arc;
use std::time::Duration;

use headwater_commitlog::fs::{Fs, RealFs};
use headwater_commitlog::{Admin, Log, TopicConfig, Unit};
use headwater_kafka_server::{Alone, GroupState, KafkaServer, Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Nothing here takes so long; a test that waits for more has failed.
const DEADLINE: Duration = Duration::from_secs(20);

struct Running {
    dir: tempfile::TempDir,
    log: Log,
    server: Arc<KafkaServer>,
    address: std::net::SocketAddr,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl Running {
    async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    async fn start_in(dir: tempfile::TempDir) -> Self {
        Self::start_with(dir, Arc::new(RealFs), options()).await
    }

    async fn start_with(dir: tempfile::TempDir, fs: Arc<dyn Fs>, options: Options) -> Self {
        let log = Log::open(fs, headwater_commitlog::Options::new(dir.path())).unwrap();
        let host = Arc::new(Alone(log.clone()));
        let server = KafkaServer::new(log.clone(), options, host).unwrap();
        log.on_advance(server.advanced_hook());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(Arc::clone(&server).serve(listener, stopped));
        Self {
            dir,
            log,
            server,
            address,
            stop,
            serving,
        }
    }

    fn topic(self, name: &str) -> Self {
        let create = Admin::CreateTopic {
            name: name.to_owned(),
            partitions: 1,
            config: TopicConfig::default(),
        };
        if self.log.topic(name).is_none() {
            self.log
                .commit(Unit {
                    admin: vec![create],
                    ..Unit::default()
                })
                .unwrap();
        }
        self
    }

    async fn restart(self) -> Self {
        self.stop.send_replace(true);
        timeout(DEADLINE, self.serving).await.unwrap().unwrap();
        drop(self.server);
        self.log.close().unwrap();
        Self::start_in(self.dir).await
    }

    async fn connect(&self) -> Client {
        Client(TcpStream::connect(self.address).await.unwrap())
    }
}

fn options() -> Options {
    Options {
        frame_bytes_max: 1 << 20,
        ..Options::default()
    }
}

struct Client(TcpStream);

impl Client {
    /// Sends one frame: key, version, correlation id 9, no client id, then `body`.
    async fn send(&mut self, key: i16, version: i16, body: &[u8]) {
        let mut frame = Vec::new();
        frame.extend((10 + body.len() as u32).to_be_bytes());
        frame.extend(key.to_be_bytes());
        frame.extend(version.to_be_bytes());
        frame.extend([0, 0, 0, 9, 0xff, 0xff]);
        frame.extend(body);
        self.0.write_all(&frame).await.unwrap();
    }

    /// One response without its length and correlation id.
    async fn receive(&mut self) -> Vec<u8> {
        let length = timeout(DEADLINE, self.0.read_u32()).await.unwrap().unwrap();
        let mut frame = vec![0; length as usize];
        timeout(DEADLINE, self.0.read_exact(&mut frame))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(frame[..4], [0, 0, 0, 9], "correlation id");
        frame.split_off(4)
    }

    async fn ask(&mut self, key: i16, version: i16, body: &[u8]) -> Vec<u8> {
        self.send(key, version, body).await;
        self.receive().await
    }

    async fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        matches!(
            timeout(DEADLINE, self.0.read(&mut byte)).await.unwrap(),
            Ok(0) | Err(_)
        )
    }
}

/// One batch v2 with one record: value "hi", no key, no headers, timestamp 1.
fn batch() -> Vec<u8> {
    batch_of(b"hi")
}

/// A zigzag varint of a number that is not negative.
fn varint(number: usize) -> Vec<u8> {
    let mut left = number << 1;
    let mut bytes = Vec::new();
    while left >= 0x80 {
        bytes.push(left as u8 | 0x80);
        left >>= 7;
    }
    bytes.push(left as u8);
    bytes
}

/// As [`batch`], with another value.
fn batch_of(value: &[u8]) -> Vec<u8> {
    // attributes, last offset delta 0, base and max timestamp 1, no producer, one record.
    let mut covered = vec![0, 0, 0, 0, 0, 0];
    covered.extend([0, 0, 0, 0, 0, 0, 0, 1]);
    covered.extend([0, 0, 0, 0, 0, 0, 0, 1]);
    covered.extend([0xff; 8 + 2 + 4]);
    covered.extend([0, 0, 0, 1]);
    // The record's length, then attributes, deltas 0 0, key -1, value, no headers.
    let record = [&[0, 0, 0, 1][..], &varint(value.len()), value, &[0]].concat();
    covered.extend([&varint(record.len()), &record[..]].concat());
    let mut batch = vec![0; 8];
    batch.extend((9 + covered.len() as u32).to_be_bytes());
    batch.extend([0, 0, 0, 0, 2]);
    batch.extend(crc32c::crc32c(&covered).to_be_bytes());
    batch.extend(covered);
    batch
}

/// Produce 3 to partition 0 of "t".
fn produce(acks: i16, records: &[u8]) -> Vec<u8> {
    let mut body = vec![0xff, 0xff];
    body.extend(acks.to_be_bytes());
    body.extend([
        0, 0, 0x27, 0x10, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 0,
    ]);
    body.extend((records.len() as u32).to_be_bytes());
    body.extend(records);
    body
}

/// Fetch 4 of partition 0 of "t" from `offset`, at least one byte, waiting `wait_ms`.
fn fetch(offset: u64, wait_ms: u32) -> Vec<u8> {
    fetch_min(offset, wait_ms, 1)
}

/// As [`fetch`], for at least `bytes_min`.
fn fetch_min(offset: u64, wait_ms: u32, bytes_min: u32) -> Vec<u8> {
    let mut body = vec![0xff; 4];
    body.extend(wait_ms.to_be_bytes());
    body.extend(bytes_min.to_be_bytes());
    body.extend([0, 0x10, 0, 0, 0]);
    body.extend([0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 0]);
    body.extend(offset.to_be_bytes());
    body.extend([0, 1, 0, 0]);
    body
}

/// Produce 3's answer: "t", partition 0, `error`, `base_offset`, no append time, no throttle.
fn produced(error: i16, base_offset: i64) -> Vec<u8> {
    let mut answer = vec![0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 0];
    answer.extend(error.to_be_bytes());
    answer.extend(base_offset.to_be_bytes());
    answer.extend([0xff; 8]);
    answer.extend([0; 4]);
    answer
}

#[tokio::test]
async fn what_is_produced_is_fetched_byte_for_byte() {
    let running = Running::start().await.topic("t");
    let mut client = running.connect().await;
    assert_eq!(
        client.ask(0, 3, &produce(-1, &batch())).await,
        produced(0, 0)
    );
    assert_eq!(
        client.ask(0, 3, &produce(1, &batch())).await,
        produced(0, 1)
    );
    let answer = client.ask(1, 4, &fetch(0, 0)).await;
    let mut second = batch();
    second[7] = 1;
    assert!(answer.ends_with(&[batch(), second].concat()));
}

#[tokio::test]
async fn a_damaged_batch_is_refused_and_the_connection_goes_on() {
    let running = Running::start().await.topic("t");
    let mut client = running.connect().await;
    let mut damaged = batch();
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(
        client.ask(0, 3, &produce(-1, &damaged)).await,
        produced(2, -1)
    );
    assert_eq!(
        client.ask(0, 3, &produce(5, &batch())).await,
        produced(21, -1)
    );
    assert_eq!(
        client.ask(0, 3, &produce(-1, &batch())).await,
        produced(0, 0)
    );
}

#[tokio::test]
async fn acks_0_is_not_answered_and_pipelined_requests_are_answered_in_order() {
    let running = Running::start().await.topic("t");
    let mut client = running.connect().await;
    client.send(0, 3, &produce(0, &batch())).await;
    for _ in 0..40 {
        client.send(0, 3, &produce(-1, &batch())).await;
    }
    for offset in 1..=40 {
        assert_eq!(client.receive().await, produced(0, offset));
    }
}

#[tokio::test]
async fn a_waiting_fetch_is_woken_by_a_commit_and_not_by_time() {
    let running = Running::start().await.topic("t");
    let (mut reader, mut writer) = (running.connect().await, running.connect().await);
    reader.send(1, 4, &fetch(0, 3_600_000)).await;
    // Both are answered; whichever the server meets first.
    assert_eq!(
        writer.ask(0, 3, &produce(-1, &batch())).await,
        produced(0, 0)
    );
    assert!(reader.receive().await.ends_with(&batch()));
}

#[tokio::test]
async fn a_fetch_outside_the_log_is_an_error_at_once() {
    let running = Running::start().await.topic("t");
    let mut client = running.connect().await;
    let answer = client.ask(1, 4, &fetch(1, 3_600_000)).await;
    assert_eq!(answer[19..21], [0, 1], "OFFSET_OUT_OF_RANGE");
}

#[tokio::test]
async fn malformed_bytes_close_their_connection_alone() {
    let running = Running::start().await.topic("t");
    let mut healthy = running.connect().await;
    for (bytes, why) in [
        (&[0x7f, 0xff, 0xff, 0xff][..], "a frame of 2 GiB"),
        (&[0xff, 0xff, 0xff, 0xff], "a negative length"),
        (&[0, 0, 0, 2, 0, 0], "a header cut short"),
        (
            &[0, 0, 0, 10, 0, 99, 0, 0, 0, 0, 0, 9, 0xff, 0xff],
            "an unknown API",
        ),
        (
            &[
                0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 9, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff,
            ],
            "a count beyond the frame",
        ),
    ] {
        let mut client = running.connect().await;
        client.0.write_all(bytes).await.unwrap();
        assert!(client.is_closed().await, "{why}");
    }
    assert_eq!(
        healthy.ask(0, 3, &produce(-1, &batch())).await,
        produced(0, 0)
    );
}

#[tokio::test]
async fn an_api_versions_request_of_the_future_is_answered_in_form_0() {
    let running = Running::start().await;
    let mut client = running.connect().await;
    let answer = client.ask(18, 90, &[1, 2, 3]).await;
    assert_eq!(answer[..6], [0, 35, 0, 0, 0, 28], "error 35, then all rows");
    assert_eq!(answer.len(), 6 + 28 * 6);
    assert_eq!(answer[6..12], [0, 0, 0, 0, 0, 11], "Produce from 0 to 11");
}

#[tokio::test]
async fn internal_topics_are_neither_written_nor_read_nor_listed() {
    let running = Running::start().await.topic("__headwater_x");
    let mut client = running.connect().await;
    let mut body = produce(-1, &batch());
    let name = b"\0\x0d__headwater_x";
    body.splice(12..15, name.iter().copied());
    let answer = client.ask(0, 3, &body).await;
    assert_eq!(answer[27..29], [0, 29], "TOPIC_AUTHORIZATION_FAILED");
    let mut body = fetch(0, 0);
    body.splice(21..24, name.iter().copied());
    let answer = client.ask(1, 4, &body).await;
    assert_eq!(answer[31..33], [0, 29], "TOPIC_AUTHORIZATION_FAILED");
    // Metadata 1 of all topics, then of this one.
    let holds = |answer: Vec<u8>| answer.windows(13).any(|part| part == &name[2..]);
    assert!(!holds(client.ask(3, 1, &[0xff; 4]).await));
    let by_name = [&[0, 0, 0, 1][..], name].concat();
    assert!(holds(client.ask(3, 1, &by_name).await));
}

#[tokio::test]
async fn compaction_is_refused_where_it_is_asked_for() {
    let running = Running::start().await.topic("t");
    let mut client = running.connect().await;
    let setting = [&[0, 14][..], b"cleanup.policy", &[0, 7], b"compact"].concat();
    // CreateTopics 2 of "c" with 1 partition, factor 1, no assignment, one setting; 1 s, in earnest.
    let mut body = vec![
        0, 0, 0, 1, 0, 1, b'c', 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1,
    ];
    body.extend(&setting);
    body.extend([0, 0, 3, 0xe8, 0]);
    let answer = client.ask(19, 2, &body).await;
    assert_eq!(answer[11..13], [0, 40], "INVALID_CONFIG");
    let said = String::from_utf8_lossy(&answer);
    assert!(said.contains("compaction is not built yet"), "{said}");
    assert!(running.log.topic("c").is_none());
    // IncrementalAlterConfigs 0 of topic "t": set (0) the same.
    let mut body = vec![0, 0, 0, 1, 2, 0, 1, b't', 0, 0, 0, 1];
    body.extend([&setting[..16], &[0], &setting[16..], &[0]].concat());
    let answer = client.ask(44, 0, &body).await;
    assert_eq!(answer[8..10], [0, 40], "INVALID_CONFIG");
}

#[tokio::test]
async fn transactions_are_refused_by_a_code_that_ends_them() {
    let running = Running::start().await;
    let mut client = running.connect().await;
    // FindCoordinator 1 of transaction "x", then InitProducerId 0 for it.
    let answer = client.ask(10, 1, &[0, 1, b'x', 1]).await;
    assert_eq!(
        answer[4..6],
        [0, 53],
        "TRANSACTIONAL_ID_AUTHORIZATION_FAILED"
    );
    let said = String::from_utf8_lossy(&answer);
    assert!(said.contains("transactions are not served"), "{said}");
    let answer = client.ask(22, 0, &[0, 1, b'x', 0, 0, 0, 9]).await;
    assert_eq!(
        answer[4..6],
        [0, 53],
        "TRANSACTIONAL_ID_AUTHORIZATION_FAILED"
    );
}

#[tokio::test]
async fn a_committed_offset_survives_a_restart() {
    let running = Running::start().await.topic("t");
    // OffsetCommit 2: group "g", generation -1, no member, retention -1, "t" 0 at 7, no metadata.
    let mut body = vec![0, 1, b'g', 0xff, 0xff, 0xff, 0xff, 0, 0];
    body.extend([0xff; 8]);
    body.extend([0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 0]);
    body.extend([0, 0, 0, 0, 0, 0, 0, 7, 0xff, 0xff]);
    let answer = running.connect().await.ask(8, 2, &body).await;
    assert_eq!(
        answer,
        [0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    );

    let running = running.restart().await;
    // OffsetFetch 1: group "g", "t" 0.
    let body = [0, 1, b'g', 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 0];
    let answer = running.connect().await.ask(9, 1, &body).await;
    let fetched = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0];
    assert_eq!(
        answer[11..],
        fetched,
        "partition 0, offset 7, empty metadata, no error"
    );
    let [group] = &running.server.groups()[..] else {
        panic!("one group")
    };
    assert_eq!(
        (group.group_id.as_str(), group.state),
        ("g", GroupState::Empty)
    );
    assert_eq!(group.offsets[0].committed, 7);
}

#[tokio::test]
async fn a_stop_ends_waiting_fetches_and_joins_every_task() {
    let running = Running::start().await.topic("t");
    let mut client = running.connect().await;
    client.send(1, 4, &fetch(0, 3_600_000)).await;
    let mut other = running.connect().await;
    other.ask(18, 0, &[]).await;
    running.stop.send_replace(true);
    timeout(DEADLINE, running.serving).await.unwrap().unwrap();
    assert!(client.is_closed().await);
}
