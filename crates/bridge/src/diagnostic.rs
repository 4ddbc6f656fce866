//! One thing wrong with a configuration, and where it stands.
//!
//! For: a sentence a person can act on, with line, column, key path and the nearest valid key.
//! `server` uses it for its own tables too.
//! Not for: printing; `server` shows them (miette takes `span`).
//! Calls: `toml`'s spanned parser, `strsim`.

use std::fmt;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use crate::config::FlowKind;

/// One error of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file, as it was named; `None` for what came from elsewhere (environment, `--set`).
    pub file: Option<String>,
    /// 1-based; 0 where the place is not in the file.
    pub line: usize,
    /// 1-based, in characters; 0 where the place is not in the file.
    pub column: usize,
    /// The bytes of the file concerned; empty at the end of the file or where nothing is known.
    pub span: Range<usize>,
    /// Where it is by name: `route[1].where`, counted from 0 as in `--set`. Empty if unknown.
    pub key: String,
    pub message: String,
    /// The next step: most often the nearest valid key.
    pub help: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}:")?;
        }
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        if self.file.is_some() || self.line > 0 {
            f.write_str(" ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

impl Diagnostic {
    /// An error whose place in the file is not known.
    pub fn unplaced(key: &str, message: impl Into<String>) -> Self {
        Self {
            file: None,
            line: 0,
            column: 0,
            span: 0..0,
            key: key.to_owned(),
            message: message.into(),
            help: None,
        }
    }

    /// An error at `span` of `text`.
    pub fn at(text: &str, span: Range<usize>, key: &str, message: impl Into<String>) -> Self {
        let (line, column) = line_and_column(text, span.start);
        Self {
            line,
            column,
            span,
            ..Self::unplaced(key, message)
        }
    }

    /// What `toml` found while it read `text` into some type: syntax, a wrong type, an unknown
    /// key (with the nearest valid one), a missing key.
    pub fn from_toml(text: &str, error: &toml::de::Error) -> Self {
        let Some(span) = error.span() else {
            return Self::unplaced("", error.message());
        };
        let mut key = DeTable::parse(text)
            .map(|table| key_at(table.get_ref(), span.start))
            .unwrap_or_default();
        let message = error.message();
        let (message, help) = match UnknownField::read(message) {
            Some(unknown) => {
                if !key.ends_with(unknown.field) {
                    if !key.is_empty() {
                        key.push('.');
                    }
                    key.push_str(unknown.field);
                }
                let valid = match FlowKind::of_path(&key) {
                    Some(kind) => kind.keys().to_vec(),
                    None => unknown.valid,
                };
                (
                    format!("unknown key `{}`", unknown.field),
                    Some(key_help(unknown.field, valid)),
                )
            }
            None => (message.to_owned(), None),
        };
        Self::at(text, span, &key, message).with_help(help)
    }

    /// The same, found in `file`.
    #[must_use]
    pub fn in_file(self, file: &str) -> Self {
        Self {
            file: Some(file.to_owned()),
            ..self
        }
    }

    #[must_use]
    pub(crate) fn with_help(self, help: Option<String>) -> Self {
        Self { help, ..self }
    }
}

/// The valid word that is most like `word`, if one is near enough to be what was meant.
pub fn nearest<'v>(word: &str, valid: impl IntoIterator<Item = &'v str>) -> Option<&'v str> {
    valid
        .into_iter()
        .map(|candidate| {
            (
                strsim::normalized_damerau_levenshtein(word, candidate),
                candidate,
            )
        })
        .filter(|(likeness, _)| *likeness >= 0.4)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// "did you mean …", or the whole list where nothing is near.
pub fn key_help<'v>(word: &str, valid: impl IntoIterator<Item = &'v str> + Clone) -> String {
    match nearest(word, valid.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => {
            let all: Vec<String> = valid.into_iter().map(|key| format!("`{key}`")).collect();
            format!("valid here: {}", all.join(", "))
        }
    }
}

/// serde's sentence about a key it does not know.
struct UnknownField<'m> {
    field: &'m str,
    valid: Vec<&'m str>,
}

