//! The order documents are asked for in.

/// A sort as MongoDB's: `{"ts": -1, "payload.temp": 1}`. Empty: as the documents lie.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sort {}

/// Why a text is not a sort.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SortError {
    #[error("not JSON: {0}")]
    Json(String),
    #[error("the order of {path:?} must be 1 or -1")]
    Order { path: String },
}

impl Sort {
    /// Reads a sort from its JSON text; the order of its keys counts.
    pub fn parse(text: &str) -> Result<Self, SortError> {
        let _later = text;
        Ok(Self {})
    }
}
