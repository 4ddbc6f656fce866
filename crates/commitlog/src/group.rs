//! A group commit being built: units are checked and encoded into one frame.
//!
//! For: everything about a commit that needs no disk.
//! Not for: writing the frame or applying it (`committer`).
//! Holds: a unit that is refused leaves no trace; positions given are those the records will have.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;
use uuid::Uuid;

use crate::entry::{self, Step};
use crate::frame;
use crate::producers::{Overlay, Producer};
use crate::record::{BatchBuilder, BatchHeader, RecordBody, assign};
use crate::state::State;
use crate::topics::{Topic, TopicConfig, validate_name};
use crate::unit::{
    Admin, Append, AppendData, CommitError, PartitionId, Position, Receipt, TableChange, Unit,
};
use crate::writer::{Staged, Writer};

/// Records are merged into batches of at most so many bytes.
const MERGED_BYTES_MAX: usize = 64 << 10;

/// A batch within the frame.
pub(crate) struct Placed {
    pub(crate) partition: PartitionId,
    pub(crate) bytes: Range<usize>,
}

/// What is common to all units of a group.
#[derive(Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) sequence: u64,
    pub(crate) now_ms: i64,
    /// Appends are refused.
    pub(crate) full: bool,
    pub(crate) unit_bytes_max: u64,
}

#[derive(Default)]
pub(crate) struct Group {
    /// The frame: room for its header, the time, then entries.
    pub(crate) frame: Vec<u8>,
    pub(crate) placed: Vec<Placed>,
    pub(crate) changes: Vec<TableChange>,
    pub(crate) steps: Vec<Step>,
    pub(crate) producers: Overlay,
    pub(crate) touched: Vec<PartitionId>,
    pub(crate) records: u64,
    bytes: u64,
    started: bool,
}

/// What a unit's check found out, for staging it.
#[derive(Default)]
struct Plan {
    positions: SmallVec<[Position; 2]>,
    producers: SmallVec<[((PartitionId, i64), Producer); 1]>,
}

impl Group {
    pub(crate) fn is_empty(&self) -> bool {
        !self.started
    }

