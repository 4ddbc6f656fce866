//! The metrics as OpenMetrics text, written at each scrape from plain counters.
//!
//! Holds: names are single-word prefixed, in base units, without client ids or topics as labels; a
//! counter's samples end in `_total`, its family does not; the text ends with `# EOF`.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use super::Running;

struct Text(String);

impl Text {
    /// One metric with its samples: label text (may be empty) and value.
    fn metric(&mut self, name: &str, kind: &str, help: &str, samples: &[(&str, u64)]) {
        self.head(name, kind, help);
        for (labels, value) in samples {
            writeln!(self.0, "{name}{labels} {value}").ok();
        }
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // OpenMetrics: the family of a counter is named without the suffix of its samples.
        let family = name.strip_suffix("_total").unwrap_or(name);
        writeln!(self.0, "# TYPE {family} {kind}\n# HELP {family} {help}").ok();
    }
}

fn certificates(out: &mut Text, running: &Running) {
    let name = "headwater_cert_expiry_timestamp_seconds";
    let help = "When the certificate of a listener ends, in seconds since 1970";
    out.head(name, "gauge", help);
    for (listener, expires_s, _) in running.certificates.states() {
        writeln!(out.0, "{name}{{listener=\"{listener}\"}} {expires_s}").ok();
    }
    let name = "headwater_cert_reload_good";
    let help = "Whether the certificate files of a listener were good when they were last read";
    out.head(name, "gauge", help);
    for (listener, _, good) in running.certificates.states() {
        let good = u8::from(good);
        writeln!(out.0, "{name}{{listener=\"{listener}\"}} {good}").ok();
    }
}

/// The whole answer of `/metrics`.
pub(super) fn text(running: &Running) -> String {
    let mut out = Text(String::new());
    let totals = running.counters.totals();
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let sockets = running.counters.places.held();
    let version = format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    out.metric(
        "headwater_build_info",
        "gauge",
        "Version of the program",
        &[(&version, 1)],
    );
    let durability = format!("{{mode=\"{}\"}}", running.durability.name());
    out.metric(
        "headwater_durability_mode",
        "gauge",
        "When writes count as done",
        &[(&durability, 1)],
    );
    out.metric(
        "headwater_sockets",
        "gauge",
        "Open MQTT sockets",
        &[("", sockets)],
    );
    out.metric(
        "headwater_connections_refused_total",
        "counter",
        "Connections closed at once because there were too many",
        &[
            ("{protocol=\"mqtt\"}", load(&running.counters.refused)),
            ("{protocol=\"kafka\"}", running.kafka.refused()),
        ],
    );
    out.metric(
        "headwater_handshakes_failed_total",
        "counter",
        "Connections that ended before their TLS, WebSocket or PROXY handshake was over",
        &[("", load(&running.counters.handshakes_failed))],
    );
    certificates(&mut out, running);
    out.metric(
        "headwater_connections",
        "gauge",
        "Connected MQTT clients",
        &[("", totals.connections)],
    );
    out.metric(
        "headwater_connections_unread_total",
        "counter",
        "Clients closed because they took nothing of what waited for them",
        &[("", totals.unread)],
    );
    out.metric(
        "headwater_reads_slowed_total",
        "counter",
        "Reads that waited because their client was ahead of its rates",
        &[("", totals.slowed)],
    );
    let (retained, retained_bytes) = running.shared.retained_size();
    let persistent = running.shared.persistent_sessions();
    out.metric(
        "headwater_sessions",
        "gauge",
        "MQTT sessions",
        &[
            ("{state=\"all\"}", totals.sessions),
            ("{state=\"persistent\"}", persistent),
        ],
    );
    out.metric(
        "headwater_retained",
        "gauge",
        "Retained messages",
        &[("", retained as u64)],
    );
    out.metric(
        "headwater_retained_bytes",
        "gauge",
        "Bytes of retained messages",
        &[("", retained_bytes as u64)],
    );
    out.metric(
        "headwater_not_retained_total",
        "counter",
        "Messages not retained, because retained messages were at their limit",
        &[("", totals.not_retained)],
    );
    let by_qos = |zero, one, two| {
        [
            ("{qos=\"0\"}", zero),
            ("{qos=\"1\"}", one),
            ("{qos=\"2\"}", two),
        ]
    };
    out.metric(
        "headwater_messages_received_total",
        "counter",
        "PUBLISHes taken from clients",
        &by_qos(
            totals.received_qos0,
            totals.received_qos1,
            totals.received_qos2,
        ),
    );
    out.metric(
        "headwater_messages_sent_total",
        "counter",
        "PUBLISHes sent to clients",
        &by_qos(totals.sent_qos0, totals.sent_qos1, totals.sent_qos2),
    );
    out.metric(
        "headwater_messages_dropped_total",
        "counter",
        "Messages that were not delivered, by reason",
        &[
            ("{reason=\"no_subscribers\"}", totals.unwanted),
            ("{reason=\"qos0\"}", totals.dropped_qos0),
            ("{reason=\"queue_full\"}", totals.dropped_limit),
            ("{reason=\"expired\"}", totals.dropped_expired),
            ("{reason=\"too_large\"}", totals.dropped_too_large),
            ("{reason=\"denied\"}", totals.dropped_denied),
            ("{reason=\"gone\"}", totals.dropped_gone),
            ("{reason=\"group_ended\"}", totals.dropped_group),
            ("{reason=\"refused\"}", totals.refused),
        ],
    );
    out.metric(
        "headwater_session_read_failures_total",
        "counter",
        "Reads of what sessions are owed that failed; each is tried again",
        &[("", totals.loads_failed)],
    );
    out.metric(
        "headwater_route_dead_letters_total",
        "counter",
        "Messages whose route could not be carried out, kept as dead letters",
        &[("", running.committer.dead_letters())],
    );
    log(&mut out, running);
    let sinks = &running.sinks;
    out.metric(
        "headwater_sink_documents_total",
        "counter",
        "Records handed to the document store",
        &[
            ("{result=\"written\"}", load(&sinks.written)),
            ("{result=\"repeated\"}", load(&sinks.repeated)),
            ("{result=\"dead_letter\"}", load(&sinks.dead)),
            ("{result=\"removed\"}", load(&sinks.removed)),
        ],
    );
    out.metric(
        "headwater_documents_expired_total",
        "counter",
        "Documents removed because of their age",
        &[("", load(&sinks.expired))],
    );
    out.metric(
        "headwater_sink_failures_total",
        "counter",
        "Failed turns of the store",
        &[("", load(&sinks.failures))],
    );
    let delivers = &running.delivers;
    out.metric(
        "headwater_deliver_records_total",
        "counter",
        "Records handed to the broker",
        &[
            ("{result=\"delivered\"}", load(&delivers.delivered)),
            ("{result=\"dead_letter\"}", load(&delivers.dead)),
            ("{result=\"removed\"}", load(&delivers.removed)),
            ("{result=\"refused\"}", load(&delivers.refused)),
        ],
    );
    let good = u64::from(running.reload_good.load(Ordering::Relaxed));
    out.metric(
        "headwater_config_last_reload_successful",
        "gauge",
        "Whether the last reload was taken",
        &[("", good)],
    );
    let panics = load(&running.counters.panics);
    out.metric(
        "headwater_panics_total",
        "counter",
        "Bugs that ended one connection",
        &[("", panics)],
    );
    out.0.push_str("# EOF\n");
    out.0
}

