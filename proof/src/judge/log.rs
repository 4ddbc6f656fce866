//! What the log holds: every acknowledged message, QoS 2 once, in order; offsets dense, their records for ever the same.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::book::{Book, MessageId};
use super::{Kind, Rules, Verdict};
use crate::evidence::{Evidence, Identity};
use crate::history::Proto;

/// The log as the last pass over each partition left it.
#[derive(Debug, Default)]
pub(super) struct LogContents<'a> {
    /// By topic, partition, offset.
    pub(super) records: BTreeMap<(&'a str, u32, u64), &'a Identity>,
}

pub(super) fn check<'a>(
    evidence: &'a Evidence,
    book: &Book<'a>,
    rules: &Rules,
    verdict: &mut Verdict,
) -> LogContents<'a> {
    let contents = read(evidence, verdict);
    verdict.figures.records = contents.records.len() as u64;
    let copies = copies(&contents, book, verdict);
    for (id, sent) in book.acknowledged() {
        let name = || {
            format!(
                "{}/{} on {} (QoS {})",
                id.producer, id.seq, sent.topic, sent.qos
            )
        };
        match sent.proto {
            Proto::Mqtt => {
                let owed = rules.routed_to.is_some() && sent.qos > 0;
                if owed && !copies.contains_key(&id) {
                    verdict.lose(Kind::LostFromLog, id.producer, id.seq, name);
                }
            }
            Proto::Kafka => {
                // Produce's answer named the place: it must be there, not just somewhere.
                let there = sent.position.and_then(|(partition, offset)| {
                    contents.records.get(&(sent.topic, partition, offset))
                });
                let found = there.is_some_and(|identity| message(identity) == Some(id));
                if !found {
                    verdict.lose(Kind::LostFromLog, id.producer, id.seq, || {
                        format!("{} at {:?}", name(), sent.position)
                    });
                }
            }
            Proto::Harness => {}
        }
    }
    contents
}

fn message(identity: &Identity) -> Option<MessageId<'_>> {
    match identity {
        Identity::Message { producer, seq } => Some(MessageId {
            producer,
            seq: *seq,
        }),
        Identity::Foreign { .. } => None,
    }
}

/// Lays all passes over each other: what one of them saw at an offset, every later one that covers it must see.
fn read<'a>(evidence: &'a Evidence, verdict: &mut Verdict) -> LogContents<'a> {
    let mut seen: HashMap<(&str, u32, u64), u32> = HashMap::new();
    let mut ends: HashMap<(&str, u32), u64> = HashMap::new();
    let mut contents = LogContents::default();
    for reading in &evidence.readings {
        let place = (reading.topic.as_str(), reading.partition);
        let name = |offset: u64| format!("{}/{}@{offset}", reading.topic, reading.partition);
        let mut next = reading.from;
        for record in &reading.records {
            if record.offset != next {
                verdict.add(Kind::OffsetGap, || {
                    format!("{}, expected {next}", name(record.offset))
                });
            }
            next = record.offset + 1;
            let before = seen.insert((place.0, place.1, record.offset), record.checksum);
            if before.is_some_and(|before| before != record.checksum) {
                verdict.add(Kind::OffsetChanged, || name(record.offset));
            }
            contents
                .records
                .insert((place.0, place.1, record.offset), &record.identity);
        }
        if next < reading.high_watermark {
            verdict.add(Kind::OffsetGap, || {
                format!(
                    "{}: the high watermark is {}",
                    name(next),
                    reading.high_watermark
                )
            });
        }
        let end = ends.entry(place).or_default();
        if reading.high_watermark.max(next) < *end {
            verdict.add(Kind::OffsetVanished, || {
                format!("{} was read, the log now ends at {next}", name(*end - 1))
            });
            contents.records.retain(|(topic, partition, offset), _| {
                (*topic, *partition) != place || *offset < next
            });
        }
        *end = next.max(*end);
    }
    contents
}

/// Counts the copies of each message in each topic, and holds order and identity meanwhile.
fn copies<'a>(
    contents: &LogContents<'a>,
    book: &Book<'a>,
    verdict: &mut Verdict,
) -> HashMap<MessageId<'a>, u32> {
    let mut copies: HashMap<MessageId<'_>, u32> = HashMap::new();
    let mut highest: HashMap<(&str, u32, &str, &str), u64> = HashMap::new();
    let mut placed: HashSet<(&str, MessageId<'_>)> = HashSet::new();
    for ((kafka_topic, partition, offset), identity) in &contents.records {
        let name = || format!("{kafka_topic}/{partition}@{offset}: {identity:?}");
        let sent = message(identity).and_then(|id| Some((id, book.messages.get(&id)?)));
        let Some((id, sent)) = sent else {
            verdict.add(Kind::Phantom, name);
            continue;
        };
        if sent.is_refused() {
            verdict.add(Kind::Phantom, || format!("{} was refused", name()));
        }
        *copies.entry(id).or_default() += 1;
        if !placed.insert((kafka_topic, id)) {
            if sent.is_once() {
                verdict.add(Kind::DoubledInLog, name);
            }
            continue;
        }
        let highest = highest
            .entry((kafka_topic, *partition, id.producer, sent.topic))
            .or_default();
        if id.seq < *highest {
            let before = *highest;
            verdict.add(Kind::OrderInLog, || format!("{} after {before}", name()));
        }
        *highest = id.seq.max(*highest);
    }
    copies
}
