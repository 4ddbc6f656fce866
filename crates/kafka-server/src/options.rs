//! What the server is told once, at its start.
//!
//! For: names, limits and times of this node as Kafka clients see them.
//! Not for: flags and files; the program above fills this in.

use std::time::Duration;

use headwater_commitlog::TopicConfig;

/// One node's face towards Kafka clients. `Default` is a node that a developer can start as it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Options {
    /// Told in Metadata and DescribeCluster; stays the same for the life of the data directory.
    pub cluster_id: String,
    /// This node's broker id, and the only one. Default 1.
    pub node_id: i32,
    /// Host and port told to clients. `None`: the address at which the client reached us, so that
    /// a listener on port 0 or on several interfaces needs no configuration.
    pub advertised: Option<(String, u16)>,
    /// Topics are made on first use when the client allows it too. Default true.
    pub auto_create: bool,
    /// Partitions of a topic made on first use, or created with -1. Default 4.
    pub partitions: u32,
    /// Most partitions one topic may have. Default 10,000.
    pub partitions_max: u32,
    /// Longest request taken, in bytes. Default 100 MiB, as Kafka's `socket.request.max.bytes`.
    pub frame_bytes_max: usize,
    /// Bytes of requests that come, wait or are worked on, over all connections: their frames and
    /// what their arrays cost decoded. Who finds no room waits unread. A quarter is for requests of
    /// up to 64 KiB. Default 256 MiB: two requests of the longest kind beside many ordinary ones.
    /// One request in each part may go beyond it, and each connection has 4 KiB of its own.
    pub requests_bytes_max: usize,
    /// Bytes of fetched records on their way to clients, over all connections. Each Fetch is given
    /// a part of what is left of it, so that many slow clients get little instead of nothing.
    /// Default 256 MiB.
    pub responses_bytes_max: usize,
    /// Longest Fetch response built, in bytes of records. Default 55 MiB, as Kafka's
    /// `fetch.max.bytes` on brokers.
    pub fetch_bytes_max: usize,
    /// Connections held at once; the next one is closed as it comes. Default 10,000.
    pub connections_max: usize,
    /// Produce requests of one connection that may wait for the disk at once. Default 16.
    pub requests_in_flight_max: usize,
    /// A connection that sends nothing for so long is closed. Default 10 min.
    pub idle_timeout: Duration,
    /// A new connection's first request must be whole after so long, and has at most 64 KiB.
    /// Default 5 s.
    pub first_request_timeout: Duration,
    /// A client that has begun a request and sends none of the rest for so long is closed. While
    /// others wait for room, so is one that has not sent all of it by then, the time it waited for
    /// room itself not counted, and one that takes none of its response for so long; a long poll
    /// whose request takes that room is answered by then. Default 30 s.
    pub stall_timeout: Duration,
    /// The log's own defaults as far as they differ from Kafka's; told in DescribeConfigs.
    pub topic_defaults: TopicConfig,
    /// What groups and their members may cost.
    pub groups: GroupLimits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cluster_id: "headwater".to_owned(),
            node_id: 1,
            advertised: None,
            auto_create: true,
            partitions: 4,
            partitions_max: 10_000,
            frame_bytes_max: 100 << 20,
            requests_bytes_max: 256 << 20,
            responses_bytes_max: 256 << 20,
            fetch_bytes_max: 55 << 20,
            connections_max: 10_000,
            requests_in_flight_max: 16,
            idle_timeout: Duration::from_secs(600),
            first_request_timeout: Duration::from_secs(5),
            stall_timeout: Duration::from_secs(30),
            topic_defaults: TopicConfig::default(),
            groups: GroupLimits::default(),
        }
    }
}

/// Bounds of consumer groups: counts, bytes and milliseconds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GroupLimits {
    /// Groups known at once, the empty ones with offsets included. Default 10,000.
    pub groups_max: usize,
    /// Members of one group, those that have only an id yet included. Default 1,000.
    pub members_max: usize,
    /// Bytes of one member's subscription, of one assignment, and of a group's or a member's
    /// name. Default 1 MiB for the first two; names are held to 1,024 bytes.
    pub metadata_bytes_max: usize,
    /// Bytes of the note a client may store beside an offset. Default 4,096, as Kafka's
    /// `offset.metadata.max.bytes`.
    pub offset_metadata_bytes_max: usize,
    /// Shortest session timeout taken. Default 1 s (Kafka: 6 s; tests of clients use less).
    pub session_timeout_ms_min: u64,
    /// Longest session timeout taken. Default 30 min.
    pub session_timeout_ms_max: u64,
    /// How long the first rebalance of an empty group waits for more members, extended by each
    /// that comes and never past its rebalance timeout. Default 100 ms (Kafka: 3 s).
    pub initial_rebalance_delay_ms: u64,
    /// How long a group without members keeps its offsets. Default 7 days.
    pub offset_retention_ms: u64,
}

impl Default for GroupLimits {
    fn default() -> Self {
        Self {
            groups_max: 10_000,
            members_max: 1_000,
            metadata_bytes_max: 1 << 20,
            offset_metadata_bytes_max: 4_096,
            session_timeout_ms_min: 1_000,
            session_timeout_ms_max: 1_800_000,
            initial_rebalance_delay_ms: 100,
            offset_retention_ms: 7 * 24 * 3_600_000,
        }
    }
}
