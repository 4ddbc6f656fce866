//! Topics deleted, and records removed, while devices publish into them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::kafka::{ask, greet};
use crate::program::{Home, PATIENCE, Program};
use crate::wire::{Hello, Wire, publish};

/// PUBLISHes on their way at once.
const WINDOW: u32 = 50;

/// Publishes 0, 1, 2 … at QoS 1 until `enough`, each of which must be taken; gives how many.
fn publish_until(mut wire: Wire, enough: &AtomicBool) -> u32 {
    let (mut sent, mut taken) = (0_u32, 0);
    loop {
        let more = !enough.load(Ordering::Acquire);
        if more {
            let id = u16::try_from(sent % 60_000 + 1).unwrap();
            wire.send(&publish("a", &sent.to_be_bytes(), 1, id));
            sent += 1;
        } else if taken == sent {
            return sent;
        }
        if sent - taken == WINDOW || !more {
            let (first, body) = wire.packet();
            let refused = first != 0x40 || body.get(2).is_some_and(|reason| *reason >= 0x80);
            assert!(!refused, "{taken}: {first:#x} {body:?}");
            taken += 1;
        }
    }
}

/// A session that is away is owed every message that is acknowledged while `disturb` is called until
/// it did something `times` times.
fn owed_in_spite_of(times: u32, more: &str, mut disturb: impl FnMut(&mut Program) -> bool) {
    let home = Home::new();
    let route = "[[route]]\nfrom = \"a\"\nto = \"t\"\n";
    home.configure(&format!("default_flows = false\n{more}{route}"));
    let mut program = home.start();
    let (mut subscriber, _) = Wire::connect(program.mqtt(), &Hello::lasting("s"));
    subscriber.subscribe("a", 1);
    drop(subscriber);
    let (publisher, _) = Wire::connect(program.mqtt(), &Hello::v5("p"));
    let enough = Arc::new(AtomicBool::new(false));
    let publishing = std::thread::spawn({
        let enough = Arc::clone(&enough);
        move || publish_until(publisher, &enough)
    });
    let (mut disturbed, deadline) = (0, Instant::now() + PATIENCE);
    while disturbed < times && !publishing.is_finished() {
        assert!(Instant::now() < deadline, "only {disturbed} times");
        disturbed += u32::from(disturb(&mut program));
    }
    enough.store(true, Ordering::Release);
    let sent = publishing.join().unwrap();
    assert!(sent > 20 * times, "{sent} messages are no trial");
    let (mut subscriber, present) = Wire::connect(program.mqtt(), &Hello::lasting("s"));
    assert!(present);
    for number in 0..sent {
        let message = subscriber.message();
        subscriber.acknowledge(0x40, message.id);
        let expected = number.to_be_bytes();
        assert_eq!(
            message.payload, expected,
            "in order, none missing, none twice"
        );
    }
    program.stop();
}

#[test]
fn sessions_are_owed_what_came_while_its_topic_was_deleted() {
    owed_in_spite_of(12, "", |program| {
        let key = program.key();
        let (status, body) = program.http("DELETE", "/api/v5/log/topics/t", Some(&key));
        assert!(matches!(status, 200 | 204 | 404), "{status}: {body}");
        status != 404
    });
}

#[test]
fn sessions_are_owed_what_came_while_its_records_were_deleted() {
    let mut kafka = None;
    owed_in_spite_of(30, "", |program| {
        let kafka = kafka.get_or_insert_with(|| greet(program.doors["kafka"]));
        // DeleteRecords 0 of topic t, partitions 0 to 3 up to their ends, within 30 s.
        let mut request = vec![0, 21, 0, 0, 0, 0, 0, 9, 0xFF, 0xFF, 0, 0, 0, 1, 0, 1, b't'];
        request.extend([0, 0, 0, 4]);
        for partition in 0..4 {
            request.extend([0, 0, 0, partition]);
            request.extend([0xFF; 8]);
        }
        request.extend([0, 0, 0x75, 0x30]);
        let answer = ask(kafka, &request);
        // Correlation id, throttle time, one topic with its name, then the partitions.
        let partitions = &answer[4 + 4 + 4 + 3 + 4..];
        // Index, low watermark, error; 3 while the topic is not made yet.
        partitions
            .chunks(14)
            .any(|one| one[4..12] != [0; 8] && one[12..] == [0, 0])
    });
}

#[test]
fn sessions_are_owed_what_came_while_retention_removed_its_records() {
    let removes = "[log]\nretention_ms = \"1ms\"\n";
    owed_in_spite_of(1, removes, |program| {
        std::thread::yield_now();
        program
            .said()
            .contains("records past their retention are removed")
    });
}
