//! Whether memory is what a restart would make of the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use headwater_mqtt_codec::{QoS, SubscriptionId};

use super::World;
use crate::input::Between;
use crate::retained::Scan;
use crate::session::{Progress, Session};
use crate::{Input, Position, Restore, ShardMessage, Shared};

/// A Session, reduced to what both sides must agree on.
#[derive(Debug, Default, Eq, PartialEq)]
struct View {
    client: String,
    expiry_seconds: u32,
    will: Option<(u32, Bytes)>,
    /// Wills that wait for the log.
    late: Vec<Bytes>,
    subscriptions: BTreeMap<String, (QoS, Option<SubscriptionId>)>,
    inbound: BTreeSet<u16>,
    /// Packet Identifier -> PUBREL is the next to be sent.
    outbound: BTreeMap<u16, bool>,
    /// Sequences that may have to be sent.
    owed: BTreeSet<u64>,
    /// Messages of groups that it has for good: group, sequence, where they are.
    taken: BTreeSet<(u64, u64, Position)>,
    /// Of a group: sequences that members have for good.
    handed: BTreeSet<u64>,
    /// Packet Identifiers whose rows may still be those of earlier messages.
    storing: BTreeSet<u16>,
}

/// Topic -> payload and when it came.
type Retained = BTreeMap<String, (Bytes, i64)>;

impl View {
    fn new(session: &Session) -> Self {
        let mut view = Self {
            client: session.publisher.client.to_string(),
            expiry_seconds: session.expiry_seconds,
            ..Self::default()
        };
        let will = session.will.as_ref();
        view.will = will.map(|will| (will.delay_seconds, will.message.payload.clone()));
        let late = session.late.iter().flat_map(|late| late.messages());
        view.late = late.map(|message| message.payload.clone()).collect();
        for one in &session.subscriptions {
            let options = (one.options.qos, one.id);
            view.subscriptions.insert(one.filter.to_string(), options);
        }
        if let Some(group) = &session.group {
            view.owed = session.owed.iter().map(|owed| owed.sequence).collect();
            view.owed.extend(group.owed().map(|owed| owed.sequence));
            view.handed = group.handed.iter().copied().collect();
            return view;
        }
        if !session.is_persistent() {
            return view;
        }
        let inbound = session.inbound.iter().filter(|(_, taken)| **taken);
        view.inbound = inbound.map(|(id, _)| *id).collect();
        view.owed = session.owed.iter().map(|owed| owed.sequence).collect();
        for one in &session.inflight {
            let Some(owed) = &one.owed else { continue };
            match one.progress {
                Progress::Sent => {}
                Progress::Storing => drop(view.storing.insert(one.id)),
                Progress::SentOnce | Progress::Recorded => {
                    view.outbound.insert(one.id, false);
                }
                Progress::Released => {
                    view.outbound.insert(one.id, true);
                    continue;
                }
            }
            if !owed.is_own() {
                let taken = (owed.group, owed.sequence, owed.position);
                if one.progress != Progress::Storing {
                    view.taken.insert(taken);
                }
                continue;
            }
            view.owed.insert(owed.sequence);
        }
        view
    }
}

fn retained(shared: &Shared) -> Retained {
    let mut scan = Scan::new(u64::MAX);
    let all = shared
        .retained
        .slice("#", &mut scan, usize::MAX, usize::MAX);
    let facts = all.found.iter().map(|one| {
        let value = (one.payload.clone(), one.at_ms);
        (one.topic.to_string(), value)
    });
    facts.collect()
}

impl World {
    /// With nothing under way. What is written lazily may differ unless it is `settled`.
    pub(crate) fn agrees_with_its_log(&self, settled: bool) -> Result<(), String> {
        let shared = Arc::new(Shared::new(self.config()));
        let inputs = self.restore(&shared);
        let mut theirs = BTreeMap::new();
        for input in inputs.into_iter().flatten() {
            let Input::FromShard(ShardMessage(Between::Restored(session))) = input else {
                continue;
            };
            theirs.insert(session.number(), View::new(&session));
        }
        // What the log still has as a member's that has ended, it was asked to let go.
        let returning = self.shards.iter().flat_map(|shard| &shard.giving_back);
        let returning: Vec<(u64, u64)> = returning
            .filter(|_| !settled)
            .filter_map(|(given, sequence)| Some((given.group.number(), (*sequence)?)))
            .collect();
        let ours = self.shards.iter().flat_map(|shard| &shard.sessions);
        for (_, session) in ours.filter(|(_, session)| session.has_rows) {
            let mut mine = View::new(session);
            let number = session.number();
            let Some(mut log) = theirs.remove(&number) else {
                // Its rows are there until they may go; a restart prefers the Session after it.
                if session.over && !settled {
                    continue;
                }
                return Err(format!("the log does not know {number}: {mine:?}"));
            };
            if (session.row_dirty || session.over) && !settled {
                log.expiry_seconds = mine.expiry_seconds;
                log.will = mine.will.clone();
            }
            // What was dropped or settled may still stand there: at worst it is sent again.
            log.owed.retain(|sequence| mine.owed.contains(sequence));
            if session.floor_dirty && !settled {
                log.outbound.retain(|id, _| mine.outbound.contains_key(id));
            }
            for sequence in returning.iter().filter(|(group, _)| *group == number) {
                mine.owed.remove(&sequence.1);
                log.handed.remove(&sequence.1);
            }
            let storing = std::mem::take(&mut mine.storing);
            log.outbound.retain(|id, _| !storing.contains(id));
            if session.floor_dirty && !settled {
                // What was finished may still stand there, for it and for its group.
                log.taken.retain(|one| mine.taken.contains(one));
            }
            if mine != log {
                return Err(format!(
                    "session {number} is {mine:?}, the log says {log:?}"
                ));
            }
        }
        theirs.retain(|number, log| {
            for one in returning.iter().filter(|(group, _)| group == number) {
                log.handed.remove(&one.1);
            }
            !log.client.is_empty() || !log.handed.is_empty()
        });
        if let Some((number, log)) = theirs.first_key_value() {
            return Err(format!("only the log knows {number}: {log:?}"));
        }
        let (mine, log) = (retained(&self.shared), retained(&shared));
        if mine != log {
            return Err(format!("retained are {mine:?}, the log says {log:?}"));
        }
        Ok(())
    }

    /// What a restart would begin with.
    pub(crate) fn restore(&self, shared: &Arc<Shared>) -> Vec<Vec<Input>> {
        let mut restore = Restore::new(shared.clone(), self.now);
        for ((table, key), value) in &self.log.tables {
            restore.row(*table, key, value);
        }
        if let Some(from) = restore.owed_from() {
            for (sequence, entry) in self.log.owed.iter().enumerate() {
                if let Some((position, entry)) = entry
                    && sequence as u64 >= from
                {
                    restore.owed(sequence as u64, *position, entry);
                }
            }
        }
        assert_eq!(restore.unreadable(), 0);
        restore.finish()
    }
}
