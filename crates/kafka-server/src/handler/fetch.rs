//! Fetch: records from an offset on, waiting for them if the client says so.
//!
//! Holds: no thread of the runtime reads the disk; a long poll reads when offsets and sizes, which
//! are in memory, say that there is enough; records are charged before they are read.

use std::sync::Arc;
use std::time::Duration;

use headwater_commitlog::{Partition, PartitionId, Topics};
use tokio::time::Instant;

use super::{Call, signed};
use crate::budget::{Charge, Pool, SHORT_BYTES};
use crate::error_code::ErrorCode;
use crate::host::Action;
use crate::message::{
    FetchPartition, FetchRequest, FetchResponse, FetchedPartition, FetchedTopic, Records,
};
use crate::wire::Text;

/// Longest wait granted, whatever the client asks.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// The only leader epoch there is: one node, never fenced.
pub(super) const LEADER_EPOCH: i32 = 0;

/// One response gets this part of the bytes that are left for responses: with all of them left 8
/// MiB, more than a round trip is worth; with a hundred clients that do not read, still a quarter
/// of a MiB.
const SHARE: usize = 32;

/// What a Fetch asks for, as far as offsets and sizes in memory tell.
#[derive(Default)]
struct Plan {
    topics: Vec<PlannedTopic>,
    has_errors: bool,
    has_records: bool,
    /// Bytes of the partitions asked for, whatever the offsets.
    sizes: u64,
}

struct PlannedTopic {
    name: Text,
    partitions: Vec<(FetchedPartition, Option<Wanted>)>,
}

/// Records that are there.
struct Wanted {
    partition: Arc<Partition>,
    offset: u64,
    bytes_max: usize,
}

/// What was read of a plan.
#[derive(Default)]
struct Look {
    response: FetchResponse,
    bytes: usize,
    has_errors: bool,
}

impl Call<'_> {
    /// Answers at once if there is enough or something is wrong, else when the log has grown
    /// enough or the wait is over. A request that holds what others wait for, which `charge`
    /// tells, does not wait long. The charge it gives is for the records.
    pub(super) async fn fetch(
        &self,
        request: FetchRequest,
        charge: &Charge,
    ) -> (FetchResponse, Option<Charge>) {
        // Sessions are refused: session 0 tells the client to name its partitions each time.
        if request.session_id != 0 {
            let error = ErrorCode::FetchSessionIdNotFound;
            let refused = FetchResponse {
                error,
                ..FetchResponse::default()
            };
            return (refused, None);
        }
        let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
        let bytes_max = usize::try_from(request.max_bytes)
            .unwrap_or(0)
            .min(self.shared.options.fetch_bytes_max);
        let bytes_min = usize::try_from(request.min_bytes)
            .unwrap_or(0)
            .min(bytes_max);
        let deadline = Instant::now() + wait.min(WAIT_MAX);
        // Watch first, look then: what comes in between wakes us.
        let watch = self.shared.waiters.watch(self.watched(&request));
        let mut is_over = wait.is_zero() || bytes_min == 0 || charge.is_overdrawn();
        // Bytes that the last look found, and the sizes of the partitions then.
        let mut last: Option<(usize, u64)> = None;
        // However often it is woken until then.
        let mut look_again = Instant::now() + self.shared.options.stall_timeout;
        loop {
            let plan = self.plan(&request);
            let sizes = plan.sizes;
            let share = share(&self.shared.responses);
            // Whole batches fill half of a share at least, if there are enough.
            let bytes_min = bytes_min.min(share / 2);
            let may_be_enough = match last {
                None => plan.has_records,
                Some((found, before)) => {
                    let grown = usize::try_from(sizes.saturating_sub(before));
                    found.saturating_add(grown.unwrap_or(usize::MAX)) >= bytes_min
                }
            };
            if is_over || plan.has_errors || may_be_enough {
                let (look, records) = self.look(plan, bytes_max.min(share)).await;
                if is_over || look.has_errors || look.bytes >= bytes_min {
                    return (look.response, records);
                }
                last = Some((look.bytes, sizes));
            } else {
                // Trimming makes a partition smaller and this too careful: then time ends the wait.
                last = last.or(Some((0, sizes)));
            }
            tokio::select! {
                () = watch.advanced() => {}
                () = tokio::time::sleep_until(deadline.min(look_again)) => {
                    is_over = deadline <= look_again || charge.is_in_the_way();
                    look_again = Instant::now() + self.shared.options.stall_timeout;
                }
            }
        }
    }

    fn watched(&self, request: &FetchRequest) -> Vec<PartitionId> {
        let topics = self.shared.log.topics();
        let mut watched = Vec::new();
        for wanted in &request.topics {
            let Some(topic) = topics.by_name(&wanted.name) else {
                continue;
            };
            watched.extend(wanted.partitions.iter().filter_map(|partition| {
                topic
                    .partitions
                    .get(usize::try_from(partition.index).ok()?)
                    .copied()
            }));
        }
        watched
    }

    fn plan(&self, request: &FetchRequest) -> Plan {
        let topics = self.shared.log.topics();
        let mut plan = Plan::default();
        for wanted in &request.topics {
            let mut partitions = Vec::with_capacity(wanted.partitions.len());
            for partition in &wanted.partitions {
                let mut answer = FetchedPartition {
                    index: partition.index,
                    // There are no transactions, so none was aborted.
                    aborted_transactions: (request.isolation_level != 0).then(Vec::new),
                    ..FetchedPartition::default()
                };
                let found = self.find(&topics, &wanted.name, partition, &mut answer, &mut plan);
                let found = found.unwrap_or_else(|error| {
                    answer.error = error;
                    plan.has_errors = true;
                    None
                });
                plan.has_records |= found.is_some();
                partitions.push((answer, found));
            }
            plan.topics.push(PlannedTopic {
                name: wanted.name.clone(),
                partitions,
            });
        }
        plan
    }

    /// Fills in what is known of a partition; gives what there is to read of it.
    fn find(
        &self,
        topics: &Topics,
        name: &str,
        wanted: &FetchPartition,
        answer: &mut FetchedPartition,
        plan: &mut Plan,
    ) -> Result<Option<Wanted>, ErrorCode> {
        let partition = self.partition(topics, Action::ReadTopic(name), name, wanted.index)?;
        if wanted.current_leader_epoch > LEADER_EPOCH {
            return Err(ErrorCode::UnknownLeaderEpoch);
        }
        let offset = u64::try_from(wanted.offset).map_err(|_| ErrorCode::OffsetOutOfRange)?;
        plan.sizes += partition.size_bytes();
        let high_watermark = partition.high_watermark();
        let log_start_offset = partition.log_start_offset();
        if offset < log_start_offset || offset > high_watermark {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        answer.high_watermark = signed(high_watermark);
        answer.last_stable_offset = signed(high_watermark);
        answer.log_start_offset = signed(log_start_offset);
        Ok((offset < high_watermark).then(|| Wanted {
            partition,
            offset,
            bytes_max: usize::try_from(wanted.max_bytes).unwrap_or(0),
        }))
    }

    /// Reads what the plan found, once there is room for it.
    async fn look(&self, plan: Plan, bytes_max: usize) -> (Look, Option<Charge>) {
        if !plan.has_records {
            return (plan.read(0), None);
        }
        let mut charge = self.shared.responses.charge();
        charge.cover(bytes_max).await;
        let read = self.shared.off_runtime(move || plan.read(bytes_max));
        // Without a runtime there is nobody left to read an answer.
        let look = read.await.unwrap_or_default();
        // The first batch may be longer than the share; it is there now, and counts.
        charge.cover(look.bytes).await;
        charge.shrink(look.bytes);
        (look, Some(charge))
    }
}

