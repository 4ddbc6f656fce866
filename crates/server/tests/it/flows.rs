//! Routes, delivers and sinks at work, and their reload.

use rustix::process::Signal;

use crate::documents::wait_for_documents;
use crate::program::{Home, Program, until};
use crate::wire::{Hello, Wire, publish};

fn records(program: &Program, topic: &str) -> Vec<String> {
    let all = program.done(&format!("consume {topic} -f %k=%v\\n"));
    let mut all: Vec<String> = all.lines().map(str::to_owned).collect();
    all.sort();
    all
}

#[test]
fn default_flows_carry_over_all_three_arrows() {
    let program = Home::new().start();
    let (mut device, _) = Wire::connect(program.mqtt(), &Hello::v5("device"));
    device.subscribe("python/mqtt", 1);
    program.done("produce mqtt.commands -k python/mqtt -m on");
    let message = device.message();
    assert_eq!(
        (message.topic.as_str(), &message.payload[..]),
        ("python/mqtt", &b"on"[..])
    );
    device.acknowledge(0x40, message.id);
    program.done("pub -t up -m {\"t\":1} -q 1 -i me");
    wait_for_documents(&program, "headwater.messages", 1);
    // Had the delivered message been routed again, it would lie before this one.
    assert_eq!(records(&program, "mqtt"), ["me={\"t\":1}"]);
    until("the deliver's count", || {
        program.metric("headwater_deliver_records_total{result=\"delivered\"}") == 1
    });
}

#[test]
fn routes_capture_choose_and_copy() {
    let home = Home::new();
    home.configure(
        r#"
        [[route]]
        from = "all/{rest...}"
        to = "copies"
        copy = true
        [[route]]
        from = "all/{site}/{device}"
        to = "hot.{site}"
        key = "{device}"
        where = "value.temp > 30"
        [[route]]
        from = "all/+/{device}"
        to = "cold"
        key = "{device}"
        [[sink]]
        from = "cold"
        into = "iot.cold"
        where = "value.temp >= 10"
        "#,
    );
    let program = home.start();
    program.done("pub -t all/a/d1 -m {\"temp\":40} -q 1 -i c");
    program.done("pub -t all/a/d2 -m {\"temp\":20} -q 1 -i c");
    program.done("pub -t all/b/d3 -m {\"temp\":2} -q 1 -i c");
    program.done("pub -t elsewhere -m x -q 1");
    assert_eq!(records(&program, "hot.a"), ["d1={\"temp\":40}"]);
    assert_eq!(
        records(&program, "cold"),
        ["d2={\"temp\":20}", "d3={\"temp\":2}"]
    );
    assert_eq!(records(&program, "copies").len(), 3);
    assert_eq!(
        records(&program, "mqtt").len(),
        0,
        "the default flows do not stand"
    );
    wait_for_documents(&program, "iot.cold", 1);
    assert_eq!(
        program.done("doc count iot.cold {\"payload.temp\":20}"),
        "1\n"
    );
}

#[test]
fn deliver_renders_templates_and_buries_what_does_not_fit() {
    let home = Home::new();
    home.configure(
        "[[deliver]]\nfrom = \"orders\"\nto = \"devices/{key}/{header.what}/{value.id}\"\n",
    );
    let program = home.start();
    let (mut device, _) = Wire::connect(program.mqtt(), &Hello::v5("device"));
    device.subscribe("devices/#", 1);
    program.done("produce orders -k d1 -H what=set -m {\"id\":7}");
    let message = device.message();
    assert_eq!(message.topic, "devices/d1/set/7");
    device.acknowledge(0x40, message.id);
    program.done("produce orders -k d1 -m {\"id\":8}");
    until("the dead letter", || {
        program.metric("headwater_deliver_records_total{result=\"dead_letter\"}") == 1
    });
    let letter = program.done("consume headwater.dead-letters -f %v|%h\\n");
    assert!(
        letter.starts_with("{\"id\":8}") && letter.contains("orders"),
        "{letter}"
    );
    program.done("produce orders -k d2 -H what=go -m {\"id\":9}");
    assert_eq!(
        device.message().topic,
        "devices/d2/go/9",
        "it goes on behind a dead letter"
    );
}

#[test]
fn a_message_without_its_topic_is_a_dead_letter_and_costs_one_commit() {
    let home = Home::new();
    home.configure("[[route]]\nfrom = \"a/{x}\"\nto = \"t.{x}\"\n");
    for (rule, made, reason) in [
        ("log.auto_create=false", 0, "not made at all"),
        ("log.routed_partitions_max=9", 4, "5 are there at the start"),
    ] {
        let mut program = home.start_with(&["--set", "log.partitions=1", "--set", rule]);
        let before = program.metric("headwater_route_dead_letters_total");
        assert_eq!(before, 0);
        let (mut device, _) = Wire::connect(program.mqtt(), &Hello::v5("device"));
        device.subscribe("a/#", 0);
        let mut commits = 0;
        for id in 1..=10_u16 {
            // Behind the first dead letter, whose topic is made for it.
            if id == made + 2 {
                commits = program.metric("headwater_log_commits_total");
            }
            device.send(&publish(&format!("a/{made}x{id}"), b"x", 1, id));
            let mut answers = [device.packet().0, device.packet().0];
            answers.sort_unstable();
            assert_eq!(
                answers,
                [0x30, 0x40],
                "delivered and acknowledged: {reason}"
            );
        }
        let later = u64::from(10 - made - 1);
        let commits = program.metric("headwater_log_commits_total") - commits;
        // Two more for what goes on beside; a commit for each try would be twice as many.
        assert!(
            (later..=later + 2).contains(&commits),
            "{commits}: {reason}"
        );
        let dead = program.metric("headwater_route_dead_letters_total");
        assert_eq!(dead, u64::from(10 - made), "{reason}");
        let letters = program.done("consume headwater.dead-letters -f %v|%h\\n");
        let last = letters.lines().last().unwrap();
        assert!(
            last.contains("no-kafka-topic") && last.contains(&format!("t.{made}x10")),
            "{last}"
        );
        let said = program.said().matches("become dead letters").count();
        assert_eq!(said, 1, "{reason}");
        program.stop();
    }
}

