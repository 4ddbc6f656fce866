//! Consumer groups as the HTTP door shows them.

use headwater_dashboard::{GroupDetail, GroupOffset, GroupSummary, Refusal, RefusalKind};
use headwater_kafka_server::{ErrorCode, GroupView};

pub(super) fn summary(group: &GroupView) -> GroupSummary {
    GroupSummary {
        group: group.group_id.clone(),
        state: group.state.name().to_owned(),
        members: group.members.len(),
    }
}

/// The group with an entry for each partition that it has an offset in.
pub(super) fn detail(group: &GroupView) -> GroupDetail {
    let offsets = group.offsets.iter().map(|offset| GroupOffset {
        topic: offset.topic.clone(),
        partition: offset.partition,
        committed: Some(offset.committed),
        high_watermark: offset.high_watermark,
        lag: Some(offset.lag()),
        client: None,
    });
    GroupDetail {
        summary: summary(group),
        generation: group.generation,
        offsets: offsets.collect(),
    }
}

/// What Kafka's code for a deletion means to people.
pub(super) fn deleted(group: &str, code: ErrorCode) -> Result<(), Refusal> {
    let (kind, sentence) = match code {
        ErrorCode::None => return Ok(()),
        ErrorCode::GroupIdNotFound => (RefusalKind::NotFound, format!("there is no group {group}")),
        ErrorCode::NonEmptyGroup => (
            RefusalKind::Conflict,
            format!("group {group} has members; end them first"),
        ),
        ErrorCode::KafkaStorageError => (
            RefusalKind::Unavailable,
            format!("group {group} could not be written; is the disk full?"),
        ),
        other => (
            RefusalKind::Internal,
            format!("group {group} was not deleted: {other:?}"),
        ),
    };
    Err(Refusal::new(kind, sentence))
}
