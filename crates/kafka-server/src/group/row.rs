//! How groups lie in the log's table: one row a group, one a committed offset, one for the floor.
//!
//! For: encoding and decoding rows; the first byte of a key tells its kind, the first of a value its
//! format.
//! Not for: deciding when to write them.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use headwater_commitlog::PartitionId;

use super::membership::{Group, Member};
use super::{Committed, RowChange};
use crate::view::GroupState;
use crate::wire::Text;

const KEY_GROUP: u8 = 1;
const KEY_OFFSET: u8 = 2;
const KEY_GENERATION_FLOOR: u8 = 3;
const FORMAT: u8 = 0;

/// Why a row of the table cannot be read: the data directory is damaged or of a newer program.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RowError {
    #[error("a row of the groups' table ends too early")]
    Truncated,
    #[error("a row of the groups' table has the unknown kind {kind}")]
    UnknownKind { kind: u8 },
    #[error("a row of the groups' table has the unknown format {format}")]
    UnknownFormat { format: u8 },
    #[error("a row of the groups' table holds text that is not UTF-8")]
    Text,
}

/// One row, understood.
#[derive(Debug)]
pub(super) enum Row {
    Group {
        group_id: Text,
        group: Group,
    },
    Offset {
        group_id: Text,
        partition: PartitionId,
        committed: Committed,
    },
    GenerationFloor(i32),
}

/// A group whose members are not worth keeping: only a synced assignment makes them so. After a
/// crash before it they join again, under a greater generation.
pub(super) fn group(group_id: &Text, group: &Group) -> RowChange {
    group_row(group_id, group, &[])
}

/// A group with its members and their assignments.
pub(super) fn assigned_group(group_id: &Text, group: &Group) -> RowChange {
    group_row(group_id, group, &group.members.values().collect::<Vec<_>>())
}

fn group_row(group_id: &Text, group: &Group, members: &[&Member]) -> RowChange {
    let mut value = BytesMut::new();
    value.put_u8(FORMAT);
    value.put_i32(group.generation);
    value.put_i64(group.empty_since_ms);
    put_optional(&mut value, group.protocol_type.as_ref());
    put_optional(&mut value, group.protocol.as_ref());
    put_optional(&mut value, group.leader.as_ref());
    put_members(&mut value, members);
    RowChange {
        key: key(KEY_GROUP, group_id).freeze(),
        value: Some(value.freeze()),
    }
}

pub(super) fn group_deleted(group_id: &Text) -> RowChange {
    RowChange {
        key: key(KEY_GROUP, group_id).freeze(),
        value: None,
    }
}

pub(super) fn offset(group_id: &Text, partition: PartitionId, committed: &Committed) -> RowChange {
    let mut value = BytesMut::new();
    value.put_u8(FORMAT);
    value.put_i64(committed.offset);
    value.put_i32(committed.leader_epoch);
    value.put_i64(committed.committed_at_ms);
    put_bytes(&mut value, committed.metadata.as_bytes());
    RowChange {
        key: offset_key(group_id, partition),
        value: Some(value.freeze()),
    }
}

pub(super) fn offset_deleted(group_id: &Text, partition: PartitionId) -> RowChange {
    RowChange {
        key: offset_key(group_id, partition),
        value: None,
    }
}

/// A row a shard, so that none overwrites what another knows; all shards heed the greatest.
pub(super) fn generation_floor(shard: u8, floor: i32) -> RowChange {
    let mut value = BytesMut::new();
    value.put_u8(FORMAT);
    value.put_i32(floor);
    RowChange {
        key: Bytes::copy_from_slice(&[KEY_GENERATION_FLOOR, shard]),
        value: Some(value.freeze()),
    }
}

/// Reads one row back.
pub(super) fn decode(key: &Bytes, value: &Bytes) -> Result<Row, RowError> {
    let (mut key, mut value) = (key.clone(), value.clone());
    let kind = take_u8(&mut key)?;
    match take_u8(&mut value)? {
        FORMAT => {}
        format => return Err(RowError::UnknownFormat { format }),
    }
    match kind {
        KEY_GROUP => Ok(Row::Group {
            group_id: take_text(&mut key)?,
            group: decode_group(&mut value)?,
        }),
        KEY_OFFSET => Ok(Row::Offset {
            group_id: take_text(&mut key)?,
            partition: PartitionId(take(&mut key, Bytes::try_get_u32)?),
            committed: Committed {
                offset: take(&mut value, Bytes::try_get_i64)?,
                leader_epoch: take(&mut value, Bytes::try_get_i32)?,
                committed_at_ms: take(&mut value, Bytes::try_get_i64)?,
                metadata: take_text(&mut value)?,
            },
        }),
        KEY_GENERATION_FLOOR => Ok(Row::GenerationFloor(take(&mut value, Bytes::try_get_i32)?)),
        kind => Err(RowError::UnknownKind { kind }),
    }
}

