//! The table of APIs served: keys, versions, which are flexible, what they decode to.
//!
//! For: one row an API; everything that depends on the pair (key, version) follows from it.
//! Not for: what an API does (`handler`).
//! Holds: no version outside the table reaches a handler.

use bytes::Bytes;

use crate::message::*;
use crate::wire::{DecodeError, Reader, Text, Wire, Writer};

/// One row of the table, as ApiVersions tells it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Row {
    pub(crate) key: ApiKey,
    /// What we announce.
    pub(crate) advertised_min: i16,
    /// What we take.
    pub(crate) min: i16,
    pub(crate) max: i16,
    /// The first version with compact types and tagged fields (KIP-482).
    pub(crate) flexible_from: i16,
}

macro_rules! apis {
    ($($name:ident = $key:literal, $request:ident => $response:ident, $advertised:literal $min:literal..=$max:literal flexible $flexible:literal;)*) => {
        /// An API by its number on the wire.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        #[repr(i16)]
        pub(crate) enum ApiKey {
            $($name = $key),*
        }

        impl ApiKey {
            pub(crate) fn from_wire(key: i16) -> Option<Self> {
                match key {
                    $($key => Some(Self::$name),)*
                    _ => None,
                }
            }

            pub(crate) fn row(self) -> Row {
                match self {
                    $(Self::$name => Row {
                        key: self,
                        advertised_min: $advertised,
                        min: $min,
                        max: $max,
                        flexible_from: $flexible,
                    },)*
                }
            }
        }

        /// All rows, in the order of their keys.
        pub(crate) const API_KEYS: &[ApiKey] = &[$(ApiKey::$name),*];

        /// A request whose bytes were all understood.
        #[derive(Clone, Debug, PartialEq)]
        pub(crate) enum Request {
            $($name($request)),*
        }

        impl Request {
            fn decode_body(key: ApiKey, reader: &mut Reader) -> Result<Self, DecodeError> {
                match key {
                    $(ApiKey::$name => Ok(Self::$name($request::decode(reader)?)),)*
                }
            }
        }

        #[cfg(test)]
        macro_rules! for_each_api {
            ($with:ident) => {
                $($with!($name, $request, $response);)*
            };
        }
        #[cfg(test)]
        pub(crate) use for_each_api;
    };
}

// Produce is announced from 0 because librdkafka compresses only when versions 0 to 2 seem to be
// there (Apache Kafka does the same since KAFKA-18659); it never sends them.
apis! {
    Produce = 0, ProduceRequest => ProduceResponse, 0 3..=11 flexible 9;
    Fetch = 1, FetchRequest => FetchResponse, 4 4..=12 flexible 12;
    ListOffsets = 2, ListOffsetsRequest => ListOffsetsResponse, 1 1..=7 flexible 6;
    Metadata = 3, MetadataRequest => MetadataResponse, 0 0..=12 flexible 9;
    OffsetCommit = 8, OffsetCommitRequest => OffsetCommitResponse, 2 2..=9 flexible 8;
    OffsetFetch = 9, OffsetFetchRequest => OffsetFetchResponse, 1 1..=8 flexible 6;
    FindCoordinator = 10, FindCoordinatorRequest => FindCoordinatorResponse, 0 0..=5 flexible 3;
    JoinGroup = 11, JoinGroupRequest => JoinGroupResponse, 0 0..=9 flexible 6;
    Heartbeat = 12, HeartbeatRequest => HeartbeatResponse, 0 0..=4 flexible 4;
    LeaveGroup = 13, LeaveGroupRequest => LeaveGroupResponse, 0 0..=5 flexible 4;
    SyncGroup = 14, SyncGroupRequest => SyncGroupResponse, 0 0..=5 flexible 4;
    DescribeGroups = 15, DescribeGroupsRequest => DescribeGroupsResponse, 0 0..=5 flexible 5;
    ListGroups = 16, ListGroupsRequest => ListGroupsResponse, 0 0..=4 flexible 3;
    SaslHandshake = 17, SaslHandshakeRequest => SaslHandshakeResponse, 0 0..=1 flexible 2;
    ApiVersions = 18, ApiVersionsRequest => ApiVersionsResponse, 0 0..=4 flexible 3;
    CreateTopics = 19, CreateTopicsRequest => CreateTopicsResponse, 2 2..=7 flexible 5;
    DeleteTopics = 20, DeleteTopicsRequest => DeleteTopicsResponse, 1 1..=5 flexible 4;
    DeleteRecords = 21, DeleteRecordsRequest => DeleteRecordsResponse, 0 0..=2 flexible 2;
    InitProducerId = 22, InitProducerIdRequest => InitProducerIdResponse, 0 0..=4 flexible 2;
    OffsetForLeaderEpoch = 23, OffsetForLeaderEpochRequest => OffsetForLeaderEpochResponse, 2 2..=4 flexible 4;
    DescribeConfigs = 32, DescribeConfigsRequest => DescribeConfigsResponse, 1 1..=4 flexible 4;
    DescribeLogDirs = 35, DescribeLogDirsRequest => DescribeLogDirsResponse, 1 1..=4 flexible 2;
    SaslAuthenticate = 36, SaslAuthenticateRequest => SaslAuthenticateResponse, 0 0..=2 flexible 2;
    CreatePartitions = 37, CreatePartitionsRequest => CreatePartitionsResponse, 0 0..=3 flexible 2;
    DeleteGroups = 42, DeleteGroupsRequest => DeleteGroupsResponse, 0 0..=2 flexible 2;
    IncrementalAlterConfigs = 44, IncrementalAlterConfigsRequest => IncrementalAlterConfigsResponse, 0 0..=1 flexible 1;
    OffsetDelete = 47, OffsetDeleteRequest => OffsetDeleteResponse, 0 0..=0 flexible 1;
    DescribeCluster = 60, DescribeClusterRequest => DescribeClusterResponse, 0 0..=1 flexible 0;
}