    /// About how long the frame will be.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn clear(&mut self) {
        self.placed.clear();
        self.changes.clear();
        self.steps.clear();
        self.producers.clear();
        self.touched.clear();
        self.records = 0;
        self.bytes = 0;
        self.started = false;
    }

    fn start(&mut self, now_ms: i64) {
        if !self.started {
            self.started = true;
            frame::begin(&mut self.frame);
            self.frame.extend_from_slice(&now_ms.to_be_bytes());
        }
    }

    /// Takes one unit in, or says why not.
    pub(crate) fn add(
        &mut self,
        state: &mut State,
        unit: Unit,
        terms: Terms,
    ) -> Result<Receipt, CommitError> {
        if unit.is_empty() {
            let positions = SmallVec::new();
            return Ok(Receipt {
                sequence: terms.sequence,
                positions,
                producer_id: None,
            });
        }
        let bytes = unit.size_bytes() as u64;
        if bytes > terms.unit_bytes_max {
            return Err(CommitError::TooLarge {
                bytes,
                bytes_max: terms.unit_bytes_max,
            });
        }
        if terms.full && !unit.appends.is_empty() {
            return Err(CommitError::Full);
        }
        let plan = self.check(state, &unit, terms)?;
        let (steps, producer_id) = decide(state, &unit.admin)?;
        self.start(terms.now_ms);
        self.bytes += bytes;
        for (append, position) in unit.appends.iter().zip(&plan.positions) {
            self.stage(state, append, *position, &plan.positions);
        }
        for change in &unit.tables {
            let value = change.value.as_deref();
            entry::put_change(&mut self.frame, change.table, &change.key, value);
        }
        self.changes.extend(unit.tables);
        self.producers.extend(plan.producers);
        if !steps.is_empty() {
            // Appends of the same unit come before its admin steps.
            self.seal_all(state);
            steps
                .iter()
                .for_each(|step| entry::put_step(&mut self.frame, step));
            self.steps.extend(steps);
        }
        Ok(Receipt {
            sequence: terms.sequence,
            positions: plan.positions,
            producer_id,
        })
    }

    /// The row as the units before this one leave it.
    fn row(&self, state: &State, of: &TableChange) -> Option<Bytes> {
        let is_it = |one: &&TableChange| one.table == of.table && one.key == of.key;
        match self.changes.iter().rev().find(is_it) {
            Some(change) => change.value.clone(),
            None => state.tables.row(of.table, &of.key),
        }
    }

    fn check(&self, state: &State, unit: &Unit, terms: Terms) -> Result<Plan, CommitError> {
        let is_so = |expected: &TableChange| self.row(state, expected) == expected.value;
        if !unit.expects.iter().all(is_so) {
            return Err(CommitError::RowChanged);
        }
        let mut plan = Plan::default();
        let mut next: SmallVec<[(PartitionId, u64); 2]> = SmallVec::new();
        for (index, append) in unit.appends.iter().enumerate() {
            let (partition, writer) = destination(state, append, unit.fallback)?;
            let held_bytes = writer.held_bytes();
            if held_bytes > state.context.options.backlog_bytes_max {
                return Err(CommitError::BacklogFull {
                    partition,
                    held_bytes,
                });
            }
            let at = next
                .iter()
                .position(|(have, _)| *have == partition)
                .unwrap_or_else(|| {
                    next.push((partition, writer.staged.next_offset));
                    next.len() - 1
                });
            let Some((_, offset)) = next.get_mut(at) else {
                continue;
            };
            plan.positions.push(Position {
                partition,
                offset: *offset,
            });
            match &append.data {
                AppendData::Record { .. } => *offset += 1,
                AppendData::Reference { to, body, .. } => {
                    let room = body
                        .value_range()
                        .is_some_and(|(_, len)| len >= Position::LEN);
                    if *to >= index || !room {
                        return Err(CommitError::BadReference {
                            append: index,
                            to: *to,
                        });
                    }
                    *offset += 1;
                }
                AppendData::Batch(batch) => {
                    let (bytes, most) = (batch.as_bytes().len(), writer.rolling.message_bytes_max);
                    if bytes > most {
                        let (bytes, bytes_max) = (bytes as u64, most as u64);
                        return Err(CommitError::TooLarge { bytes, bytes_max });
                    }
                    let header = batch.header();
                    if header.has_producer() {
                        self.check_producer(state, &mut plan, partition, &header, *offset, terms)?;
                    }
                    *offset += u64::from(header.record_count);
                }
            }
        }
        Ok(plan)
    }

    fn check_producer(
        &self,
        state: &State,
        plan: &mut Plan,
        partition: PartitionId,
        header: &BatchHeader,
        offset: u64,
        terms: Terms,
    ) -> Result<(), CommitError> {
        let key = (partition, header.producer_id);
        // A unit with two batches of one producer: the first counts for the second.
        let earlier = plan.producers.iter().rev().find(|(have, _)| *have == key);
        let producer = match earlier {
            Some((_, producer)) => {
                let mut overlay = Overlay::default();
                overlay.insert(key, producer.clone());
                state
                    .producers
                    .check(&overlay, partition, header, offset, terms.now_ms)?
            }
            None => {
                state
                    .producers
                    .check(&self.producers, partition, header, offset, terms.now_ms)?
            }
        };
        plan.producers.push((key, producer));
        Ok(())
    }

    fn stage(
        &mut self,
        state: &mut State,
        append: &Append,
        position: Position,
        positions: &[Position],
    ) {
        let partition = position.partition;
        let Some(writer) = state.writers.get_mut(&partition) else {
            return;
        };
        let staged = &mut writer.staged;
        if !staged.touched {
            staged.touched = true;
            self.touched.push(partition);
        }
        match &append.data {
            AppendData::Record { timestamp_ms, body } => {
                make_room(&mut self.frame, &mut self.placed, partition, staged, body);
                staged.builder.push(*timestamp_ms, body);
                self.records += 1;
                staged.next_offset += 1;
            }
            AppendData::Reference {
                timestamp_ms,
                to,
                body,
            } => {
                make_room(&mut self.frame, &mut self.placed, partition, staged, body);
                staged.builder.push(*timestamp_ms, body);
                let value = body.value_range();
                let room = staged.builder.last_body_mut(body.len()).zip(value);
                let room = room.and_then(|(bytes, (at, _))| bytes.get_mut(at..at + Position::LEN));
                if let (Some(room), Some(target)) = (room, positions.get(*to)) {
                    room.copy_from_slice(&target.to_bytes());
                }
                self.records += 1;
                staged.next_offset += 1;
            }
            AppendData::Batch(batch) => {
                seal(
                    &mut self.frame,
                    &mut self.placed,
                    partition,
                    &mut staged.builder,
                );
                let bytes = batch.as_bytes();
                entry::put_batch_head(&mut self.frame, partition, bytes.len());
                let start = self.frame.len();
                self.frame.extend_from_slice(bytes);
                if let Some(stored) = self.frame.get_mut(start..) {
                    assign(stored, position.offset);
                }
                self.placed.push(Placed {
                    partition,
                    bytes: start..self.frame.len(),
                });
                let count = u64::from(batch.header().record_count);
                self.records += count;
                staged.next_offset += count;
                staged.builder.restart(staged.next_offset);
            }
        }
    }

    /// Ends all batches that are being merged. The frame is complete then.
    pub(crate) fn seal_all(&mut self, state: &mut State) {
        for partition in &self.touched {
            if let Some(writer) = state.writers.get_mut(partition) {
                let builder = &mut writer.staged.builder;
                seal(&mut self.frame, &mut self.placed, *partition, builder);
            }
        }
    }
}

