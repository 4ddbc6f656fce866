//! Kafka's error codes, those this server answers with.
//!
//! For: one enum, so that no handler writes a bare number, and the sentence people see beside it.
//! Not for: why our own operations fail; each maps to a code beside its own error.

use headwater_commitlog::record::BatchError;
use headwater_commitlog::{CommitError, ReadError};

use crate::wire::{DecodeError, Reader, Wire, Writer};

macro_rules! error_codes {
    ($($(#[$attribute:meta])? $name:ident = $code:literal,)*) => {
        /// An error code of the protocol; `None` is success.
        #[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
        #[repr(i16)]
        pub enum ErrorCode {
            $($(#[$attribute])? $name = $code),*
        }

        impl ErrorCode {
            /// The code with that number, if it is one of ours.
            pub fn from_wire(code: i16) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }

            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

error_codes! {
    UnknownServerError = -1,
    #[default]
    None = 0,
    OffsetOutOfRange = 1,
    CorruptMessage = 2,
    UnknownTopicOrPartition = 3,
    RequestTimedOut = 7,
    MessageTooLarge = 10,
    OffsetMetadataTooLarge = 12,
    CoordinatorLoadInProgress = 14,
    CoordinatorNotAvailable = 15,
    InvalidTopic = 17,
    InvalidRequiredAcks = 21,
    IllegalGeneration = 22,
    InconsistentGroupProtocol = 23,
    InvalidGroupId = 24,
    UnknownMemberId = 25,
    InvalidSessionTimeout = 26,
    RebalanceInProgress = 27,
    TopicAuthorizationFailed = 29,
    GroupAuthorizationFailed = 30,
    ClusterAuthorizationFailed = 31,
    UnsupportedSaslMechanism = 33,
    UnsupportedVersion = 35,
    TopicAlreadyExists = 36,
    InvalidPartitions = 37,
    InvalidReplicationFactor = 38,
    InvalidReplicaAssignment = 39,
    InvalidConfig = 40,
    InvalidRequest = 42,
    UnsupportedForMessageFormat = 43,
    PolicyViolation = 44,
    OutOfOrderSequenceNumber = 45,
    InvalidProducerEpoch = 47,
    TransactionalIdAuthorizationFailed = 53,
    KafkaStorageError = 56,
    SaslAuthenticationFailed = 58,
    UnknownProducerId = 59,
    NonEmptyGroup = 68,
    GroupIdNotFound = 69,
    FetchSessionIdNotFound = 70,
    UnknownLeaderEpoch = 75,
    UnsupportedCompressionType = 76,
    MemberIdRequired = 79,
    GroupMaxSizeReached = 81,
    FencedInstanceId = 82,
    GroupSubscribedToTopic = 86,
    InvalidRecord = 87,
    UnknownTopicId = 100,
}

impl ErrorCode {
    /// The number on the wire.
    pub fn code(self) -> i16 {
        self as i16
    }

    pub fn is_error(self) -> bool {
        self != Self::None
    }
}

impl Wire for ErrorCode {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self::from_wire(reader.i16()?).unwrap_or(Self::UnknownServerError))
    }

    fn encode(&self, writer: &mut Writer) {
        writer.put_i16(self.code());
    }
}

/// What a refused commit is called. A duplicate of an idempotent producer is none: its first copy
/// is in the log, and the caller answers with that one's offset.
impl From<&CommitError> for ErrorCode {
    fn from(error: &CommitError) -> Self {
        match error {
            // Clients try these again by themselves: space may return, readers may catch up, and a
            // failed log ends the process, which comes back recovered; so may what cannot be read.
            CommitError::Full
            | CommitError::OutOfFiles
            | CommitError::Unreadable { .. }
            | CommitError::Poisoned { .. }
            | CommitError::Closed
            | CommitError::BacklogFull { .. } => Self::KafkaStorageError,
            CommitError::UnknownPartition { .. } | CommitError::UnknownTopic { .. } => {
                Self::UnknownTopicOrPartition
            }
            CommitError::TopicExists { .. } => Self::TopicAlreadyExists,
            CommitError::InvalidName(_) => Self::InvalidTopic,
            CommitError::InvalidConfig(_) => Self::InvalidConfig,
            CommitError::InvalidPartitions { .. } => Self::InvalidPartitions,
            CommitError::OffsetOutOfRange { .. } => Self::OffsetOutOfRange,
            CommitError::DuplicateSequence { .. } => Self::None,
            CommitError::OutOfOrderSequence { .. } => Self::OutOfOrderSequenceNumber,
            CommitError::InvalidProducerEpoch { .. } => Self::InvalidProducerEpoch,
            CommitError::TooLarge { .. } => Self::MessageTooLarge,
            CommitError::BadReference { .. }
            | CommitError::LaneBroken
            | CommitError::RowChanged => Self::UnknownServerError,
        }
    }
}

/// What a batch that we do not take is called.
impl From<&BatchError> for ErrorCode {
    fn from(error: &BatchError) -> Self {
        match error {
            BatchError::Truncated { .. }
            | BatchError::Length { .. }
            | BatchError::Crc
            | BatchError::Compressed
            | BatchError::Record
            | BatchError::TrailingBytes => Self::CorruptMessage,
            BatchError::Magic { .. } => Self::UnsupportedForMessageFormat,
            BatchError::TooLarge { .. } | BatchError::Inflated { .. } => Self::MessageTooLarge,
            BatchError::Compression { .. } => Self::UnsupportedCompressionType,
            BatchError::BaseOffset { .. }
            | BatchError::Count { .. }
            | BatchError::OffsetDelta
            | BatchError::Transactional
            | BatchError::Producer
            | BatchError::Empty => Self::InvalidRecord,
        }
    }
}

/// What a failed read is called.
impl From<&ReadError> for ErrorCode {
    fn from(error: &ReadError) -> Self {
        match error {
            ReadError::OffsetOutOfRange { .. } => Self::OffsetOutOfRange,
            ReadError::Deleted => Self::UnknownTopicOrPartition,
            ReadError::Damaged { .. } | ReadError::Io { .. } => Self::KafkaStorageError,
        }
    }
}
