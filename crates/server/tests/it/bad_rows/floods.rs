//! Clients that do not read, or are gone before they are answered.

use std::io::Write;
use std::net::TcpStream;

use super::CON5;
use crate::ground::Ground;
use crate::program::until;
use crate::wire::{Hello, Wire, hex, packet, publish, text};

/// Messages dropped for this reason so far.
fn dropped(ground: &Ground, reason: &str) -> u64 {
    let name = format!("headwater_messages_dropped_total{{reason=\"{reason}\"}}");
    ground.program.metric(&name)
}

#[test]
fn row_27_subscriber_that_never_reads() {
    let mut ground = Ground::with(&[
        "--set",
        "mqtt.queue_messages_max=100",
        "--set",
        "mqtt.output_bytes_max=256KiB",
    ]);
    for (qos, reason) in [(0_u8, "qos0"), (1, "queue_full"), (2, "queue_full")] {
        let before = dropped(&ground, reason);
        let id = format!("deaf-{qos}");
        let mut deaf = ground.v5(&id);
        deaf.subscribe("flood", qos);
        let (mut old, _) = Wire::connect(ground.program.mqtt(), &Hello::v3("deaf-3"));
        old.send(&packet(
            0x82,
            &[&b"\0\x01"[..], &text(b"flood"), &[qos]].concat(),
        ));
        old.send(&[0xC0, 0]);
        let mut loud = ground.v5("loud");
        let payload = vec![b'x'; 16 << 10];
        for number in 0..2_000_u16 {
            loud.send(&publish("flood", &payload, qos, number % 500 + 1));
            // Its own answers come as ever: nobody slows it down.
            if qos > 0 {
                assert_eq!(loud.packet().0, [0, 0x40, 0x50][usize::from(qos)]);
            }
            if qos == 2 {
                loud.acknowledge(0x62, number % 500 + 1);
                assert_eq!(loud.packet().0, 0x70);
            }
            if number % 500 == 0 {
                ground.goes_on();
                deaf.send_if_open(&[0xC0, 0]);
            }
        }
        loud.send(&[0xC0, 0]);
        assert_eq!(loud.packet().0, 0xD0, "all of it was taken");
        let grown = ground.grown();
        // Of 31 MiB two of them may keep 100 messages each, the same ones, and an output. What the
        // kernel holds for them does not count here.
        assert!(
            grown < 12 << 20,
            "QoS {qos}: {grown} bytes for a client that does not read"
        );
        until("what they do not take is dropped", || {
            dropped(&ground, reason) > before
        });
        drop((deaf, old, loud));
    }
    ground.end();
}

#[test]
fn row_33_answers_to_a_socket_that_is_gone() {
    let mut ground = Ground::new();
    let mut flood = hex(CON5);
    for id in 1..=200_u16 {
        let body = [&id.to_be_bytes()[..], &[0], &text(b"f"), &[0]].concat();
        flood.extend(packet(0x82, &body));
        flood.extend(publish("f", &[b'x'; 512], 2, id));
    }
    for _ in 0..3 {
        for _ in 0..100 {
            let mut stream = TcpStream::connect(ground.program.mqtt()).unwrap();
            stream.write_all(&flood).ok();
            // Closed over unread answers: the kernel resets the connection.
            drop(stream);
        }
        ground.round_over();
    }
    ground.end();
}
