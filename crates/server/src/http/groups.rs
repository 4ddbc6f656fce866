//! Consumer groups as the HTTP door shows them.

use headwater_dashboard::{GroupDetail, GroupOffset, GroupSummary};
use headwater_kafka_server::GroupView;

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
