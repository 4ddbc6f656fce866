//! How far a flow has come in a partition, as a row of the log.
//!
//! For: the position that goes into the same commit as what the flow does.
//! Holds: a partition's number is never used again, so a topic made anew begins anew.

use bytes::Bytes;
use headwater_commitlog::{Log, PartitionId, TableChange, TableId};

/// The row of a position: the flow's name and the partition -> the next offset.
pub(super) fn row(flow: &str, partition: PartitionId, next: u64) -> TableChange {
    let mut name = flow.as_bytes().to_vec();
    name.push(0);
    name.extend_from_slice(&partition.0.to_be_bytes());
    TableChange {
        table: TableId::CURSORS,
        key: Bytes::from(name),
        value: Some(Bytes::copy_from_slice(&next.to_be_bytes())),
    }
}

pub(super) fn stored(log: &Log, flow: &str, partition: PartitionId) -> Option<u64> {
    let value = log.table_row(TableId::CURSORS, &row(flow, partition, 0).key)?;
    Some(u64::from_be_bytes(value.as_ref().try_into().ok()?))
}
