//! The HTTP door: health, metrics, documents and the log over JSON.
//!
//! For: `/livez`, `/readyz`, `/metrics` for whoever watches the process, and `/api/v5/…` for the
//! command line's verbs and for scripts.
//! Not for: binding an address (`server` does), and what the answers say: [`System`] knows.
//! Calls: [`System`], on threads that may block. Called by: `server`.
//! Holds: without the key nothing but the three open paths is answered; a body, an answer in one
//! piece, a call's time and the number of calls at work are bounded.
//!
//! | path | answer |
//! | --- | --- |
//! | `GET /livez`, `GET /readyz` | 200 or 503, JSON |
//! | `GET /metrics` | Prometheus' text |
//! | `POST /api/v5/store/{database.collection}/find` | [`documents`]: NDJSON if `Accept` says `application/x-ndjson`, else an envelope |
//! | `POST /api/v5/store/{database.collection}/count` | `{"count": n}` |
//! | `GET`, `POST /api/v5/log/topics` | [`topics`] |
//! | `GET`, `DELETE /api/v5/log/topics/{topic}` | |
//! | `GET`, `POST /api/v5/log/topics/{topic}/records` | [`records`] |
//! | `GET /api/v5/log/groups`, `GET`, `DELETE /api/v5/log/groups/{group}` | [`groups`] |
//!
//! An error is `{"code": "NOT_FOUND", "message": "one sentence"}`; a list is `{"data": […],
//! "meta": {…}}`.

mod answer;
pub mod documents;
mod door;
pub mod groups;
mod health;
pub mod records;
mod secret;
pub mod system;
pub mod topics;

pub use door::{router, router_within};
pub use secret::Secret;
pub use system::{
    CreateTopic, Fetch, FetchStart, Fetched, Find, GroupDetail, GroupOffset, GroupSummary,
    HeaderValue, ListenerState, NewRecord, PartitionInfo, Position, Readiness, Refusal,
    RefusalKind, StoredRecord, System, TopicInfo,
};

use std::time::Duration;

/// Most calls under `/api` that are at work at a time; more wait their turn.
pub const CALLS_MAX: usize = 16;

/// Longest time from a call's head to its answer's head. A call that waits for its turn so long
/// is told to come again.
pub const CALL_TIME_MAX: Duration = Duration::from_secs(60);

/// Longest time that a streamed answer waits for a client that does not read.
pub const STALL_TIME_MAX: Duration = Duration::from_secs(30);

/// Largest body of a call; produced records are the largest.
pub const BODY_BYTES_MAX: usize = 16 << 20;

/// Largest answer that is put together in memory; what may be larger is streamed.
pub const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Most records one call reads.
pub const RECORDS_MAX: usize = 10_000;

/// Most documents in an envelope; NDJSON has no such limit.
pub const ENVELOPE_DOCUMENTS_MAX: u64 = 1000;
