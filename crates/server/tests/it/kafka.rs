//! What Kafka clients can make the program hold.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use crate::program::{Home, PATIENCE, until};

const MIB: usize = 1 << 20;

/// An ApiVersions 0 request and its answer: from here on the client is no stranger.
pub(crate) fn greet(at: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    ask(&mut stream, &[0, 18, 0, 0, 0, 0, 0, 1, 0xFF, 0xFF]);
    stream
}

/// Sends one request; gives the answer from its correlation id on.
pub(crate) fn ask(stream: &mut TcpStream, request: &[u8]) -> Vec<u8> {
    let length = u32::try_from(request.len()).unwrap();
    stream.write_all(&length.to_be_bytes()).unwrap();
    stream.write_all(request).unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
    stream.read_exact(&mut answer).unwrap();
    answer
}

/// Announces 100 MiB and sends what the other side takes of the first four, without waiting.
fn begin(at: SocketAddr) -> (TcpStream, usize) {
    let mut stream = greet(at);
    stream.write_all(&(100_u32 << 20).to_be_bytes()).unwrap();
    stream.set_nonblocking(true).unwrap();
    let (part, mut sent) = (vec![7; MIB], 0);
    while sent < 4 * MIB {
        match stream.write(&part) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    (stream, sent)
}

#[test]
fn unfinished_requests_of_200_clients_are_held_within_the_budget() {
    const BUDGET: usize = 16 * MIB;
    let program = Home::new().start_with(&["--set", "kafka.requests_bytes_max=16MiB"]);
    let at = program.doors["kafka"];
    let mut ordinary = greet(at);
    let before = program.resident();
    let mut hoarders: Vec<_> = (0..200).map(|_| begin(at)).collect();
    // What waits in the sockets of this machine comes as soon as somebody reads it.
    let (part, deadline) = (vec![7; MIB], Instant::now() + PATIENCE);
    let (mut held, mut rounds) = (0, 0);
    while rounds < 50 {
        assert!(Instant::now() < deadline, "only {held} bytes are held");
        // The one that may go beyond the budget is held to 8 MiB here.
        for (stream, sent) in hoarders.iter_mut().filter(|(_, sent)| *sent < 7 * MIB) {
            *sent += stream.write(&part).unwrap_or(0);
        }
        // Metadata 1 of the topic "mqtt": others are served meanwhile.
        let head = [0, 3, 0, 1, 0, 0, 0, 2, 0xFF, 0xFF, 0, 0, 0, 1, 0, 4];
        ask(&mut ordinary, &[&head, &b"mqtt"[..]].concat());
        held = program.metric("headwater_kafka_memory_bytes{of=\"requests\"}");
        rounds += u32::from(held >= 3 * BUDGET as u64 / 4);
    }
    let sent: usize = hoarders.iter().map(|(_, sent)| sent).sum();
    assert!(sent > 4 * BUDGET, "{sent} bytes are no trial");
    assert!(held <= BUDGET as u64, "{held}");
    // The budget, 4 KiB a connection, one request beyond it, and what the allocator keeps.
    let grown = program.resident().saturating_sub(before);
    assert!(grown < 4 * BUDGET, "{grown} bytes more for {sent} sent");
}

#[test]
fn refused_connections_are_counted_and_said_once_until_one_is_taken() {
    const SAID: &str = "the newest of Kafka's";
    let mut program = Home::new().start_with(&["--set", "kafka.connections_max=1"]);
    let at = program.doors["kafka"];
    let is_refused = || {
        let mut stream = TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.read(&mut [0]).unwrap() == 0
    };
    let mut taken = greet(at);
    for time in 1..=2 {
        for _ in 0..3 {
            assert!(is_refused());
        }
        let metric = "headwater_connections_refused_total{protocol=\"kafka\"}";
        assert!(program.metric(metric) >= time * 3);
        let lines = program.said().matches(SAID).count();
        assert_eq!(u64::try_from(lines).unwrap(), time);
        drop(taken);
        // What comes before its end was seen is refused too, and nothing new.
        let mut again = None;
        until("one is taken", || {
            let mut stream = TcpStream::connect(at).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let request = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xFF, 0xFF];
            stream.write_all(&request).ok();
            let is_taken = stream.read(&mut [0]).is_ok_and(|count| count == 1);
            again = is_taken.then_some(stream);
            is_taken
        });
        taken = again.unwrap();
    }
}
