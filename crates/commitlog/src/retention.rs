//! What a partition may let go: by age, by size, but never what somebody still needs.
//!
//! Nothing goes by itself; the answer is an offset for `Admin::TrimTo`.

use crate::partition::Partition;

/// The two bounds of one topic; -1 is none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retention {
    pub(crate) ms: i64,
    pub(crate) bytes: i64,
}

/// The offset below which all may go, if that is more than nothing.
pub(crate) fn due(partition: &Partition, retention: Retention, now_ms: i64) -> Option<u64> {
    let segments = partition.segments();
    let high_watermark = partition.high_watermark();
    let log_start = partition.log_start_offset();
    let mut left = segments.iter().map(|segment| segment.len()).sum::<u64>();
    let mut due = log_start;
    for (index, segment) in segments.iter().enumerate() {
        let next = segments.get(index + 1).map(|next| next.base_offset);
        let too_old = retention.ms >= 0
            && segment.len() > 0
            && segment.max_timestamp_ms().saturating_add(retention.ms) < now_ms;
        let bound = u64::try_from(retention.bytes).ok();
        // By size the newest segment stays: there is always less than a segment too much.
        let too_much = next.is_some() && bound.is_some_and(|bound| left - segment.len() >= bound);
        if !too_old && !too_much {
            break;
        }
        left -= segment.len();
        due = next.unwrap_or(high_watermark);
    }
    let due = due
        .min(partition.held_from().unwrap_or(u64::MAX))
        .min(high_watermark);
    (due > log_start).then_some(due)
}
