//! Kafka's protocol on port 9092, over the commit log.
//!
//! For: stock Kafka clients: produce, fetch, groups, topics and their settings.
//! Not for: transactions, several nodes, KIP-848 groups; what is not in the table of `api` is not
//! announced and not served. How records are stored is `headwater_commitlog`'s.
//! Calls: `headwater_commitlog`, and the program around it through [`Host`].
//! Holds: a Produce answer (acks 1, all), an OffsetCommit answer and a SyncGroup answer go out after
//! what they promise is on disk; no request makes us allocate by a number it announces, and all
//! requests and fetched records together stay within a budget; no thread of the runtime waits for
//! the disk; what is wrong with one connection ends that connection.
//!
//! ```text
//! connection ──frame──▶ api ──Request──▶ handler ──▶ commitlog
//!     ▲                                    │ ▲
//!     └────────────frame───────────────────┘ └──▶ groups (driver) ──▶ group (pure)
//! ```

mod api;
mod budget;
mod connection;
mod error_code;
mod group;
mod groups;
mod handler;
mod host;
mod message;
mod options;
mod server;
mod view;
mod waiters;
mod wire;

pub use error_code::ErrorCode;
pub use group::row::RowError;
pub use host::{Action, Alone, Done, Host, Principal};
pub use options::{GroupLimits, Options};
pub use server::KafkaServer;
pub use view::{GroupState, GroupView, MemberView, Memory, OffsetView};
pub use wire::DecodeError;

/// What [`headwater_commitlog::Log::on_advance`] takes.
pub type Advanced = Box<dyn Fn(&[headwater_commitlog::PartitionId]) + Send + Sync>;

/// Why the Kafka side cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the stored consumer groups cannot be read")]
    Groups(#[source] RowError),
}

/// Decodes one frame without its length and forgets it: what fuzzing and the curious need of the
/// decoders. Total: any bytes give an answer, within memory bounded by their number.
pub fn check_frame(bytes: bytes::Bytes) -> Result<(), DecodeError> {
    let allowance = wire::allowance(bytes.len());
    api::Frame::decode(bytes, allowance).map(drop)
}
