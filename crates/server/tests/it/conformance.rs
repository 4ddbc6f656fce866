//! Holds docs/reference/mqtt5-conformance.md to the tests that cite MQTT 5.0's normative statements.
//!
//! `HEADWATER_WRITE=1 cargo test -p headwater-server --test it conformance` writes it anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

const STATEMENTS: &str = include_str!("../../../../docs/reference/mqtt5-normative.csv");
const PAGE: &str = "docs/reference/mqtt5-conformance.md";
const HEAD: &str = "# MQTT 5.0, statement by statement

Each normative statement of MQTT 5.0 (the text is cut where it is long; `mqtt5-normative.csv` beside this page has the list) with the
tests that hold it: those that cite its number. Written by `crates/server/tests/it/conformance.rs`, which fails when this page is not what
the tests say, or when a statement that binds servers has no test.

";

/// Statements that bind Clients alone. A test may hold what the Server makes of a breach.
const CLIENTS_ONLY: &[&str] = &[
    "2.2.1-3", "3.1.0-1", "3.1.2-20", "3.1.2-21", "3.1.2-30", "3.2.2-4", "3.2.2-5", "3.2.2-11",
    "3.2.2-14", "3.2.2-15", "3.2.2-17", "3.2.2-18", "3.2.2-21", "3.3.2-9", "3.3.2-10", "3.3.4-6",
    "3.3.4-7", "3.3.4-8", "4.5.0-2", "4.6.0-1", "4.6.0-2", "4.6.0-3", "4.6.0-4", "4.12.0-3",
    "4.12.0-7", "4.12.1-1", "6.0.0-3",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Number and text of each statement.
fn statements() -> Vec<(&'static str, String)> {
    let lines = STATEMENTS.lines().skip(1);
    lines
        .map(|line| {
            let (id, rest) = line.split_once(',').unwrap();
            let (_section, text) = rest.split_once(',').unwrap();
            let text = match text.strip_prefix('"') {
                Some(text) => text.strip_suffix('"').unwrap().replace("\"\"", "\""),
                None => text.to_owned(),
            };
            (id.strip_prefix("MQTT-").unwrap(), text)
        })
        .collect()
}

/// Every file below `dir` that ends so.
fn files(dir: &Path, suffix: &str, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, suffix, into);
        } else if path.to_string_lossy().ends_with(suffix) {
            into.push(path);
        }
    }
}

/// Files and folders that a `#[cfg(test)] mod name;` in `source` at `path` names.
fn test_modules(path: &Path, source: &str) -> Vec<PathBuf> {
    let dir = match path.file_stem().unwrap().to_str().unwrap() {
        "lib" | "main" => path.parent().unwrap().to_owned(),
        stem => path.with_file_name(stem),
    };
    let lines: Vec<&str> = source.lines().collect();
    let declared = lines.windows(2).filter(|two| two[0] == "#[cfg(test)]");
    let names = declared.filter_map(|two| two[1].strip_suffix(';')?.split("mod ").nth(1));
    names
        .flat_map(|name| [dir.join(name), dir.join(format!("{name}.rs"))])
        .collect()
}

/// The numbers cited in a line; those of MQTT 3.1.1, which is named before them, are others.
fn cited(line: &str) -> Vec<String> {
    let mut parts = line.split("[MQTT-");
    let mut before = parts.next().unwrap_or_default();
    let mut found = Vec::new();
    for part in parts {
        let (id, after) = part.split_once(']').unwrap_or((part, ""));
        if !before.ends_with("3.1.1, ") {
            found.push(id.to_owned());
        }
        before = after;
    }
    found
}

/// Statement and name of each test in `source` that cites it, inside or in the lines right before.
fn citations(source: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut before: Vec<String> = Vec::new();
    let mut is_test = false;
    // The function that these lines are in: its name, if it is a test, and its indentation.
    let mut inside: Option<(Option<String>, usize)> = None;
    for line in source.lines() {
        let code = line.trim_start();
        let indent = line.len() - code.len();
        is_test |= code == "#[test]";
        if let (Some(name), None) = (code.strip_prefix("fn "), &inside) {
            let is_part = |c: &char| c.is_alphanumeric() || *c == '_';
            let name: String = name.chars().take_while(is_part).collect();
            inside = Some((is_test.then_some(name), indent));
            is_test = false;
        }
        before.extend(cited(line));
        if let Some((name, at)) = &inside {
            let cited = before.drain(..);
            if let Some(name) = name {
                found.extend(cited.map(|id| (id, name.clone())));
            }
            if indent == *at && code.starts_with('}') {
                inside = None;
            }
        } else if code.is_empty() {
            before.clear();
        }
    }
    found
}

