//! One Client's Session.

/// To come.
#[derive(Debug)]
pub(crate) struct Session;
