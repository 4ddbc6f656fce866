//! `bench`: a short run of each case, and what it says of a broker that refuses.

use crate::program::Home;

#[test]
fn bench_accounts_for_every_message_of_each_case() {
    let program = Home::new().start();
    let tls = format!(
        "bench p2p -n 2 -q 1 --url mqtts://localhost:{}",
        program.doors["tls"].port()
    );
    for (line, deliveries) in [
        (&*tls, 1),
        ("bench p2p -n 2", 1),
        ("bench p2p -n 2 -q 1 --size 5000 --window 3", 1),
        ("bench p2p -n 2 -q 2 -V 3.1.1", 1),
        ("bench p2p -n 3 -q 1 --rate 500", 1),
        ("bench fan-in -n 4 -q 1 -V 3.1", 1),
        ("bench fan-out -n 5", 5),
    ] {
        let pid = std::process::id();
        let found = program.done(&format!("{line} --secs 1 --warmup 0 --json --pid {pid}"));
        let found: serde_json::Value = serde_json::from_str(&found).unwrap();
        let sent = found["sent"].as_u64().unwrap();
        assert!(sent > 0, "{line}: {found}");
        assert_eq!(found["delivered"], sent * deliveries, "{line}: {found}");
        for clean in ["lost", "repeated_or_late", "foreign", "unacknowledged"] {
            assert_eq!(found[clean], 0, "{line}: {found}");
        }
        assert!(found["resident_bytes"].as_u64().unwrap() > 0, "{found}");
        assert_eq!(found["latency_ms"].is_null(), !line.contains("--rate"));
        if line.contains("--rate") {
            // A machine under load sends fewer.
            let rate = sent as f64 / found["seconds"].as_f64().unwrap();
            assert!(rate <= 600.0, "500 a second: {found}");
            let quantile = |name: &str| found["latency_ms"][name].as_f64().unwrap();
            assert!(0.0 < quantile("p50") && quantile("p50") <= quantile("max"));
        }
    }
    let shown = program.done("bench p2p -n 1 --secs 1 --warmup 0");
    assert!(shown.contains(" 0 lost, 0 repeated or late"), "{shown}");
}

#[test]
fn bench_fails_when_messages_do_not_come() {
    let home = Home::new();
    home.configure(
        "[[permission]]\neffect = \"deny\"\naction = \"publish\"\ntopic = \"bench/#\"\n",
    );
    let program = home.start();
    for (line, why) in [
        ("bench p2p -n 1 -q 1", "refused"),
        ("bench p2p -n 1 --size 15", "at least 16"),
        ("bench p2p -n 1 --pid 4294967295", "no process"),
    ] {
        let answer = program.verb(&format!("{line} --secs 1 --warmup 0"));
        assert_eq!(answer.code, 1, "{line}: {answer:?}");
        assert!(answer.error.contains(why), "{line}: {answer:?}");
    }
    // What is acknowledged and does not come is lost: before MQTT 5.0 no answer says refused.
    let answer = program.verb("bench p2p -n 1 -q 1 -V 3.1.1 --secs 1 --warmup 0");
    assert_eq!(answer.code, 1, "{answer:?}");
    assert!(answer.out.contains(" 200 lost"), "the window: {answer:?}");
}
