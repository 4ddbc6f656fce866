//! Kafka's records, message format 2: encoding, reading and checking them.
//!
//! For: everyone who puts records into the log or takes them out (commitlog, bridge, kafka-server).
//! Not for: message formats 0 and 1, control batches, transactions; `validate` refuses them.
//! Calls: `batch`, `body`, `compression`, `validate`, `varint`.
//! Holds: reading is total over any bytes, and its memory is bounded by the input and [`Limits`].

mod batch;
mod body;
mod compression;
mod validate;
pub(crate) mod varint;

pub(crate) use batch::assign;
pub use batch::{BatchBuilder, BatchHeader, HEADER_LEN};
pub use body::{Headers, Record, RecordBody, Records, records};
pub use compression::Compression;
pub use validate::{BatchError, Limits, ValidBatch, validate, validate_all};
