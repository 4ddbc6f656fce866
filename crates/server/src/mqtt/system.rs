//! `$SYS`: the broker's numbers in the shapes that mosquitto and EMQX made a custom.
//!
//! For: reckoning the values from what the shards count, saying those that changed.
//! Not for: who gets them (`mqtt-broker`); `/metrics`, which has more of them.
//! Calls: the shards' counters. Called by: `serve`, which spawns [`run`].
//! Holds: a payload that is a number begins with it, for exporters take the first they find; no
//! message costs anything for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headwater_mqtt_broker::{Counts, Input, Shared};
use headwater_mqtt_codec::Text;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::shard::{Common, Mail};
use super::wall_ms;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Says the values at once and then each `every`, until `stopping` says so.
pub(crate) async fn run(
    common: Arc<Common>,
    shared: Arc<Shared>,
    node: String,
    every: Duration,
    mut stopping: watch::Receiver<bool>,
) {
    let begun = Instant::now();
    let (mut said, mut loads, mut last) = (Said::default(), Loads::default(), begun);
    let mut turns = interval(every);
    turns.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            _ = turns.tick() => {}
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
        let now = Instant::now();
        let sample = Sample {
            uptime: now - begun,
            wall_ms: wall_ms(),
            counts: common.counters.totals(),
            sockets: common.counters.places.held(),
            retained: shared.retained_size(),
            heap: Heap::now(),
        };
        loads.add(&sample.counts, now - last);
        last = now;
        let values = said.news(values(&sample, &loads, &node));
        if let Some(inbox) = common.inboxes.first()
            && !values.is_empty()
        {
            inbox.put([Mail::Input(Input::System(values))]);
        }
    }
}

/// What is known at one moment.
struct Sample {
    uptime: Duration,
    wall_ms: i64,
    counts: Counts,
    sockets: u64,
    /// Retained Messages and their bytes.
    retained: (usize, usize),
    heap: Heap,
}

/// Memory of the process in bytes: now, and the most it was.
#[derive(Default)]
struct Heap {
    current: u64,
    maximum: u64,
}

impl Heap {
    fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let find = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let bytes = |name| find(name).unwrap_or(0) * 1024;
        Self {
            current: bytes("VmRSS:"),
            maximum: bytes("VmHWM:"),
        }
    }
}

fn messages_dropped(counts: &Counts) -> u64 {
    counts.dropped_qos0
        + counts.dropped_limit
        + counts.dropped_expired
        + counts.dropped_too_large
        + counts.dropped_gone
}

fn publishes_received(counts: &Counts) -> u64 {
    counts.received_qos0 + counts.received_qos1 + counts.received_qos2
}

fn publishes_sent(counts: &Counts) -> u64 {
    counts.sent_qos0 + counts.sent_qos1 + counts.sent_qos2
}

/// A total that has moving averages, by its name below `load/`.
struct Load {
    name: &'static str,
    total: fn(&Counts) -> u64,
}

const fn load(name: &'static str, total: fn(&Counts) -> u64) -> Load {
    Load { name, total }
}

const LOADS: [Load; 9] = [
    load("messages/received", |counts| counts.packets_received),
    load("messages/sent", |counts| counts.packets_sent),
    load("publish/received", publishes_received),
    load("publish/sent", publishes_sent),
    load("publish/dropped", messages_dropped),
    load("bytes/received", |counts| counts.bytes_received),
    load("bytes/sent", |counts| counts.bytes_sent),
    load("connections", |counts| counts.connected),
    load("sockets", |counts| counts.opened),
];

/// Minutes that an average looks back, by their names.
const SPANS: [(&str, f64); 3] = [("1min", 60.0), ("5min", 300.0), ("15min", 900.0)];

/// Averages per minute that forget by time, as mosquitto reckons them.
#[derive(Default)]
struct Loads {
    before: [u64; LOADS.len()],
    averages: [[f64; SPANS.len()]; LOADS.len()],
    /// Clients connected at once, the most that were seen.
    connected_max: u64,
}

