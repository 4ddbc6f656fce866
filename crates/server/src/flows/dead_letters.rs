//! Where records lie that a flow could not carry out.
//!
//! For: a dead letter and the flow's position in one commit.
//! Not for: what stands in one (`bridge`).
//! Called by: `delivers`, `sinks`.

use headwater_bridge::{DEAD_LETTERS, Place, Rejected, dead_letter};
use headwater_commitlog::record::Record;
use headwater_commitlog::{
    Admin, Append, AppendData, CommitError, Log, PartitionId, TableChange, TopicConfig, Unit,
};

use crate::mqtt::wall_ms;

/// A letter is longer than its record, which may be as long as any.
const LETTER_BYTES_MAX: &str = "2147483647";

/// Puts `record` among the dead letters, with `row` in the same commit. On disk when this returns.
/// The letter's time is now: it shall be kept from now on, however old the record is.
pub(super) fn bury(
    log: &Log,
    record: &Record,
    place: Place<'_>,
    flow: &str,
    rejected: &Rejected,
    row: TableChange,
) -> Result<(), CommitError> {
    let mut unit = Unit::default();
    unit.appends.push(Append {
        partition: grave(log)?,
        data: AppendData::Record {
            timestamp_ms: wall_ms(),
            body: dead_letter::dead_letter(record, place, flow, rejected),
        },
    });
    unit.tables.push(row);
    log.commit(unit).map(drop)
}

/// The partition of the dead letters; the topic is made when it is not there.
fn grave(log: &Log) -> Result<PartitionId, CommitError> {
    let find = || {
        log.topic(DEAD_LETTERS)
            .and_then(|topic| topic.partitions.first().copied())
    };
    if let Some(partition) = find() {
        return Ok(partition);
    }
    let create = Admin::CreateTopic {
        name: DEAD_LETTERS.to_owned(),
        partitions: 1,
        config: TopicConfig::default()
            .with(TopicConfig::MAX_MESSAGE_BYTES, LETTER_BYTES_MAX)
            .map_err(CommitError::InvalidConfig)?,
    };
    match log.commit(Unit {
        admin: vec![create],
        ..Unit::default()
    }) {
        Ok(_) | Err(CommitError::TopicExists { .. }) => {}
        Err(error) => return Err(error),
    }
    find().ok_or(CommitError::UnknownTopic {
        name: DEAD_LETTERS.to_owned(),
    })
}
