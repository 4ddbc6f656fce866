//! The HTTP door: health, metrics, documents and the log over JSON.
//!
//! For: `/livez`, `/readyz`, `/metrics` for whoever watches the process, and `/api/v5/…` for the
//! command line's verbs and for scripts.
//! Not for: binding an address (`server` does), and what the answers say: [`System`] knows.
//! Calls: [`System`], on threads that may block. Called by: `server`.
//! Holds: without the key nothing under `/api` is answered; a body, an answer and the number of
//! calls at work are bounded.

pub mod system;

pub use system::{
    CreateTopic, Fetch, FetchStart, Fetched, Find, GroupDetail, GroupOffset, GroupSummary,
    HeaderValue, ListenerState, NewRecord, PartitionInfo, Position, Readiness, Refusal,
    RefusalKind, StoredRecord, System, TopicInfo,
};

/// Most calls under `/api` that are at work at a time; more wait their turn.
pub const CALLS_MAX: usize = 16;

/// Most records one call reads.
pub const RECORDS_MAX: usize = 10_000;
