//! The configuration: one TOML file, the environment, `--set`, in this order, later wins.
//!
//! For: the types of every key with its default, and reading the three layers into one [`Config`].
//! Not for: opening anything a key names; the flows' meaning (`bridge`).
//! Calls: `bridge` for flows and diagnostics. Called by: `serve`, `check`.
//! Holds: an unknown key, a bad value, a bad flow refuse the whole configuration; an empty file is valid.

#[cfg(test)]
mod documented;
mod layers;
mod listeners;
mod network;
mod problems;
mod units;

use std::sync::Arc;

use headwater_bridge::{DeliverConfig, RouteConfig, SinkConfig};
use headwater_mqtt_broker::{ClientLimits, Rate};
use serde::Deserialize;

use crate::mqtt::guests::House;

pub(crate) use crate::permissions::Permission;
pub(crate) use layers::{ConfigError, Loaded, Sources, check_files, load};
pub(crate) use listeners::{ClientCertificates, Listener, Listeners};
pub(crate) use network::Network;
pub(crate) use units::{ByteSize, DurationMs};

/// Everything that can be configured. `Config::default()` is what an empty file means.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Whether the three default flows stand while no flow is configured. Default true.
    pub(crate) default_flows: bool,
    /// When an acknowledgement is given. Default `sync`.
    pub(crate) durability: Durability,
    pub(crate) listeners: Listeners,
    pub(crate) mqtt: Mqtt,
    pub(crate) kafka: Kafka,
    pub(crate) log: Log,
    pub(crate) store: Store,
    /// MQTT to log, in file order, the first match wins.
    pub(crate) route: Vec<RouteConfig>,
    /// Log to MQTT.
    pub(crate) deliver: Vec<DeliverConfig>,
    /// Log to documents.
    pub(crate) sink: Vec<SinkConfig>,
    /// What Clients may do, in file order, the first match wins; what none matches is allowed.
    pub(crate) permission: Vec<Permission>,
}

/// When a write counts as done. Anything but `sync` can lose acknowledged messages when the
/// machine dies, and is shown at start and in the metrics.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Durability {
    /// On disk before it is acknowledged.
    #[default]
    Sync,
    /// Synced every 100 ms, acknowledged before.
    Interval,
    /// Left to the operating system.
    Os,
}

impl Durability {
    /// The word of the configuration.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Interval => "interval",
            Self::Os => "os",
        }
    }
}

/// Who of a group of Shared Subscriptions gets a message.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SharedStrategy {
    #[default]
    RoundRobin,
    Sticky,
    HashClient,
    HashTopic,
}