impl Loads {
    fn add(&mut self, counts: &Counts, elapsed: Duration) {
        self.connected_max = self.connected_max.max(counts.connections);
        let seconds = elapsed.as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        let all = LOADS.iter().zip(&mut self.before).zip(&mut self.averages);
        for ((load, before), averages) in all {
            let total = (load.total)(counts);
            let more = total - std::mem::replace(before, total).min(total);
            let a_minute = more as f64 * 60.0 / seconds;
            for ((_, span), average) in SPANS.iter().zip(averages) {
                *average = a_minute + (-seconds / span).exp() * (*average - a_minute);
            }
        }
    }
}

/// All values, by Topic Name.
fn values(sample: &Sample, loads: &Loads, node: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    mosquitto(sample, loads, &mut all);
    for (Load { name, .. }, averages) in LOADS.iter().zip(&loads.averages) {
        for ((span, _), average) in SPANS.iter().zip(averages) {
            let topic = format!("$SYS/broker/load/{name}/{span}");
            all.push((topic, format!("{average:.2}")));
        }
    }
    let uptime_ms = sample.uptime.as_millis();
    let mut emqx = |topic: String, value: String| all.push((topic, value));
    emqx("$SYS/brokers".to_owned(), node.to_owned());
    let mine = |name: &str| format!("$SYS/brokers/{node}/{name}");
    emqx(mine("version"), VERSION.to_owned());
    emqx(mine("uptime"), uptime_ms.to_string());
    emqx(mine("datetime"), datetime(sample.wall_ms));
    emqx(mine("sysdescr"), "Headwater".to_owned());
    all
}

fn mosquitto(sample: &Sample, loads: &Loads, all: &mut Vec<(String, String)>) {
    let counts = &sample.counts;
    let uptime = sample.uptime.as_secs();
    let away = counts.sessions.saturating_sub(counts.connections);
    let (retained, retained_bytes) = (sample.retained.0 as u64, sample.retained.1 as u64);
    let mut say = |name: &str, value: String| all.push((format!("$SYS/broker/{name}"), value));
    say("version", format!("{VERSION} (headwater)"));
    say("uptime", format!("{uptime} seconds"));
    for (name, number) in [
        ("clients/total", counts.connections + away),
        ("clients/connected", counts.connections),
        ("clients/active", counts.connections),
        ("clients/disconnected", away),
        ("clients/inactive", away),
        ("clients/maximum", loads.connected_max),
        ("clients/expired", counts.sessions_expired),
        ("messages/received", counts.packets_received),
        ("messages/sent", counts.packets_sent),
        ("messages/stored", retained),
        ("publish/messages/received", publishes_received(counts)),
        ("publish/messages/sent", publishes_sent(counts)),
        ("publish/messages/dropped", messages_dropped(counts)),
        ("publish/bytes/received", counts.payload_received),
        ("publish/bytes/sent", counts.payload_sent),
        ("bytes/received", counts.bytes_received),
        ("bytes/sent", counts.bytes_sent),
        ("store/messages/count", retained),
        ("store/messages/bytes", retained_bytes),
        ("retained messages/count", retained),
        ("subscriptions/count", counts.subscriptions),
        ("shared_subscriptions/count", counts.shared_subscriptions),
        ("connections/socket/count", sample.sockets),
        ("heap/current", sample.heap.current),
        ("heap/maximum", sample.heap.maximum),
        ("packet/out/count", counts.waiting_packets),
        ("packet/out/bytes", counts.waiting_bytes),
    ] {
        say(name, number.to_string());
    }
}

/// What was said last, so that only news are said again.
#[derive(Default)]
struct Said(HashMap<String, String>);

impl Said {
    fn news(&mut self, values: Vec<(String, String)>) -> Vec<(Text, Bytes)> {
        let mut news = Vec::new();
        for (topic, value) in values {
            if self.0.get(&topic) == Some(&value) {
                continue;
            }
            // A node's name has what a Topic Name may have; the configuration sees to it.
            if let Ok(name) = Text::try_from(topic.as_str()) {
                news.push((name, Bytes::from(value.clone())));
            }
            self.0.insert(topic, value);
        }
        news
    }
}

