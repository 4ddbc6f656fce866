//! Keeps the owed and the kept topic as small as what sessions are owed.
//!
//! For: trimming both up to what nobody needs, and committing the few old entries anew that hold
//! much back.
//! Called by: housekeeping, through `Worker`.
//! Holds: an entry or a record goes only when no session needs it, or in or after the commit that
//! stands for it anew. A crash in between leaves two that say the same; the later one counts.

use std::time::Instant;

use headwater_commitlog::{Admin, Append, AppendData, CommitError, PartitionId};
use headwater_mqtt_broker::{Going, Input, OwedReference};
use tracing::{debug, info};

use super::{APPEND_BYTES, Answer, Ends, Gathered, Worker};
use crate::mqtt::commits::{from_broker, owed_record};
use crate::mqtt::{Internal, wall_ms};

/// A trim costs a checkpoint: not for less than this.
const TRIM_BYTES_MIN: u64 = 8 << 20;
/// From this size on a partition's older half is moved forward when it is mostly settled.
const COMPACT_BYTES_MIN: u64 = 64 << 20;
/// Messages of sessions that one shard may have to list for one such step.
const REFERENCES_MAX: usize = 100_000;
/// What a record costs besides an entry, about.
const RECORD_BYTES: u64 = 32;
/// A look asks every shard about all its sessions: it may take one part in so many of the time.
const TIME_SHARE: u32 = 250;

/// When to look again.
#[derive(Debug)]
pub(super) struct Tended {
    /// Not before this, if little has come since.
    from: Instant,
    /// Both partitions' size after the last look.
    bytes: u64,
}

impl Default for Tended {
    fn default() -> Self {
        let from = Instant::now();
        Self { from, bytes: 0 }
    }
}

/// How much a partition holds, and where.
#[derive(Clone, Copy, Debug)]
struct Extent {
    start: u64,
    end: u64,
    bytes: u64,
}

impl Extent {
    /// Bytes below `offset`, taken as evenly spread.
    fn bytes_below(self, offset: u64) -> u64 {
        let part = offset.clamp(self.start, self.end) - self.start;
        let whole = (self.end - self.start).max(1);
        let bytes = u128::from(self.bytes) * u128::from(part) / u128::from(whole);
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    fn middle(self) -> u64 {
        self.start + (self.end - self.start) / 2
    }
}

impl Worker {
    /// One bounded step for both topics, if one of them is large enough and it is time again.
    pub(super) fn tend(&mut self) -> Result<(), CommitError> {
        let begun = Instant::now();
        let (owed, kept) = self.sizes();
        let has_grown = owed + kept >= self.tended.bytes + TRIM_BYTES_MIN;
        let is_large = owed.max(kept) >= TRIM_BYTES_MIN;
        if !is_large || (begun < self.tended.from && !has_grown) {
            return Ok(());
        }
        let result = self.look(kept >= TRIM_BYTES_MIN);
        let (owed, kept) = self.sizes();
        self.tended = Tended {
            from: Instant::now() + begun.elapsed() * TIME_SHARE,
            bytes: owed + kept,
        };
        result
    }

    fn sizes(&self) -> (u64, u64) {
        let Internal { owed, kept } = self.internal;
        (self.extent(owed).bytes, self.extent(kept).bytes)
    }

    /// Nothing else tells that sessions have taken what they were owed.
    fn look(&mut self, at_kept: bool) -> Result<(), CommitError> {
        let (owed, kept) = (self.internal.owed, self.internal.kept);
        let needed = self.survey(at_kept.then_some(kept))?;
        // A trim each, one checkpoint for both.
        let mut trims = Vec::new();
        trims.extend(self.worthwhile(owed, needed.owed));
        if at_kept {
            trims.extend(self.worthwhile(kept, needed.kept));
        }
        if !trims.is_empty() {
            debug!(?trims, "what nobody is owed any more goes");
            self.end(trims)?;
        }
        self.compact_owed()?;
        self.compact_kept()
    }

