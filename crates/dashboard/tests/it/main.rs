//! The HTTP door before a system that is not there.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod api;
mod door;
mod fake;
