//! `headwater check` for the flows: everything that is wrong with them, each with its place.
//!
//! For: [`check`] over the text of a file; [`FlowError::locate`] for one error of
//! [`Flows::compile`](crate::Flows::compile).
//! Not for: the other tables of the file (`server`; [`Diagnostic::from_toml`] helps it).

use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use crate::config::{FlowConfig, FlowKind};
use crate::diagnostic::{Diagnostic, key_help};
use crate::flows::{FlowError, Flows};

/// Everything that is wrong with the flows of a file, in the order of the text. Empty if all is
/// well, or if the text is a file without flows.
pub fn check(text: &str) -> Vec<Diagnostic> {
    let table = match DeTable::parse(text) {
        Ok(table) => table.into_inner(),
        Err(error) => return vec![Diagnostic::from_toml(text, &error)],
    };
    let mut found = Vec::new();
    let mut kept = Kept::default();
    let config = FlowConfig {
        // Defaults are right by construction; whether they stand does not matter here.
        default_flows: false,
        route: tables(text, &table, FlowKind::Route, &mut kept.route, &mut found),
        deliver: tables(
            text,
            &table,
            FlowKind::Deliver,
            &mut kept.deliver,
            &mut found,
        ),
        sink: tables(text, &table, FlowKind::Sink, &mut kept.sink, &mut found),
    };
    if let Err(errors) = Flows::compile(&config) {
        found.extend(
            errors
                .into_iter()
                .map(|error| kept.restore(error).locate(text)),
        );
    }
    found.sort_by_key(|diagnostic| diagnostic.span.start);
    found
}

/// Which tables of the file could be read: a flow with a bad key is told and left out of what is
/// compiled, which shifts those behind it.
#[derive(Default)]
struct Kept {
    route: Vec<usize>,
    deliver: Vec<usize>,
    sink: Vec<usize>,
}

impl Kept {
    fn restore(&self, error: FlowError) -> FlowError {
        let places = match error.kind {
            FlowKind::Route => &self.route,
            FlowKind::Deliver => &self.deliver,
            FlowKind::Sink => &self.sink,
        };
        let place = |index: usize| places.get(index).copied().unwrap_or(index);
        FlowError {
            index: place(error.index),
            because_of: error.because_of.map(place),
            ..error
        }
    }
}

fn tables<T: DeserializeOwned>(
    text: &str,
    file: &DeTable<'_>,
    kind: FlowKind,
    kept: &mut Vec<usize>,
    found: &mut Vec<Diagnostic>,
) -> Vec<T> {
    let mut configs = Vec::new();
    let Some(value) = file.get(kind.table()) else {
        return configs;
    };
    let Some(array) = value.get_ref().as_array() else {
        let name = kind.table();
        let message = format!("`{name}` is a list of tables; write [[{name}]]");
        found.push(Diagnostic::at(text, value.span(), name, message));
        return configs;
    };
    for (index, element) in array.iter().enumerate() {
        let before = found.len();
        unknown_keys(text, kind, index, element, found);
        if found.len() > before {
            continue;
        }
        match T::deserialize(ValueDeserializer::from(element.clone())) {
            Ok(config) => {
                configs.push(config);
                kept.push(index);
            }
            Err(error) => found.push(Diagnostic::from_toml(text, &error)),
        }
    }
    configs
}

fn unknown_keys(
    text: &str,
    kind: FlowKind,
    index: usize,
    element: &Spanned<DeValue<'_>>,
    found: &mut Vec<Diagnostic>,
) {
    let Some(table) = element.get_ref().as_table() else {
        return;
    };
    let valid = kind.keys().iter().copied();
    for key in table.keys() {
        let name: &str = key.get_ref();
        if valid.clone().any(|known| known == name) || kind.later_keys().contains(&name) {
            continue;
        }
        let path = format!("{}[{index}].{name}", kind.table());
        found.push(
            Diagnostic::at(text, key.span(), &path, format!("unknown key `{name}`"))
                .with_help(Some(key_help(name, valid.clone()))),
        );
    }
}

impl FlowError {
    /// The error with its place in `text`, the file that the flows came from; without a place
    /// if the flow is not in it (it came by `--set` or the environment).
    pub fn locate(&self, text: &str) -> Diagnostic {
        let key = format!("{}[{}].{}", self.kind.table(), self.index, self.key);
        let table = DeTable::parse(text)
            .map(Spanned::into_inner)
            .unwrap_or_default();
        let Some(value) = value_of(&table, self.kind, self.index, self.key) else {
            return Diagnostic::unplaced(&key, &self.message);
        };
        let span = self
            .at
            .and_then(|at| inside(text, value, at))
            .unwrap_or_else(|| value.span());
        let mut message = self.message.clone();
        if let Some(other) = self
            .because_of
            .and_then(|o| value_of(&table, self.kind, o, self.key))
        {
            let line = Diagnostic::at(text, other.span(), "", "").line;
            message.push_str(&format!(" (line {line})"));
        }
        Diagnostic::at(text, span, &key, message)
    }
}

fn value_of<'t, 'i>(
    table: &'t DeTable<'i>,
    kind: FlowKind,
    index: usize,
    key: &str,
) -> Option<&'t Spanned<DeValue<'i>>> {
    let element = table.get(kind.table())?.get_ref().as_array()?.get(index)?;
    element.get_ref().as_table()?.get(key)
}

/// The bytes of the file from byte `at` of a text value on, where the value stands in the file as
/// it is: one quote on each side and nothing escaped.
fn inside(text: &str, value: &Spanned<DeValue<'_>>, at: usize) -> Option<Range<usize>> {
    let span = value.span();
    let (start, end) = (span.start + 1, span.end.checked_sub(1)?);
    let plain = text.get(start..end)? == value.get_ref().as_str()?;
    (plain && start + at <= end).then_some(start + at..end)
}
