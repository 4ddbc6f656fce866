//! The judge: does a history keep the promises of an acknowledgement?
//!
//! For: one pure function from [`Evidence`] to a [`Verdict`], run on each fault round and by hand on an old history.
//! Not for: driving or reading the program under test, and for no knowledge of how it works inside.
//! Calls: `book` (who sent what), `deliveries`, `log`, `documents`. Called by: the fault rounds and `headwater-proof check`.
//! Holds: it can fail. Each rule has a test that breaks it, and a run in which too little happened is not a pass.
//!
//! Three fates a message can have: *acknowledged*, it must appear; *refused*, it must not; *open* (no answer, the
//! connection was lost), it may, at QoS 2 at most once.

mod book;
mod deliveries;
mod documents;
mod log;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::evidence::Evidence;
use crate::history::Op;
use book::Book;

/// How near before a fault an acknowledgement must lie to be one that the fault could have taken back.
const NEAR_FAULT_MICROS: u64 = 100_000;
/// Examples kept of each kind of violation; all are counted.
const EXAMPLES_MAX: usize = 10;

/// What this run must hold besides the promises themselves.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rules {
    /// Kafka topic that takes every MQTT message; `None` when the program under test has no log.
    pub routed_to: Option<String>,
    /// Fewer faults than this, and the run proves nothing.
    pub faults_min: u64,
    /// Fewer acknowledgements within 100 ms before a fault, over all faults, and the run proves nothing.
    pub acks_near_faults_min: u64,
}

/// A way to break a promise.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Acknowledged, and not delivered to a session that was subscribed then.
    LostToSession,
    /// Acknowledged, and not in the log.
    LostFromLog,
    /// In the log, and not a document.
    LostFromDocuments,
    /// QoS 2, and delivered twice to one session, after its own packet-identifier rule.
    DoubledToSession,
    /// QoS 2 (or one acknowledged Produce that was sent once), and twice in the log.
    DoubledInLog,
    /// Two documents of one position, or a document of a position that the log does not hold.
    DocumentPhantom,
    /// A document that is not what its position in the log says.
    DocumentDiffers,
    /// A producer's messages arrived at a session in another order.
    OrderAtSession,
    /// A producer's messages stand in the log in another order.
    OrderInLog,
    /// Something arrived that was never sent, was refused, or was changed on the way.
    Phantom,
    /// Delivered to a session that did not subscribe to it.
    NotAskedFor,
    /// A session that was promised is gone.
    SessionLost,
    /// The Retained Message is older than the last acknowledged one.
    RetainedStale,
    /// An offset is missing between two others.
    OffsetGap,
    /// A record at an offset changed.
    OffsetChanged,
    /// A record that a reader saw is gone.
    OffsetVanished,
    /// A group stands before a position it had committed.
    CommitWentBack,
    /// Too little happened for this run to prove anything.
    Vacuous,
}

/// What the judge found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Verdict {
    pub figures: Figures,
    /// How often each promise was broken. Empty: the history is clean.
    pub violations: BTreeMap<Kind, u64>,
    pub examples: Vec<(Kind, String)>,
    /// The names of the lost messages, so that one lost in three places is counted once.
    #[serde(skip)]
    lost: BTreeSet<(String, u64)>,
}

/// What happened in the run.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    pub sent: u64,
    pub acked: u64,
    pub refused: u64,
    /// Application deliveries to sessions, after the receivers' packet-identifier rule.
    pub delivered: u64,
    /// QoS 1 deliveries that repeated an earlier one; allowed.
    pub repeated: u64,
    /// Acknowledged messages that are missing at a session, in the log or in the documents; each counts once.
    pub lost: u64,
    pub records: u64,
    pub documents: u64,
    pub faults: u64,
    pub acks_near_faults: u64,
    pub recovery_millis_max: u64,
}

impl Verdict {
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    pub fn count(&self, kind: Kind) -> u64 {
        self.violations.get(&kind).copied().unwrap_or(0)
    }

    /// QoS 2 and twice, in either direction.
    pub fn doubled(&self) -> u64 {
        self.count(Kind::DoubledToSession) + self.count(Kind::DoubledInLog)
    }

    /// A violation by which an acknowledged message is missing.
    fn lose(&mut self, kind: Kind, producer: &str, seq: u64, example: impl FnOnce() -> String) {
        self.lost.insert((producer.to_owned(), seq));
        self.figures.lost = self.lost.len() as u64;
        self.add(kind, example);
    }