impl<'m> UnknownField<'m> {
    fn read(message: &'m str) -> Option<Self> {
        let mut quoted = message.split('`').skip(1).step_by(2);
        if !message.starts_with("unknown field `") && !message.starts_with("unknown variant `") {
            return None;
        }
        Some(Self {
            field: quoted.next()?,
            valid: quoted.collect(),
        })
    }
}

/// 1-based line and column of a byte of `text`, the column in characters.
fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (line, before.get(start..).unwrap_or("").chars().count() + 1)
}

/// The name of the innermost key or element that holds byte `at`.
fn key_at(table: &DeTable<'_>, at: usize) -> String {
    let mut path = String::new();
    descend(table, at, &mut path);
    path
}

fn descend(table: &DeTable<'_>, at: usize, path: &mut String) -> bool {
    for (key, value) in table {
        let mark = path.len();
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(key.get_ref());
        let inside = within_value(value.get_ref(), at, path)
            || key.span().contains(&at)
            || value.span().contains(&at);
        if inside {
            return true;
        }
        path.truncate(mark);
    }
    false
}

fn within_value(value: &DeValue<'_>, at: usize, path: &mut String) -> bool {
    match value {
        DeValue::Table(table) => descend(table, at, path),
        DeValue::Array(array) => array.iter().enumerate().any(|(index, element)| {
            let mark = path.len();
            path.push_str(&format!("[{index}]"));
            let inside = within_value(element.get_ref(), at, path) || element.span().contains(&at);
            if !inside {
                path.truncate(mark);
            }
            inside
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::{RouteConfig, SinkConfig};

    #[derive(Debug, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    #[derive(Default)]
    struct File {
        route: Vec<RouteConfig>,
        sink: Vec<SinkConfig>,
        durability: String,
    }

    fn first(text: &str) -> Diagnostic {
        let error = toml::from_str::<File>(text).unwrap_err();
        Diagnostic::from_toml(text, &error).in_file("headwater.toml")
    }

    #[test]
    fn an_unknown_key_is_named_with_its_place_and_the_nearest_valid_one() {
        for (text, sentence) in [
            (
                "[[route]]\nfrom = 'a'\nto = 'b'\n\n[[route]]\nfron = 'a'\nto = 'b'\n",
                "headwater.toml:6:1: route[1].fron: unknown key `fron`; did you mean `from`?",
            ),
            (
                "durabilty = 'sync'\n",
                "headwater.toml:1:1: durabilty: unknown key `durabilty`; did you mean `durability`?",
            ),
            (
                "[[sink]]\nfrom = 'a'\ninto = 'b.c'\nzzzzzzzzz = 1\n",
                "headwater.toml:4:1: sink[0].zzzzzzzzz: unknown key `zzzzzzzzz`; \
                 valid here: `from`, `into`, `where`",
            ),
        ] {
            assert_eq!(first(text).to_string(), sentence);
        }
    }

    #[test]
    fn other_errors_have_their_place_too() {
        assert_eq!(
            first("[[route]]\nfrom = 'ä'\nto = 3\n").to_string(),
            "headwater.toml:3:6: route[0].to: invalid type: integer `3`, expected a string"
        );
        assert_eq!(
            first("[[route]]\nfrom = 'a'\n").to_string(),
            "headwater.toml:1:1: route[0]: missing field `to`"
        );
        assert_eq!(
            first("[[route]]\nfrom = 'a'\nto = 'b'\nformat = 'avro'\n").to_string(),
            "headwater.toml:4:10: route[0].format: this key is not built yet in this version; \
             leave it out"
        );
        let syntax = first("[[route]]\nfrom = = 'a'\n");
        assert_eq!((syntax.line, syntax.column), (2, 8), "{syntax}");
    }

    #[test]
    fn only_a_word_that_is_near_is_offered() {
        assert_eq!(nearest("wher", ["from", "to", "where"]), Some("where"));
        assert_eq!(nearest("filter", ["from", "to", "where"]), None);
    }

    #[test]
    fn columns_count_characters() {
        assert_eq!(line_and_column("a\näö=1", 6), (2, 3));
        assert_eq!(line_and_column("", 5), (1, 1));
    }
}
