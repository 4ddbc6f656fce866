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

/// 400 ids where the row has 100,000, at the limit of 200 Sessions.
#[test]
fn row_29_lasting_sessions_without_end() {
    let mut ground = Ground::with(&[
        "--set",
        "mqtt.sessions_max=200",
        "--set",
        "mqtt.queue_messages_max=50",
        "--set",
        "mqtt.queue_bytes_max=256KiB",
    ]);
    let mut wire = Wire::open(ground.program.mqtt());
    wire.send(&lasting("forever", u32::MAX).bytes());
    let (_, body) = wire.packet();
    let granted = expiry_of(&body[3..]).expect("the Session Expiry Interval that is granted");
    assert!(granted < u32::MAX, "for ever is not granted");
    wire.send(&[0xE0, 0]);
    assert_eq!(wire.next(), None);
    let mut ids = Vec::new();
    for one in 0..400 {
        let id = format!("device-{one}");
        let mut wire = Wire::open(ground.program.mqtt());
        wire.send(&lasting(&id, 3_600).bytes());
        let (_, body) = wire.packet();
        match body[1] {
            0 => {
                wire.subscribe("flood", 1);
                ids.push(id);
            }
            0x97 => assert_eq!(wire.next(), None),
            other => panic!("{other:#x}"),
        }
    }
    assert_eq!(ids.len(), 199, "Quota exceeded, beyond 200 of them");
    // The oldest leave each Session: all but 50, then all but so many as 256 KiB are.
    let mut flood = ground.v5("flood");
    let mut expected = 0;
    for (bytes, count, left) in [(1 << 10, 300, 50), (16 << 10, 60, 15)] {
        for number in 1..=count {
            let mut payload = vec![b'x'; bytes];
            payload[0] = u8::from(number == count);
            flood.send(&publish("flood", &payload, 1, 1));
            assert_eq!(flood.packet().0, 0x40);
        }
        expected += 199 * (count - left);
        let dropped = || {
            let name = "headwater_messages_dropped_total{reason=\"queue_full\"}";
            ground.program.metric(name)
        };
        until("what is too much is dropped", || dropped() >= expected);
        assert_eq!(dropped(), expected, "and no more");
        expected += 199 * left;
    }
    drop(flood);
    ground.goes_on();
    let grown = ground.grown();
    assert!(grown < 12 << 20, "{grown} bytes: places, not payloads");
    for (one, id) in ids.iter().enumerate() {
        if one % 2 == 0 {
            Wire::connect(ground.program.mqtt(), &Hello::v5(id));
            continue;
        }
        let hello = Hello {
            clean: false,
            ..lasting(id, 1)
        };
        let (mut wire, present) = Wire::connect(ground.program.mqtt(), &hello);
        assert!(present);
        let mut got = 1;
        while wire.message().payload[0] != 1 {
            got += 1;
        }
        assert_eq!(got, 15, "messages of 16 KiB, the newest");
    }
    // Half of them were ended by Clean Start; the others go by themselves: nobody comes back.
    until("the sessions have expired", || {
        let lasting = "headwater_sessions{state=\"persistent\"}";
        ground.program.metric(lasting) == 1
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

/// 10,000 topics where the row has a million; all 100 readers ask at once, 20 of them read all of it.
#[test]
fn row_30_retained_messages_in_floods() {
    let count = 10_000;
    let mut ground = Ground::with(&["--set", "mqtt.output_bytes_max=64KiB"]);
    for _ in 0..3 {
        let mut wire = ground.v5("keeper");
        retain(&mut wire, count, &[b'x'; 1_000]);
        assert_eq!(
            ground.program.metric("headwater_retained"),
            u64::from(count)
        );
        let mut readers: Vec<Wire> = (0..100)
            .map(|one| ground.v5(&format!("reader-{one}")))
            .collect();
        for reader in &mut readers {
            reader.send(&crate::wire::subscribe("#", 0));
        }
        // Meanwhile a PINGREQ of somebody else is answered at once.
        let mut slowest = Duration::ZERO;
        for reader in readers.iter_mut().take(20) {
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
        let grown = ground.grown();
        assert!(
            grown < 96 << 20,
            "{grown} bytes of 10 MB and what 100 wait for"
        );
        drop(readers);
        retain(&mut wire, count, b"");
        assert_eq!(ground.program.metric("headwater_retained"), 0);
        drop(wire);
        ground.round_over();
    }
    ground.end();
}

/// 1,000 Clients where the row has 100,000, a quarter of them with the large Will.
#[test]
fn row_31_wills_that_wait_for_ever() {
    let mut ground = Ground::new();
    for round in 0..4 {
        for one in 0..1_000 {
            let id = format!("will-{one}");
            let payload = vec![b'x'; if one % 4 == 0 { 60_000 } else { 60 }];
            let body = [
                &b"\0\x04MQTT\x05\x06\0\x3c\x05\x11\xff\xff\xff\xff"[..],
                &text(id.as_bytes()),
                b"\x05\x18\xff\xff\xff\xff",
                &text(b"will"),
                &text(&payload),
            ]
            .concat();
            let mut wire = Wire::open(ground.program.mqtt());
            wire.send(&packet(0x10, &body));
            assert_eq!(wire.packet().0, 0x20, "round {round}");
        }
        ground.goes_on();
        let grown = ground.grown();
        // 250 Wills of 60 kB, in memory and in their rows, and what a debug build needs.
        assert!(grown < 56 << 20, "{grown} bytes in round {round}");
        // Every other round they are rearmed as they are.
        if round % 2 == 1 {
            for one in 0..1_000 {
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

/// SUBSCRIBE to these at QoS 0 in one packet; the codes of its SUBACK, one each.
fn subscribe_all(wire: &mut Wire, filters: impl Iterator<Item = String>) -> Vec<u8> {
    let mut body = vec![0, 1, 0];
    let mut count = 0;
    for filter in filters {
        body.extend(text(filter.as_bytes()));
        body.push(0);
        count += 1;
    }
    wire.send(&packet(0x82, &body));
    let (first, answer) = wire.packet();
    assert_eq!((first, &answer[..2]), (0x90, &[0, 1][..]), "SUBACK");
    // One byte says how long the properties are: a Reason String, if any.
    let codes = &answer[3 + usize::from(answer[2])..];
    assert_eq!(codes.len(), count, "one code each");
    codes.to_vec()
}

fn granted(codes: &[u8]) -> usize {
    let refused = codes.iter().filter(|code| **code == 0x97).count();
    let granted = codes.iter().filter(|code| **code == 0).count();
    assert_eq!(refused + granted, codes.len(), "Quota exceeded or granted");
    granted
}

#[test]
fn row_32_filters_in_crowds() {
    let mut ground = Ground::new();
    // 20,000 in one packet: each is answered.
    let mut wire = ground.v5("crowd");
    let codes = subscribe_all(&mut wire, (0..20_000).map(|one| format!("f/{one}")));
    assert_eq!(granted(&codes), 1_000, "of one packet");
    assert_eq!(granted(&codes[..1_000]), 1_000, "the first of them");
    drop(wire);
    ground.goes_on();
    // 100,000 filters that all overlap, against deep topics: one copy, and in bounded time.
    for _ in 0..2 {
        let mut wire = ground.v5("overlap");
        wire.subscribe(&"+/".repeat(199), 0);
        let mut taken = 1;
        for packet in 0..100_u32 {
            let filters = (packet * 1_000..).take(1_000).map(|one| {
                // `+` or the level itself, as the bits of the number say, and `#`.
                let level = |bit: u32| if one >> bit & 1 == 0 { "+/" } else { "a/" };
                (0..17).map(level).collect::<String>() + "#"
            });
            taken += granted(&subscribe_all(&mut wire, filters));
        }
        assert_eq!(taken, 10_000, "of one Session");
        let mut speaker = ground.v5("deep");
        for one in 0..20 {
            let topic = "a/".repeat(100) + &one.to_string();
            speaker.send(&publish(&topic, b"x", 1, 1));
            assert_eq!(speaker.packet().0, 0x40);
        }
        for _ in 0..20 {
            assert_eq!(wire.packet().0 & 0xF0, 0x30);
        }
        ground.goes_on();
        wire.send(&[0xC0, 0]);
        assert_eq!(wire.packet().0, 0xD0, "one copy of each");
        drop((wire, speaker));
        ground.round_over();
    }
    ground.end();
}
