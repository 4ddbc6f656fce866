//! `[[permission]]` against the whole program.

use rustix::process::Signal;

use crate::program::{Home, until};
use crate::wire::{Hello, Wire, publish, subscribe};

const DENY: &str = "default_flows = false\n[[permission]]\neffect = \"deny\"\naction = \"subscribe\"\ntopic = \"secret/#\"\n";
const DENY_PUBLISH: &str = "default_flows = false\n[[permission]]\neffect = \"deny\"\naction = \"publish\"\ntopic = \"secret/#\"\n";

#[test]
fn denied_topic_is_not_subscribed_to_and_reaches_nobody_by_a_wildcard() {
    let home = Home::new();
    home.configure(DENY);
    let program = home.start();
    let (mut publisher, _) = Wire::connect(program.mqtt(), &Hello::v5("p"));
    let (mut reader, _) = Wire::connect(program.mqtt(), &Hello::lasting("r"));
    // Not authorized (MQTT 5.0, 3.9.3).
    for filter in ["secret/x", "secret/#", "secret/+"] {
        reader.send(&subscribe(filter, 1));
        let (_, body) = reader.packet();
        assert_eq!(body[body.len() - 1], 0x87, "{filter}");
    }
    // A Retained Message, transient and owed ones: none of them comes.
    publisher.send(&[0x31, 12, 0, 8]);
    publisher.send(b"secret/r\0x");
    publisher.send(&publish("secret/r", b"x", 1, 1));
    assert_eq!(publisher.packet().0, 0x40, "PUBACK");
    reader.subscribe("#", 1);
    for (qos, id) in [(0, 0), (1, 2), (2, 3)] {
        publisher.send(&publish("secret/x", b"x", qos, id));
    }
    publisher.send(&publish("open", b"y", 1, 4));
    let message = reader.message();
    assert_eq!((&*message.topic, &*message.payload), ("open", &b"y"[..]));
    reader.acknowledge(0x40, message.id);
    until("all four are counted", || {
        let (_, metrics) = program.http("GET", "/metrics", None);
        metrics.contains("headwater_messages_dropped_total{reason=\"denied\"} 4\n")
    });
}

#[test]
fn reload_changes_what_is_allowed_for_those_who_are_there() {
    let home = Home::new();
    home.configure(DENY_PUBLISH);
    let mut program = home.start();
    let (mut reader, _) = Wire::connect(program.mqtt(), &Hello::v5("r"));
    reader.subscribe("secret/x", 1);
    reader.subscribe("open", 1);
    let (mut publisher, _) = Wire::connect(program.mqtt(), &Hello::v5("p"));
    publisher.send(&publish("secret/x", b"x", 1, 1));
    let (_, body) = publisher.packet();
    assert!(body.starts_with(&[0, 1, 0x87]), "not authorized: {body:?}");
    home.configure("default_flows = false\n");
    program.signal(Signal::HUP);
    program.wait_for_line("were swapped");
    publisher.send(&publish("secret/x", b"heard", 1, 2));
    assert_eq!(reader.message().payload, b"heard");
    home.configure(DENY);
    program.signal(Signal::HUP);
    until("the new rule stands", || {
        reader.send(&subscribe("secret/y", 1));
        reader.packet().1.ends_with(&[0x87])
    });
    publisher.send(&publish("secret/x", b"not heard", 0, 0));
    publisher.send(&publish("open", b"y", 1, 3));
    assert_eq!(reader.message().topic, "open", "and nothing before it");
}
