//! Produce and InitProducerId.

use std::sync::Arc;

use headwater_commitlog::record::{BatchError, Limits, ValidBatch, validate_all};
use headwater_commitlog::{
    Admin, Append, AppendData, CommitError, Partition, Receipt, Topics, Unit,
};
use smallvec::smallvec;
use tokio::sync::oneshot;

use super::{Call, sentence, signed};
use crate::budget::Charge;
use crate::error_code::ErrorCode;
use crate::host::Action;
use crate::message::{
    InitProducerIdRequest, InitProducerIdResponse, ProducePartition, ProduceRequest,
    ProduceResponse, ProducedPartition, ProducedTopic,
};
use crate::wire::Text;

/// A refusal of one partition's batches, with its sentence where there is one.
type Refused = (ErrorCode, Option<Text>);

type Outcomes = Vec<Result<Receipt, CommitError>>;

/// A Produce request whose batches the log has; its answer waits for the disk.
pub(crate) struct Produced {
    response: ProduceResponse,
    /// Which partition of the response each unit belongs to, in the log's order.
    units: Vec<(usize, usize, Arc<Partition>)>,
    outcomes: Option<oneshot::Receiver<Outcomes>>,
    /// acks=0: no answer is sent.
    pub(crate) is_silent: bool,
    /// Covers the answer, until it is sent.
    pub(crate) charge: Charge,
}

/// Memory for the sentence of one refusal.
const SENTENCE_BYTES: usize = 64;

impl ProduceRequest {
    /// What its answer costs at the most, before and after it is encoded.
    pub(crate) fn answer_bytes(&self) -> usize {
        let partition = size_of::<ProducedPartition>() + SENTENCE_BYTES;
        let topics = self.topics.iter().map(|topic| {
            size_of::<ProducedTopic>() + topic.name.len() + partition * topic.partitions.len()
        });
        topics.sum()
    }
}

impl Produced {
    /// Waits for the disk and fills the answer in.
    pub(crate) async fn settled(mut self) -> ProduceResponse {
        let Some(outcomes) = self.outcomes else {
            return self.response;
        };
        let mut outcomes = outcomes.await.unwrap_or_default().into_iter();
        for (topic, index, partition) in self.units {
            let outcome = outcomes.next().unwrap_or(Err(CommitError::Closed));
            let topic = self.response.topics.get_mut(topic);
            if let Some(answer) = topic.and_then(|topic| topic.partitions.get_mut(index)) {
                answer.log_start_offset = signed(partition.log_start_offset());
                settle(answer, &outcome);
            }
        }
        self.response
    }
}

/// Several batches of one partition give the first one's offset, or the first refusal.
fn settle(answer: &mut ProducedPartition, outcome: &Result<Receipt, CommitError>) {
    if answer.error.is_error() {
        return;
    }
    let base_offset = match outcome {
        Ok(receipt) => receipt.positions.first().map(|position| position.offset),
        // The original is in the log, and synced: the answer to it must have been lost.
        Err(CommitError::DuplicateSequence { base_offset }) => Some(*base_offset),
        Err(error) => {
            answer.error = ErrorCode::from(error);
            answer.error_message = Some(sentence(error));
            answer.base_offset = -1;
            return;
        }
    };
    if answer.base_offset < 0 {
        answer.base_offset = base_offset.map_or(-1, signed);
    }
}

impl Call<'_> {
    /// Checks what was sent, here and not on the committer's thread, and hands it to the log, with
    /// what the request is charged for: the log holds its bytes until it has answered. What is
    /// charged for the answer stays with that, which has nothing of the request's frame.
    pub(crate) fn produce(&self, request: ProduceRequest, mut charge: Charge) -> Produced {
        let for_answer = charge.split(request.answer_bytes());
        let topics = self.shared.log.topics();
        let mut response = ProduceResponse::default();
        let (mut places, mut units) = (Vec::new(), Vec::new());
        for topic in request.topics {
            let mut answers = Vec::with_capacity(topic.partitions.len());
            for data in topic.partitions {
                let mut answer = ProducedPartition {
                    index: data.index,
                    ..Default::default()
                };
                match self.check(&topics, request.acks, &topic.name, data) {
                    Ok((partition, batches)) => {
                        for batch in batches {
                            let place = (response.topics.len(), answers.len());
                            places.push((place.0, place.1, Arc::clone(&partition)));
                            units.push(append(&partition, batch));
                        }
                    }
                    Err((error, message)) => {
                        answer.error = error;
                        answer.error_message = message;
                    }
                }
                answers.push(answer);
            }
            response.topics.push(ProducedTopic {
                name: topic.name.detached(),
                partitions: answers,
            });
        }
        let outcomes = self.submit(units, charge);
        Produced {
            response,
            units: places,
            outcomes,
            is_silent: request.acks == 0,
            charge: for_answer,
        }
    }

    fn check(
        &self,
        topics: &Topics,
        acks: i16,
        name: &Text,
        data: ProducePartition,
    ) -> Result<(Arc<Partition>, Vec<ValidBatch>), Refused> {
        if !(-1..=1).contains(&acks) {
            return Err((ErrorCode::InvalidRequiredAcks, None));
        }
        let partition = self
            .partition(topics, Action::WriteTopic(name), name, data.index)
            .map_err(|error| (error, None))?;
        let batches = data
            .records
            .ok_or(BatchError::Empty)
            .and_then(|records| validate_all(records, &Limits::default()))
            .map_err(|error| (ErrorCode::from(&error), Some(sentence(&error))))?;
        Ok((partition, batches))
    }

    fn submit(&self, units: Vec<Unit>, charge: Charge) -> Option<oneshot::Receiver<Outcomes>> {
        if units.is_empty() {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        self.shared.log.submit(
            units,
            Box::new(move |outcomes| {
                drop(charge);
                // Whoever hung up in the meantime needs no answer.
                drop(sender.send(outcomes));
            }),
        );
        Some(receiver)
    }

    pub(super) async fn init_producer_id(
        &self,
        request: InitProducerIdRequest,
    ) -> InitProducerIdResponse {
        let refused = |error| InitProducerIdResponse {
            error,
            producer_epoch: -1,
            ..InitProducerIdResponse::default()
        };
        if request.transactional_id.is_some() {
            // Transactions are not served, and no version of this API can say so in words.
            return refused(ErrorCode::TransactionalIdAuthorizationFailed);
        }
        if !self.allows(Action::WriteIdempotently) {
            return refused(ErrorCode::ClusterAuthorizationFailed);
        }
        match self.shared.administer(Admin::AllocateProducerId).await {
            Ok(Receipt {
                producer_id: Some(producer_id),
                ..
            }) => InitProducerIdResponse {
                producer_id,
                ..InitProducerIdResponse::default()
            },
            Ok(Receipt {
                producer_id: None, ..
            }) => refused(ErrorCode::UnknownServerError),
            Err(error) => refused(ErrorCode::from(&error)),
        }
    }
}

fn append(partition: &Partition, batch: ValidBatch) -> Unit {
    Unit {
        appends: smallvec![Append {
            partition: partition.id(),
            data: AppendData::Batch(batch)
        }],
        ..Unit::default()
    }
}
