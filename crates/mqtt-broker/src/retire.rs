//! What Sessions still need of the log: asked before anything goes, and told where it went.
//!
//! For: retention that passes over records somebody is owed, and the internal partitions, which
//!   are trimmed up to what nobody needs and whose old entries are committed anew.
//! Not for: copying, committing and trimming, which `server` does.
//! Holds: Sessions are asked a few at a time, so that no Client waits for all of them. One that
//!   leaves before its turn is asked at the door. A Session on its way between shards is counted. Its move is a claim, and claims have
//!   their place in commit order, so the shard that waits for it answers once it is there.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::owed::{self, Owed, OwedEntry, OwedGroup};
use crate::session::{Progress, Session};
use crate::{CommitId, Effect, Moved, OwedReference, Position, Shard};

/// What shall go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Going {
    /// Records of `partition` below offset `before`: references to them must lead elsewhere.
    Records { partition: u32, before: u64 },
    /// Owed entries below this sequence: what still stands in them must be committed anew.
    Entries { before: u64 },
}

/// Sessions and messages of theirs that are looked at in one turn, about. Few in tests, so that the
/// schedules see turns.
const TURN: usize = if cfg!(test) { 8 } else { 20_000 };

/// A question about all Sessions of a shard, until the last of them is here.
#[derive(Debug)]
pub(crate) struct Inquiry {
    answer: Answer,
    /// The next slot to be asked, and the one behind the last.
    next: usize,
    end: usize,
    /// Claims before it in commit order whose Sessions are on their way here.
    waiting: Vec<CommitId>,
}

#[derive(Debug)]
enum Answer {
    Survey {
        id: u64,
        kept: Option<u32>,
        lowest_sequence: Option<u64>,
        lowest_kept: Option<u64>,
    },
    References {
        going: Going,
        found: BTreeMap<u64, (Position, OwedEntry)>,
        /// How many more may be found.
        room: usize,
        complete: bool,
    },
}

impl Shard {
    /// Answers `Input::Survey`.
    pub(crate) fn survey(&mut self, id: u64, kept: Option<u32>) {
        self.inquire(Answer::Survey {
            id,
            kept,
            lowest_sequence: None,
            lowest_kept: None,
        });
    }

    /// Answers `Input::Retire`.
    pub(crate) fn retire(&mut self, going: Going, references_max: usize) {
        self.inquire(Answer::References {
            going,
            found: BTreeMap::new(),
            room: references_max,
            complete: true,
        });
    }

    fn inquire(&mut self, answer: Answer) {
        let last = self.sessions.iter().next_back();
        self.inquiries.push(Inquiry {
            answer,
            next: 0,
            end: last.map_or(0, |(slot, _)| slot + 1),
            waiting: self.arrivals.keys().copied().collect(),
        });
        self.inquire_on();
    }

    /// One turn's part of what is asked.
    pub(crate) fn inquire_on(&mut self) {
        let mut left = TURN;
        let (sessions, effects) = (&self.sessions, &mut self.effects);
        self.inquiries.retain_mut(|inquiry| {
            while inquiry.next < inquiry.end && left > 0 {
                let session = sessions.get(inquiry.next);
                let work = session.map_or(0, |one| one.owed.len() + one.inflight.len());
                left = left.saturating_sub(1 + work);
                if let Some(session) = session {
                    inquiry.answer.examine(session);
                }
                inquiry.next += 1;
            }
            inquiry.stays(effects)
        });
    }

    /// Whether a question only waits for its next turn.
    pub(crate) fn has_inquiries(&self) -> bool {
        self.inquiries.iter().any(|one| one.next < one.end)
    }

    /// A Session leaves this shard, or a group lets go of what it is owed: questions that have not
    /// come to it do now.
    pub(crate) fn inquire_leaving(&mut self, slot: usize) {
        let Some(session) = self.sessions.get(slot) else {
            return;
        };
        for inquiry in &mut self.inquiries {
            if (inquiry.next..inquiry.end).contains(&slot) {
                inquiry.answer.examine(session);
            }
        }
    }

    /// A claimed Session is here, or there is none: whoever waited for it goes on.
    pub(crate) fn inquire_arrived(&mut self, claim: CommitId, slot: Option<usize>) {
        let session = slot.and_then(|slot| self.sessions.get(slot));
        let effects = &mut self.effects;
        self.inquiries.retain_mut(|inquiry| {
            let Some(index) = inquiry.waiting.iter().position(|one| *one == claim) else {
                return true;
            };
            inquiry.waiting.swap_remove(index);
            if let Some(session) = session {
                inquiry.answer.examine(session);
            }
            inquiry.stays(effects)
        });
    }

    /// References follow their records; `moved` ascends by sequence.
    pub(crate) fn follow(&mut self, moved: &Arc<[Moved]>) {
        debug_assert!(moved.is_sorted_by_key(|one| one.sequence));
        self.moves.note(moved);
        for (_, session) in &mut self.sessions {
            session.follow(moved);
        }
        for arrival in self.arrivals.values_mut() {
            arrival.moved.push(Arc::clone(moved));
        }
    }
}

/// What shards were told of moved records: all of them the same, each in its own time.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    /// How often.
    pub(crate) count: u64,
    /// The last of it.
    recent: VecDeque<Arc<[Moved]>>,
}

