//! What a frame's payload says: batches, table changes, admin steps.
//!
//! For: writing entries one after the other and reading them back during recovery.
//! Holds: an entry says everything needed to apply it again, nothing is decided twice.

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use crate::record::varint::Reader;
use crate::topics::TopicConfig;
use crate::unit::{PartitionId, TableId};

const BATCH: u8 = 1;
const PUT: u8 = 2;
const DELETE: u8 = 3;
const CREATE_TOPIC: u8 = 4;
const DELETE_TOPIC: u8 = 5;
const ADD_PARTITIONS: u8 = 6;
const SET_CONFIG: u8 = 7;
const TRIM: u8 = 8;
const PRODUCER_ID: u8 = 9;

/// An admin step with everything decided: ids given, names checked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    CreateTopic {
        id: Uuid,
        name: Arc<str>,
        config: TopicConfig,
        first: u32,
        count: u32,
    },
    DeleteTopic {
        name: Arc<str>,
    },
    AddPartitions {
        name: Arc<str>,
        first: u32,
        count: u32,
    },
    SetConfig {
        name: Arc<str>,
        config: TopicConfig,
    },
    Trim {
        partition: PartitionId,
        offset: u64,
    },
    /// The next id to give.
    ProducerId {
        next: i64,
    },
}

#[derive(Debug, PartialEq)]
pub(crate) enum Entry {
    Batch {
        partition: PartitionId,
        bytes: Bytes,
    },
    Change {
        table: TableId,
        key: Bytes,
        value: Option<Bytes>,
    },
    Step(Step),
}

/// Begins a batch entry of `len` bytes that the caller appends.
pub(crate) fn put_batch_head(out: &mut Vec<u8>, partition: PartitionId, len: usize) {
    out.push(BATCH);
    out.extend_from_slice(&partition.0.to_be_bytes());
    put_len(out, len);
}

pub(crate) fn put_change(out: &mut Vec<u8>, table: TableId, key: &[u8], value: Option<&[u8]>) {
    out.push(if value.is_some() { PUT } else { DELETE });
    out.push(table.0);
    put_bytes(out, key);
    if let Some(value) = value {
        put_bytes(out, value);
    }
}

pub(crate) fn put_step(out: &mut Vec<u8>, step: &Step) {
    match step {
        Step::CreateTopic {
            id,
            name,
            config,
            first,
            count,
        } => {
            out.push(CREATE_TOPIC);
            out.extend_from_slice(id.as_bytes());
            put_bytes(out, name.as_bytes());
            put_config(out, config);
            out.extend_from_slice(&first.to_be_bytes());
            out.extend_from_slice(&count.to_be_bytes());
        }
        Step::DeleteTopic { name } => {
            out.push(DELETE_TOPIC);
            put_bytes(out, name.as_bytes());
        }
        Step::AddPartitions { name, first, count } => {
            out.push(ADD_PARTITIONS);
            put_bytes(out, name.as_bytes());
            out.extend_from_slice(&first.to_be_bytes());
            out.extend_from_slice(&count.to_be_bytes());
        }
        Step::SetConfig { name, config } => {
            out.push(SET_CONFIG);
            put_bytes(out, name.as_bytes());
            put_config(out, config);
        }
        Step::Trim { partition, offset } => {
            out.push(TRIM);
            out.extend_from_slice(&partition.0.to_be_bytes());
            out.extend_from_slice(&offset.to_be_bytes());
        }
        Step::ProducerId { next } => {
            out.push(PRODUCER_ID);
            out.extend_from_slice(&next.to_be_bytes());
        }
    }
}

pub(crate) fn put_len(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_len(out, bytes.len());
    out.extend_from_slice(bytes);
}

pub(crate) fn put_config(out: &mut Vec<u8>, config: &TopicConfig) {
    put_len(out, config.entries().len());
    for (key, value) in config.entries() {
        put_bytes(out, key.as_bytes());
        put_bytes(out, value.as_bytes());
    }
}

pub(crate) fn take_bytes<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let len = reader.u32()?;
    reader.take(len as usize)
}

pub(crate) fn take_str<'a>(reader: &mut Reader<'a>) -> Option<&'a str> {
    str::from_utf8(take_bytes(reader)?).ok()
}