    fn add(&mut self, kind: Kind, example: impl FnOnce() -> String) {
        let count = self.violations.entry(kind).or_default();
        *count += 1;
        if *count <= EXAMPLES_MAX as u64 {
            self.examples.push((kind, example()));
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figures = &self.figures;
        writeln!(
            f,
            "{} faults, {} acknowledged ({} within 100 ms before a fault), {} lost, {} doubled, slowest recovery {} ms",
            figures.faults,
            figures.acked,
            figures.acks_near_faults,
            figures.lost,
            self.doubled(),
            figures.recovery_millis_max,
        )?;
        writeln!(
            f,
            "{} sent, {} refused, {} delivered, {} repeated at QoS 1, {} records, {} documents",
            figures.sent,
            figures.refused,
            figures.delivered,
            figures.repeated,
            figures.records,
            figures.documents,
        )?;
        for (kind, count) in &self.violations {
            writeln!(f, "BROKEN {kind:?}: {count}")?;
            for (_, example) in self.examples.iter().filter(|(of, _)| of == kind) {
                writeln!(f, "    {example}")?;
            }
        }
        Ok(())
    }
}

/// Judges a run.
pub fn judge(evidence: &Evidence, rules: &Rules) -> Verdict {
    let book = Book::of(&evidence.events);
    let mut verdict = Verdict::default();
    count(evidence, &book, &mut verdict);
    deliveries::check(&evidence.events, &book, &mut verdict);
    let log = log::check(evidence, &book, rules, &mut verdict);
    if let Some(documents) = &evidence.documents {
        documents::check(documents, &log, rules, &mut verdict);
    }
    check_commits(evidence, &mut verdict);
    check_vacuity(rules, &mut verdict);
    verdict
}

fn count(evidence: &Evidence, book: &Book<'_>, verdict: &mut Verdict) {
    let figures = &mut verdict.figures;
    figures.sent = book.messages.len() as u64;
    figures.acked = book
        .messages
        .values()
        .filter(|message| message.acked_at.is_some())
        .count() as u64;
    figures.refused = book
        .messages
        .values()
        .filter(|message| message.is_refused())
        .count() as u64;
    let crashes: Vec<u64> = evidence
        .events
        .iter()
        .filter(|event| event.op == Op::Crash)
        .map(|event| event.t_mono)
        .collect();
    figures.faults = crashes.len() as u64;
    figures.acks_near_faults = book
        .messages
        .values()
        .filter_map(|message| message.acked_at)
        .filter(|at| {
            crashes
                .iter()
                .any(|crash| *at <= *crash && *at + NEAR_FAULT_MICROS >= *crash)
        })
        .count() as u64;
    figures.recovery_millis_max = evidence
        .events
        .iter()
        .filter(|event| event.op == Op::Ready)
        .map(|event| event.millis)
        .max()
        .unwrap_or(0);
}

/// A group's position never goes back by itself: what OffsetFetch says is never before what OffsetCommit acknowledged.
fn check_commits(evidence: &Evidence, verdict: &mut Verdict) {
    let mut acknowledged: BTreeMap<(&str, &str, u32), u64> = BTreeMap::new();
    for event in &evidence.events {
        let place = (event.client.as_str(), event.topic.as_str(), event.partition);
        match event.op {
            Op::Commit => {
                let highest = acknowledged.entry(place).or_default();
                *highest = event.offset.max(*highest);
            }
            Op::Committed => {
                let highest = acknowledged.get(&place).copied().unwrap_or(0);
                if event.offset < highest {
                    verdict.add(Kind::CommitWentBack, || {
                        let (group, topic, partition) = place;
                        format!(
                            "group {group} on {topic}/{partition}: at {}, had committed {highest}",
                            event.offset
                        )
                    });
                }
            }
            _ => {}
        }
    }
}

fn check_vacuity(rules: &Rules, verdict: &mut Verdict) {
    let Figures {
        acked,
        faults,
        acks_near_faults,
        ..
    } = verdict.figures;
    if acked == 0 {
        verdict.add(Kind::Vacuous, || "nothing was acknowledged".to_owned());
    }
    if faults < rules.faults_min {
        verdict.add(Kind::Vacuous, || {
            format!("{faults} faults fired, {} wanted", rules.faults_min)
        });
    }
    if acks_near_faults < rules.acks_near_faults_min {
        verdict.add(Kind::Vacuous, || {
            format!(
                "{acks_near_faults} acknowledgements just before a fault, {} wanted",
                rules.acks_near_faults_min
            )
        });
    }
}

#[cfg(test)]
mod tests;
