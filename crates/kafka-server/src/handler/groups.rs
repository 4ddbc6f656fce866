//! Consumer groups: requests translated for the coordinator, and its answers back.

use std::collections::BTreeMap;

use bytes::Bytes;
use headwater_commitlog::{PartitionId, Topics};
use uuid::Uuid;

use super::{Call, find_partition};
use crate::budget::Charge;
use crate::error_code::ErrorCode;
use crate::group::{Caller, Committed, Description, Join, Sync};
use crate::groups::wall_ms;
use crate::host::Action;
use crate::message::{
    DeleteGroupsRequest, DeleteGroupsResponse, DeletedGroup, DescribeGroupsRequest,
    DescribeGroupsResponse, DescribedGroup, DescribedMember, HeartbeatRequest, HeartbeatResponse,
    JoinGroupRequest, JoinGroupResponse, JoinedMember, LeaveGroupRequest, LeaveGroupResponse,
    LeavingMember, LeftMember, ListGroupsRequest, ListGroupsResponse, ListedGroup,
    OffsetCommitPartition, OffsetCommitRequest, OffsetCommitResponse, OffsetCommittedTopic,
    OffsetDeleteRequest, OffsetDeleteResponse, OffsetDeletedTopic, OffsetFetchGroup,
    OffsetFetchRequest, OffsetFetchResponse, OffsetFetchTopic, OffsetFetched, OffsetFetchedGroup,
    OffsetFetchedTopic, PartitionOutcome, SyncGroupRequest, SyncGroupResponse,
};
use crate::view::GroupState;
use crate::wire::{Reader, Text, Wire, allowance};

/// What a group that is not there is called.
const DEAD: &str = "Dead";

/// What may be done with a group: read, delete, describe (Kafka's AclOperation codes).
const GROUP_OPERATIONS: i32 = 0b1_0100_1000;

