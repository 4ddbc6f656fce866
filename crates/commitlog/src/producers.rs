//! Idempotent producers: what each wrote last into each partition (KIP-98).
//!
//! For: telling a batch that continues from one that was sent twice, out of order, or by a fenced
//! epoch.
//! Holds: bounded a partition; what the newest five batches of a producer were is exact.

use std::sync::Arc;

use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::record::BatchHeader;
use crate::unit::{CommitError, PartitionId};

/// Batches remembered a producer: librdkafka and Java keep at most five in flight.
const BATCHES_MAX: usize = 5;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct SentBatch {
    pub(crate) first_sequence: i32,
    pub(crate) last_sequence: i32,
    pub(crate) base_offset: u64,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Producer {
    pub(crate) epoch: i16,
    pub(crate) last_ms: i64,
    /// Oldest first.
    pub(crate) batches: SmallVec<[SentBatch; BATCHES_MAX]>,
}

impl Producer {
    /// What the producer is after `header` was appended at `base_offset`.
    fn after(before: Option<&Self>, header: &BatchHeader, base_offset: u64, now_ms: i64) -> Self {
        let mut batches = match before {
            Some(before) if before.epoch == header.producer_epoch => before.batches.clone(),
            _ => SmallVec::new(),
        };
        if batches.len() == BATCHES_MAX {
            batches.remove(0);
        }
        batches.push(SentBatch {
            first_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            base_offset,
        });
        Self {
            epoch: header.producer_epoch,
            last_ms: now_ms,
            batches,
        }
    }

    /// Whether a batch may follow.
    fn check(&self, header: &BatchHeader) -> Result<(), CommitError> {
        if header.producer_epoch < self.epoch {
            let (given, current) = (header.producer_epoch, self.epoch);
            return Err(CommitError::InvalidProducerEpoch { given, current });
        }
        let (first, last) = (header.base_sequence, header.last_sequence());
        let expected = if header.producer_epoch > self.epoch {
            0
        } else {
            let same =
                |sent: &&SentBatch| sent.first_sequence == first && sent.last_sequence == last;
            if let Some(sent) = self.batches.iter().find(same) {
                return Err(CommitError::DuplicateSequence {
                    base_offset: sent.base_offset,
                });
            }
            match self.batches.last() {
                Some(sent) if sent.last_sequence == i32::MAX => 0,
                Some(sent) => sent.last_sequence + 1,
                None => return Ok(()),
            }
        };
        if first == expected {
            return Ok(());
        }
        let producer_id = header.producer_id;
        Err(CommitError::OutOfOrderSequence {
            producer_id,
            given: first,
            expected,
        })
    }
}

pub(crate) type PartitionProducers = HashMap<i64, Producer, foldhash::fast::RandomState>;

/// All producers. Cloning shares the partitions' maps until they change.
#[derive(Clone, Default)]
pub(crate) struct Producers {
    partitions: HashMap<PartitionId, Arc<PartitionProducers>, foldhash::fast::RandomState>,
}

/// What the batches of an unfinished group add.
pub(crate) type Overlay = HashMap<(PartitionId, i64), Producer, foldhash::fast::RandomState>;

impl Producers {
    pub(crate) fn producer(&self, partition: PartitionId, id: i64) -> Option<&Producer> {
        self.partitions.get(&partition)?.get(&id)
    }

    /// Checks a batch against what is committed and what `overlay` adds; gives the producer as it
    /// is afterwards. A producer that is not known may begin anywhere, as with Kafka: its state
    /// may have expired.
    pub(crate) fn check(
        &self,
        overlay: &Overlay,
        partition: PartitionId,
        header: &BatchHeader,
        base_offset: u64,
        now_ms: i64,
    ) -> Result<Producer, CommitError> {
        let known = overlay
            .get(&(partition, header.producer_id))
            .or_else(|| self.producer(partition, header.producer_id));
        if let Some(known) = known {
            known.check(header)?;
        }
        Ok(Producer::after(known, header, base_offset, now_ms))
    }

    pub(crate) fn set(
        &mut self,
        partition: PartitionId,
        id: i64,
        producer: Producer,
        producers_max: usize,
    ) {
        let producers = Arc::make_mut(self.partitions.entry(partition).or_default());
        if producers.len() >= producers_max && !producers.contains_key(&id) {
            let idle = producers
                .iter()
                .min_by_key(|(_, producer)| producer.last_ms);
            if let Some(idle) = idle.map(|(id, _)| *id) {
                producers.remove(&idle);
            }
        }
        producers.insert(id, producer);
    }

    /// A batch that recovery reads back from the write-ahead file.
    pub(crate) fn replay(
        &mut self,
        partition: PartitionId,
        header: &BatchHeader,
        now_ms: i64,
        producers_max: usize,
    ) {
        if header.has_producer() {
            let known = self.producer(partition, header.producer_id);
            let producer = Producer::after(known, header, header.base_offset, now_ms);
            self.set(partition, header.producer_id, producer, producers_max);
        }
    }

    pub(crate) fn remove_partition(&mut self, partition: PartitionId) {
        self.partitions.remove(&partition);
    }

    /// Forgets producers that wrote nothing since `before_ms`.
    pub(crate) fn expire(&mut self, before_ms: i64) {
        for producers in self.partitions.values_mut() {
            if producers
                .values()
                .any(|producer| producer.last_ms < before_ms)
            {
                Arc::make_mut(producers).retain(|_, producer| producer.last_ms >= before_ms);
            }
        }
        self.partitions.retain(|_, producers| !producers.is_empty());
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (PartitionId, i64, &Producer)> {
        self.partitions.iter().flat_map(|(partition, producers)| {
            producers
                .iter()
                .map(|(id, producer)| (*partition, *id, producer))
        })
    }
}
