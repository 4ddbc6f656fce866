//! What clients can make the server hold: bounded for each stranger, and for all others together.

use std::sync::Arc;
use std::time::Duration;

use headwater_commitlog::fs::RealFs;
use headwater_kafka_server::Options;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;
use tokio::time::{Instant, timeout};

use super::{Client, DEADLINE, Running, batch, batch_of, fetch, options, produce, produced};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

async fn start(options: Options) -> Running {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start_with(dir, Arc::new(RealFs), options).await;
    running.topic("t")
}

impl Running {
    async fn known(&self) -> Client {
        let mut client = self.connect().await;
        client.ask(18, 0, &[]).await;
        client
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !holds(self) {
            assert!(
                Instant::now() < deadline,
                "{what}: {:?}",
                self.server.memory()
            );
            tokio::task::yield_now().await;
        }
    }
}

impl Client {
    /// Announces a request of `length` bytes and sends the first `sent` of them.
    async fn begin(&mut self, length: usize, sent: usize) {
        let mut frame = (length as u32).to_be_bytes().to_vec();
        frame.resize(4 + sent, 0);
        self.0.write_all(&frame).await.unwrap();
    }
}

#[tokio::test]
async fn stranger_with_a_long_request_is_closed_at_once() {
    let running = start(options()).await;
    let mut stranger = running.connect().await;
    stranger.begin(64 * KIB, 0).await;
    assert!(stranger.is_closed().await);
    // The same from one who has said something valid is the beginning of a request.
    let mut known = running.known().await;
    let long = batch_of(&vec![7; 100 * KIB]);
    assert_eq!(known.ask(0, 3, &produce(-1, &long)).await, produced(0, 0));
}

#[tokio::test]
async fn stranger_has_its_time_and_no_more() {
    let running = start(Options {
        first_request_timeout: Duration::from_millis(200),
        ..options()
    })
    .await;
    let mut stranger = running.connect().await;
    stranger.begin(100, 50).await;
    assert!(stranger.is_closed().await);
    let mut silent = running.connect().await;
    assert!(silent.is_closed().await);
}

#[tokio::test]
async fn client_that_stops_within_a_request_is_closed_and_an_idle_one_is_not() {
    let running = start(Options {
        stall_timeout: Duration::from_millis(100),
        ..options()
    })
    .await;
    let mut idle = running.known().await;
    let mut stalled = running.known().await;
    stalled.begin(1000, 10).await;
    assert!(stalled.is_closed().await);
    assert_eq!(idle.ask(0, 3, &produce(-1, &batch())).await, produced(0, 0));
}

#[tokio::test]
async fn request_without_room_waits_unread_while_small_ones_go_on() {
    let running = start(Options {
        frame_bytes_max: 100 * MIB,
        requests_bytes_max: MIB,
        ..options()
    })
    .await;
    let mut hoarders = Vec::new();
    for _ in 0..20 {
        let mut hoarder = running.known().await;
        // Not awaited to its end: what does not fit stays in the client.
        let sent = timeout(Duration::from_millis(10), hoarder.begin(100 * MIB, 4 * MIB));
        drop(sent.await);
        hoarders.push(hoarder);
    }
    running
        .until("three quarters are held", |running| {
            running.server.memory().requests_bytes == 768 * KIB
        })
        .await;
    let mut waiting = running.known().await;
    let long = batch_of(&vec![7; 100 * KIB]);
    waiting.send(0, 3, &produce(-1, &long)).await;
    let mut ordinary = running.known().await;
    for offset in 0..20 {
        let answer = ordinary.ask(0, 3, &produce(-1, &batch())).await;
        assert_eq!(answer, produced(0, offset));
    }
    let early = timeout(Duration::from_millis(50), waiting.0.peek(&mut [0])).await;
    assert!(early.is_err(), "the long request was taken without room");
    drop(hoarders);
    assert_eq!(waiting.receive().await, produced(0, 20));
    running
        .until("all is given back", |running| {
            running.server.memory().requests_bytes == 0
        })
        .await;
}

const HOUR_MS: u32 = 3_600_000;

/// Fetch 4 of the same partition so many times, 16 bytes each on the wire.
fn fetch_times(times: usize, wait_ms: u32) -> Vec<u8> {
    let one = fetch(0, wait_ms);
    let (head, partition) = one.split_at(28);
    let mut body = head[..24].to_vec();
    body.extend((times as u32).to_be_bytes());
    body.extend(partition.repeat(times));
    body
}