impl Call<'_> {
    pub(super) async fn join_group(
        &self,
        request: JoinGroupRequest,
        charge: &mut Charge,
    ) -> JoinGroupResponse {
        if !self.allows(Action::ReadGroup(&request.group_id)) {
            let error = ErrorCode::GroupAuthorizationFailed;
            let member_id = request.member_id;
            return JoinGroupResponse {
                error,
                member_id,
                ..JoinGroupResponse::default()
            };
        }
        let join = self.join(request);
        // What waits now are copies, within the limits of groups: nothing of the frame.
        charge.shrink(0);
        let joined = self.shared.groups.join(join).await;
        let members = joined
            .members
            .into_iter()
            .map(|(member_id, instance_id, metadata)| JoinedMember {
                member_id,
                group_instance_id: instance_id,
                metadata,
            });
        JoinGroupResponse {
            throttle_time_ms: 0,
            error: joined.error,
            generation: joined.generation,
            protocol_type: joined.protocol_type,
            protocol_name: joined.protocol,
            leader: joined.leader,
            skip_assignment: joined.skip_assignment,
            member_id: joined.member_id,
            members: members.collect(),
        }
    }

    fn join(&self, request: JoinGroupRequest) -> Join {
        let client_id = self.header.client_id.clone().unwrap_or_default();
        let session_timeout_ms = u64::try_from(request.session_timeout_ms).unwrap_or(0);
        Join {
            fresh_member_id: Text::from(format!("{client_id}-{}", Uuid::new_v4())),
            client_id: client_id.detached(),
            client_host: Text::from(format!("/{}", self.client.peer.ip())),
            group_id: request.group_id.detached(),
            member_id: request.member_id.detached(),
            instance_id: request.group_instance_id.map(|id| id.detached()),
            member_id_required: self.header.version >= 4,
            can_skip_assignment: self.header.version >= 9,
            session_timeout_ms,
            // Version 0 has none of its own.
            rebalance_timeout_ms: u64::try_from(request.rebalance_timeout_ms)
                .unwrap_or(session_timeout_ms),
            protocol_type: request.protocol_type.detached(),
            protocols: request
                .protocols
                .iter()
                .map(|protocol| (protocol.name.detached(), detached(&protocol.metadata)))
                .collect(),
        }
    }

    pub(super) async fn sync_group(
        &self,
        request: SyncGroupRequest,
        charge: &mut Charge,
    ) -> SyncGroupResponse {
        if !self.allows(Action::ReadGroup(&request.group_id)) {
            let error = ErrorCode::GroupAuthorizationFailed;
            return SyncGroupResponse {
                error,
                ..SyncGroupResponse::default()
            };
        }
        let sync = sync(request);
        // As for a join.
        charge.shrink(0);
        let synced = self.shared.groups.sync(sync).await;
        SyncGroupResponse {
            throttle_time_ms: 0,
            error: synced.error,
            protocol_type: synced.protocol_type,
            protocol_name: synced.protocol,
            assignment: synced.assignment,
        }
    }

    pub(super) fn heartbeat(&self, request: HeartbeatRequest) -> HeartbeatResponse {
        let error = if self.allows(Action::ReadGroup(&request.group_id)) {
            self.shared.groups.heartbeat(&Caller {
                group_id: request.group_id,
                member_id: request.member_id,
                instance_id: request.group_instance_id,
                generation: request.generation,
            })
        } else {
            ErrorCode::GroupAuthorizationFailed
        };
        HeartbeatResponse {
            throttle_time_ms: 0,
            error,
        }
    }

    pub(super) fn leave_group(&self, request: LeaveGroupRequest) -> LeaveGroupResponse {
        let mut response = LeaveGroupResponse::default();
        if !self.allows(Action::ReadGroup(&request.group_id)) {
            response.error = ErrorCode::GroupAuthorizationFailed;
            return response;
        }
        let leave = |member: &LeavingMember| {
            let instance_id = member.group_instance_id.as_ref();
            self.shared
                .groups
                .leave(&request.group_id, &member.member_id, instance_id)
        };
        if self.header.version <= 2 {
            let member_id = request.member_id.clone();
            response.error = leave(&LeavingMember {
                member_id,
                ..LeavingMember::default()
            });
            return response;
        }
        response.members = request
            .members
            .iter()
            .map(|member| LeftMember {
                member_id: member.member_id.clone(),
                group_instance_id: member.group_instance_id.clone(),
                error: leave(member),
            })
            .collect();
        response
    }

    pub(super) fn describe_groups(&self, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
        let groups = request.groups.into_iter().map(|group_id| {
            let mut described = if self.allows(Action::DescribeGroup(&group_id)) {
                self.shared
                    .groups
                    .describe(&group_id)
                    .map(described)
                    .unwrap_or_else(|| DescribedGroup {
                        state: Text::from(DEAD),
                        ..DescribedGroup::default()
                    })
            } else {
                let error = ErrorCode::GroupAuthorizationFailed;
                DescribedGroup {
                    error,
                    ..DescribedGroup::default()
                }
            };
            described.group_id = group_id;
            if request.include_authorized_operations {
                described.authorized_operations = GROUP_OPERATIONS;
            }
            described
        });
        DescribeGroupsResponse {
            throttle_time_ms: 0,
            groups: groups.collect(),
        }
    }

    pub(super) fn list_groups(&self, request: &ListGroupsRequest) -> ListGroupsResponse {
        let is_wanted = |state: GroupState| {
            request.states_filter.is_empty()
                || request
                    .states_filter
                    .iter()
                    .any(|s| s.eq_ignore_ascii_case(state.name()))
        };
        let mut groups: Vec<ListedGroup> = self
            .shared
            .groups
            .descriptions()
            .into_iter()
            .filter(|group| is_wanted(group.state))
            .filter(|group| self.allows(Action::DescribeGroup(&group.group_id)))
            .map(|group| ListedGroup {
                group_id: group.group_id,
                protocol_type: group.protocol_type,
                state: Text::from(group.state.name()),
            })
            .collect();
        groups.sort_by(|a, b| a.group_id.cmp(&b.group_id));
        ListGroupsResponse {
            groups,
            ..ListGroupsResponse::default()
        }
    }

    pub(super) async fn delete_groups(&self, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
        let mut response = DeleteGroupsResponse::default();
        for group_id in request.groups {
            let error = if self.allows(Action::DeleteGroup(&group_id)) {
                self.shared.groups.delete(&group_id).await
            } else {
                ErrorCode::GroupAuthorizationFailed
            };
            response.results.push(DeletedGroup { group_id, error });
        }
        response
    }

    // --- committed offsets ---

    pub(super) async fn offset_commit(&self, request: OffsetCommitRequest) -> OffsetCommitResponse {
        let topics = self.shared.log.topics();
        let is_allowed = self.allows(Action::ReadGroup(&request.group_id));
        let mut offsets = Vec::new();
        let mut response = OffsetCommitResponse::default();
        for topic in request.topics {
            let outcomes = topic.partitions.into_iter().map(|wanted| {
                let index = wanted.index;
                let checked = if is_allowed {
                    self.check_offset(&topics, &topic.name, wanted)
                } else {
                    Err(ErrorCode::GroupAuthorizationFailed)
                };
                let error = checked
                    .map(|offset| offsets.push(offset))
                    .err()
                    .unwrap_or_default();
                PartitionOutcome { index, error }
            });
            let partitions = outcomes.collect();
            response.topics.push(OffsetCommittedTopic {
                name: topic.name,
                partitions,
            });
        }
        if offsets.is_empty() {
            return response;
        }
        let caller = Caller {
            group_id: request.group_id,
            member_id: request.member_id,
            instance_id: request.group_instance_id,
            generation: request.generation,
        };
        let error = self.shared.groups.commit(&caller, offsets).await;
        let outcomes = response
            .topics
            .iter_mut()
            .flat_map(|topic| &mut topic.partitions);
        for outcome in outcomes.filter(|outcome| !outcome.error.is_error()) {
            outcome.error = error;
        }
        response
    }

    fn check_offset(
        &self,
        topics: &Topics,
        name: &str,
        wanted: OffsetCommitPartition,
    ) -> Result<(PartitionId, Committed), ErrorCode> {
        let partition = self.partition(topics, Action::ReadTopic(name), name, wanted.index)?;
        let metadata = wanted.metadata.unwrap_or_default();
        if metadata.len() > self.shared.options.groups.offset_metadata_bytes_max {
            return Err(ErrorCode::OffsetMetadataTooLarge);
        }
        if wanted.offset < 0 {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        let committed = Committed {
            offset: wanted.offset,
            leader_epoch: wanted.leader_epoch,
            metadata: metadata.detached(),
            committed_at_ms: wall_ms(),
        };
        Ok((partition.id(), committed))
    }

    pub(super) fn offset_fetch(&self, request: OffsetFetchRequest) -> OffsetFetchResponse {
        if self.header.version >= 8 {
            let groups = request
                .groups
                .into_iter()
                .map(|group| self.offsets_of(group));
            return OffsetFetchResponse {
                groups: groups.collect(),
                ..Default::default()
            };
        }
        let group_id = request.group_id;
        let fetched = self.offsets_of(OffsetFetchGroup {
            group_id,
            topics: request.topics,
        });
        OffsetFetchResponse {
            topics: fetched.topics,
            error: fetched.error,
            ..OffsetFetchResponse::default()
        }
    }

    fn offsets_of(&self, group: OffsetFetchGroup) -> OffsetFetchedGroup {
        if !self.allows(Action::DescribeGroup(&group.group_id)) {
            let error = ErrorCode::GroupAuthorizationFailed;
            return OffsetFetchedGroup {
                group_id: group.group_id,
                error,
                ..Default::default()
            };
        }
        let view = self.shared.log.topics();
        let topics = match group.topics {
            Some(wanted) => wanted
                .into_iter()
                .map(|topic| self.offsets_in(&view, &group.group_id, topic))
                .collect(),
            None => self.all_offsets(&view, &group.group_id),
        };
        OffsetFetchedGroup {
            group_id: group.group_id,
            topics,
            error: ErrorCode::None,
        }
    }

    fn offsets_in(
        &self,
        topics: &Topics,
        group_id: &Text,
        wanted: OffsetFetchTopic,
    ) -> OffsetFetchedTopic {
        let fetched = wanted.partitions.iter().map(|index| {
            let committed = find_partition(topics, &wanted.name, *index)
                .and_then(|partition| self.shared.groups.offset(group_id, partition.id()));
            fetched(*index, committed)
        });
        let partitions = fetched.collect();
        OffsetFetchedTopic {
            name: wanted.name,
            partitions,
        }
    }

    fn all_offsets(&self, topics: &Topics, group_id: &Text) -> Vec<OffsetFetchedTopic> {
        let mut by_topic: BTreeMap<&str, Vec<OffsetFetched>> = BTreeMap::new();
        let offsets = self.shared.groups.offsets(group_id);
        for (id, committed) in offsets {
            // Offsets of deleted topics are on their way out.
            if let Some(partition) = topics.partition(id) {
                let index = i32::try_from(partition.index()).unwrap_or(i32::MAX);
                by_topic
                    .entry(partition.topic())
                    .or_default()
                    .push(fetched(index, Some(committed)));
            }
        }
        by_topic
            .into_iter()
            .map(|(name, mut partitions)| {
                partitions.sort_by_key(|partition| partition.index);
                OffsetFetchedTopic {
                    name: Text::from(name),
                    partitions,
                }
            })
            .collect()
    }

    pub(super) async fn offset_delete(&self, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
        let mut response = OffsetDeleteResponse::default();
        if !self.allows(Action::DeleteGroup(&request.group_id)) {
            response.error = ErrorCode::GroupAuthorizationFailed;
            return response;
        }
        let Some(group) = self.shared.groups.describe(&request.group_id) else {
            response.error = ErrorCode::GroupIdNotFound;
            return response;
        };
        let topics = self.shared.log.topics();
        let mut partitions = Vec::new();
        for topic in request.topics {
            let is_subscribed = subscribes(&group, &topic.name);
            let outcomes = topic.partitions.iter().map(|wanted| {
                let error = if is_subscribed {
                    ErrorCode::GroupSubscribedToTopic
                } else if let Some(found) = find_partition(&topics, &topic.name, wanted.index) {
                    partitions.push(found.id());
                    ErrorCode::None
                } else {
                    ErrorCode::UnknownTopicOrPartition
                };
                PartitionOutcome {
                    index: wanted.index,
                    error,
                }
            });
            let outcomes = outcomes.collect();
            response.topics.push(OffsetDeletedTopic {
                name: topic.name,
                partitions: outcomes,
            });
        }
        if !partitions.is_empty() {
            response.error = self
                .shared
                .groups
                .delete_offsets(&request.group_id, partitions)
                .await;
        }
        response
    }
}

