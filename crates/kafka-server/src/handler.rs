//! One request in, one response out: what each API does.
//!
//! For: deciding on requests that are already decoded, over the log and the groups.
//! Not for: bytes and sockets (`api`, `connection`), group rules (`group`).
//! Calls: `Host::allows` before each deed on a topic or group.
//! Holds: a response that promises durability is built after the log has answered.

mod cluster;
mod configs;
mod fetch;
mod groups;
mod offsets;
mod produce;
mod sasl;
mod topics;

pub(crate) use cluster::api_versions;
pub(crate) use produce::Produced;
pub(crate) use sasl::{Sasl, authenticate_token};

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use headwater_commitlog::{
    Admin, CommitError, INTERNAL_PREFIX, Log, Partition, PartitionId, Receipt, Topics, Unit,
};
use tokio::sync::{Semaphore, oneshot};

use crate::api::{Header, Request, encode_response};
use crate::budget::{Budget, Charge, Pool};
use crate::error_code::ErrorCode;
use crate::groups::Groups;
use crate::host::{Action, Host, Principal};
use crate::options::Options;
use crate::waiters::Waiters;
use crate::wire::{Text, Wire};

/// Requests that read the disk at once: enough for a disk's queue, few enough that their threads
/// cost nothing. A disk that answers none of them holds up fetches, and nothing else.
pub(crate) const READS_MAX: usize = 16;

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) log: Log,
    pub(crate) options: Options,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) groups: Groups,
    pub(crate) waiters: Waiters,
    /// Bytes of requests, from the first that comes until they are answered.
    pub(crate) requests: Budget,
    /// Bytes of fetched records, from before they are read until they are sent.
    pub(crate) responses: Pool,
    /// Turns at reading the disk.
    pub(crate) reads: Arc<Semaphore>,
}

/// Who is at the other end.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) peer: SocketAddr,
    /// The address at which the client reached us.
    pub(crate) reached_at: SocketAddr,
    pub(crate) principal: Principal,
    pub(crate) sasl: Sasl,
}

/// One request with its surroundings.
pub(crate) struct Call<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) client: &'a mut Client,
    pub(crate) header: &'a Header,
}

/// A frame that is ready to send, with what it is charged for until it is sent: its records, and
/// of its request's charge as much as the rest of it is long.
pub(crate) struct Answer {
    pub(crate) frame: Vec<Bytes>,
    pub(crate) charges: Vec<Charge>,
}

impl From<Vec<Bytes>> for Answer {
    fn from(frame: Vec<Bytes>) -> Self {
        Self {
            frame,
            charges: Vec::new(),
        }
    }
}