/// Test code: whole files, and what follows `#[cfg(test)]` in others, with their names.
fn tests() -> Vec<(String, String)> {
    let root = root();
    let mut all = Vec::new();
    for part in ["crates", "proof"] {
        files(&root.join(part), ".rs", &mut all);
    }
    let sources: Vec<(PathBuf, String)> = all
        .into_iter()
        .filter(|path| !path.components().any(|part| part.as_os_str() == "target"))
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect();
    let mut of_tests: BTreeSet<PathBuf> = BTreeSet::new();
    for (path, source) in &sources {
        of_tests.extend(test_modules(path, source));
    }
    let mut found = Vec::new();
    for (path, source) in sources {
        let name = path.strip_prefix(&root).unwrap().to_str().unwrap();
        let is_whole =
            name.contains("/tests/") || path.ancestors().any(|dir| of_tests.contains(dir));
        let source = match is_whole {
            true => source,
            false => match source.split_once("#[cfg(test)]\nmod tests {") {
                Some((_, tests)) => tests.to_owned(),
                None => continue,
            },
        };
        found.push((name.to_owned(), source));
    }
    found.sort();
    found
}

#[test]
fn each_statement_that_binds_servers_is_cited_by_a_test() {
    let statements = statements();
    let known: BTreeSet<&str> = statements.iter().map(|(id, _)| *id).collect();
    for id in CLIENTS_ONLY {
        assert!(known.contains(id), "{id} binds nobody: it does not exist");
    }
    let mut held: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (file, source) in tests() {
        for (id, test) in citations(&source) {
            assert!(
                known.contains(&*id),
                "{file}: {test} cites {id}, which does not exist"
            );
            let test = format!("`{file}: {test}`");
            held.entry(id).or_default().insert(test);
        }
    }
    let mut page = HEAD.to_owned();
    page.push_str("| statement | tests |\n| --- | --- |\n");
    let mut missing = Vec::new();
    for (id, text) in &statements {
        let clients_only = CLIENTS_ONLY.contains(id);
        let tests = held.remove(*id).unwrap_or_default();
        if tests.is_empty() && !clients_only {
            missing.push(*id);
        }
        let mark = if clients_only {
            "binds Clients only; "
        } else {
            ""
        };
        let tests: Vec<String> = tests.into_iter().collect();
        let tests = tests.join(", ");
        let cell = format!("{mark}{tests}");
        let text = text.replace('|', "\\|");
        writeln!(
            page,
            "| **{id}** {text} | {} |",
            cell.trim_end_matches("; ")
        )
        .unwrap();
    }
    assert_eq!(missing, [""; 0], "no test cites these, which bind servers");
    let path = root().join(PAGE);
    if std::env::var_os("HEADWATER_WRITE").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "{PAGE} is not what the tests say; HEADWATER_WRITE=1 writes it anew"
    );
}

#[test]
fn only_a_test_cites_and_only_statements_of_5_0() {
    let source = "\
// @1]

/// @2]
#[test]
fn one() {
    let a = 1; // @3], MQTT 3.1.1, @4]
    inner(|| {
    });
    // @5]
}

fn helper() {
    // @6]
}

proptest! {
    #[test]
    fn two(a: u8) {
        // @7]
    }
}
"
    .replace('@', "[MQTT-0.0.0-");
    let found = citations(&source);
    let found: Vec<(&str, &str)> = found.iter().map(|(id, name)| (&**id, &**name)).collect();
    let expected = [
        ("0.0.0-2", "one"),
        ("0.0.0-3", "one"),
        ("0.0.0-5", "one"),
        ("0.0.0-7", "two"),
    ];
    assert_eq!(found, expected);
}