fn described(group: Description) -> DescribedGroup {
    DescribedGroup {
        state: Text::from(group.state.name()),
        protocol_type: group.protocol_type,
        protocol: group.protocol,
        members: group
            .members
            .into_iter()
            .map(|member| DescribedMember {
                member_id: member.member_id,
                group_instance_id: member.instance_id,
                client_id: member.client_id,
                client_host: member.client_host,
                metadata: member.subscription,
                assignment: member.assignment,
            })
            .collect(),
        ..DescribedGroup::default()
    }
}

fn fetched(index: i32, committed: Option<Committed>) -> OffsetFetched {
    match committed {
        Some(committed) => OffsetFetched {
            index,
            offset: committed.offset,
            leader_epoch: committed.leader_epoch,
            metadata: Some(committed.metadata),
            error: ErrorCode::None,
        },
        // Nothing committed yet is no error: the consumer falls back to auto.offset.reset.
        None => OffsetFetched {
            index,
            metadata: Some(Text::default()),
            ..Default::default()
        },
    }
}

/// Whether a member reads `topic`, as far as its subscription can be read: version i16, then the
/// topics (the consumers' embedded protocol). Other kinds of groups own their offsets wholly.
fn subscribes(group: &Description, topic: &Text) -> bool {
    group.members.iter().any(|member| {
        let bytes = member.subscription.clone();
        let allowance = allowance(bytes.len());
        let mut reader = Reader::new(bytes, allowance);
        let topics = reader.i16().and_then(|_| Vec::<Text>::decode(&mut reader));
        topics.map_or(true, |topics| topics.contains(topic))
    })
}

/// What a SyncGroup asks for, and nothing of its frame.
fn sync(request: SyncGroupRequest) -> Sync {
    let given = request.assignments.iter();
    Sync {
        caller: Caller {
            group_id: request.group_id.detached(),
            member_id: request.member_id.detached(),
            instance_id: request.group_instance_id.map(|id| id.detached()),
            generation: request.generation,
        },
        protocol_type: request.protocol_type.map(|name| name.detached()),
        protocol: request.protocol_name.map(|name| name.detached()),
        assignments: given
            .map(|given| (given.member_id.detached(), detached(&given.assignment)))
            .collect(),
    }
}

/// In memory of its own, so that keeping it does not keep the frame it came in.
fn detached(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
