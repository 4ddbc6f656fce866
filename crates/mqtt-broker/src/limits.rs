//! Every bound the broker keeps, with its default.
//!
//! For: one place that says how much of anything a Client may cause. What the protocol can
//!   announce is announced in CONNACK from here.
//! Not for: reading configuration; `server` fills this.

use std::num::NonZeroU16;

use headwater_mqtt_codec::QoS;

/// Bounds of one broker. All of them are kept; those MQTT 5.0 can announce are announced.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Longest packet taken from a Client, in bytes. Default 16 MiB.
    pub packet_bytes_max: u32,
    /// Refusals say why in a Reason String, to Clients that want one. Default true.
    pub reason_strings: bool,
    /// Longest packet taken before CONNECT is accepted, in bytes. Default 64 KiB.
    pub connect_bytes_max: u32,
    /// How long a Network Connection may take until its CONNECT is whole. Default 5,000.
    pub connect_ms_max: u64,
    /// Longest Keep Alive granted in seconds; a longer wish, or none, gets this as Server Keep
    /// Alive (MQTT 5.0, 3.2.2.3.14). 0 grants everything. Default 0.
    pub keep_alive_seconds_max: u16,
    /// QoS 1 and 2 PUBLISHes taken at once from a Client. Default 1,000.
    pub receive_maximum: NonZeroU16,
    /// QoS 1 and 2 PUBLISHes sent at once to a Client that allows more. Default 1,000.
    pub inflight_max: NonZeroU16,
    /// Topic Aliases a Client may set. Default 32.
    pub topic_alias_max: u16,
    /// Longest Session Expiry Interval granted, in seconds. Default 7 days.
    pub session_expiry_seconds_max: u32,
    /// Sessions that outlive their connection, in all. Default 1,000,000.
    pub sessions_max: u64,
    /// Bytes of a Client Identifier. MQTT 3.1 allows 23. Default 65,535.
    pub client_id_bytes_max: usize,
    /// Highest QoS of a PUBLISH or a Will; a subscription gets no more. Default exactly once.
    pub qos_max: QoS,
    /// Clients may have messages retained. Default true.
    pub retain_available: bool,
    /// Topic Filters may have wildcards. Default true.
    pub wildcards_available: bool,
    /// Levels of a Topic Name or Topic Filter. Default 201: 200 separators, as mosquitto takes.
    pub topic_levels_max: usize,
    /// Bytes of a Topic Name or Topic Filter. Default 65,535.
    pub topic_bytes_max: usize,
    /// Subscriptions of one Session. Default 10,000.
    pub subscriptions_max: usize,
    /// Those of them that are Shared Subscriptions. Default 100.
    pub shared_subscriptions_max: usize,
    /// Groups of Shared Subscriptions with one Topic Filter, each of which gets a copy of what it
    /// selects. Default 1,000.
    pub groups_per_filter_max: usize,
    /// Groups in all. Default 100,000.
    pub shared_groups_max: usize,
    /// Bytes of messages that groups hold in memory, all together: only there and waiting for
    /// members, or with members and not settled. Beyond it a group that holds more than an even
    /// share loses the oldest of the former, and gives no more of the latter. Default 256 MiB.
    pub shared_bytes_max: u64,
    /// Topic Filters in one SUBSCRIBE. Default 1,000.
    pub filters_per_packet_max: usize,
    /// Messages one Session may be owed beyond what is in flight. Default 1,000,000.
    pub queue_messages_max: usize,
    /// Bytes of payload one Session may be owed. Default 1 GiB.
    pub queue_bytes_max: u64,
    /// Bytes waiting in one connection's output before no more messages are fed to it; at twice as
    /// many the Client is not read, so that its packets cause no more answers. Default 1 MiB.
    pub output_bytes_max: usize,
    /// How long a Client may take nothing of what waits for it; 1.5 times its Keep Alive where that
    /// is longer. Default 15,000.
    pub send_ms_max: u64,
    /// Commits one connection may have pending before its socket is paused. Default 1,000.
    pub connection_commits_max: u32,
    /// What they may weigh; the packet that reaches it is still taken. More than a disk takes in
    /// the milliseconds of a sync. Default 8 MiB.
    pub connection_commit_bytes_max: usize,
    /// Commits one shard may have pending before its publishers are paused. Default 20,000.
    pub shard_commits_max: usize,
    /// What they may weigh, the last packet of each publisher not counted. Default 64 MiB.
    pub shard_commit_bytes_max: usize,
    /// Bytes of payload a shard keeps so that what is owed need not be read back. Default 32 MiB.
    pub cache_bytes_max: usize,
    /// Topic Names a shard remembers the subscribers of. Default 16,384.
    pub matches_max: usize,
    /// Retained Messages in all. Default 1,000,000.
    pub retained_messages_max: usize,
    /// Bytes of all Retained Messages. Default 1 GiB.
    pub retained_bytes_max: usize,
    /// How long what subscribers acknowledged may wait to be written down. Default 1,000.
    pub floors_ms_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        let thousand = NonZeroU16::MIN.saturating_add(999);
        Self {
            packet_bytes_max: 16 << 20,
            reason_strings: true,
            connect_bytes_max: 64 << 10,
            connect_ms_max: 5_000,
            keep_alive_seconds_max: 0,
            receive_maximum: thousand,
            inflight_max: thousand,
            topic_alias_max: 32,
            session_expiry_seconds_max: 7 * 24 * 3_600,
            sessions_max: 1_000_000,
            client_id_bytes_max: 65_535,
            qos_max: QoS::ExactlyOnce,
            retain_available: true,
            wildcards_available: true,
            topic_levels_max: 201,
            topic_bytes_max: 65_535,
            subscriptions_max: 10_000,
            shared_subscriptions_max: 100,
            groups_per_filter_max: 1_000,
            shared_groups_max: 100_000,
            shared_bytes_max: 256 << 20,
            filters_per_packet_max: 1_000,
            queue_messages_max: 1_000_000,
            queue_bytes_max: 1 << 30,
            output_bytes_max: 1 << 20,
            send_ms_max: 15_000,
            connection_commits_max: 1_000,
            connection_commit_bytes_max: 8 << 20,
            shard_commits_max: 20_000,
            shard_commit_bytes_max: 64 << 20,
            cache_bytes_max: 32 << 20,
            matches_max: 16_384,
            retained_messages_max: 1_000_000,
            retained_bytes_max: 1 << 30,
            floors_ms_max: 1_000,
        }
    }
}

/// What each Client of one door may do. Its socket is not read while it is ahead of its rates;
/// nothing is dropped.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientLimits {
    /// How long a Network Connection may take until its CONNECT is whole. Default 5,000.
    pub connect_ms_max: u64,
    /// PUBLISHes taken of a Client. Default without limit.
    pub messages: Rate,
    /// Bytes taken of a Client, once it is connected. Default without limit.
    pub bytes: Rate,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            connect_ms_max: 5_000,
            messages: Rate::default(),
            bytes: Rate::default(),
        }
    }
}

/// So many a second.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Rate {
    /// 0 is without limit.
    pub per_second: u64,
    /// So many at once after a time of few; 0 takes a second's worth.
    pub burst: u64,
}
