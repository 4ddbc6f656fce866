//! The real program, started on free ports and driven from outside: by bytes written by hand, and
//! by its own verbs.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests: clippy.toml's leave ends at the functions that carry #[test]"
)]

mod architecture;
mod bad_input;
mod bad_rows;
mod bench;
mod conformance;
mod deletion;
mod documents;
mod flows;
mod ground;
mod handshakes;
mod http;
mod kafka;
mod limits;
mod log;
mod messages;
mod permissions;
mod pressure;
mod program;
mod quic;
mod shares;
mod start;
mod stop;
mod system;
mod tls;
mod tls_client;
mod websocket;
mod wills;
mod wire;
