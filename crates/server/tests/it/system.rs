//! `$SYS`: the broker's numbers, for whoever asks for them.

use std::time::Instant;

use crate::program::{Home, PATIENCE};
use crate::wire::{Hello, Wire, publish};

const OFTEN: &[&str] = &["--set", "mqtt.sys_interval=100ms"];

/// Reads messages until one on `topic` says what `holds`.
fn wait(wire: &mut Wire, topic: &str, holds: impl Fn(&str) -> bool) {
    let begun = Instant::now();
    loop {
        let message = wire.message();
        let said = String::from_utf8(message.payload).unwrap();
        if message.topic == topic && holds(&said) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{topic} says {said:?}");
    }
}

#[test]
fn the_brokers_numbers_stand_and_follow_what_happens() {
    let program = Home::new().start_with(OFTEN);
    let (mut all, _) = Wire::connect(program.doors["tcp"], &Hello::v5("all"));
    all.subscribe("#", 1);
    let (mut reader, _) = Wire::connect(program.doors["tcp"], &Hello::v5("reader"));
    reader.subscribe("$SYS/broker/publish/messages/received", 1);
    let topic = "$SYS/broker/publish/messages/received";
    wait(&mut reader, topic, |said| said == "0");
    let (mut writer, _) = Wire::connect(program.doors["tcp"], &Hello::v5("writer"));
    for _ in 0..3 {
        writer.send(&publish("a", b"x", 0, 0));
    }
    wait(&mut reader, topic, |said| said == "3");
    // Who comes later has them at once, all that there are.
    let (mut late, _) = Wire::connect(program.doors["tcp"], &Hello::v5("late"));
    late.subscribe("$SYS/broker/#", 0);
    for topic in ["clients/connected", "clients/total", "subscriptions/count"] {
        wait(&mut late, &format!("$SYS/broker/{topic}"), |said| {
            said != "0"
        });
    }
    let (mut late, _) = Wire::connect(program.doors["tcp"], &Hello::v5("later"));
    late.subscribe("$SYS/brokers/#", 0);
    wait(&mut late, "$SYS/brokers", |said| {
        said == "headwater@127.0.0.1"
    });
    wait(
        &mut late,
        "$SYS/brokers/headwater@127.0.0.1/version",
        |_| true,
    );
    // Nothing of it is anybody's message.
    for _ in 0..3 {
        assert_eq!(all.message().topic, "a");
    }
    all.send(&[0xc0, 0]);
    assert_eq!(all.packet().0, 0xd0, "[MQTT-4.7.2-1]");
    assert_eq!(program.metric("headwater_retained"), 0);
    assert_eq!(program.metric("headwater_log_records_total"), 3);
}

#[test]
fn clients_are_announced_and_nothing_is_said_where_that_is_off() {
    let program = Home::new().start_with(OFTEN);
    let (mut watcher, _) = Wire::connect(program.doors["tcp"], &Hello::v5("w"));
    watcher.subscribe("$SYS/brokers/+/clients/#", 0);
    drop(Wire::connect(program.doors["tcp"], &Hello::v5("c")));
    let topic = "$SYS/brokers/headwater@127.0.0.1/clients/c";
    for (what, holds) in [
        ("connected", "\"proto_ver\":5"),
        ("disconnected", "\"reason\":\"tcp_closed\""),
    ] {
        let message = watcher.message();
        assert_eq!(message.topic, format!("{topic}/{what}"));
        let said = String::from_utf8(message.payload).unwrap();
        assert!(said.contains(holds), "{said}");
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(said["clientid"], "c");
        assert_eq!(said["ipaddress"], "127.0.0.1");
    }

    let silent = ["mqtt.sys_interval=0", "mqtt.sys_clients_rate_max=0"];
    let program = Home::new().start_with(&["--set", silent[0], "--set", silent[1]]);
    let (mut watcher, _) = Wire::connect(program.doors["tcp"], &Hello::v5("w"));
    watcher.subscribe("$SYS/#", 0);
    drop(Wire::connect(program.doors["tcp"], &Hello::v5("c")));
    let (_other, _) = Wire::connect(program.doors["tcp"], &Hello::v5("c"));
    watcher.send(&[0xc0, 0]);
    assert_eq!(watcher.packet().0, 0xd0);
}
