//! The server's part in letting records go, step by step as `server::mqtt::retire` does it: ask the
//! shards in commit order, commit what is still owed anew, tell everybody, then trim.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{KEPT, Log, ROUTED, Random, World};
use crate::{Going, Input, Moved, OwedReference, Position};

/// What the keeper wants of the log, in its place among the commits.
#[derive(Clone)]
pub(crate) enum Wish {
    Survey,
    Retire(Going),
    Copy {
        references: Vec<OwedReference>,
        then: (u32, u64),
    },
    /// One commit: the entries anew, and the old ones go.
    Rewrite {
        references: Vec<OwedReference>,
        before: u64,
    },
    Trim {
        partition: u32,
        before: u64,
    },
    TrimOwed {
        before: u64,
    },
}

/// One question at a time.
#[derive(Default)]
pub(crate) struct Keeper {
    busy: bool,
    missing: usize,
    asked: u64,
    owed_end: u64,
    kept_end: u64,
    references: Vec<OwedReference>,
    pub(crate) trimmed: u64,
    pub(crate) rewritten: u64,
    pub(crate) copied: u64,
}

impl Keeper {
    /// A crash: the question is forgotten, the figures are not.
    pub(crate) fn forget(&mut self) {
        self.busy = false;
    }
}

impl Log {
    fn length(&self, partition: u32) -> u64 {
        self.records.get(&partition).map_or(0, Vec::len) as u64
    }

    fn trim(&mut self, partition: u32, before: u64) -> u64 {
        let records = self.records.entry(partition).or_default();
        let count = records.len().min(usize::try_from(before).unwrap());
        let mut gone = 0;
        for record in &mut records[..count] {
            gone += u64::from(record.take().is_some());
        }
        gone
    }

    fn trim_owed(&mut self, before: u64) -> u64 {
        let count = self.owed.len().min(usize::try_from(before).unwrap());
        let mut gone = 0;
        for entry in &mut self.owed[..count] {
            gone += u64::from(entry.take().is_some());
        }
        gone
    }
}

impl World {
    /// Begins something at random, unless the last is not done.
    pub(crate) fn keep(&mut self, random: &mut Random) {
        if self.keeper.busy {
            return;
        }
        self.keeper.busy = true;
        let below = |random: &mut Random, length: u64| {
            random.below(usize::try_from(length).unwrap() + 1) as u64
        };
        let wish = match random.below(3) {
            0 => Wish::Survey,
            1 => {
                let partition = [ROUTED, KEPT][random.below(2)];
                let before = below(random, self.log.length(partition));
                Wish::Retire(Going::Records { partition, before })
            }
            _ => {
                let before = below(random, self.log.owed.len() as u64);
                Wish::Retire(Going::Entries { before })
            }
        };
        self.log.ask(wish);
    }

    /// The wish's turn in commit order has come.
    pub(crate) fn grant(&mut self, wish: Wish) {
        match wish {
            Wish::Survey => {
                self.keeper.asked += 1;
                self.keeper.owed_end = self.log.owed.len() as u64;
                self.keeper.kept_end = self.log.length(KEPT);
                let id = self.keeper.asked;
                self.ask_all(|| Input::Survey {
                    id,
                    kept: Some(KEPT),
                });
            }
            Wish::Retire(going) => {
                self.keeper.references.clear();
                self.ask_all(|| Input::Retire {
                    going,
                    references_max: usize::MAX,
                });
            }
            Wish::Copy {
                references,
                then: (partition, before),
            } => {
                if self.disk.fails() {
                    // What cannot be copied may not go.
                    self.keeper.busy = false;
                    return;
                }
                self.copy_owed(references);
                self.log.ask(Wish::Trim { partition, before });
            }
            Wish::Rewrite { references, before } => {
                for one in references {
                    self.keeper.rewritten += 1;
                    self.log.owed.push(Some((one.position, one.entry)));
                }
                self.keeper.trimmed += self.log.trim_owed(before);
                self.keeper.busy = false;
            }
            Wish::Trim { partition, before } => {
                self.keeper.trimmed += self.log.trim(partition, before);
                self.keeper.busy = false;
            }
            // The other trim follows.
            Wish::TrimOwed { before } => self.keeper.trimmed += self.log.trim_owed(before),
        }
    }

    fn ask_all(&mut self, input: impl Fn() -> Input) {
        self.keeper.missing = self.inboxes.len();
        for inbox in &mut self.inboxes {
            inbox.push_back(input());
        }
    }

    pub(crate) fn needs(&mut self, sequence: Option<u64>, kept: Option<u64>) {
        let keeper = &mut self.keeper;
        keeper.missing -= 1;
        keeper.owed_end = keeper.owed_end.min(sequence.unwrap_or(u64::MAX));
        keeper.kept_end = keeper.kept_end.min(kept.unwrap_or(u64::MAX));
        if keeper.missing == 0 {
            let (partition, before) = (KEPT, keeper.kept_end);
            let owed = Wish::TrimOwed {
                before: keeper.owed_end,
            };
            self.log.ask(owed);
            self.log.ask(Wish::Trim { partition, before });
        }
    }

    pub(crate) fn owes(&mut self, going: Going, references: Vec<OwedReference>) {
        self.keeper.missing -= 1;
        self.keeper.references.extend(references);
        if self.keeper.missing > 0 {
            return;
        }
        let references = std::mem::take(&mut self.keeper.references);
        self.log.ask(match going {
            Going::Records { partition, before } => Wish::Copy {
                references,
                then: (partition, before),
            },
            Going::Entries { before } => Wish::Rewrite { references, before },
        });
    }

    /// Each record is copied once, a new entry refers to the copy.
    fn copy_owed(&mut self, references: Vec<OwedReference>) {
        let mut copies: BTreeMap<Position, Position> = BTreeMap::new();
        let mut moved = Vec::new();
        for reference in references {
            let from = reference.position;
            // A debt that was settled, trimmed and came back with a floor row from before a crash
            // has no record any more. Whether one is missed that is still owed, the judge says.
            let Some(message) = self.log.read(from) else {
                continue;
            };
            let to = *copies.entry(from).or_insert_with(|| {
                self.keeper.copied += 1;
                self.log.append(KEPT, message)
            });
            self.log.owed.push(Some((to, reference.entry)));
            let sequence = reference.sequence;
            moved.push(Moved { sequence, from, to });
        }
        moved.sort_by_key(|one| one.sequence);
        let moved: Arc<[Moved]> = moved.into();
        for inbox in &mut self.inboxes {
            inbox.push_back(Input::Moved(moved.clone()));
        }
    }
}
