//! The snapshot: everything a checkpoint keeps besides the segments' bytes.
//!
//! For: one file, `DIR/wal/snapshot`, replaced in one step, checked block by block when read.
//! Holds: what it names (segments up to their lengths, indexes up to their entries) was synced
//! before it was renamed into place.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use crate::context::Context;
use crate::entry::{put_bytes, put_config, put_len, take_bytes, take_config, take_str};
use crate::error::OpenError;
use crate::fs::{File, Open, read_full_at, write_all_at};
use crate::producers::{Producer, Producers, SentBatch};
use crate::record::varint::Reader;
use crate::segment::SegmentMark;
use crate::state::State;
use crate::tables::TableView;
use crate::topics::{Topic, Topics};
use crate::unit::{PartitionId, TableId};
use crate::wal::ChainEnd;

const MAGIC: [u8; 8] = *b"HWSNAP\0\x01";
/// A block is written when it is longer than this.
const BLOCK_BYTES: usize = 256 << 10;
/// Length and CRC-32C of a block.
const BLOCK_HEAD_LEN: usize = 8;

const META: u8 = 1;
const TOPIC: u8 = 2;
const PARTITION: u8 = 3;
const PRODUCER: u8 = 4;
const ROW: u8 = 5;
const END: u8 = 6;

#[derive(Clone, Debug)]
pub(crate) struct PartitionMark {
    pub(crate) id: PartitionId,
    pub(crate) topic: Arc<str>,
    pub(crate) index: u32,
    pub(crate) log_start: u64,
    pub(crate) next_offset: u64,
    pub(crate) segments: Vec<SegmentMark>,
}

/// A consistent cut, cheap to take: tables and producers are shared until they change.
pub(crate) struct Snapshot {
    /// The write-ahead file whose frames come after this cut.
    pub(crate) wal_number: u64,
    pub(crate) end: ChainEnd,
    pub(crate) next_partition: u32,
    pub(crate) next_producer_id: i64,
    pub(crate) topics: Topics,
    pub(crate) partitions: Vec<PartitionMark>,
    pub(crate) producers: Producers,
    pub(crate) tables: Vec<(TableId, TableView)>,
}

impl Snapshot {
    pub(crate) fn take(state: &State, wal_number: u64, end: ChainEnd) -> Self {
        let partitions = state.writers.values().map(|writer| PartitionMark {
            id: writer.partition.id(),
            topic: Arc::clone(writer.partition.topic()),
            index: writer.partition.index(),
            log_start: writer.partition.log_start_offset(),
            next_offset: writer.next_offset,
            segments: writer
                .partition
                .segments()
                .iter()
                .map(|segment| segment.mark())
                .collect(),
        });
        let mut partitions: Vec<_> = partitions.collect();
        partitions.sort_by_key(|partition| partition.id);
        Self {
            wal_number,
            end,
            next_partition: state.next_partition,
            next_producer_id: state.next_producer_id,
            topics: state.topics.clone(),
            partitions,
            producers: state.producers.clone(),
            tables: state.tables.views(),
        }
    }

    /// Writes it to a new file, syncs that, and puts it into its place.
    pub(crate) fn write(&self, context: &Context) -> io::Result<()> {
        let path = context.snapshot_path();
        let fresh = path.with_extension("new");
        let file = context.open(&fresh, Open::Create)?;
        write_all_at(&*file, &MAGIC, 0)?;
        let mut blocks = Blocks {
            file: &*file,
            at: MAGIC.len() as u64,
            block: Vec::new(),
        };
        self.encode(&mut blocks)?;
        blocks.flush()?;
        context.sync(&*file)?;
        context.fs.rename(&fresh, &path)?;
        context.sync_dir(&context.wal_dir())
    }

    fn encode(&self, blocks: &mut Blocks<'_>) -> io::Result<()> {
        let out = &mut blocks.block;
        out.push(META);
        out.extend_from_slice(&self.wal_number.to_be_bytes());
        out.extend_from_slice(&self.end.sequence.to_be_bytes());
        out.extend_from_slice(&self.end.crc.to_be_bytes());
        out.extend_from_slice(&self.next_partition.to_be_bytes());
        out.extend_from_slice(&self.next_producer_id.to_be_bytes());
        for topic in self.topics.iter() {
            let out = blocks.room()?;
            out.push(TOPIC);
            out.extend_from_slice(topic.id.as_bytes());
            put_bytes(out, topic.name.as_bytes());
            put_config(out, &topic.config);
            put_len(out, topic.partitions.len());
            topic
                .partitions
                .iter()
                .for_each(|id| out.extend_from_slice(&id.0.to_be_bytes()));
        }
        for partition in &self.partitions {
            put_partition(blocks.room()?, partition);
        }
        for (partition, id, producer) in self.producers.iter() {
            put_producer(blocks.room()?, partition, id, producer);
        }
        for (table, view) in &self.tables {
            for (key, value) in view.rows() {
                let out = blocks.room()?;
                out.push(ROW);
                out.push(table.0);
                put_bytes(out, key);
                put_bytes(out, value);
            }
        }
        blocks.room()?.push(END);
        Ok(())
    }
}

