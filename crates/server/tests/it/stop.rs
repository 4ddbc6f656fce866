//! The end: asked for and not.

use crate::documents::wait_for_documents;
use crate::program::Home;
use crate::wire::{Hello, Wire, publish};
use rustix::process::Signal;

#[test]
fn sigterm_says_goodbye_and_everything_is_there_again() {
    let home = Home::new();
    let mut program = home.start();
    let (mut new, _) = Wire::connect(program.mqtt(), &Hello::v5("new"));
    let (mut old, _) = Wire::connect(program.mqtt(), &Hello::v3("old"));
    program.done("pub -t a -m one -q 2");
    program.signal(Signal::TERM);
    let (first, body) = new.packet();
    assert_eq!((first, body[0]), (0xE0, 0x8B), "Server shutting down");
    assert_eq!(new.next(), None);
    assert_eq!(old.next(), None, "3.1.1 knows no DISCONNECT from a server");
    assert!(program.wait().success());
    let program = home.start();
    let record = program.done("consume mqtt -f %t|%v|%h\\n");
    assert!(record.starts_with("mqtt one mqtt-topic=a,"), "{record}");
    wait_for_documents(&program, "headwater.messages", 1);
    program.stop();
}

#[test]
fn sigterm_at_once_after_the_start_is_an_end_in_order() {
    let home = Home::new();
    for _ in 0..5 {
        home.start().stop();
    }
}

#[test]
fn killed_program_owes_what_it_owed() {
    let home = Home::new();
    let program = home.start();
    let (mut away, present) = Wire::connect(program.mqtt(), &Hello::lasting("away"));
    assert!(!present);
    away.subscribe("q/#", 2);
    drop(away);
    program.done("pub -t q/1 -m first -q 1");
    program.done("pub -t q/2 -m second -q 2");
    let (mut publisher, _) = Wire::connect(program.mqtt(), &Hello::lasting("publisher"));
    publisher.send(&publish("q/3", b"third", 2, 9));
    assert_eq!(publisher.packet(), (0x50, vec![0, 9]), "PUBREC");
    let program = home.start_on(&program.kill(), &[]);
    let (mut publisher, present) = Wire::connect(program.mqtt(), &Hello::lasting("publisher"));
    assert!(present);
    let mut again = publish("q/3", b"third", 2, 9);
    again[0] |= 0x08;
    publisher.send(&again);
    assert_eq!(
        publisher.packet(),
        (0x50, vec![0, 9]),
        "PUBREC again, not a second message"
    );
    publisher.acknowledge(0x62, 9);
    assert_eq!(publisher.packet(), (0x70, vec![0, 9]), "PUBCOMP");
    program.done("pub -t q/4 -m fourth -q 1");
    let (mut away, present) = Wire::connect(program.mqtt(), &Hello::lasting("away"));
    assert!(present);
    let mut payloads: Vec<Vec<u8>> = (0..4).map(|_| away.message().payload).collect();
    // Order holds per publisher and topic: here each has one message.
    payloads.sort();
    assert_eq!(payloads, [&b"first"[..], b"fourth", b"second", b"third"]);
    wait_for_documents(&program, "headwater.messages", 4);
    assert_eq!(program.done("doc count {\"topic\":\"q/3\"}"), "1\n");
}