/// Ends the batch that is being merged if `body` would make it too long.
fn make_room(
    frame: &mut Vec<u8>,
    placed: &mut Vec<Placed>,
    partition: PartitionId,
    staged: &mut Staged,
    body: &RecordBody,
) {
    if staged.builder.len() + body.len() > MERGED_BYTES_MAX {
        seal(frame, placed, partition, &mut staged.builder);
    }
}

fn seal(
    frame: &mut Vec<u8>,
    placed: &mut Vec<Placed>,
    partition: PartitionId,
    builder: &mut BatchBuilder,
) {
    if !builder.is_empty() {
        entry::put_batch_head(frame, partition, builder.len());
        let start = frame.len();
        builder.seal_into(frame);
        placed.push(Placed {
            partition,
            bytes: start..frame.len(),
        });
    }
}

/// The partition that an append goes to.
fn destination<'s>(
    state: &'s State,
    append: &Append,
    fallback: Option<PartitionId>,
) -> Result<(PartitionId, &'s Writer), CommitError> {
    let open = |id| {
        let writer = state.writers.get(&id)?;
        (!writer.partition.refuses_appends()).then_some((id, writer))
    };
    let partition = append.partition;
    open(partition)
        .or_else(|| match append.data {
            AppendData::Record { .. } => fallback.and_then(open),
            // Its producer knows what to do.
            AppendData::Batch(_) | AppendData::Reference { .. } => None,
        })
        .ok_or(CommitError::UnknownPartition { partition })
}

/// Turns admin wishes into steps with ids, or refuses them.
fn decide(state: &State, admin: &[Admin]) -> Result<(Vec<Step>, Option<i64>), CommitError> {
    let mut steps = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    let mut decision = Decision {
        state,
        next_partition: state.next_partition,
        next_producer_id: state.next_producer_id,
        producer_id: None,
    };
    for wish in admin {
        if let Admin::CreateTopic { name, .. }
        | Admin::DeleteTopic { name }
        | Admin::AddPartitions { name, .. } = wish
        {
            // One unit does not do two such things to one topic.
            if names.contains(&name.as_str()) {
                return Err(CommitError::TopicExists { name: name.clone() });
            }
            names.push(name);
        }
        steps.push(decision.step(wish)?);
    }
    Ok((steps, decision.producer_id))
}