/// As EMQX writes it: `2026-11-22T23:51:03.000+00:00`.
fn datetime(wall_ms: i64) -> String {
    let (day, ms) = (
        wall_ms.div_euclid(86_400_000),
        wall_ms.rem_euclid(86_400_000),
    );
    let (year, month, day) = civil(day);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    let ms = ms % 1_000;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}+00:00")
}

/// Year, month and day of a day since 1970, in years that begin with March so that the day that
/// is sometimes there comes last.
fn civil(day: i64) -> (i64, i64, i64) {
    let day = day + 719_468; // Since 1 March of the year 0.
    let (era, in_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (in_era - in_era / 1_460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year + year / 4 - year / 100);
    let march = (5 * in_year + 2) / 153;
    let day = in_year - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(counts: Counts) -> Sample {
        Sample {
            uptime: Duration::from_secs(7),
            wall_ms: 1_795_391_463_007,
            counts,
            sockets: 3,
            retained: (2, 20),
            heap: Heap::now(),
        }
    }

    #[test]
    fn a_load_nears_the_rate_as_mosquittos_does() {
        let mut loads = Loads::default();
        let mut counts = Counts::default();
        for turn in 1..=90 {
            counts.received_qos1 += 100;
            loads.add(&counts, Duration::from_secs(10));
            let [one, five, fifteen] = loads.averages[2];
            // 600 a minute times what e-functions of the time have left of nothing.
            let passed = f64::from(turn) * 10.0;
            for (average, span) in [(one, 60.0), (five, 300.0), (fifteen, 900.0)] {
                let expected = 600.0 * (1.0 - (-passed / span).exp());
                assert!((average - expected).abs() < 1e-6, "{average} {expected}");
            }
        }
        let all = values(&sample(counts), &loads, "n");
        let value = |topic: &str| {
            let found = all.iter().find(|(name, _)| name == topic);
            found.map(|(_, value)| value.as_str())
        };
        let load = "$SYS/broker/load/publish/received";
        assert_eq!(value(&format!("{load}/1min")), Some("600.00"));
        assert_eq!(value(&format!("{load}/15min")), Some("379.27"));
        assert_eq!(value("$SYS/broker/load/publish/sent/5min"), Some("0.00"));
    }

    #[test]
    fn every_number_is_at_the_beginning_and_only_news_are_said() {
        let (mut said, loads) = (Said::default(), Loads::default());
        let first = said.news(values(&sample(Counts::default()), &loads, "a@b"));
        assert_eq!(first.len(), 2 + 27 + 9 * 3 + 5);
        for (topic, payload) in &first {
            let is_text = ["$SYS/brokers", "$SYS/brokers/a@b/sysdescr"].contains(&&**topic);
            assert!(is_text || payload[0].is_ascii_digit(), "{topic}");
        }
        assert!(
            first
                .iter()
                .any(|(topic, _)| &**topic == "$SYS/broker/retained messages/count")
        );
        let counts = Counts {
            sessions: 5,
            connections: 2,
            ..Counts::default()
        };
        let news = said.news(values(&sample(counts), &loads, "a@b"));
        let mut names: Vec<&str> = news.iter().map(|(topic, _)| &**topic).collect();
        names.retain(|name| name.starts_with("$SYS/broker/clients/"));
        names.sort_unstable();
        let expected = ["active", "connected", "disconnected", "inactive", "total"];
        assert_eq!(
            names,
            expected.map(|name| format!("$SYS/broker/clients/{name}"))
        );
    }

    #[test]
    fn time_is_written_as_emqx_writes_it() {
        for (wall_ms, text) in [
            (0, "1970-01-01T00:00:00.000+00:00"),
            (951_782_399_999, "2000-02-28T23:59:59.999+00:00"),
            (951_868_799_000, "2000-02-29T23:59:59.000+00:00"),
            (1_795_391_463_007, "2026-11-22T23:51:03.007+00:00"),
        ] {
            assert_eq!(datetime(wall_ms), text);
        }
    }
}
