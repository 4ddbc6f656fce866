//! The crate's public face: from the text of a configuration to records and messages.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod checking;
mod routing;