/// What the steps of one unit have taken so far.
struct Decision<'s> {
    state: &'s State,
    next_partition: u32,
    next_producer_id: i64,
    producer_id: Option<i64>,
}

impl Decision<'_> {
    fn step(&mut self, wish: &Admin) -> Result<Step, CommitError> {
        Ok(match wish {
            Admin::CreateTopic {
                name,
                partitions,
                config,
            } => self.create(name, *partitions, config)?,
            Admin::DeleteTopic { name } => Step::DeleteTopic {
                name: Arc::clone(&self.known(name)?.name),
            },
            Admin::AddPartitions { name, total } => self.grow(name, *total)?,
            Admin::SetConfig { name, config } => Step::SetConfig {
                name: Arc::clone(&self.known(name)?.name),
                config: config.clone(),
            },
            Admin::TrimTo { partition, offset } => self.trim(*partition, *offset)?,
            Admin::AllocateProducerId => {
                self.producer_id = Some(self.next_producer_id);
                self.next_producer_id += 1;
                Step::ProducerId {
                    next: self.next_producer_id,
                }
            }
        })
    }

    fn known(&self, name: &str) -> Result<&Arc<Topic>, CommitError> {
        let unknown = || CommitError::UnknownTopic {
            name: name.to_owned(),
        };
        self.state.topics.by_name(name).ok_or_else(unknown)
    }

    fn create(
        &mut self,
        name: &str,
        partitions: u32,
        config: &TopicConfig,
    ) -> Result<Step, CommitError> {
        validate_name(name).map_err(CommitError::InvalidName)?;
        if self.state.topics.by_name(name).is_some() {
            let name = name.to_owned();
            return Err(CommitError::TopicExists { name });
        }
        Ok(Step::CreateTopic {
            id: Uuid::new_v4(),
            name: name.into(),
            config: config.clone(),
            first: self.take_partitions(partitions)?,
            count: partitions,
        })
    }

    fn grow(&mut self, name: &str, total: u32) -> Result<Step, CommitError> {
        let topic = Arc::clone(self.known(name)?);
        let writers = &self.state.writers;
        let mut its = topic.partitions.iter().filter_map(|id| writers.get(id));
        // It is about to be deleted.
        if its.any(|writer| writer.partition.refuses_appends()) {
            let name = name.to_owned();
            return Err(CommitError::UnknownTopic { name });
        }
        let have = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
        let allowed = "the total must be more than the topic has";
        let refused = CommitError::InvalidPartitions {
            given: total,
            allowed,
        };
        let count = total.checked_sub(have).filter(|count| *count > 0);
        let count = count.ok_or(refused)?;
        Ok(Step::AddPartitions {
            name: Arc::clone(&topic.name),
            first: self.take_partitions(count)?,
            count,
        })
    }

    fn trim(&self, partition: PartitionId, offset: u64) -> Result<Step, CommitError> {
        let writer = self.state.writers.get(&partition);
        let writer = writer.ok_or(CommitError::UnknownPartition { partition })?;
        let high_watermark = writer.next_offset;
        if offset > high_watermark {
            return Err(CommitError::OffsetOutOfRange {
                offset,
                high_watermark,
            });
        }
        Ok(Step::Trim { partition, offset })
    }

    /// The first of `count` numbers in a row.
    fn take_partitions(&mut self, count: u32) -> Result<u32, CommitError> {
        let refused = |allowed| CommitError::InvalidPartitions {
            given: count,
            allowed,
        };
        let taken = u32::try_from(self.state.writers.len()).unwrap_or(u32::MAX);
        let in_unit = self.next_partition - self.state.next_partition;
        let most = self.state.context.options.partitions_max;
        if count == 0 || taken.saturating_add(in_unit).saturating_add(count) > most {
            let allowed = "from 1 up to what the log's limit of partitions leaves";
            return Err(refused(allowed));
        }
        let first = self.next_partition;
        let next = first.checked_add(count);
        self.next_partition = next.ok_or_else(|| refused("no partition numbers are left"))?;
        Ok(first)
    }
}
