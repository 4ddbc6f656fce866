//! The public face on real files.

#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "functions that tests share may fail as tests do"
)]

mod deletion;
mod descriptors;
mod lifecycle;
mod retention;
mod support;
