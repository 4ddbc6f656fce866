//! Retention passes over records that Sessions are owed: which, and where they went.

use std::collections::BTreeMap;

use crate::owed::{Owed, OwedEntry, OwedGroup};
use crate::session::Progress;
use crate::{Effect, Moved, OwedReference, Position, Shard};

impl Shard {
    /// Answers `Input::Retire`.
    pub(crate) fn retire(&mut self, partition: u32, before: u64) {
        let mut found: BTreeMap<u64, (Position, OwedEntry)> = BTreeMap::new();
        for (_, session) in &self.sessions {
            let number = session.number();
            let unsent = session.inflight.iter().filter(|inflight| {
                !matches!(inflight.progress, Progress::Recorded | Progress::Released)
            });
            let unsent = unsent.filter_map(|inflight| inflight.owed.as_deref().cloned());
            for owed in unsent.chain(session.owed.iter()) {
                let position = owed.position;
                if position.partition == partition && position.offset < before {
                    add(&mut found, number, owed);
                }
            }
        }
        let references = found.into_iter().map(|(sequence, (position, mut entry))| {
            for group in &mut entry.groups {
                group.sessions.sort_unstable();
            }
            OwedReference {
                sequence,
                position,
                entry: entry.encode(),
            }
        });
        let references = references.collect();
        self.effects.push(Effect::Owes {
            partition,
            before,
            references,
        });
    }

    /// References follow their records; `moved` ascends by sequence.
    pub(crate) fn follow(&mut self, moved: &[Moved]) {
        for (_, session) in &mut self.sessions {
            session.owed.rewrite(moved);
            for owed in session
                .inflight
                .iter_mut()
                .filter_map(|inflight| inflight.owed.as_mut())
            {
                let found = moved.iter().find(|one| one.sequence == owed.sequence);
                if let Some(one) = found.filter(|one| one.from == owed.position) {
                    owed.position = one.to;
                }
            }
        }
    }
}

fn add(found: &mut BTreeMap<u64, (Position, OwedEntry)>, number: u64, owed: Owed) {
    let Owed {
        sequence,
        position,
        qos,
        retain,
        weight,
        ids,
    } = owed;
    let (_, entry) = found.entry(sequence).or_insert_with(|| {
        (
            position,
            OwedEntry {
                weight,
                original: Some(sequence),
                groups: Vec::new(),
            },
        )
    });
    let same =
        |group: &&mut OwedGroup| group.qos == qos && group.retain == retain && group.ids == *ids;
    match entry.groups.iter_mut().find(same) {
        Some(group) => group.sessions.push(number),
        None => {
            let ids = ids.to_vec();
            entry.groups.push(OwedGroup {
                qos,
                retain,
                ids,
                sessions: vec![number],
            });
        }
    }
}