/// `[mqtt]`: limits that every MQTT door keeps.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Mqtt {
    /// Threads that serve MQTT, 1 to 256; 0 takes the number of cores. Default 0.
    pub(crate) shards: usize,
    /// Largest packet taken, 32 B to 256 MiB; less where its commit would not fit a seventh of
    /// `log.wal_bytes_max`. Default 16 MiB.
    pub(crate) packet_bytes_max: ByteSize,
    /// Unacknowledged QoS 1 and 2 PUBLISHes taken at once from a Client, 1 to 65,535. Default 1,000.
    pub(crate) receive_maximum: u16,
    /// Topic Aliases a Client may set on a connection. Default 32.
    pub(crate) topic_alias_max: u16,
    /// Bytes of a client identifier; a longer one is refused (0x85; 3.x: 2). MQTT 3.1 allows 23.
    /// Default 65,535.
    pub(crate) client_id_bytes_max: u16,
    /// Highest QoS of a PUBLISH or a Will, 0 to 2; a subscription is granted no more. Default 2.
    pub(crate) qos_max: u8,
    /// Clients may have messages retained. Default true.
    pub(crate) retain_available: bool,
    /// Topic Filters may have wildcards. Default true.
    pub(crate) wildcards_available: bool,
    /// Response Information for Clients that ask for it, at most 1,024 bytes. Default none.
    pub(crate) response_information: Option<String>,
    /// Longest Keep Alive granted, in seconds; 0 grants every wish. Default 0.
    pub(crate) keep_alive_seconds_max: u16,
    /// How long a Session may outlive its connection. Default 7 days.
    pub(crate) session_expiry_max: DurationMs,
    /// Sessions that outlive their connection, in all; a CONNECT that would add one is refused (0x97;
    /// 3.x: 3). Default 1,000,000.
    pub(crate) sessions_max: u64,
    /// Messages a Session may be owed; the oldest leave it beyond that. Default 1,000,000.
    pub(crate) queue_messages_max: u32,
    /// Bytes of messages a Session may be owed; the oldest leave it beyond that. Default 1 GiB.
    pub(crate) queue_bytes_max: ByteSize,
    /// Which member of a Shared Subscription gets a message, of those that have room: `round_robin`;
    /// `sticky`, the same for as long as it is connected; `hash_client` and `hash_topic`, the same for
    /// one publishing Client or one Topic Name. Default `round_robin`.
    pub(crate) shared_strategy: SharedStrategy,
    /// Bytes that wait for one Client's socket before it gets no more messages, 1 KiB to 1 GiB; at
    /// twice as many it is not read. Default 1 MiB.
    pub(crate) output_bytes_max: ByteSize,
    /// How long a Client may take nothing of what waits for it before it is closed; 1.5 times its
    /// Keep Alive where that is longer. Default 15 s.
    pub(crate) send_timeout: DurationMs,
    /// Retained Messages in all. Beyond it one more is refused (0x97); before MQTT 5.0, at QoS 0 and
    /// from elsewhere it is published and not retained. Default 1,000,000.
    pub(crate) retained_messages_max: u32,
    /// Bytes of all Retained Messages, as above. Default 1 GiB.
    pub(crate) retained_bytes_max: ByteSize,
    /// Refusals say why in a Reason String, to MQTT 5.0 Clients that want one. Default true.
    pub(crate) reason_strings: bool,
    /// QoS 1 and 2 PUBLISHes that a Client gets at once before it acknowledges, where it allows
    /// more; 1 to 65,535. Default 1,000.
    pub(crate) inflight_max: u16,
    /// Levels of a Topic Name or Topic Filter, 1 to 65,535. Default 201: 200 separators.
    pub(crate) topic_levels_max: u16,
    /// Bytes of a Topic Name or Topic Filter, 1 to 65,535. Default 65,535.
    pub(crate) topic_bytes_max: u16,
    /// Subscriptions of one Session; one more is refused (0x97). Default 10,000.
    pub(crate) subscriptions_max: u32,
    /// Those of them that are Shared Subscriptions; one more is refused (0x97). Default 100.
    pub(crate) shared_subscriptions_max: u32,
    /// Groups of Shared Subscriptions in all, 1,000 with one Topic Filter; a subscription that would
    /// make one more is refused (0x97). Default 100,000.
    pub(crate) shared_groups_max: u32,
    /// Bytes of messages that groups hold in memory, all together: with members that have not
    /// acknowledged them, or where no member's session lasts. A group with more than an even share
    /// gives no more of the former beyond that, and loses the oldest of the latter. Default 256 MiB.
    pub(crate) shared_bytes_max: ByteSize,
    /// PUBLISHes a second from one Client; 0 is without limit. What it sends beyond waits unread, and
    /// so does everything behind it. Default 0.
    pub(crate) messages_per_second: u32,
    /// PUBLISHes that such a Client may send at once after a pause; 0 takes a second's worth. Default 0.
    pub(crate) messages_burst: u32,
    /// Bytes a second from one Client, as above; 0 is without limit. Default 0.
    pub(crate) bytes_per_second: ByteSize,
    /// Bytes that such a Client may send at once after a pause; 0 takes a second's worth. Default 0.
    pub(crate) bytes_burst: ByteSize,
    /// How often the values below `$SYS` are said, from 100 ms on; 0 says none. Default 10 s.
    pub(crate) sys_interval: DurationMs,
    /// Clients that come and go are announced below `$SYS/brokers/NODE/clients/`, so many a second
    /// at most, in all; 0 announces none. Default 1,000.
    pub(crate) sys_clients_rate_max: u32,
    /// Clients of other machines may subscribe below `$SYS`. Default false.
    pub(crate) sys_open: bool,
    /// Name of this broker in `$SYS/brokers`. Default `headwater@127.0.0.1`.
    pub(crate) node: String,
    /// Time a stranger has for its CONNECT. Default 5 s.
    pub(crate) connect_timeout: DurationMs,
    /// Connections in all; beyond it a new one is closed at once. Default 1,000,000.
    pub(crate) connections_max: usize,
    /// Connections whose TLS, WebSocket or PROXY handshake is not over, in all; at most half of the
    /// connections that may be open. One more ends the oldest of them. Default 10,000.
    pub(crate) handshakes_max: usize,
}

