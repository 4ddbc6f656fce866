//! Gives the broker back what the log knows: its tables and what sessions are owed.

use std::sync::Arc;

use bytes::Bytes;
use headwater_commitlog::{Log, PartitionId, Position, ReadError};
use headwater_mqtt_broker::{Input, Now, Restore, Shared, Table};

use super::commits::{table_id, to_broker};

/// What one read takes from the owed partition.
const READ_BYTES: usize = 4 << 20;

/// Why the broker cannot stand where it stood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    #[error("what sessions are owed cannot be read")]
    Read(#[from] ReadError),
    #[error("what sessions are owed is damaged at offset {offset}")]
    Entry { offset: u64 },
    #[error(
        "{count} rows or entries of sessions cannot be read; a newer program may have written them"
    )]
    Unreadable { count: u64 },
    #[error("what sessions are owed is damaged")]
    Batch(#[from] headwater_commitlog::record::BatchError),
}

/// The first Inputs of each shard.
pub(crate) fn restore(
    log: &Log,
    shared: &Arc<Shared>,
    owed: PartitionId,
    now: Now,
) -> Result<Vec<Vec<Input>>, RestoreError> {
    let mut restore = Restore::new(Arc::clone(shared), now);
    for table in Table::ALL {
        log.scan_table(table_id(table), &mut |key: &Bytes, value: &Bytes| {
            restore.row(table, key, value);
        });
    }
    if let (Some(from), Some(partition)) = (restore.owed_from(), log.partition(owed)) {
        let mut next = from.max(partition.log_start_offset());
        while next < partition.high_watermark() {
            let before = next;
            for record in partition.records(next, READ_BYTES)? {
                let record = record?;
                let damaged = RestoreError::Entry {
                    offset: record.offset,
                };
                let value = record.value.as_ref().ok_or(damaged)?;
                let Some(position) = Position::from_bytes(value) else {
                    return Err(RestoreError::Entry {
                        offset: record.offset,
                    });
                };
                restore.owed(
                    record.offset,
                    to_broker(position),
                    &value.slice(Position::LEN..),
                );
                next = record.offset + 1;
            }
            if next == before {
                return Err(RestoreError::Entry { offset: next });
            }
        }
    }
    match restore.unreadable() {
        0 => Ok(restore.finish()),
        // Starting without them would take from sessions what was acknowledged.
        count => Err(RestoreError::Unreadable { count }),
    }
}
