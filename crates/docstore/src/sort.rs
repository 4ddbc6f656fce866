//! The order documents are asked for in.
//!
//! For: [`Sort`], read from text, and the keys it takes from a document.
//! Not for: keeping documents in that order (`top`), SQL (`pushdown`).
//! Calls: `path`, `value`.
//! Holds: MongoDB's order: a missing field is null, an array stands for its least element
//! ascending and its greatest descending.

use crate::path::{Path, Walk};
use crate::value::{Reading, Value};
use std::cmp::Ordering;
use std::ops::ControlFlow;

/// Most fields to sort by; MongoDB's limit.
pub const SORT_KEYS_MAX: usize = 32;
/// Longest text of a sort.
const SORT_BYTES_MAX: usize = 64 * 1024;

/// A sort as MongoDB's: `{"ts": -1, "payload.temp": 1}`. Empty: as the documents lie.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sort {
    pub(crate) keys: Vec<SortKey>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SortKey {
    pub(crate) path: Path,
    pub(crate) descending: bool,
}

/// Why a text is not a sort.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SortError {
    #[error("the sort is not JSON: {0}")]
    Json(String),
    #[error("a sort is an object, such as {{\"ts\": -1}}")]
    NotAnObject,
    #[error("the order of {path:?} must be 1 (ascending) or -1 (descending)")]
    Direction { path: String },
    #[error("{path:?} stands twice in the sort")]
    Twice { path: String },
    #[error("{path:?} cannot be sorted by")]
    Path { path: String },
    #[error("the sort is longer than {SORT_BYTES_MAX} bytes or {SORT_KEYS_MAX} fields")]
    TooLong,
}

impl Sort {
    /// Reads a sort from its JSON text; the order of its keys counts.
    pub fn parse(text: &str) -> Result<Self, SortError> {
        if text.len() > SORT_BYTES_MAX {
            return Err(SortError::TooLong);
        }
        let value = Value::parse(text, Reading::Plain)
            .map_err(|error| SortError::Json(error.to_string()))?;
        let Value::Object(fields) = value else {
            return Err(SortError::NotAnObject);
        };
        if fields.len() > SORT_KEYS_MAX {
            return Err(SortError::TooLong);
        }
        let mut keys: Vec<SortKey> = Vec::with_capacity(fields.len());
        for (name, direction) in fields {
            let name = name.into_owned();
            let descending = match direction {
                Value::Int(1) => false,
                Value::Int(-1) => true,
                Value::Double(1.0) => false,
                Value::Double(-1.0) => true,
                _ => return Err(SortError::Direction { path: name }),
            };
            let parsed = Path::parse(&name)
                .filter(|path| path.names().all(|n| !n.is_empty() && !n.starts_with('$')));
            let Some(path) = parsed else {
                return Err(SortError::Path { path: name });
            };
            if keys.iter().any(|key| key.path == path) {
                return Err(SortError::Twice { path: name });
            }
            keys.push(SortKey { path, descending });
        }
        Ok(Self { keys })
    }

    /// What `document` is sorted by, one value a key.
    pub(crate) fn keys_of(&self, document: &Value<'_>) -> Vec<Value<'static>> {
        self.keys.iter().map(|key| key.of(document)).collect()
    }

    /// The order of two documents by what [`Self::keys_of`] took from them.
    pub(crate) fn compare(&self, a: &[Value<'_>], b: &[Value<'_>]) -> Ordering {
        let orders = self.keys.iter().zip(a.iter().zip(b)).map(|(key, (a, b))| {
            let order = a.compare(b);
            if key.descending {
                order.reverse()
            } else {
                order
            }
        });
        orders.fold(Ordering::Equal, Ordering::then)
    }
}

impl SortKey {
    fn of(&self, document: &Value<'_>) -> Value<'static> {
        const MISSING: Value<'static> = Value::Null;
        let mut best: Option<&Value<'_>> = None;
        let walked = self.path.walk(document, Walk::Sort, &mut |value| {
            let value = value.unwrap_or(&MISSING);
            let better = best.is_none_or(|best| {
                let order = value.compare(best);
                if self.descending {
                    order.is_gt()
                } else {
                    order.is_lt()
                }
            });
            if better {
                best = Some(value);
            }
            ControlFlow::Continue(())
        });
        debug_assert!(walked.is_continue());
        best.map_or(Value::Null, |value| value.clone().into_owned())
    }
}