impl Default for Mqtt {
    fn default() -> Self {
        Self {
            shards: 0,
            packet_bytes_max: ByteSize(16 << 20),
            receive_maximum: 1000,
            topic_alias_max: 32,
            client_id_bytes_max: u16::MAX,
            qos_max: 2,
            retain_available: true,
            wildcards_available: true,
            response_information: None,
            keep_alive_seconds_max: 0,
            session_expiry_max: DurationMs::days(7),
            sessions_max: 1_000_000,
            queue_messages_max: 1_000_000,
            queue_bytes_max: ByteSize(1 << 30),
            shared_strategy: SharedStrategy::RoundRobin,
            output_bytes_max: ByteSize(1 << 20),
            send_timeout: DurationMs(15_000),
            retained_messages_max: 1_000_000,
            retained_bytes_max: ByteSize(1 << 30),
            reason_strings: true,
            inflight_max: 1_000,
            topic_levels_max: 201,
            topic_bytes_max: u16::MAX,
            subscriptions_max: 10_000,
            shared_subscriptions_max: 100,
            shared_groups_max: 100_000,
            shared_bytes_max: ByteSize(256 << 20),
            messages_per_second: 0,
            messages_burst: 0,
            bytes_per_second: ByteSize(0),
            bytes_burst: ByteSize(0),
            sys_interval: DurationMs(10_000),
            sys_clients_rate_max: 1_000,
            sys_open: false,
            node: "headwater@127.0.0.1".to_owned(),
            connect_timeout: DurationMs(5_000),
            connections_max: 1_000_000,
            handshakes_max: 10_000,
        }
    }
}

/// Why a time may not be 0. Of what waits to be sent that is so for Clients without Keep Alive, at the
/// first byte that must wait.
pub(super) const NO_TIME: &str = "0 would close every connection; take 1ms or more";

fn needs_rate(rate: &str) -> String {
    format!("does nothing without {rate}")
}

impl Mqtt {
    /// Messages and bytes a second from one Client of the door with this table; 0 is without limit.
    fn rates(&self, door: &Listener) -> (u32, u64) {
        let bytes = door.bytes_per_second.unwrap_or(self.bytes_per_second);
        let messages = door.messages_per_second.unwrap_or(self.messages_per_second);
        (messages, bytes.0)
    }

    /// The bursts of a door's own that no rate of its own or of all goes with.
    fn idle_bursts(&self, door: &Listener) -> Vec<(&'static str, String)> {
        let (messages, bytes) = self.rates(door);
        let has_burst = door.messages_burst.is_some_and(|burst| burst > 0);
        let messages = (has_burst && messages == 0)
            .then(|| ("messages_burst", needs_rate("messages_per_second")));
        let has_burst = door.bytes_burst.is_some_and(|burst| burst.0 > 0);
        let bytes =
            (has_burst && bytes == 0).then(|| ("bytes_burst", needs_rate("bytes_per_second")));
        messages.into_iter().chain(bytes).collect()
    }

    /// What the door with this table keeps.
    pub(crate) fn house(&self, door: &Listener) -> House {
        let rate = |per_second, burst| Rate { per_second, burst };
        let (messages, bytes) = self.rates(door);
        let messages_burst = door.messages_burst.unwrap_or(self.messages_burst);
        let bytes_burst = door.bytes_burst.unwrap_or(self.bytes_burst);
        House {
            clients: Arc::new(ClientLimits {
                connect_ms_max: door.connect_timeout.unwrap_or(self.connect_timeout).0,
                messages: rate(messages.into(), messages_burst.into()),
                bytes: rate(bytes, bytes_burst.0),
            }),
            connections_max: door.connections_max,
            connections_per_address_max: door.connections_per_address_max,
            connects: rate(door.connect_rate.into(), door.connect_burst.into()),
        }
    }
}