fn put_partition(out: &mut Vec<u8>, partition: &PartitionMark) {
    out.push(PARTITION);
    out.extend_from_slice(&partition.id.0.to_be_bytes());
    put_bytes(out, partition.topic.as_bytes());
    out.extend_from_slice(&partition.index.to_be_bytes());
    out.extend_from_slice(&partition.log_start.to_be_bytes());
    out.extend_from_slice(&partition.next_offset.to_be_bytes());
    put_len(out, partition.segments.len());
    for segment in &partition.segments {
        out.extend_from_slice(&segment.base_offset.to_be_bytes());
        out.extend_from_slice(&segment.len.to_be_bytes());
        out.extend_from_slice(&segment.created_ms.to_be_bytes());
        out.extend_from_slice(&segment.max_timestamp_ms.to_be_bytes());
        out.extend_from_slice(&segment.start_bytes.to_be_bytes());
        out.extend_from_slice(&segment.offset_entries.to_be_bytes());
        out.extend_from_slice(&segment.time_entries.to_be_bytes());
    }
}

fn put_producer(out: &mut Vec<u8>, partition: PartitionId, id: i64, producer: &Producer) {
    out.push(PRODUCER);
    out.extend_from_slice(&partition.0.to_be_bytes());
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&producer.epoch.to_be_bytes());
    out.extend_from_slice(&producer.last_ms.to_be_bytes());
    put_len(out, producer.batches.len());
    for batch in &producer.batches {
        out.extend_from_slice(&batch.first_sequence.to_be_bytes());
        out.extend_from_slice(&batch.last_sequence.to_be_bytes());
        out.extend_from_slice(&batch.base_offset.to_be_bytes());
    }
}

struct Blocks<'a> {
    file: &'a dyn File,
    at: u64,
    block: Vec<u8>,
}

impl Blocks<'_> {
    /// Where the next item goes.
    fn room(&mut self) -> io::Result<&mut Vec<u8>> {
        if self.block.len() > BLOCK_BYTES {
            self.flush()?;
        }
        Ok(&mut self.block)
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut head = Vec::with_capacity(BLOCK_HEAD_LEN);
        put_len(&mut head, self.block.len());
        head.extend_from_slice(&crc32c::crc32c(&self.block).to_be_bytes());
        write_all_at(self.file, &head, self.at)?;
        write_all_at(self.file, &self.block, self.at + BLOCK_HEAD_LEN as u64)?;
        self.at += (BLOCK_HEAD_LEN + self.block.len()) as u64;
        self.block.clear();
        Ok(())
    }
}

/// What a snapshot said, ready to become a [`State`].
#[derive(Default)]
pub(crate) struct Loaded {
    pub(crate) wal_number: u64,
    pub(crate) end: ChainEnd,
    pub(crate) next_partition: u32,
    pub(crate) next_producer_id: i64,
    pub(crate) topics: Vec<Topic>,
    pub(crate) partitions: Vec<PartitionMark>,
    pub(crate) producers: Vec<(PartitionId, i64, Producer)>,
    pub(crate) rows: Vec<(TableId, Bytes, Bytes)>,
}