impl Call<'_> {
    /// Answers a request, which `charge` covers.
    pub(crate) async fn answer(&mut self, request: Request, mut charge: Charge) -> Answer {
        let mut records = None;
        let frame = self.frame(request, &mut charge, &mut records).await;
        let length: usize = frame.iter().map(Bytes::len).sum();
        let records_length = records.as_ref().map_or(0, Charge::bytes);
        charge.shrink(length.saturating_sub(records_length));
        let charges = [Some(charge), records].into_iter().flatten();
        Answer {
            frame,
            charges: charges.filter(|charge| !charge.is_empty()).collect(),
        }
    }

    /// The answer; a Fetch's `records` have a charge of their own.
    async fn frame(
        &mut self,
        request: Request,
        charge: &mut Charge,
        records: &mut Option<Charge>,
    ) -> Vec<Bytes> {
        match request {
            // A connection does not wait for it here: it has several in flight.
            Request::Produce(request) => {
                let all = charge.split(charge.bytes());
                let mut produced = self.produce(request, all);
                std::mem::swap(charge, &mut produced.charge);
                self.encode(&produced.settled().await)
            }
            Request::Fetch(request) => {
                let response;
                (response, *records) = self.fetch(request, charge).await;
                self.encode(&response)
            }
            Request::ListOffsets(request) => self.encode(&self.list_offsets(request).await),
            Request::Metadata(request) => self.encode(&self.metadata(request).await),
            Request::OffsetCommit(request) => self.encode(&self.offset_commit(request).await),
            Request::OffsetFetch(request) => self.encode(&self.offset_fetch(request)),
            Request::FindCoordinator(request) => self.encode(&self.find_coordinator(request)),
            Request::JoinGroup(request) => self.encode(&self.join_group(request, charge).await),
            Request::Heartbeat(request) => self.encode(&self.heartbeat(request)),
            Request::LeaveGroup(request) => self.encode(&self.leave_group(request)),
            Request::SyncGroup(request) => self.encode(&self.sync_group(request, charge).await),
            Request::DescribeGroups(request) => self.encode(&self.describe_groups(request)),
            Request::ListGroups(request) => self.encode(&self.list_groups(&request)),
            Request::SaslHandshake(request) => {
                let response = self.sasl_handshake(&request);
                self.encode(&response)
            }
            Request::ApiVersions(_) => self.encode(&api_versions(ErrorCode::None)),
            Request::CreateTopics(request) => self.encode(&self.create_topics(request).await),
            Request::DeleteTopics(request) => self.encode(&self.delete_topics(request).await),
            Request::DeleteRecords(request) => self.encode(&self.delete_records(request).await),
            Request::InitProducerId(request) => self.encode(&self.init_producer_id(request).await),
            Request::OffsetForLeaderEpoch(request) => {
                self.encode(&self.offset_for_leader_epoch(request))
            }
            Request::DescribeConfigs(request) => self.encode(&self.describe_configs(request)),
            Request::DescribeLogDirs(request) => self.encode(&self.describe_log_dirs(request)),
            Request::SaslAuthenticate(request) => {
                let response = self.sasl_authenticate(&request);
                self.encode(&response)
            }
            Request::CreatePartitions(request) => {
                self.encode(&self.create_partitions(request).await)
            }
            Request::DeleteGroups(request) => self.encode(&self.delete_groups(request).await),
            Request::IncrementalAlterConfigs(request) => {
                self.encode(&self.incremental_alter_configs(request).await)
            }
            Request::OffsetDelete(request) => self.encode(&self.offset_delete(request).await),
            Request::DescribeCluster(request) => self.encode(&self.describe_cluster(&request)),
        }
    }

    fn encode(&self, response: &impl Wire) -> Vec<Bytes> {
        encode_response(self.header, response)
    }

    fn allows(&self, action: Action<'_>) -> bool {
        match action {
            // What lies there is not made for clients, and not owed to them.
            Action::ReadTopic(name) | Action::WriteTopic(name) if is_internal(name) => false,
            action => self.shared.host.allows(&self.client.principal, action),
        }
    }

    /// The partition that a client may read or describe.
    fn partition(
        &self,
        topics: &Topics,
        action: Action<'_>,
        name: &str,
        index: i32,
    ) -> Result<Arc<Partition>, ErrorCode> {
        if !self.allows(action) {
            return Err(ErrorCode::TopicAuthorizationFailed);
        }
        find_partition(topics, name, index).ok_or(ErrorCode::UnknownTopicOrPartition)
    }
}

fn find_partition(topics: &Topics, name: &str, index: i32) -> Option<Arc<Partition>> {
    let topic = topics.by_name(name)?;
    let id: &PartitionId = topic.partitions.get(usize::try_from(index).ok()?)?;
    topics.partition(*id).cloned()
}

/// Names that only this program itself writes to, creates and deletes.
fn is_internal(name: &str) -> bool {
    name.starts_with(INTERNAL_PREFIX)
}

fn signed(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}

/// A sentence for people, with the causes behind it.
fn sentence(error: &dyn std::error::Error) -> Text {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    Text::from(text)
}

impl Shared {
    /// Runs `work`, which may wait for the disk, on a thread that may; `None` when the runtime ends.
    async fn off_runtime<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        // Nobody closes the semaphore.
        let turn = Arc::clone(&self.reads).acquire_owned().await.ok()?;
        let done = tokio::task::spawn_blocking(move || {
            // Held by the work and not by its asker: a read goes on when the client has gone.
            let _turn = turn;
            work()
        });
        match done.await {
            Ok(value) => Some(value),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => None,
            },
        }
    }

    /// Commits one step and waits until it is on disk.
    async fn administer(&self, admin: Admin) -> Result<Receipt, CommitError> {
        let (sender, receiver) = oneshot::channel();
        self.log.submit(
            vec![Unit {
                admin: vec![admin],
                ..Unit::default()
            }],
            Box::new(move |outcomes| {
                let outcome = outcomes
                    .into_iter()
                    .next()
                    .unwrap_or(Err(CommitError::Closed));
                // Whoever hung up in the meantime needs no answer.
                drop(sender.send(outcome));
            }),
        );
        receiver.await.unwrap_or(Err(CommitError::Closed))
    }
}

#[cfg(test)]
mod tests;
