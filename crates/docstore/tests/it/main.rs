//! docstore by its public face.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "as in any test; clippy.toml lets only #[test] functions do so, not what they share"
)]

mod bounds;
mod differential;
mod failure;
mod queries;
mod semantics;
mod store;
mod support;