/// `[kafka]`: what Kafka clients may cost.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Kafka {
    /// Longest request taken, 64 KiB to 1 GiB. Default 100 MiB.
    pub(crate) frame_bytes_max: ByteSize,
    /// Bytes of requests in memory over all connections, from 1 MiB on; who finds no room waits.
    /// A quarter is kept for requests of up to 64 KiB. Default 256 MiB.
    pub(crate) requests_bytes_max: ByteSize,
    /// Bytes of fetched records on their way to clients, over all connections, from 1 MiB on.
    /// Default 256 MiB.
    pub(crate) responses_bytes_max: ByteSize,
    /// Connections held at once; beyond it a new one is closed at once. Default 10,000.
    pub(crate) connections_max: usize,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            frame_bytes_max: ByteSize(100 << 20),
            requests_bytes_max: ByteSize(256 << 20),
            responses_bytes_max: ByteSize(256 << 20),
            connections_max: 10_000,
        }
    }
}

/// Where an arrow's end lives.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// In this process, on local disk.
    #[default]
    Embedded,
    /// In an outside cluster. Parses; not built yet.
    External,
}

/// Which synced copy an acknowledgement waits for.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Ack {
    /// The local log's.
    #[default]
    Local,
    /// The outside cluster's. Parses; not built yet.
    Kafka,
}

/// `[log]`: the records.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Log {
    pub(crate) mode: Mode,
    /// Outside cluster, with `mode = "external"`.
    pub(crate) bootstrap: Vec<String>,
    pub(crate) ack: Ack,
    /// Partitions of a topic that is made on first use, 1 to 1,000. Default 4.
    pub(crate) partitions: u32,
    /// How long records stay at least. Default 7 days.
    pub(crate) retention_ms: DurationMs,
    /// How many bytes of a partition stay at least; none means no limit. Default none.
    pub(crate) retention_bytes: Option<ByteSize>,
    /// Partitions of all topics up to which routes make more topics; beyond it a route's message
    /// whose topic does not exist becomes a dead letter. The log holds 10,000. Default 9,000.
    pub(crate) routed_partitions_max: u32,
    /// Whether a topic is made on first use; else a route's message becomes a dead letter. Default
    /// true.
    pub(crate) auto_create: bool,
    /// Bytes of the write-ahead file before a checkpoint. Default 256 MiB, less on a small disk.
    pub(crate) wal_bytes_max: Option<ByteSize>,
    /// Size at which a segment is closed. Default 256 MiB.
    pub(crate) segment_bytes: ByteSize,
    /// What sinks and delivers that are behind may hold beyond retention before publishes are
    /// refused. Default 10 GiB.
    pub(crate) backlog_bytes_max: ByteSize,
    /// Files of partitions open at once, 16 to 100,000. Default: a thirty-second of what the process
    /// may open, 64 at least, 4,096 at most.
    pub(crate) open_files_max: Option<u32>,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            mode: Mode::Embedded,
            bootstrap: Vec::new(),
            ack: Ack::Local,
            partitions: 4,
            retention_ms: DurationMs::days(7),
            retention_bytes: None,
            routed_partitions_max: 9_000,
            auto_create: true,
            wal_bytes_max: None,
            segment_bytes: ByteSize(256 << 20),
            backlog_bytes_max: ByteSize(10 << 30),
            open_files_max: None,
        }
    }
}

