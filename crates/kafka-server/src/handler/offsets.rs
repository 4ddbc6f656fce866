//! Offsets of partitions: ListOffsets, OffsetForLeaderEpoch, DeleteRecords.

use headwater_commitlog::{CommitError, Topics};
use tokio::sync::oneshot;

use super::fetch::LEADER_EPOCH;
use super::{Call, is_internal, signed};
use crate::error_code::ErrorCode;
use crate::host::Action;
use crate::message::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsResponse, DeletedRecords,
    DeletedRecordsTopic, LeaderEpochEnd, LeaderEpochEndTopic, LeaderEpochPartition,
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsResponse, ListedOffset,
    ListedOffsetsTopic, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;

impl Call<'_> {
    pub(super) async fn list_offsets(&self, request: ListOffsetsRequest) -> ListOffsetsResponse {
        let topics = self.shared.log.topics();
        let mut response = ListOffsetsResponse::default();
        for topic in request.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for wanted in &topic.partitions {
                let found = self.list_offset(&topics, &topic.name, wanted).await;
                let (offset, timestamp) = found.unwrap_or((-1, -1));
                partitions.push(ListedOffset {
                    index: wanted.index,
                    error: found.err().unwrap_or_default(),
                    timestamp,
                    offset,
                    leader_epoch: if offset < 0 { -1 } else { LEADER_EPOCH },
                });
            }
            response.topics.push(ListedOffsetsTopic {
                name: topic.name,
                partitions,
            });
        }
        response
    }

    /// Offset and timestamp; -1 for what is not there.
    async fn list_offset(
        &self,
        topics: &Topics,
        name: &str,
        wanted: &ListOffsetsPartition,
    ) -> Result<(i64, i64), ErrorCode> {
        let partition = self.partition(topics, Action::DescribeTopic(name), name, wanted.index)?;
        if wanted.current_leader_epoch > LEADER_EPOCH {
            return Err(ErrorCode::UnknownLeaderEpoch);
        }
        let timestamp = wanted.timestamp;
        match timestamp {
            LATEST => return Ok((signed(partition.high_watermark()), -1)),
            EARLIEST => return Ok((signed(partition.log_start_offset()), -1)),
            _ => {}
        }
        let looked = self.shared.off_runtime(move || match timestamp {
            MAX_TIMESTAMP => partition.max_timestamp(),
            timestamp => partition.offset_for_time(timestamp),
        });
        let found = looked.await.ok_or(ErrorCode::KafkaStorageError)?;
        let found = found.map_err(|error| ErrorCode::from(&error))?;
        Ok(found.map_or((-1, -1), |(offset, timestamp)| (signed(offset), timestamp)))
    }

    pub(super) fn offset_for_leader_epoch(
        &self,
        request: OffsetForLeaderEpochRequest,
    ) -> OffsetForLeaderEpochResponse {
        let topics = self.shared.log.topics();
        let mut response = OffsetForLeaderEpochResponse::default();
        for topic in request.topics {
            let ends = topic
                .partitions
                .iter()
                .map(|wanted| self.end(&topics, &topic.name, wanted));
            let partitions = ends.collect();
            response.topics.push(LeaderEpochEndTopic {
                name: topic.name,
                partitions,
            });
        }
        response
    }

    /// There is one epoch, and it ends at the high watermark; of any other nothing is known.
    fn end(&self, topics: &Topics, name: &str, wanted: &LeaderEpochPartition) -> LeaderEpochEnd {
        let mut end = LeaderEpochEnd {
            index: wanted.index,
            ..LeaderEpochEnd::default()
        };
        match self.partition(topics, Action::DescribeTopic(name), name, wanted.index) {
            Ok(_) if wanted.current_leader_epoch > LEADER_EPOCH => {
                end.error = ErrorCode::UnknownLeaderEpoch;
            }
            Ok(partition) if wanted.leader_epoch == LEADER_EPOCH => {
                end.leader_epoch = LEADER_EPOCH;
                end.end_offset = signed(partition.high_watermark());
            }
            Ok(_) => {}
            Err(error) => end.error = error,
        }
        end
    }

    pub(super) async fn delete_records(
        &self,
        request: DeleteRecordsRequest,
    ) -> DeleteRecordsResponse {
        let mut response = DeleteRecordsResponse::default();
        for topic in request.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for wanted in &topic.partitions {
                let outcome = self.delete_records_of(&topic.name, wanted).await;
                partitions.push(DeletedRecords {
                    index: wanted.index,
                    low_watermark: outcome.unwrap_or(-1),
                    error: outcome.err().unwrap_or_default(),
                });
            }
            response.topics.push(DeletedRecordsTopic {
                name: topic.name,
                partitions,
            });
        }
        response
    }

    async fn delete_records_of(
        &self,
        name: &str,
        wanted: &DeleteRecordsPartition,
    ) -> Result<i64, ErrorCode> {
        if is_internal(name) {
            return Err(ErrorCode::InvalidTopic);
        }
        let topics = self.shared.log.topics();
        let partition = self.partition(&topics, Action::DeleteTopic(name), name, wanted.index)?;
        let high_watermark = partition.high_watermark();
        let before = match wanted.offset {
            -1 => high_watermark,
            offset => u64::try_from(offset).map_err(|_| ErrorCode::OffsetOutOfRange)?,
        };
        if before > high_watermark {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        let (sender, receiver) = oneshot::channel();
        // Whoever hung up in the meantime needs no answer.
        let done = Box::new(move |outcome| drop(sender.send(outcome)));
        self.shared.host.trim(partition.id(), before, done);
        let outcome = receiver.await.unwrap_or(Err(CommitError::Closed));
        outcome.map_err(|error| ErrorCode::from(&error))?;
        Ok(signed(partition.log_start_offset()))
    }
}
