//! What the HTTP door needs from the system behind it. `server` implements it over the log, the
//! store and the groups; tests with a fake.
//!
//! Holds: `alive`, `readiness` and `metrics` answer at once; all others may block. The router
//! calls them on threads for blocking work, at most [`crate::CALLS_MAX`] at a time, so an
//! implementation simply waits for its commit or its query and returns.

use std::ops::ControlFlow;

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

/// The seam between the HTTP door and everything else.
pub trait System: Send + Sync + 'static {
    /// Whether the process does its work: false once the log refuses to write for good. Must not
    /// block.
    fn alive(&self) -> bool;

    /// Whether every listener accepts, and which do. Must not block.
    fn readiness(&self) -> Readiness;

    /// The metrics in Prometheus' text format (OpenMetrics). Must not block for long.
    fn metrics(&self) -> String;

    /// Hands each document that matches to `each`, as one line of JSON without its line end, in
    /// the order asked for. Stops when `each` breaks: the client is gone.
    fn find(
        &self,
        query: &Find,
        each: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<(), Refusal>;

    /// How many documents of `namespace` (`database.collection`) match.
    fn count(&self, namespace: &str, filter: &Value) -> Result<u64, Refusal>;

    /// All topics that are not internal, by name.
    fn topics(&self) -> Result<Vec<TopicInfo>, Refusal>;

    /// One topic; [`RefusalKind::NotFound`] if there is none of that name.
    fn topic(&self, name: &str) -> Result<TopicInfo, Refusal>;

    /// Creates a topic; it is on disk when this returns.
    fn create_topic(&self, wish: &CreateTopic) -> Result<TopicInfo, Refusal>;

    /// Deletes a topic with all its records; what sessions are owed of them is kept first.
    fn delete_topic(&self, name: &str) -> Result<(), Refusal>;

    /// Appends `records` in order; they are on disk when this returns. One position a record. Not
    /// atomic over several records: the first refusal ends it, what came before it stays.
    fn produce(&self, topic: &str, records: Vec<NewRecord>) -> Result<Vec<Position>, Refusal>;

    /// Records of one partition, up to the high watermark.
    fn records(&self, fetch: &Fetch) -> Result<Fetched, Refusal>;

    /// All consumer groups, by name.
    fn groups(&self) -> Result<Vec<GroupSummary>, Refusal>;

    /// One group with its committed offsets and lags.
    fn group(&self, group: &str) -> Result<GroupDetail, Refusal>;

    /// Deletes a group that has no members; [`RefusalKind::Conflict`] if it has.
    fn delete_group(&self, group: &str) -> Result<(), Refusal>;
}

/// Why a call was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub kind: RefusalKind,
    /// One sentence for a person, with the next step where there is one.
    pub message: String,
}

impl Refusal {
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }
}

/// What sort of refusal; decides HTTP status and `code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// 400: the call makes no sense (a bad filter, a bad name).
    BadRequest,
    /// 404: no such topic, partition or group.
    NotFound,
    /// 409: it exists already, or it is in use.
    Conflict,
    /// 413: more than a limit lets in.
    TooLarge,
    /// 503: not now (disk full, backlog full, a query past its limit); the same call may work later.
    Unavailable,
    /// 500: our own fault.
    Internal,
}

/// Body of `/readyz`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Every listener accepts, and the system is not stopping.
    pub ready: bool,
    pub listeners: Vec<ListenerState>,
    /// What works only in part, in a sentence each; does not make the system unready.
    pub degraded: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListenerState {
    /// As in the configuration: `tcp`, `kafka`, `http` ….
    pub name: String,
    /// The bound address.
    pub address: String,
    pub accepting: bool,
}

/// A query for documents.
#[derive(Clone, Debug, PartialEq)]
pub struct Find {
    /// `database.collection`, not yet checked beyond being short and printable.
    pub namespace: String,
    /// MongoDB's filter notation; `{}` takes all.
    pub filter: Value,
    /// MongoDB's sort notation, e.g. `{"ts": -1}`, as JSON text: the order of its keys counts.
    pub sort: Option<String>,
    /// At most so many documents; `None` for all.
    pub limit: Option<u64>,
    pub skip: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TopicInfo {
    pub name: String,
    /// The topic's UUID, as text.
    pub id: String,
    pub partitions: Vec<PartitionInfo>,
    /// Kafka's names and values (`retention.ms`, …), by name.
    pub config: std::collections::BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartitionInfo {
    pub partition: u32,
    pub log_start_offset: u64,
    pub high_watermark: u64,
    pub size_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateTopic {
    pub name: String,
    /// `None` for the configured default.
    pub partitions: Option<u32>,
    pub config: std::collections::BTreeMap<String, String>,
}

/// A record to append.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewRecord {
    pub key: Option<Bytes>,
    /// `None` is a tombstone.
    pub value: Option<Bytes>,
    pub headers: Vec<(String, HeaderValue)>,
    /// `None`: by murmur2 of the key, or spread where there is none.
    pub partition: Option<u32>,
    /// Milliseconds since 1970; `None` for now.
    pub timestamp_ms: Option<i64>,
}

/// A header's bytes; Kafka knows null too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderValue(pub Option<Bytes>);

/// Where a record was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Position {
    pub partition: u32,
    pub offset: u64,
}

/// Which records to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    pub topic: String,
    pub partition: u32,
    pub start: FetchStart,
    /// At most so many records, 1 to [`crate::RECORDS_MAX`].
    pub limit: usize,
    /// About so many bytes of keys, values and headers; at least one record comes, however large.
    pub bytes_max: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchStart {
    /// The first record there still is.
    Earliest,
    /// What comes after the high watermark of this moment: tells `next_offset` without records.
    Latest,
    /// From this offset; below the log start offset it begins there.
    Offset(u64),
    /// From the first record of this timestamp or later, in milliseconds since 1970.
    Timestamp(i64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    pub records: Vec<StoredRecord>,
    /// Where the next call goes on.
    pub next_offset: u64,
    pub log_start_offset: u64,
    pub high_watermark: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    pub offset: u64,
    pub timestamp_ms: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<(String, HeaderValue)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupSummary {
    pub group: String,
    /// Kafka's words: `Empty`, `PreparingRebalance`, `CompletingRebalance`, `Stable`, `Dead`.
    pub state: String,
    pub members: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupDetail {
    #[serde(flatten)]
    pub summary: GroupSummary,
    pub generation: i32,
    pub offsets: Vec<GroupOffset>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupOffset {
    pub topic: String,
    pub partition: u32,
    /// `None` where the group has committed nothing there.
    pub committed: Option<u64>,
    pub high_watermark: u64,
    /// `high_watermark` minus `committed`; `None` with it.
    pub lag: Option<u64>,
    /// The client id of the member that reads it now.
    pub client: Option<String>,
}