    fn extent(&self, partition: PartitionId) -> Extent {
        self.log.partition(partition).map_or(
            Extent {
                start: 0,
                end: 0,
                bytes: 0,
            },
            |partition| Extent {
                start: partition.log_start_offset(),
                end: partition.high_watermark(),
                bytes: partition.size_bytes(),
            },
        )
    }

    /// The offsets below which no session needs anything.
    fn survey(&mut self, kept: Option<PartitionId>) -> Result<Ends, CommitError> {
        self.surveys += 1;
        let id = self.surveys;
        let kept = kept.map(|kept| kept.0);
        let mut lowest = self.question(move || Input::Survey { id, kept })?;
        let mut missing = self.inboxes.len();
        while missing > 0 {
            match self.answer()? {
                Answer::Needs {
                    survey,
                    sequence,
                    kept,
                } if survey == id => {
                    lowest.owed = lowest.owed.min(sequence.unwrap_or(u64::MAX));
                    lowest.kept = lowest.kept.min(kept.unwrap_or(u64::MAX));
                    missing -= 1;
                }
                // The answer to a question that was given up.
                Answer::Owes { .. } | Answer::Needs { .. } => {}
            }
        }
        Ok(lowest)
    }

    fn worthwhile(&self, partition: PartitionId, offset: u64) -> Option<Admin> {
        let gain = self.extent(partition).bytes_below(offset);
        (gain >= TRIM_BYTES_MIN).then_some(Admin::TrimTo { partition, offset })
    }

    /// Commits what still stands in the older half of the owed topic anew, if that is little.
    fn compact_owed(&self) -> Result<(), CommitError> {
        let extent = self.extent(self.internal.owed);
        if extent.bytes < COMPACT_BYTES_MIN {
            return Ok(());
        }
        let before = extent.middle();
        let references = self.owed(Going::Entries { before }, REFERENCES_MAX)?;
        let cost = |one: &OwedReference| one.entry.len() as u64 + RECORD_BYTES;
        let references = references.filter(|all| {
            let bytes: u64 = all.iter().map(cost).sum();
            bytes <= extent.bytes_below(before) / 2
        });
        let Some(references) = references else {
            // Sessions are owed most of it.
            return Ok(());
        };
        let timestamp_ms = wall_ms();
        let mut gathered = Gathered::default();
        let count = references.len();
        for reference in references {
            let body = owed_record(from_broker(reference.position), &reference.entry);
            self.make_room(&mut gathered, body.len() + APPEND_BYTES)?;
            gathered.unit.appends.push(Append {
                partition: self.internal.owed,
                data: AppendData::Record { timestamp_ms, body },
            });
        }
        gathered.unit.admin.push(Admin::TrimTo {
            partition: self.internal.owed,
            offset: before,
        });
        info!(count, before, "old debts of sessions are written anew");
        self.commit(gathered)
    }

    /// Copies what is still owed in the older half of the kept topic forward, if that is little.
    fn compact_kept(&self) -> Result<(), CommitError> {
        let kept = self.internal.kept;
        let extent = self.extent(kept);
        if extent.bytes < COMPACT_BYTES_MIN {
            return Ok(());
        }
        let before = extent.middle();
        let partition = kept.0;
        let references = self.owed(Going::Records { partition, before }, REFERENCES_MAX)?;
        let references = references.filter(|all| {
            let mut places: Vec<u64> = all.iter().map(|one| one.position.offset).collect();
            places.sort_unstable();
            places.dedup();
            places.len() as u64 <= (before - extent.start) / 2
        });
        let Some(references) = references else {
            return Ok(());
        };
        info!(
            count = references.len(),
            before, "old messages that sessions are owed are copied forward"
        );
        self.copy_all(references)?;
        self.end(vec![Admin::TrimTo {
            partition: kept,
            offset: before,
        }])
    }
}
