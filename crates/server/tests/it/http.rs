//! The HTTP door: who may pass, and what is open.

use crate::program::Home;

#[test]
fn without_the_key_only_health_and_metrics_are_answered() {
    let program = Home::new().start();
    for path in [
        "/api/v5/log/topics",
        "/api/v5/log/groups",
        "/api/v5/nothing",
    ] {
        for key in [None, Some("wrong")] {
            let (status, body) = program.http("GET", path, key);
            assert_eq!(status, 401, "{path}");
            assert!(body.contains("cli.key"), "the next step: {body}");
        }
    }
    let (status, body) = program.http("GET", "/api/v5/log/topics", Some(&program.key()));
    assert_eq!(status, 200, "{body}");
    let (status, body) = program.http("GET", "/readyz", None);
    assert_eq!(status, 200);
    assert!(body.contains(&program.mqtt().to_string()), "{body}");
}

#[test]
fn metrics_are_open_metrics_to_their_end() {
    let program = Home::new().start();
    program.done("pub -t a -m x -q 1");
    let (status, head, body) = program.http_whole("GET", "/metrics", None, "");
    assert_eq!(status, 200);
    assert!(head.contains("application/openmetrics-text"), "{head}");
    assert!(body.ends_with("# EOF\n"), "{body}");
    let mut family = "";
    for line in body.lines().filter(|line| *line != "# EOF") {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.split(' ').next().unwrap();
            assert!(
                !family.ends_with("_total"),
                "OpenMetrics names a counter without it: {line}"
            );
        } else if !line.starts_with("# HELP ") {
            let name = line.split(['{', ' ']).next().unwrap();
            let known = name == family || name.strip_suffix("_total") == Some(family);
            assert!(known, "{line} is no sample of {family}");
        }
    }
    assert!(program.metric("headwater_log_records_total") >= 1);
}

#[test]
fn documented_metrics_are_exactly_those_that_are_told() {
    let program = Home::new().start();
    let (_, text) = program.http("GET", "/metrics", None);
    let lines = text.lines().filter_map(|line| line.strip_prefix("# "));
    let mut told: Vec<String> = Vec::new();
    for line in lines {
        let words: Vec<&str> = line.splitn(3, ' ').collect();
        match words[..] {
            ["TYPE", name, kind] => told.push(format!("| `{name}` | {kind} |")),
            ["HELP", _, help] => told.last_mut().unwrap().push_str(&format!(" {help} |")),
            _ => {}
        }
    }
    let page = include_str!("../../../../docs/reference/metrics.md");
    let documented: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    assert_eq!(documented, told);
}