#[test]
fn without_flows_nothing_is_stored() {
    let home = Home::new();
    home.configure("default_flows = false\n");
    let program = home.start();
    program.done("pub -t a -m x -q 2");
    assert_eq!(records(&program, "mqtt").len(), 0);
    assert_eq!(program.done("doc count"), "0\n");
}

#[test]
fn reload_takes_good_flows_whole_and_bad_ones_not_at_all() {
    let home = Home::new();
    home.configure("[[route]]\nfrom = \"#\"\nto = \"one\"\n");
    let mut program = home.start();
    let (mut device, _) = Wire::connect(program.mqtt(), &Hello::v5("d"));
    device.subscribe("d", 1);
    program.done("produce late -k d -m before");
    program.done("pub -t a -m first -q 1 -i c");
    home.configure(
        "[[route]]\nfrom = \"#\"\nto = \"two\"\n[[deliver]]\nfrom = \"late\"\nto = \"{key}\"\n",
    );
    program.signal(Signal::HUP);
    program.wait_for_line("the flows and permissions were swapped");
    program.done("produce late -k d -m after");
    assert_eq!(
        device.message().payload,
        b"after",
        "a new deliver tells no old commands"
    );
    program.done("pub -t a -m second -q 1 -i c");
    home.configure("[[route]]\nfrom = \"#\"\nto = \"three.{nobody}\"\n");
    program.signal(Signal::HUP);
    program.wait_for_line("what runs goes on");
    program.wait_for_line("headwater.toml:3:");
    until("the metric of a refused reload", || {
        let (_, text) = program.http("GET", "/metrics", None);
        text.contains("headwater_config_last_reload_successful 0\n")
    });
    program.done("pub -t a -m third -q 1 -i c");
    assert_eq!(records(&program, "one"), ["c=first"]);
    assert_eq!(records(&program, "two"), ["c=second", "c=third"]);
}

#[test]
fn session_is_owed_a_message_on_a_dollar_topic() {
    let home = Home::new();
    let program = home.start();
    let (mut away, _) = Wire::connect(program.mqtt(), &Hello::lasting("away"));
    away.subscribe("$foo/#", 1);
    drop(away);
    program.done("pub -t $foo/bar -m x -q 1");
    let program = home.start_on(&program.kill(), &[]);
    let (mut away, present) = Wire::connect(program.mqtt(), &Hello::lasting("away"));
    assert!(present);
    assert_eq!(away.message().topic, "$foo/bar");
}

#[test]
fn check_says_what_is_wrong_and_where() {
    let home = Home::new();
    for (text, place, part) in [
        ("[log]\nretention_sm = 1\n", "2:1", "retention_ms"),
        ("[[route]]\nfrom = \"a/{x}\"\nto = \"t.{y}\"\n", "3:", "y"),
        ("[[route]]\nform = \"a\"\nto = \"t\"\n", "2:1", "from"),
        (
            "[[route]]\nfrom = \"#\"\nto = \"t\"\n[[route]]\nfrom = \"a\"\nto = \"t\"\n",
            "5:",
            "line 2",
        ),
        ("\n[log]\npartitions = 0\n", "3:", "1..=1000"),
        (
            "[listeners.tcp]\nbind = \"0.0.0.0:1\"\n",
            "2:",
            "allow_anonymous",
        ),
        (
            "[[permission]]\neffect = \"deny\"\ntopic = \"a/#/b\"\n",
            "3:",
            "no topic filter",
        ),
        (
            "[[permission]]\neffect = \"deny\"\ntopics = \"a\"\n",
            "3:",
            "topic",
        ),
        (
            "[[sink]]\nfrom = \"mqtt\"\ninto = \"nodot\"\n",
            "3:",
            "database.collection",
        ),
        (
            "[[sink]]\nfrom = \"mqtt\"\ninto = \"a.system.users\"\n",
            "1:",
            "system.",
        ),
    ] {
        home.configure(text);
        let answer = home.check();
        assert_eq!(answer.code, 1, "{text}");
        let wanted = format!("headwater.toml:{place}");
        assert!(answer.out.contains(&wanted), "{wanted} in {}", answer.out);
        assert!(answer.out.contains(part), "{part} in {}", answer.out);
    }
    home.configure("[[sink]]\nfrom = \"mqtt\"\ninto = \"a.b\"\n");
    let answer = home.check();
    assert_eq!(
        (answer.code, answer.out.as_str()),
        (0, "ok: 0 routes, 0 delivers, 1 sinks\n")
    );
}