/// Reads the snapshot; `None` if there is none.
pub(crate) fn load(context: &Context) -> Result<Option<Loaded>, OpenError> {
    let path = context.snapshot_path();
    let file = match context.open(&path, Open::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(OpenError::io(&path, error)),
    };
    let len = file.len().map_err(|error| OpenError::io(&path, error))?;
    let mut magic = [0; MAGIC.len()];
    read(&*file, &path, &mut magic, 0, len)?;
    if magic != MAGIC {
        return Err(OpenError::damaged(
            &path,
            0,
            "it does not begin as a snapshot does",
        ));
    }
    let mut loaded = Loaded::default();
    let mut at = MAGIC.len() as u64;
    loop {
        let mut head = [0; BLOCK_HEAD_LEN];
        read(&*file, &path, &mut head, at, len)?;
        let (block_len, crc) = head.split_at(4);
        let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap_or_default());
        let (block_len, crc) = (u64::from(number(block_len)), number(crc));
        let start = at + BLOCK_HEAD_LEN as u64;
        if block_len > len.saturating_sub(start) {
            return Err(OpenError::damaged(&path, at, "a block is cut short"));
        }
        let mut block = vec![0; usize::try_from(block_len).unwrap_or(0)];
        read(&*file, &path, &mut block, start, len)?;
        if crc32c::crc32c(&block) != crc {
            return Err(OpenError::damaged(
                &path,
                at,
                "a block's checksum does not match",
            ));
        }
        match loaded.take_block(&block) {
            Some(true) => return Ok(Some(loaded)),
            Some(false) => at = start + block_len,
            None => return Err(OpenError::damaged(&path, at, "a block says what cannot be")),
        }
    }
}

fn read(file: &dyn File, path: &Path, into: &mut [u8], at: u64, len: u64) -> Result<(), OpenError> {
    match read_full_at(file, into, at) {
        Ok(filled) if filled == into.len() => Ok(()),
        Ok(_) => Err(OpenError::damaged(path, len, "it ends too early")),
        Err(error) => Err(OpenError::io(path, error)),
    }
}

impl Loaded {
    /// Takes the items of one block in; says whether the last one was the end.
    fn take_block(&mut self, block: &[u8]) -> Option<bool> {
        let mut reader = Reader::new(block);
        while reader.left() > 0 {
            match reader.u8()? {
                META => {
                    self.wal_number = reader.u64()?;
                    self.end = ChainEnd {
                        sequence: reader.u64()?,
                        crc: reader.u32()?,
                    };
                    self.next_partition = reader.u32()?;
                    self.next_producer_id = reader.i64()?;
                }
                TOPIC => self.topics.push(take_topic(&mut reader)?),
                PARTITION => self.partitions.push(take_partition(&mut reader)?),
                PRODUCER => self.producers.push(take_producer(&mut reader)?),
                ROW => {
                    let table = TableId(reader.u8()?);
                    let key = Bytes::copy_from_slice(take_bytes(&mut reader)?);
                    let value = Bytes::copy_from_slice(take_bytes(&mut reader)?);
                    self.rows.push((table, key, value));
                }
                END => return Some(true),
                _ => return None,
            }
        }
        Some(false)
    }
}

fn take_topic(reader: &mut Reader<'_>) -> Option<Topic> {
    let id = Uuid::from_bytes(reader.array()?);
    let name = take_str(reader)?.into();
    let config = take_config(reader)?;
    let count = reader.u32()?;
    let mut partitions = Vec::new();
    for _ in 0..count {
        partitions.push(PartitionId(reader.u32()?));
    }
    Some(Topic {
        id,
        name,
        config,
        partitions,
    })
}

fn take_partition(reader: &mut Reader<'_>) -> Option<PartitionMark> {
    let id = PartitionId(reader.u32()?);
    let topic = take_str(reader)?.into();
    let index = reader.u32()?;
    let log_start = reader.u64()?;
    let next_offset = reader.u64()?;
    let count = reader.u32()?;
    let mut segments = Vec::new();
    for _ in 0..count {
        segments.push(SegmentMark {
            base_offset: reader.u64()?,
            len: reader.u64()?,
            created_ms: reader.i64()?,
            max_timestamp_ms: reader.i64()?,
            start_bytes: reader.u64()?,
            offset_entries: reader.u32()?,
            time_entries: reader.u32()?,
        });
    }
    Some(PartitionMark {
        id,
        topic,
        index,
        log_start,
        next_offset,
        segments,
    })
}

fn take_producer(reader: &mut Reader<'_>) -> Option<(PartitionId, i64, Producer)> {
    let partition = PartitionId(reader.u32()?);
    let id = reader.i64()?;
    let epoch = reader.i16()?;
    let last_ms = reader.i64()?;
    let count = reader.u32()?;
    let mut producer = Producer {
        epoch,
        last_ms,
        batches: smallvec::SmallVec::new(),
    };
    for _ in 0..count {
        producer.batches.push(SentBatch {
            first_sequence: reader.i32()?,
            last_sequence: reader.i32()?,
            base_offset: reader.u64()?,
        });
    }
    Some((partition, id, producer))
}
