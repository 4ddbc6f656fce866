//! Holds docs/reference/configuration.md to the types.

use std::collections::BTreeSet;

use toml::{Table, Value};

use super::Config;

const PAGE: &str = include_str!("../../../../docs/reference/configuration.md");
const FLOWS: [&str; 3] = ["route", "deliver", "sink"];

/// Key and default of each row of the page, `listeners.*` written out for one door.
fn rows() -> Vec<(String, &'static str)> {
    let row = |line: &'static str| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let key = cells.next()?.strip_suffix('`')?;
        Some((key.replace('*', "tcp"), cells.next()?.trim_matches('`')))
    };
    PAGE.lines().filter_map(row).collect()
}

/// The keys that serde knows in a table: it names them when it meets a stranger.
fn known(path: &str) -> Vec<String> {
    let text = match path {
        "" => "stranger = 1".to_owned(),
        path => format!("[{path}]\nstranger = 1"),
    };
    let error = toml::from_str::<Config>(&text).unwrap_err();
    let names = error.message().split('`').skip(1).step_by(2);
    names
        .filter(|name| *name != "stranger")
        .map(str::to_owned)
        .collect()
}

#[test]
fn documented_keys_are_exactly_the_known_ones() {
    let mut all = BTreeSet::new();
    for name in known("") {
        let tables = match name.as_str() {
            "listeners" => vec!["listeners.tcp".to_owned()],
            "mqtt" | "kafka" | "log" | "store" => vec![name],
            list if FLOWS.contains(&list) || list == "permission" => continue,
            plain => {
                all.insert(plain.to_owned());
                continue;
            }
        };
        for table in tables {
            all.extend(known(&table).iter().map(|key| format!("{table}.{key}")));
        }
    }
    let documented: BTreeSet<String> = rows().into_iter().map(|(key, _)| key).collect();
    assert_eq!(documented, all);
}

#[test]
fn documented_defaults_are_the_real_ones() {
    for (key, default) in rows() {
        if default == "none" {
            continue;
        }
        let text = format!("{key} = {default}");
        let config: Config =
            toml::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(config, Config::default(), "{text}");
        // And a key of no effect would pass, so each must be read at all.
        let other = text
            .parse::<Table>()
            .map(|table| spoil(Value::Table(table)));
        assert!(other.unwrap().try_into::<Config>().is_err(), "{text}");
    }
}

/// The same with a list of a list for the innermost value, which no key takes.
fn spoil(value: Value) -> Value {
    match value {
        Value::Table(table) => Value::Table(
            table
                .into_iter()
                .map(|(key, value)| (key, spoil(value)))
                .collect(),
        ),
        _ => Value::Array(vec![Value::Array(Vec::new())]),
    }
}