impl ApiKey {
    /// Whether `version` has compact types and tagged fields.
    pub(crate) fn is_flexible(self, version: i16) -> bool {
        version >= self.row().flexible_from
    }
}

/// What stands before a request's body.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Header {
    pub(crate) key: ApiKey,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    pub(crate) client_id: Option<Text>,
}

/// A frame, understood as far as it can be answered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Frame {
    Request(Header, Box<Request>),
    /// An ApiVersions request of a version we do not know: answered with error 35 in the form of
    /// version 0, from which the client learns what we do know (KIP-511).
    ApiVersionsUnknown {
        correlation_id: i32,
    },
}

impl Frame {
    /// Decodes one frame without its four bytes of length. Its arrays may cost `allowance` bytes;
    /// what they did cost comes with it.
    pub(crate) fn decode(bytes: Bytes, allowance: usize) -> Result<(Self, usize), DecodeError> {
        let mut reader = Reader::new(bytes, allowance);
        let wire_key = reader.i16()?;
        let version = reader.i16()?;
        let correlation_id = reader.i32()?;
        let key = ApiKey::from_wire(wire_key).ok_or(DecodeError::UnknownKey { key: wire_key })?;
        let row = key.row();
        if version < row.min || version > row.max {
            return match key {
                ApiKey::ApiVersions => Ok((Self::ApiVersionsUnknown { correlation_id }, 0)),
                _ => Err(DecodeError::UnknownVersion {
                    key: wire_key,
                    version,
                }),
            };
        }
        // Header version 2 keeps the client's id in the form of version 1 and adds tagged fields.
        let client_id = reader.text()?;
        let flexible = key.is_flexible(version);
        reader.set_version(version, flexible);
        reader.end_of_struct()?;
        let request = Request::decode_body(key, &mut reader)?;
        // Bytes may be left over: librdkafka 2.16 sends three too many with Metadata 12, and
        // Kafka itself never looked.
        let header = Header {
            key,
            version,
            correlation_id,
            client_id,
        };
        Ok((Self::Request(header, Box::new(request)), reader.spent()))
    }
}

/// A response's frame. Its header ends in tagged fields where the request's does, but for
/// ApiVersions, which a client must be able to read before it knows what we speak.
pub(crate) fn encode_response(header: &Header, body: &impl Wire) -> Vec<Bytes> {
    let mut writer = Writer::new();
    writer.put_i32(header.correlation_id);
    let flexible = header.key.is_flexible(header.version);
    writer.set_version(header.version, flexible);
    if header.key != ApiKey::ApiVersions {
        writer.end_of_struct();
    }
    body.encode(&mut writer);
    writer.into_frame()
}

#[cfg(test)]
mod tests;
