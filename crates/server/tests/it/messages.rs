//! `pub` and `sub`, and what passes between them.

use crate::program::{Home, until};
use crate::wire::{Hello, Wire};

#[test]
fn every_qos_reaches_a_subscriber() {
    let program = Home::new().start();
    let (mut subscriber, _) = Wire::connect(program.mqtt(), &Hello::v5("s"));
    subscriber.subscribe("a/#", 2);
    for qos in 0..=2 {
        program.done(&format!("pub -t a/{qos} -m m{qos} -q {qos}"));
        let message = subscriber.message();
        assert_eq!(message.topic, format!("a/{qos}"));
        assert_eq!(message.payload, format!("m{qos}").as_bytes());
        match qos {
            0 => assert_eq!(message.id, 0),
            1 => subscriber.acknowledge(0x40, message.id),
            _ => {
                subscriber.acknowledge(0x50, message.id);
                assert_eq!(subscriber.packet().0, 0x62, "PUBREL");
                subscriber.acknowledge(0x70, message.id);
            }
        }
    }
}

#[test]
fn sub_speaks_as_mosquitto_sub() {
    let program = Home::new().start();
    program.done("pub -t r/1 -m kept -r -q 1");
    assert_eq!(program.done("sub -t r/# -C 1"), "kept\n");
    assert_eq!(program.done("sub -t r/# -C 1 -v"), "r/1 kept\n");
    assert_eq!(
        program.done("sub -t r/# -C 1 -F %t|%p|%q|%r|%l"),
        "r/1 kept 0 1 4\n"
    );
    assert_eq!(
        program.done("sub -t r/# -E"),
        "",
        "-E ends before anything is printed"
    );
    let waited = program.verb("sub -t nothing -W 1");
    assert_eq!((waited.code, waited.out.as_str()), (27, ""));
    program.done("pub -t r/1 -n -r -q 1");
    assert_eq!(
        program.verb("sub -t r/# -C 1 -W 1").code,
        27,
        "the empty payload clears"
    );
}

#[test]
fn wrong_use_ends_with_2_and_failure_with_1() {
    let program = Home::new().start();
    for (line, code) in [
        ("pub -t a -m x -q 3", 2),
        ("pub", 2),
        ("nonsense", 2),
        ("sub", 2),
        ("pub -t a/# -m x", 1),
        ("sub -t a#", 1),
        ("topic describe none", 1),
        ("doc find a.b {\"x\":{\"$near\":1}}", 1),
        ("group describe none", 1),
        ("doc count no-database", 1),
    ] {
        let answer = program.verb(line);
        assert_eq!(answer.code, code, "{line}: {answer:?}");
        assert!(
            !answer.error.is_empty() && answer.out.is_empty(),
            "{line}: {answer:?}"
        );
    }
    let unknown = program.verb("doc find {\"x\":{\"$near\":1}}");
    assert!(unknown.error.contains("$near"), "{unknown:?}");
}

#[test]
fn what_cannot_be_read_back_waits_for_its_session() {
    let home = Home::new();
    let program = home.start();
    let (mut subscriber, _) = Wire::connect(program.mqtt(), &Hello::lasting("s"));
    subscriber.subscribe("a", 1);
    drop(subscriber);
    // One publisher, so one partition.
    for payload in ["1", "2"] {
        program.done(&format!("pub -i p -t a -m {payload} -q 1"));
    }
    // After a graceful end everything is in its segment, and nobody has opened one again.
    program.stop();
    let program = home.start();
    let log = home.data().join("log");
    let away = home.path("away");
    let mqtt = std::fs::read_dir(&log).unwrap().map(|one| one.unwrap());
    let mqtt: Vec<_> = mqtt
        .map(|entry| entry.file_name())
        .filter(|name| name.to_string_lossy().starts_with("mqtt-"))
        .collect();
    std::fs::create_dir(&away).unwrap();
    for name in &mqtt {
        std::fs::rename(log.join(name), away.join(name)).unwrap();
    }
    let (mut subscriber, present) = Wire::connect(program.mqtt(), &Hello::lasting("s"));
    assert!(present);
    until("a second try", || {
        program.metric("headwater_session_read_failures_total") >= 2
    });
    for name in &mqtt {
        std::fs::rename(away.join(name), log.join(name)).unwrap();
    }
    for payload in ["1", "2"] {
        assert_eq!(subscriber.message().payload, payload.as_bytes());
    }
}