fn share(pool: &Pool) -> usize {
    (pool.left() / SHARE).max(SHORT_BYTES)
}

impl Plan {
    /// Blocks. About `bytes_max` bytes of records.
    fn read(self, bytes_max: usize) -> Look {
        let mut look = Look::default();
        for topic in self.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for (mut answer, wanted) in topic.partitions {
                look.has_errors |= answer.error.is_error();
                if let Some(wanted) = wanted {
                    let left = bytes_max.saturating_sub(look.bytes);
                    match wanted.read(left, look.bytes == 0) {
                        Ok(records) => answer.records = records,
                        Err(error) => {
                            answer.error = error;
                            look.has_errors = true;
                        }
                    }
                }
                look.bytes += answer.records.len();
                partitions.push(answer);
            }
            look.response.topics.push(FetchedTopic {
                name: topic.name,
                partitions,
            });
        }
        look
    }
}

impl Wanted {
    /// The first partition that has anything gives at least one batch, also past `left`, so that a
    /// consumer whose limits are below a batch's size gets on (KIP-74).
    fn read(&self, left: usize, is_first: bool) -> Result<Records, ErrorCode> {
        let bytes_max = self.bytes_max.min(left);
        if bytes_max == 0 && !is_first {
            return Ok(Records::default());
        }
        let records = self.partition.read(self.offset, bytes_max);
        let records = records.map_err(|error| {
            let code = ErrorCode::from(&error);
            if code == ErrorCode::KafkaStorageError {
                let (topic, partition) = (self.partition.topic(), self.partition.index());
                tracing::error!(%topic, partition, %error, "read failed");
            }
            code
        })?;
        if !is_first && records.len() > bytes_max {
            return Ok(Records::default());
        }
        Ok(Records(vec![records]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_share_shrinks_as_others_hold_theirs_and_never_vanishes() {
        let pool = Pool::new(256 << 20);
        assert_eq!(share(&pool), 8 << 20);
        let mut held = Vec::new();
        for _ in 0..1_000 {
            if pool.is_short() {
                break;
            }
            let mut charge = pool.charge();
            charge.cover(share(&pool)).await;
            held.push(charge);
        }
        assert!(held.len() > 150, "{} slow clients take all", held.len());
        assert_eq!(share(&pool), SHORT_BYTES);
    }
}
