//! More Sessions, Wills, subscriptions and Retained Messages than are wanted.

use std::time::{Duration, Instant};

use crate::ground::Ground;
use crate::program::until;
use crate::wire::{Hello, Wire, packet, publish, text};

/// The value of a property of four bytes in a CONNACK of ours.
fn expiry_of(body: &[u8]) -> Option<u32> {
    let at = body.iter().position(|byte| *byte == 0x11)?;
    let value = body.get(at + 1..at + 5)?;
    Some(u32::from_be_bytes(value.try_into().unwrap()))
}

fn lasting(id: &str, expiry_s: u32) -> Hello<'_> {
    Hello {
        expiry_s,
        ..Hello::v5(id)
    }
}

#[test]
fn row_29_lasting_sessions_without_end() {
    let mut ground = Ground::with(&["--set", "mqtt.sessions_max=200"]);
    let mut wire = Wire::open(ground.program.mqtt());
    wire.send(&lasting("forever", u32::MAX).bytes());
    let (_, body) = wire.packet();
    let granted = expiry_of(&body[3..]).expect("the Session Expiry Interval that is granted");
    assert!(granted < u32::MAX, "for ever is not granted");
    wire.send(&[0xE0, 0]);
    assert_eq!(wire.next(), None);
    let mut refused = 0;
    for one in 0..400 {
        let id = format!("device-{one}");
        let mut wire = Wire::open(ground.program.mqtt());
        wire.send(&lasting(&id, 5).bytes());
        let (_, body) = wire.packet();
        match body[1] {
            0 => wire.subscribe("flood", 1),
            0x97 => refused += 1,
            other => panic!("{other:#x}"),
        }
    }
    assert_eq!(refused, 201, "Quota exceeded, beyond 200 of them");
    let payload = [b'x'; 1_024];
    let mut flood = ground.v5("flood");
    for _ in 0..300 {
        flood.send(&publish("flood", &payload, 1, 1));
        assert_eq!(flood.packet().0, 0x40);
    }
    drop(flood);
    ground.goes_on();
    // 199 Sessions go by themselves: nobody comes back.
    until("the sessions have expired", || {
        ground
            .program
            .metric("headwater_sessions{state=\"persistent\"}")
            == 1
    });
    ground.end();
}

/// Retains `payload` under `count` topics, or clears them.
fn retain(wire: &mut Wire, count: u16, payload: &[u8]) {
    for first in (0..count).step_by(500) {
        let mut bytes = Vec::new();
        for one in first..first + 500 {
            let mut retained = publish(&format!("r/{one}"), payload, 1, 1 + one % 500);
            retained[0] |= 1;
            bytes.extend(retained);
        }
        wire.send(&bytes);
        for _ in 0..500 {
            assert_eq!(wire.packet().0, 0x40);
        }
    }
}

#[test]
fn row_30_retained_messages_in_floods() {
    let count = 10_000;
    let mut ground = Ground::new();
    for _ in 0..3 {
        let mut wire = ground.v5("keeper");
        retain(&mut wire, count, &[b'x'; 1_000]);
        assert_eq!(
            ground.program.metric("headwater_retained"),
            u64::from(count)
        );
        let mut readers: Vec<Wire> = (0..20)
            .map(|one| ground.v5(&format!("reader-{one}")))
            .collect();
        for reader in &mut readers {
            reader.send(&crate::wire::subscribe("#", 0));
        }
        // Meanwhile a PINGREQ of somebody else is answered at once.
        let mut slowest = Duration::ZERO;
        for reader in &mut readers {
            let begin = Instant::now();
            wire.send(&[0xC0, 0]);
            assert_eq!(wire.packet().0, 0xD0);
            slowest = slowest.max(begin.elapsed());
            ground.goes_on();
            assert_eq!(reader.packet().0, 0x90, "SUBACK");
            let mut got = 0;
            while got < count {
                let (first, body) = reader.packet();
                // The witnesses' messages come in between.
                got += u16::from(first & 1 == 1 && body[2] == b'r');
            }
        }
        assert!(
            slowest < Duration::from_secs(1),
            "PINGRESP after {slowest:?}"
        );
        drop(readers);
        retain(&mut wire, count, b"");
        assert_eq!(ground.program.metric("headwater_retained"), 0);
        drop(wire);
        ground.round_over();
    }
    ground.end();
}

