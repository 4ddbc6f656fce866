//! Fetch: records from an offset on, waiting for them if the client says so.

use std::time::Duration;

use headwater_commitlog::{PartitionId, Topics};
use tokio::time::Instant;

use super::{Call, signed};
use crate::error_code::ErrorCode;
use crate::host::Action;
use crate::message::{
    FetchPartition, FetchRequest, FetchResponse, FetchedPartition, FetchedTopic, Records,
};

/// Longest wait granted, whatever the client asks.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// The only leader epoch there is: one node, never fenced.
pub(super) const LEADER_EPOCH: i32 = 0;

/// One look at all partitions.
#[derive(Default)]
struct Look {
    response: FetchResponse,
    bytes: usize,
    has_errors: bool,
}

impl Call<'_> {
    /// Answers at once if there is enough or something is wrong, else when the log has grown
    /// enough or the wait is over.
    pub(super) async fn fetch(&self, request: FetchRequest) -> FetchResponse {
        // Sessions are refused: session 0 tells the client to name its partitions each time.
        if request.session_id != 0 {
            let error = ErrorCode::FetchSessionIdNotFound;
            return FetchResponse {
                error,
                ..FetchResponse::default()
            };
        }
        let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
        let bytes_max = usize::try_from(request.max_bytes)
            .unwrap_or(0)
            .min(self.shared.options.fetch_bytes_max);
        let bytes_min = usize::try_from(request.min_bytes)
            .unwrap_or(0)
            .min(bytes_max);
        if wait.is_zero() || bytes_min == 0 {
            return self.look(&request, bytes_max).response;
        }
        let deadline = Instant::now() + wait.min(WAIT_MAX);
        // Watch first, read then: what comes in between wakes us.
        let watch = self.shared.waiters.watch(self.watched(&request));
        loop {
            let look = self.look(&request, bytes_max);
            if look.has_errors || look.bytes >= bytes_min {
                return look.response;
            }
            tokio::select! {
                () = watch.advanced() => {}
                () = tokio::time::sleep_until(deadline) => return look.response,
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

    fn look(&self, request: &FetchRequest, bytes_max: usize) -> Look {
        let topics = self.shared.log.topics();
        let mut look = Look::default();
        for wanted in &request.topics {
            let mut partitions = Vec::with_capacity(wanted.partitions.len());
            for partition in &wanted.partitions {
                let mut answer = FetchedPartition {
                    index: partition.index,
                    // There are no transactions, so none was aborted.
                    aborted_transactions: (request.isolation_level != 0).then(Vec::new),
                    ..FetchedPartition::default()
                };
                let left = bytes_max.saturating_sub(look.bytes);
                let left = if look.bytes == 0 {
                    Left::First(left)
                } else {
                    Left::More(left)
                };
                match self.read(&topics, &wanted.name, partition, left, &mut answer) {
                    Ok(()) => look.bytes += answer.records.len(),
                    Err(error) => {
                        answer.error = error;
                        look.has_errors = true;
                    }
                }
                partitions.push(answer);
            }
            look.response.topics.push(FetchedTopic {
                name: wanted.name.clone(),
                partitions,
            });
        }
        look
    }

    fn read(
        &self,
        topics: &Topics,
        name: &str,
        wanted: &FetchPartition,
        left: Left,
        answer: &mut FetchedPartition,
    ) -> Result<(), ErrorCode> {
        let partition = self.partition(topics, Action::ReadTopic(name), name, wanted.index)?;
        if wanted.current_leader_epoch > LEADER_EPOCH {
            return Err(ErrorCode::UnknownLeaderEpoch);
        }
        let offset = u64::try_from(wanted.offset).map_err(|_| ErrorCode::OffsetOutOfRange)?;
        let high_watermark = partition.high_watermark();
        let log_start_offset = partition.log_start_offset();
        if offset < log_start_offset || offset > high_watermark {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        answer.high_watermark = signed(high_watermark);
        answer.last_stable_offset = signed(high_watermark);
        answer.log_start_offset = signed(log_start_offset);
        let wish = usize::try_from(wanted.max_bytes).unwrap_or(0);
        let (bytes_max, is_first) = match left {
            Left::First(left) => (wish.min(left), true),
            Left::More(left) => (wish.min(left), false),
        };
        if offset == high_watermark || (bytes_max == 0 && !is_first) {
            return Ok(());
        }
        let records = partition.read(offset, bytes_max).map_err(|error| {
            let code = ErrorCode::from(&error);
            if code == ErrorCode::KafkaStorageError {
                tracing::error!(topic = name, partition = wanted.index, %error, "read failed");
            }
            code
        })?;
        if is_first || records.len() <= bytes_max {
            answer.records = Records(vec![records]);
        }
        Ok(())
    }
}

/// Bytes the response still has room for. The first partition that has anything gives at least one
/// batch all the same, so that a consumer whose limits are below a batch's size gets on (KIP-74).
#[derive(Clone, Copy)]
enum Left {
    First(usize),
    More(usize),
}