fn log(out: &mut Text, running: &Running) {
    let stats = running.log.stats();
    out.metric(
        "headwater_log_commits_total",
        "counter",
        "Group commits",
        &[("", stats.commits)],
    );
    out.metric(
        "headwater_log_records_total",
        "counter",
        "Records appended",
        &[("", stats.records)],
    );
    out.metric(
        "headwater_log_append_bytes_total",
        "counter",
        "Bytes appended",
        &[("", stats.bytes)],
    );
    out.metric(
        "headwater_log_syncs_total",
        "counter",
        "Syncs of the write-ahead file",
        &[("", stats.syncs)],
    );
    let name = "headwater_log_sync_seconds_total";
    out.head(name, "counter", "Time spent in those syncs");
    writeln!(
        out.0,
        "{name} {}.{:06}",
        stats.sync_micros / 1_000_000,
        stats.sync_micros % 1_000_000
    )
    .ok();
    out.metric(
        "headwater_log_checkpoints_total",
        "counter",
        "Checkpoints",
        &[("", stats.checkpoints)],
    );
    out.metric(
        "headwater_log_wal_bytes",
        "gauge",
        "Bytes of the write-ahead file",
        &[("", stats.wal_bytes)],
    );
    out.metric(
        "headwater_log_pending_bytes",
        "gauge",
        "Bytes waiting for a commit",
        &[("", stats.pending_bytes)],
    );
    out.metric(
        "headwater_log_full",
        "gauge",
        "1 while the disk is full",
        &[("", u64::from(stats.full))],
    );
    let memory = running.kafka.memory();
    out.metric(
        "headwater_kafka_memory_bytes",
        "gauge",
        "Bytes of Kafka requests and of fetched records in memory",
        &[
            ("{of=\"requests\"}", memory.requests_bytes as u64),
            ("{of=\"responses\"}", memory.responses_bytes as u64),
        ],
    );
    let groups = running.kafka.groups();
    let lag = groups
        .iter()
        .map(headwater_kafka_server::GroupView::lag)
        .sum();
    out.metric(
        "headwater_consumer_groups",
        "gauge",
        "Consumer groups",
        &[("", groups.len() as u64)],
    );
    out.metric(
        "headwater_consumer_group_lag",
        "gauge",
        "Records not yet committed by groups",
        &[("", lag)],
    );
}