#[test]
fn row_31_wills_that_wait_for_ever() {
    let mut ground = Ground::new();
    for round in 0..4 {
        for one in 0..300 {
            let id = format!("will-{one}");
            let body = [
                &b"\0\x04MQTT\x05\x06\0\x3c\x05\x11\xff\xff\xff\xff"[..],
                &text(id.as_bytes()),
                b"\x05\x18\xff\xff\xff\xff",
                &text(b"will"),
                &text(&[b'x'; 60_000]),
            ]
            .concat();
            let mut wire = Wire::open(ground.program.mqtt());
            wire.send(&packet(0x10, &body));
            assert_eq!(wire.packet().0, 0x20, "round {round}");
        }
        ground.goes_on();
        let grown = ground.grown();
        // 300 Wills of 60 kB, in memory and in their rows, and what a debug build needs.
        assert!(grown < 72 << 20, "{grown} bytes in round {round}");
        // Every other round they are rearmed as they are.
        if round % 2 == 1 {
            for one in 0..300 {
                let id = format!("will-{one}");
                let (mut wire, _) = Wire::connect(ground.program.mqtt(), &Hello::v5(&id));
                wire.send(&[0xE0, 0]);
                assert_eq!(wire.next(), None);
            }
            let lasting = "headwater_sessions{state=\"persistent\"}";
            assert_eq!(ground.program.metric(lasting), 0);
            ground.round_over();
        }
    }
    ground.end();
}

#[test]
fn row_32_filters_in_crowds() {
    let mut ground = Ground::new();
    // 20,000 in one packet: each is answered, or the connection ends with a reason.
    let mut body = vec![0, 1, 0];
    for one in 0..20_000 {
        body.extend(text(format!("f/{one}").as_bytes()));
        body.push(0);
    }
    let mut wire = ground.v5("crowd");
    wire.send(&packet(0x82, &body));
    let (first, answer) = wire.packet();
    match first {
        0x90 => assert!(
            answer.contains(&0x97),
            "Quota exceeded for what is too much"
        ),
        0xE0 => assert!([0x97, 0x95, 0x82].contains(&answer[0]), "{:#x}", answer[0]),
        other => panic!("{other:#x}"),
    }
    drop(wire);
    ground.goes_on();
    // Filters that all overlap, against deep topics: one copy, and in bounded time.
    let mut wire = ground.v5("overlap");
    for one in 0..1_500_u32 {
        // `+` or the level itself, as the bits of the number say, and `#`.
        let level = |bit: u32| if one >> bit & 1 == 0 { "+/" } else { "a/" };
        let filter: String = (0..11).map(level).collect();
        wire.subscribe(&(filter + "#"), 0);
    }
    let deep = "+/".repeat(199);
    wire.subscribe(&deep, 0);
    let mut speaker = ground.v5("deep");
    let begin = Instant::now();
    for one in 0..50 {
        let topic = "a/".repeat(100) + &one.to_string();
        speaker.send(&publish(&topic, b"x", 1, 1));
        assert_eq!(speaker.packet().0, 0x40);
    }
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "{:?}",
        begin.elapsed()
    );
    for _ in 0..50 {
        assert_eq!(wire.packet().0 & 0xF0, 0x30);
    }
    wire.send(&[0xC0, 0]);
    assert_eq!(wire.packet().0, 0xD0, "one copy of each");
    drop((wire, speaker));
    ground.end();
}