fn decode_group(value: &mut Bytes) -> Result<Group, RowError> {
    let mut group = Group::new(take(value, Bytes::try_get_i32)?);
    group.empty_since_ms = take(value, Bytes::try_get_i64)?;
    group.protocol_type = take_optional(value)?;
    group.protocol = take_optional(value)?;
    group.leader = take_optional(value)?;
    for _ in 0..take(value, Bytes::try_get_u32)? {
        let member = decode_member(value)?;
        if let Some(instance_id) = &member.instance_id {
            group
                .static_members
                .insert(instance_id.clone(), member.id.clone());
        }
        group.members.insert(member.id.clone(), member);
    }
    if !group.members.is_empty() {
        group.state = GroupState::Stable;
    }
    Ok(group)
}

fn put_members(out: &mut BytesMut, members: &[&Member]) {
    out.put_u32(u32::try_from(members.len()).unwrap_or(u32::MAX));
    for member in members {
        put_bytes(out, member.id.as_bytes());
        put_optional(out, member.instance_id.as_ref());
        put_bytes(out, member.client_id.as_bytes());
        put_bytes(out, member.client_host.as_bytes());
        out.put_u64(member.session_timeout_ms);
        out.put_u64(member.rebalance_timeout_ms);
        put_bytes(out, &member.assignment);
        out.put_u32(u32::try_from(member.protocols.len()).unwrap_or(u32::MAX));
        for (name, subscription) in &member.protocols {
            put_bytes(out, name.as_bytes());
            put_bytes(out, subscription);
        }
    }
}

fn decode_member(value: &mut Bytes) -> Result<Member, RowError> {
    let mut member = Member {
        id: take_text(value)?,
        instance_id: take_optional(value)?,
        client_id: take_text(value)?,
        client_host: take_text(value)?,
        session_timeout_ms: take(value, Bytes::try_get_u64)?,
        rebalance_timeout_ms: take(value, Bytes::try_get_u64)?,
        assignment: take_bytes(value)?,
        protocols: Vec::new(),
        awaiting_join: None,
        awaiting_sync: None,
        session_deadline_ms: 0,
    };
    for _ in 0..take(value, Bytes::try_get_u32)? {
        member
            .protocols
            .push((take_text(value)?, take_bytes(value)?));
    }
    Ok(member)
}

fn key(kind: u8, group_id: &Text) -> BytesMut {
    let mut key = BytesMut::with_capacity(9 + group_id.len());
    key.put_u8(kind);
    put_bytes(&mut key, group_id.as_bytes());
    key
}

fn offset_key(group_id: &Text, partition: PartitionId) -> Bytes {
    let mut key = key(KEY_OFFSET, group_id);
    key.put_u32(partition.0);
    key.freeze()
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    out.put_slice(bytes);
}

fn put_optional(out: &mut BytesMut, text: Option<&Text>) {
    out.put_u8(u8::from(text.is_some()));
    if let Some(text) = text {
        put_bytes(out, text.as_bytes());
    }
}

fn take<T>(
    bytes: &mut Bytes,
    read: impl FnOnce(&mut Bytes) -> Result<T, bytes::TryGetError>,
) -> Result<T, RowError> {
    read(bytes).map_err(|_| RowError::Truncated)
}

fn take_u8(bytes: &mut Bytes) -> Result<u8, RowError> {
    take(bytes, Bytes::try_get_u8)
}

fn take_bytes(bytes: &mut Bytes) -> Result<Bytes, RowError> {
    let length = usize::try_from(take(bytes, Bytes::try_get_u32)?).unwrap_or(usize::MAX);
    if bytes.len() < length {
        return Err(RowError::Truncated);
    }
    Ok(bytes.split_to(length))
}

fn take_text(bytes: &mut Bytes) -> Result<Text, RowError> {
    Text::from_utf8(take_bytes(bytes)?).map_err(|_| RowError::Text)
}

fn take_optional(bytes: &mut Bytes) -> Result<Option<Text>, RowError> {
    match take_u8(bytes)? {
        0 => Ok(None),
        _ => take_text(bytes).map(Some),
    }
}