/// So much of it is kept.
const RECENT_MAX: usize = 4;

impl Moves {
    fn note(&mut self, moved: &Arc<[Moved]>) {
        self.count += 1;
        self.recent.push_back(Arc::clone(moved));
        if self.recent.len() > RECENT_MAX {
            self.recent.pop_front();
        }
    }

    /// `owed` comes from a shard that had been told `count` times: it follows what it missed. `false`
    /// when that is not known any more.
    pub(crate) fn catch_up(&self, count: u64, owed: &mut Owed) -> bool {
        let missed = usize::try_from(self.count.saturating_sub(count)).unwrap_or(usize::MAX);
        let Some(known) = self.recent.len().checked_sub(missed) else {
            return false;
        };
        for moved in self.recent.iter().skip(known) {
            if let Some(to) = owed::find(moved, owed) {
                owed.position = to;
            }
        }
        true
    }
}

impl Inquiry {
    /// Answers, once everybody was asked.
    fn stays(&mut self, effects: &mut Vec<Effect>) -> bool {
        let stays = self.next < self.end || !self.waiting.is_empty();
        if !stays {
            effects.push(self.answer.effect());
        }
        stays
    }
}

impl Session {
    /// Its references follow their records; `moved` ascends by sequence.
    pub(crate) fn follow(&mut self, moved: &[Moved]) {
        self.owed.rewrite(moved);
        let owed = self
            .inflight
            .iter_mut()
            .filter_map(|one| one.owed.as_deref_mut());
        let shares = self.shares.iter_mut().flat_map(|shares| shares.owed_mut());
        let of_group = self.group.iter_mut().flat_map(|group| group.owed_mut());
        for owed in owed.chain(shares).chain(of_group) {
            if let Some(to) = owed::find(moved, owed) {
                owed.position = to;
            }
        }
    }

    /// Everything that is owed and may have to be sent, also after a crash at this moment.
    fn unsent(&self) -> impl Iterator<Item = Owed> + '_ {
        let inflight = self.inflight.iter();
        let inflight = inflight.filter(|one| one.progress != Progress::Released);
        let inflight = inflight.filter_map(|one| one.owed.as_deref());
        self.with_group(inflight)
    }

    fn with_group<'a>(
        &'a self,
        inflight: impl Iterator<Item = &'a Owed> + 'a,
    ) -> impl Iterator<Item = Owed> + 'a {
        let of_group = self.group.iter().flat_map(|group| group.owed());
        inflight.chain(of_group).cloned().chain(self.owed.iter())
    }

    /// Everything that an owed entry must stand for at a restart.
    fn unfinished(&self) -> impl Iterator<Item = Owed> + '_ {
        let inflight = self.inflight.iter();
        self.with_group(inflight.filter_map(|one| one.owed.as_deref()))
    }
}

impl Answer {
    fn examine(&mut self, session: &Session) {
        match self {
            Self::Survey {
                kept,
                lowest_sequence,
                lowest_kept,
                ..
            } => {
                let inflight = session.inflight.iter();
                let inflight = inflight.filter_map(|one| one.owed.as_deref());
                let of_group = session.group.iter().flat_map(|group| group.owed());
                let all = inflight.chain(of_group).map(|owed| owed.sequence);
                let all = all.chain(session.owed.front_sequence());
                *lowest_sequence = all.chain(*lowest_sequence).min();
                if let Some(kept) = *kept {
                    let owed = session.unsent();
                    let kept = owed.filter(|owed| owed.position.partition == kept);
                    let offsets = kept.map(|owed| owed.position.offset);
                    *lowest_kept = offsets.chain(*lowest_kept).min();
                }
            }
            Self::References {
                going,
                found,
                room,
                complete,
            } => {
                let number = session.number();
                let mut add_one = |owed: Owed| {
                    if *room == 0 {
                        *complete = false;
                    } else {
                        *room -= 1;
                        let number = if owed.is_own() { number } else { owed.group };
                        add(found, number, owed);
                    }
                };
                match *going {
                    Going::Records { partition, before } => session
                        .unsent()
                        .filter(|owed| {
                            owed.position.partition == partition && owed.position.offset < before
                        })
                        .for_each(&mut add_one),
                    Going::Entries { before } => session
                        .unfinished()
                        .filter(|owed| owed.sequence < before)
                        .for_each(&mut add_one),
                }
            }
        }
    }

    /// Leaves itself empty.
    fn effect(&mut self) -> Effect {
        match self {
            Self::Survey {
                id,
                lowest_sequence,
                lowest_kept,
                ..
            } => Effect::Needs {
                survey: *id,
                sequence: *lowest_sequence,
                kept: *lowest_kept,
            },
            Self::References {
                going,
                found,
                complete,
                ..
            } => {
                let found = std::mem::take(found).into_iter();
                let references = found.map(|(sequence, (position, mut entry))| {
                    for group in &mut entry.groups {
                        group.sessions.sort_unstable();
                        // Asked where it left and where it arrived.
                        group.sessions.dedup();
                    }
                    OwedReference {
                        sequence,
                        position,
                        entry: entry.encode(),
                    }
                });
                Effect::Owes {
                    going: *going,
                    references: references.collect(),
                    complete: *complete,
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
        group: _,
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