/// The rest of a request, a byte at a time, until the server has had enough.
async fn trickle(client: &mut Client, bytes: &[u8]) -> std::io::Result<()> {
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    for byte in bytes {
        pace.tick().await;
        client.0.write_all(&[*byte]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn request_that_trickles_in_makes_room_when_others_wait() {
    let running = start(Options {
        requests_bytes_max: MIB,
        stall_timeout: Duration::from_millis(300),
        ..options()
    })
    .await;
    let mut tricklers = Vec::new();
    for _ in 0..2 {
        // The first takes all of the pool, the second the overdraft.
        let mut trickler = running.known().await;
        trickler.begin(900 * KIB, 700 * KIB).await;
        tricklers.push(tokio::spawn(async move {
            trickle(&mut trickler, &[0; 100 * KIB]).await
        }));
    }
    running
        .until("all of the long ones' part is held", |running| {
            running.server.memory().requests_bytes == 768 * KIB
        })
        .await;
    let mut waiting = running.known().await;
    let long = batch_of(&vec![7; 100 * KIB]);
    assert_eq!(waiting.ask(0, 3, &produce(-1, &long)).await, produced(0, 0));
    for trickler in tricklers {
        trickler.abort();
    }
}

#[tokio::test]
async fn request_that_trickles_in_is_in_nobodys_way_while_there_is_room() {
    let stall_timeout = Duration::from_millis(500);
    let running = start(Options {
        stall_timeout,
        ..options()
    })
    .await;
    let mut slow = running.known().await;
    let body = produce(-1, &batch_of(&vec![7; 100 * KIB]));
    let mut frame = (10 + body.len() as u32).to_be_bytes().to_vec();
    frame.extend([0, 0, 0, 3, 0, 0, 0, 9, 0xff, 0xff]);
    frame.extend(&body);
    let (most, rest) = frame.split_at(frame.len() - 60);
    let begun = Instant::now();
    slow.0.write_all(most).await.unwrap();
    trickle(&mut slow, rest).await.unwrap();
    assert!(begun.elapsed() > 2 * stall_timeout, "that was not slow");
    assert_eq!(slow.receive().await, produced(0, 0));
}

#[tokio::test]
async fn waiting_request_is_counted_with_what_its_arrays_cost() {
    let running = start(options()).await;
    let mut reader = running.known().await;
    let before = running.server.memory();
    assert_eq!((before.requests_bytes, before.responses_bytes), (0, 0));
    let body = fetch_times(500, HOUR_MS);
    let length = body.len();
    reader.send(1, 4, &body).await;
    running
        .until("frame and arrays are counted", |running| {
            running.server.memory().requests_bytes > 2 * length
        })
        .await;
    assert!(running.server.memory().requests_bytes < 5 * length);
    drop(reader);
    running
        .until("all is given back", |running| {
            running.server.memory().requests_bytes == 0
        })
        .await;
}

#[tokio::test]
async fn long_poll_does_not_wait_with_the_overdraft() {
    let running = start(Options {
        requests_bytes_max: MIB,
        stall_timeout: Duration::from_millis(HOUR_MS.into()),
        ..options()
    })
    .await;
    let mut hoarder = running.known().await;
    hoarder.begin(900 * KIB, 700 * KIB).await;
    running
        .until("all of the long ones' part is held", |running| {
            running.server.memory().requests_bytes == 768 * KIB
        })
        .await;
    let mut reader = running.known().await;
    for _ in 0..2 {
        let answer = reader.ask(1, 4, &fetch_times(10_000, HOUR_MS)).await;
        assert!(answer.len() > 10_000 * 30);
    }
    let mut writer = running.known().await;
    let long = batch_of(&vec![7; 100 * KIB]);
    assert_eq!(writer.ask(0, 3, &produce(-1, &long)).await, produced(0, 0));
}

#[tokio::test]
async fn long_poll_that_gets_in_the_way_ends() {
    let running = start(Options {
        requests_bytes_max: 2 * MIB,
        stall_timeout: Duration::from_millis(300),
        ..options()
    })
    .await;
    let mut reader = running.known().await;
    reader.send(1, 4, &fetch_times(10_000, HOUR_MS)).await;
    running
        .until("the long poll waits", |running| {
            let held = running.server.memory().requests_bytes;
            (300 * KIB..MIB).contains(&held)
        })
        .await;
    let alone = timeout(Duration::from_secs(1), reader.0.peek(&mut [0])).await;
    assert!(alone.is_err(), "it is in nobody's way yet");
    // The overdraft goes to the second, and the others wait: each in turn is closed as too slow,
    // so that the pool is short for longer than one look at it takes to come.
    let mut hoarders = Vec::new();
    for _ in 0..20 {
        let mut hoarder = running.known().await;
        let sent = timeout(Duration::from_millis(10), hoarder.begin(MIB, MIB - KIB));
        drop(sent.await);
        hoarders.push(hoarder);
    }
    assert!(reader.receive().await.len() > 10_000 * 30);
}

#[tokio::test]
async fn join_that_waits_holds_nothing_of_its_request() {
    let mut options = options();
    options.groups.initial_rebalance_delay_ms = HOUR_MS.into();
    let running = start(options).await;
    let mut member = running.known().await;
    // JoinGroup 0: group "g", session 30 min, no member id, type "c", one protocol "p".
    let mut body = vec![0, 1, b'g'];
    body.extend(1_800_000_u32.to_be_bytes());
    body.extend([0, 0, 0, 1, b'c', 0, 0, 0, 1, 0, 1, b'p']);
    body.extend((200 * KIB as u32).to_be_bytes());
    body.extend(vec![7; 200 * KIB]);
    member.send(11, 0, &body).await;
    running
        .until("the member waits, and nothing is held", |running| {
            !running.server.groups().is_empty() && running.server.memory().requests_bytes == 0
        })
        .await;
    let early = timeout(Duration::from_millis(50), member.0.peek(&mut [0])).await;
    assert!(early.is_err(), "it did not wait");
}

#[tokio::test]
async fn long_answers_that_are_not_read_make_room_in_time() {
    let running = start(Options {
        frame_bytes_max: 8 * MIB,
        requests_bytes_max: MIB,
        stall_timeout: Duration::from_millis(300),
        ..options()
    })
    .await;
    // The first holds all of the pool, the second the overdraft. More than any socket takes.
    let mut sleepers = Vec::new();
    for _ in 0..2 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut sleeper = Client(socket.connect(running.address).await.unwrap());
        sleeper.ask(18, 0, &[]).await;
        sleeper.send(1, 4, &fetch_times(500_000, 0)).await;
        sleeper.0.peek(&mut [0]).await.unwrap();
        sleepers.push(sleeper);
    }
    let mut writer = running.known().await;
    let long = batch_of(&vec![7; 100 * KIB]);
    assert_eq!(writer.ask(0, 3, &produce(-1, &long)).await, produced(0, 0));
}

#[tokio::test]
async fn clients_that_do_not_read_hold_a_bounded_part_and_make_room_in_time() {
    let running = start(Options {
        responses_bytes_max: MIB,
        stall_timeout: Duration::from_millis(300),
        ..options()
    })
    .await;
    let mut writer = running.known().await;
    for offset in 0..8 {
        let records = batch_of(&vec![7; 30 * KIB]);
        let answer = writer.ask(0, 3, &produce(-1, &records)).await;
        assert_eq!(answer, produced(0, offset));
    }
    let mut sleepers = Vec::new();
    for _ in 0..30 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut sleeper = Client(socket.connect(running.address).await.unwrap());
        sleeper.ask(18, 0, &[]).await;
        // More than any socket takes, so that some of it stays with the server.
        for _ in 0..200 {
            sleeper.send(1, 4, &fetch(0, 0)).await;
        }
        sleepers.push(sleeper);
    }
    let mut reader = running.known().await;
    let mut most = 0;
    for _ in 0..50 {
        let answer = reader.ask(1, 4, &fetch(0, 0)).await;
        assert!(answer.len() > 30 * KIB, "a share holds a batch at least");
        most = most.max(running.server.memory().responses_bytes);
    }
    assert!(most > MIB / 2, "the sleepers held only {most}");
    assert!(most <= MIB, "{most}");
}

#[tokio::test]
async fn long_poll_on_a_topic_that_grows_is_in_the_way_too() {
    let running = start(Options {
        requests_bytes_max: 2 * MIB,
        stall_timeout: Duration::from_millis(300),
        ..options()
    })
    .await
    .topic("u");
    // 10,000 times "t", where nothing comes, and "u", for 1 MiB at least.
    let mut body = fetch_times(10_000, HOUR_MS);
    body[8..12].copy_from_slice(&(MIB as u32).to_be_bytes());
    body[20] = 2;
    body.extend([0, 1, b'u', 0, 0, 0, 1]);
    body.extend([&[0; 12][..], &[0, 1, 0, 0]].concat());
    let mut reader = running.known().await;
    reader.send(1, 4, &body).await;
    let mut writer = running.known().await;
    let growing = tokio::spawn(async move {
        let mut body = produce(-1, &batch());
        body[14] = b'u';
        let mut pace = tokio::time::interval(Duration::from_millis(50));
        loop {
            pace.tick().await;
            writer.ask(0, 3, &body).await;
        }
    });
    let mut hoarders = Vec::new();
    for _ in 0..20 {
        let mut hoarder = running.known().await;
        let sent = timeout(Duration::from_millis(10), hoarder.begin(MIB, MIB - KIB));
        drop(sent.await);
        hoarders.push(hoarder);
    }
    assert!(reader.receive().await.len() > 10_000 * 30);
    growing.abort();
}
