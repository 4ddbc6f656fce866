//! What `headwater check` says about flows, word by word.

use headwater_bridge::check;

fn said(text: &str) -> Vec<String> {
    check(text)
        .into_iter()
        .map(|found| found.in_file("h.toml").to_string())
        .collect()
}

#[test]
fn a_good_file_says_nothing() {
    let text = r#"
        default_flows = false
        [listeners.tcp]
        bind = "127.0.0.1:1883"
        [[route]]
        from = "sensors/{site}/{device}/telemetry"
        to = "telemetry"
        key = "{device}"
        where = "value.temp > 30"
        copy = true
        [[route]]
        from = "sensors/#"
        to = "sensors"
        [[deliver]]
        from = "commands"
        to = "devices/{key}/cmd"
        qos = 1
        retain = false
        commit = "routed"
        [[sink]]
        from = "telemetry"
        into = "iot.telemetry"
        where = "key != ''"
    "#;
    assert_eq!(said(text), [""; 0]);
    assert_eq!(said(""), [""; 0]);
}

#[test]
fn each_error_is_told_with_its_place_and_the_next_step() {
    let text = r#"
[[route]]
form = "a"
to = "t"

[[route]]
from = "a/{device}/#"
to = "telemetry.{devise}"

[[route]]
from = "b"
to = "b/c"
where = "value.temp >"

[[route]]
from = "c"
to = "c"
where = "value.temp = 3"
format = "avro"

[[deliver]]
from = "commands"
to = "devices/{key}/+"
qos = 3

[[deliver]]
from = "commands"
to = 'a/{client'

[[sink]]
from = "tele/metry"
into = "iot"
"#;
    assert_eq!(
        said(text),
        [
            "h.toml:3:1: route[0].form: unknown key `form`; did you mean `from`?",
            "h.toml:8:18: route[1].to: unknown name `devise`; did you mean `device`?",
            "h.toml:12:8: route[2].to: a Kafka topic name has letters, digits, `.`, `_` and `-` only, not `/`",
            "h.toml:19:10: route[3].format: this key is not built yet in this version; leave it out",
            "h.toml:24:7: deliver[0].qos: qos is 0, 1 or 2, not 3",
            "h.toml:28:9: deliver[1].to: `{` without `}`; write `{{` for a brace",
            "h.toml:31:13: sink[0].from: a Kafka topic name has letters, digits, `.`, `_` and `-` only, not `/`",
        ]
    );
}

#[test]
fn a_condition_is_told_where_it_goes_wrong() {
    assert_eq!(
        said("[[sink]]\nfrom = 'a'\ninto = 'a.b'\nwhere = \"valve.temp > 3\"\n"),
        ["h.toml:4:10: sink[0].where: unknown name `valve`; did you mean `value`?"]
    );
    // An escape in the text: bytes of text and file differ, so the whole value is named.
    assert_eq!(
        said("[[sink]]\nfrom = 'a'\ninto = 'a.b'\nwhere = \"key == \\\"a\\\" and\"\n"),
        ["h.toml:4:9: sink[0].where: a name or a value is missing at the end"]
    );
}

#[test]
fn an_unreachable_route_is_told_with_both_lines() {
    let text = "[[route]]\nfrom = 'a/#'\nto = 't'\n\n[[route]]\nfrom = 'a/{x}'\nto = 'u'\n";
    assert_eq!(
        said(text),
        [
            "h.toml:6:8: route[1].from: this route is never reached: route[0], `a/#`, takes all of \
             it; put it behind, or let the earlier one say `copy = true` (line 2)"
        ]
    );
    for reachable in ["where = 'value.x'", "copy = true"] {
        let text = text.replacen("to = 't'", &format!("to = 't'\n{reachable}"), 1);
        assert_eq!(said(&text), [""; 0], "{reachable}");
    }
}

#[test]
fn two_flows_of_one_way_are_one_too_many() {
    let text = "[[sink]]\nfrom = 'a'\ninto = 'b.c'\n[[sink]]\nfrom = 'a'\ninto = 'b.c'\n";
    assert_eq!(
        said(text),
        ["h.toml:5:8: sink[1].from: sink[0] goes the same way already (line 2)"]
    );
}

#[test]
fn flows_behind_a_broken_one_keep_their_places() {
    let text = "[[route]]\nfron = 'a'\n[[route]]\nfrom = 'a'\nto = '/'\n";
    let said = said(text);
    assert_eq!(said.len(), 2);
    assert!(
        said[1].starts_with("h.toml:5:7: route[1].to: "),
        "{}",
        said[1]
    );
}

#[test]
fn what_is_no_toml_or_no_list_is_told_too() {
    assert!(
        said("[[route]\n")[0].starts_with("h.toml:1:"),
        "{:?}",
        said("[[route]\n")
    );
    assert_eq!(
        said("[route]\nfrom = 'a'\n"),
        ["h.toml:1:1: route: `route` is a list of tables; write [[route]]"]
    );
    assert_eq!(
        said("[[route]]\nto = 'a'\n"),
        ["h.toml:1:1: route[0]: missing field `from`"]
    );
}