/// `[store]`: the documents.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Store {
    pub(crate) mode: Mode,
    /// Outside MongoDB, with `mode = "external"`.
    pub(crate) uri: Option<String>,
    /// How long documents stay. Default 30 days.
    pub(crate) retention: DurationMs,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            mode: Mode::Embedded,
            uri: None,
            retention: DurationMs::days(30),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            default_flows: true,
            durability: Durability::Sync,
            listeners: Listeners::default(),
            mqtt: Mqtt::default(),
            kafka: Kafka::default(),
            log: Log::default(),
            store: Store::default(),
            route: Vec::new(),
            deliver: Vec::new(),
            sink: Vec::new(),
            permission: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_file_is_the_default() {
        assert_eq!(toml::from_str::<Config>("").unwrap(), Config::default());
    }

    #[test]
    fn a_door_has_its_own_limits_or_those_of_all() {
        let text = "[mqtt]\nmessages_per_second = 10\nbytes_per_second = \"1KiB\"\n\
                    [listeners.tls]\nmessages_per_second = 0\nconnect_timeout = \"2s\"\n\
                    connections_max = 3\nconnect_rate = 5\n";
        let config: Config = toml::from_str(text).unwrap();
        assert_eq!(config.problems(), []);
        let house = |door| config.mqtt.house(door);
        let (tcp, tls) = (house(&config.listeners.tcp), house(&config.listeners.tls));
        let rate = |house: &House| house.clients.messages.per_second;
        assert_eq!((rate(&tcp), rate(&tls)), (10, 0));
        assert_eq!(tls.clients.bytes.per_second, 1024);
        let times = [&tcp, &tls].map(|house| house.clients.connect_ms_max);
        assert_eq!(times, [5_000, 2_000]);
        assert_eq!((tls.connections_max, tls.connects.per_second), (Some(3), 5));
        assert_eq!(
            Config::default().mqtt.house(&Listener::default()),
            House::default()
        );
        let text = "[listeners.kafka]\nconnect_rate = 5\n[mqtt]\ntopic_levels_max = 0\n";
        let config: Config = toml::from_str(text).unwrap();
        let wrong: Vec<String> = config.problems().into_iter().map(|(key, _)| key).collect();
        assert_eq!(
            wrong,
            ["listeners.kafka.connect_rate", "mqtt.topic_levels_max"]
        );
    }

    #[test]
    fn keys_that_let_nobody_in_or_do_nothing_are_named() {
        for (text, expected) in [
            ("mqtt.connect_timeout = 0", &["mqtt.connect_timeout"][..]),
            ("mqtt.send_timeout = 0", &["mqtt.send_timeout"]),
            (
                "listeners.ws.connect_timeout = 0",
                &["listeners.ws.connect_timeout"],
            ),
            ("mqtt.messages_burst = 5", &["mqtt.messages_burst"]),
            ("mqtt.bytes_burst = 5", &["mqtt.bytes_burst"]),
            (
                "listeners.tls.messages_burst = 5",
                &["listeners.tls.messages_burst"],
            ),
            (
                "listeners.tls.bytes_burst = 5\nlisteners.ws.bytes_per_second = 5",
                &["listeners.tls.bytes_burst"],
            ),
            (
                "mqtt.messages_per_second = 1\nlisteners.tls.messages_per_second = 0\n\
                 listeners.tls.messages_burst = 5",
                &["listeners.tls.messages_burst"],
            ),
            (
                "listeners.quic.connect_burst = 5",
                &["listeners.quic.connect_burst"],
            ),
            ("listeners.ws.path = \"/mqtt?x\"", &["listeners.ws.path"]),
            ("listeners.ws.path = \"/a b\"", &["listeners.ws.path"]),
            (
                "listeners.wss.origins = [\"*\", \"https://example.com/\"]",
                &["listeners.wss.origins"],
            ),
            (
                "listeners.ws.origins = [\"example.com\"]",
                &["listeners.ws.origins"],
            ),
            // And these do something.
            (
                "mqtt.messages_burst = 5\nlisteners.ws.messages_per_second = 5",
                &[],
            ),
            (
                "mqtt.bytes_per_second = 5\nlisteners.ws.bytes_burst = 5",
                &[],
            ),
            (
                "listeners.ws.connect_rate = 5\nlisteners.ws.connect_burst = 5",
                &[],
            ),
            (
                "listeners.ws.path = \"/\"\n\
                 listeners.ws.origins = [\"null\", \"file://\", \"http://[::1]:80\", \"https://a.b\"]",
                &[],
            ),
        ] {
            let config: Config = toml::from_str(text).unwrap();
            let found = config.problems();
            let keys: Vec<&str> = found.iter().map(|(key, _)| &**key).collect();
            assert_eq!(keys, expected, "{text}");
        }
    }

    #[test]
    fn address_of_other_machines_needs_a_word() {
        let open = "[listeners.tcp]\nbind = \"0.0.0.0:1883\"\n";
        let config: Config = toml::from_str(open).unwrap();
        assert_eq!(config.problems().len(), 1);
        assert!(
            config.problems()[0]
                .1
                .contains("listeners.tcp.allow_anonymous = true")
        );
        let said: Config = toml::from_str(&format!("{open}allow_anonymous = true\n")).unwrap();
        assert_eq!(said.problems(), []);
        let off: Config = toml::from_str(&format!("{open}enabled = false\n")).unwrap();
        assert_eq!(off.problems(), []);
    }

    #[test]
    fn default_has_no_problem() {
        assert_eq!(Config::default().problems(), []);
    }
}
