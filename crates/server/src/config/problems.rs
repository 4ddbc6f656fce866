//! What the types alone cannot hold: ranges, keys without effect, doors that would open to the world.
//!
//! Called by: `layers`, once the whole configuration is read. Holds: each problem names its key and the next step.

use super::{Ack, Config, Kafka, Listener, Log, Mode, Mqtt, NO_TIME, Store, needs_rate};

/// A key and a sentence.
pub(crate) type Problem = (String, String);

/// Problems of one table, by the keys in it.
struct Table<'a> {
    name: &'a str,
    found: &'a mut Vec<Problem>,
}

impl<'a> Table<'a> {
    fn new(name: &'a str, found: &'a mut Vec<Problem>) -> Self {
        Self { name, found }
    }

    fn wrong(&mut self, is_wrong: bool, key: &str, sentence: &str) {
        if is_wrong {
            self.add(key, sentence.to_owned());
        }
    }

    fn add(&mut self, key: &str, sentence: String) {
        self.found.push((format!("{}.{key}", self.name), sentence));
    }
}

impl Config {
    /// Each is a key and a sentence with the next step.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        for (name, _, listener) in self.listeners.all() {
            let name = format!("listeners.{name}");
            self.listener(listener, Table::new(&name, &mut found));
        }
        self.mqtt.problems(Table::new("mqtt", &mut found));
        self.bursts(Table::new("mqtt", &mut found));
        self.kafka.problems(Table::new("kafka", &mut found));
        self.log.problems(Table::new("log", &mut found));
        self.store.problems(Table::new("store", &mut found));
        for (index, permission) in self.permission.iter().enumerate() {
            if let Some(sentence) = permission.problem() {
                let name = format!("permission[{index}]");
                Table::new(&name, &mut found).add("topic", sentence);
            }
        }
        found
    }

    fn listener(&self, listener: &Listener, mut table: Table<'_>) {
        let name = table.name.trim_start_matches("listeners.");
        let own = listener.problems(name);
        for (key, sentence) in own.into_iter().chain(self.mqtt.idle_bursts(listener)) {
            table.add(key, sentence);
        }
        let Some(bind) = listener.bind else { return };
        if listener.enabled && !bind.ip().is_loopback() && !listener.allow_anonymous {
            let door = table.name;
            table.add(
                "bind",
                format!(
                    "{bind} is reachable from other machines and no authenticator is configured; bind it to \
                     127.0.0.1, or say {door}.allow_anonymous = true to let anybody in"
                ),
            );
        }
    }

    /// Bursts that no door has a rate for.
    fn bursts(&self, mut table: Table<'_>) {
        let doors = self.listeners.all().map(|(_, _, listener)| listener);
        let has_messages = doors.iter().any(|door| self.mqtt.rates(door).0 > 0);
        let has_bytes = doors.iter().any(|door| self.mqtt.rates(door).1 > 0);
        if self.mqtt.messages_burst > 0 && !has_messages {
            table.add("messages_burst", needs_rate("messages_per_second"));
        }
        if self.mqtt.bytes_burst.0 > 0 && !has_bytes {
            table.add("bytes_burst", needs_rate("bytes_per_second"));
        }
    }
}

impl Mqtt {
    fn problems(&self, mut table: Table<'_>) {
        table.wrong(self.shards > 256, "shards", "not in 0..=256");
        let packet = (32..=256 << 20).contains(&self.packet_bytes_max.0);
        table.wrong(!packet, "packet_bytes_max", "not in 32 B..=256 MiB");
        let output = (1 << 10..=1 << 30).contains(&self.output_bytes_max.0);
        table.wrong(!output, "output_bytes_max", "not in 1 KiB..=1 GiB");
        for (key, number) in [
            ("inflight_max", self.inflight_max),
            ("topic_levels_max", self.topic_levels_max),
            ("topic_bytes_max", self.topic_bytes_max),
        ] {
            let sentence = "0 would let nothing through; take 1..=65535";
            table.wrong(number == 0, key, sentence);
        }
        table.wrong(self.connect_timeout.0 == 0, "connect_timeout", NO_TIME);
        table.wrong(self.send_timeout.0 == 0, "send_timeout", NO_TIME);
        let node = &self.node;
        let is_level = !node.is_empty() && !node.contains(['/', '+', '#']);
        table.wrong(
            !is_level || node.len() > 255 || node.contains(char::is_control),
            "node",
            "not one level of a topic: 1 to 255 bytes without /, + and #",
        );
        let is_hasty = (1..100).contains(&self.sys_interval.0);
        table.wrong(is_hasty, "sys_interval", "less than 100 ms; 0 is off");
        let sentence = "0 would let nobody publish; take 1..=65535";
        table.wrong(self.receive_maximum == 0, "receive_maximum", sentence);
        table.wrong(self.qos_max > 2, "qos_max", "not in 0..=2");
        let sentence = "every server must take 23; take 23..=65535";
        table.wrong(
            self.client_id_bytes_max < 23,
            "client_id_bytes_max",
            sentence,
        );
        let information = self.response_information.as_deref();
        table.wrong(
            information.is_some_and(|text| text.len() > 1024 || text.contains('\0')),
            "response_information",
            "longer than 1,024 bytes, or has a null character",
        );
    }
}

impl Kafka {
    fn problems(&self, mut table: Table<'_>) {
        let frame = (64 << 10..=1 << 30).contains(&self.frame_bytes_max.0);
        table.wrong(!frame, "frame_bytes_max", "not in 64 KiB..=1 GiB");
        for (key, size) in [
            ("requests_bytes_max", self.requests_bytes_max),
            ("responses_bytes_max", self.responses_bytes_max),
        ] {
            table.wrong(size.0 < 1 << 20, key, "less than 1 MiB");
        }
    }
}

impl Log {
    fn problems(&self, mut table: Table<'_>) {
        let partitions = (1..=1000).contains(&self.partitions);
        table.wrong(!partitions, "partitions", "not in 1..=1000");
        let files = self.open_files_max;
        table.wrong(
            files.is_some_and(|count| !(16..=100_000).contains(&count)),
            "open_files_max",
            "not in 16..=100,000",
        );
        let segment = (64 << 10..=1 << 30).contains(&self.segment_bytes.0);
        table.wrong(!segment, "segment_bytes", "not in 64 KiB..=1 GiB");
        let is_small = self.wal_bytes_max.is_some_and(|size| size.0 < 1 << 20);
        table.wrong(is_small, "wal_bytes_max", "less than 1 MiB");
        let is_outside = self.mode == Mode::External || self.ack == Ack::Kafka;
        let sentence = "an outside Kafka is not built yet; take \"embedded\"";
        table.wrong(is_outside, "mode", sentence);
    }
}

impl Store {
    fn problems(&self, mut table: Table<'_>) {
        let sentence = "0 would keep no document";
        table.wrong(self.retention.0 == 0, "retention", sentence);
        let sentence = "an outside MongoDB is not built yet; take \"embedded\"";
        table.wrong(self.mode == Mode::External, "mode", sentence);
    }
}