pub(crate) fn take_config(reader: &mut Reader<'_>) -> Option<TopicConfig> {
    let mut config = TopicConfig::default();
    for _ in 0..reader.u32()? {
        let key = take_str(reader)?;
        config.set(key, take_str(reader)?).ok()?;
    }
    Some(config)
}

/// Reads the entry at the front of `payload`; `None` when it is none.
pub(crate) fn take(payload: &mut Bytes) -> Option<Entry> {
    let (entry, read) = {
        let mut reader = Reader::new(payload);
        let entry = parse(&mut reader, payload)?;
        (entry, reader.position())
    };
    let _taken = payload.split_to(read);
    Some(entry)
}

fn parse(reader: &mut Reader<'_>, payload: &Bytes) -> Option<Entry> {
    let step = match reader.u8()? {
        BATCH => {
            let partition = PartitionId(reader.u32()?);
            let bytes = payload.slice_ref(take_bytes(reader)?);
            return Some(Entry::Batch { partition, bytes });
        }
        // Rows outlive the frame: a slice would keep all of it in memory.
        PUT => {
            let table = TableId(reader.u8()?);
            let key = Bytes::copy_from_slice(take_bytes(reader)?);
            let value = Some(Bytes::copy_from_slice(take_bytes(reader)?));
            return Some(Entry::Change { table, key, value });
        }
        DELETE => {
            let table = TableId(reader.u8()?);
            let key = Bytes::copy_from_slice(take_bytes(reader)?);
            return Some(Entry::Change {
                table,
                key,
                value: None,
            });
        }
        CREATE_TOPIC => Step::CreateTopic {
            id: Uuid::from_bytes(reader.array()?),
            name: take_str(reader)?.into(),
            config: take_config(reader)?,
            first: reader.u32()?,
            count: reader.u32()?,
        },
        DELETE_TOPIC => Step::DeleteTopic {
            name: take_str(reader)?.into(),
        },
        ADD_PARTITIONS => Step::AddPartitions {
            name: take_str(reader)?.into(),
            first: reader.u32()?,
            count: reader.u32()?,
        },
        SET_CONFIG => Step::SetConfig {
            name: take_str(reader)?.into(),
            config: take_config(reader)?,
        },
        TRIM => Step::Trim {
            partition: PartitionId(reader.u32()?),
            offset: reader.u64()?,
        },
        PRODUCER_ID => Step::ProducerId {
            next: reader.i64()?,
        },
        _ => return None,
    };
    Some(Entry::Step(step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_read_back_as_written() {
        let config = TopicConfig::default().with("retention.ms", "5").unwrap();
        let name: Arc<str> = "t".into();
        let steps = [
            Step::CreateTopic {
                id: Uuid::from_u128(9),
                name: Arc::clone(&name),
                config: config.clone(),
                first: 3,
                count: 2,
            },
            Step::DeleteTopic {
                name: Arc::clone(&name),
            },
            Step::AddPartitions {
                name: Arc::clone(&name),
                first: 5,
                count: 1,
            },
            Step::SetConfig { name, config },
            Step::Trim {
                partition: PartitionId(3),
                offset: 17,
            },
            Step::ProducerId { next: 1001 },
        ];
        let mut out = Vec::new();
        put_batch_head(&mut out, PartitionId(3), 5);
        out.extend_from_slice(b"batch");
        put_change(&mut out, TableId(16), b"key", Some(b"value"));
        put_change(&mut out, TableId(16), b"key", None);
        steps.iter().for_each(|step| put_step(&mut out, step));
        let mut payload = Bytes::from(out);
        let batch = Entry::Batch {
            partition: PartitionId(3),
            bytes: "batch".into(),
        };
        assert_eq!(take(&mut payload), Some(batch));
        for value in [Some(Bytes::from("value")), None] {
            let change = Entry::Change {
                table: TableId(16),
                key: "key".into(),
                value,
            };
            assert_eq!(take(&mut payload), Some(change));
        }
        for step in steps {
            assert_eq!(take(&mut payload), Some(Entry::Step(step)));
        }
        assert!(payload.is_empty());
    }
}
