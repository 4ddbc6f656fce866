//! What a [`Shard`](crate::Shard) is told.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use headwater_mqtt_codec::{DisconnectReason, Text};
use smallvec::SmallVec;

use crate::directory::Seat;
use crate::matching::Target;
use crate::retire::Going;
use crate::session::Session;
use crate::session::group::Member;
use crate::session::share::{Dispatch, Outcome};
use crate::{ClientLimits, CommitId, Delivery, Message, Position, Receipt, Refusal};

/// The time, read by the driver.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Now {
    /// Monotonic, in milliseconds from any origin. Every interval and every expiry is measured with
    /// it, so that a jump of the system's clock ends nothing early.
    pub mono_ms: u64,
    /// Milliseconds since 1970, as the system's clock says now: what is written down and read by
    /// people, and what a restart reckons with.
    pub wall_ms: i64,
}

/// Names a Network Connection; the driver chooses, and never uses one twice in a process.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ConnectionId(pub u64);

/// Who is at the other end of a Network Connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Peer {
    /// `None` where there is no address (tests, Unix sockets).
    pub address: Option<SocketAddr>,
}

/// Names an [`Effect::Load`](crate::Effect::Load) within its shard.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LoadId(pub u64);

/// What the log has where an owed message should be.
#[derive(Clone, Debug)]
pub enum Loaded {
    Found(Arc<Message>),
    /// The log has let it go: it lies below the log's start, or its partition was deleted.
    Gone,
    /// It could not be read now. It stays owed, and is asked for again.
    Failed,
}

/// The driver's own name for a message it injects.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Ticket(pub u64);

/// One owed message whose record was copied to another place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Moved {
    /// Offset of the owed entry that refers to it.
    pub sequence: u64,
    pub from: Position,
    pub to: Position,
}

/// Everything a shard can be told.
#[derive(Debug)]
pub enum Input {
    /// A Network Connection was accepted; the transport's handshake is over.
    Opened {
        connection: ConnectionId,
        peer: Peer,
        /// Of its door.
        limits: Arc<ClientLimits>,
        /// How much of the time for its CONNECT that handshake took.
        handshake_ms: u64,
    },
    /// The bytes of one read.
    Received {
        connection: ConnectionId,
        bytes: Bytes,
    },
    /// The Network Connection is gone. Not sent after the driver carried out `Effect::Close`.
    Closed { connection: ConnectionId },
    /// The socket takes no more of the Output for now. Told again when it took some and then no
    /// more: who takes nothing for too long is closed.
    Blocked { connection: ConnectionId },
    /// After a write: an Output whose socket was blocked is empty now, or
    /// [`is_relieved`](crate::Output::is_relieved).
    Drained { connection: ConnectionId },
    /// The driver reads no socket for now.
    Held,
    /// It reads them again.
    Released,
    /// The driver closes this connection in the broker's name: DISCONNECT with this reason first.
    Disconnect {
        connection: ConnectionId,
        reason: DisconnectReason,
    },
    /// From [`distribute`](crate::distribute).
    Committed {
        id: CommitId,
        outcome: Result<Receipt, Refusal>,
    },
    /// From [`distribute`](crate::distribute).
    Deliver(Vec<Delivery>),
    /// From another shard, or from [`distribute`](crate::distribute).
    FromShard(ShardMessage),
    /// What `Effect::Load` asked for, in its order; may be shorter, but never empty.
    Loaded { request: LoadId, items: Vec<Loaded> },
    /// A message from elsewhere (HTTP, `deliver`), answered by `Effect::Injected`. One that is
    /// `stored` is not routed again.
    Inject {
        ticket: Ticket,
        message: Box<Message>,
    },
    /// From where on do Sessions here need the owed entries, and the records of partition `kept`?
    /// Answered by `Effect::Needs`. Ask in commit order: then every debt that was committed before
    /// is counted, wherever its Session is.
    Survey { id: u64, kept: Option<u32> },
    /// This shall go: what of it is still owed here? Answered by `Effect::Owes`. In commit order,
    /// as `Survey`.
    Retire {
        going: Going,
        /// Most messages of Sessions to list.
        references_max: usize,
    },
    /// Owed records were copied; these references follow them. Ascending by sequence, and there
    /// before the old records go.
    Moved(Arc<[Moved]>),
    /// What the driver has to say below `$SYS`, by Topic Name: stands until it is said anew.
    System(Vec<(Text, Bytes)>),
    /// [`deadline`](crate::Shard::deadline) has come.
    Tick,
    /// The process ends: DISCONNECT 0x8B to everyone, floors written. Wills stay with their
    /// Sessions: their delay starts at the restart.
    Stop,
}

impl Input {
    /// Bytes of memory that the messages in it keep until it is handled.
    pub fn memory(&self) -> usize {
        match self {
            Self::Deliver(deliveries) => deliveries.iter().map(|one| one.message.memory()).sum(),
            Self::FromShard(message) => message.memory(),
            _ => 0,
        }
    }
}

/// What one shard tells another. Opaque to the driver, which only carries it.
#[derive(Debug)]
pub struct ShardMessage(pub(crate) Between);

#[derive(Debug)]
pub(crate) enum Between {
    /// Messages nothing durable depends on.
    Forward(Vec<Forwarded>),
    /// Your CONNECT has its client id; a Session with this number may be on its way to you.
    Claimed {
        connection: ConnectionId,
        claim: CommitId,
        previous: Option<u64>,
    },
    /// The client id belongs to another principal.
    ClaimRefused { connection: ConnectionId },
    /// Another CONNECT took the client id that `held` claimed: hand the Session over.
    Surrender {
        held: CommitId,
        seat: Option<Arc<Seat>>,
        to: usize,
        claim: CommitId,
    },
    /// The answer to Surrender: the Session, if it outlives its connection.
    Handover {
        claim: CommitId,
        session: Option<Box<Session>>,
    },
    /// A Session as it stood in the log at start.
    Restored(Box<Session>),
    /// A group that lives with you is in the log.
    Group(Arc<Seat>),
    /// A member of your group is connected, or has changed its options.
    Join {
        group: Arc<Seat>,
        member: Box<Member>,
    },
    /// A member's connection is gone, or its subscription.
    Part {
        group: Arc<Seat>,
        member: u64,
        connection: ConnectionId,
    },
    /// Your group has lost its last subscriber.
    Disband(Arc<Seat>),
    /// A message of a group for a member that lives with you.
    Dispatch(Box<Dispatch>),
    /// What became of messages of your group.
    Settled {
        group: Arc<Seat>,
        turns: SmallVec<[(u64, Outcome); 1]>,
    },
}

/// One message for the Sessions of another shard.
#[derive(Clone, Debug)]
pub(crate) struct Forwarded {
    pub(crate) message: Arc<Message>,
    pub(crate) targets: Arc<[Target]>,
}

impl ShardMessage {
    /// Bytes of memory that the messages in it keep until it is handled.
    pub fn memory(&self) -> usize {
        match &self.0 {
            Between::Forward(batch) => batch.iter().map(|one| one.message.memory()).sum(),
            _ => 0,
        }
    }

    pub(crate) fn claimed(
        connection: ConnectionId,
        claim: CommitId,
        previous: Option<u64>,
    ) -> Self {
        Self(Between::Claimed {
            connection,
            claim,
            previous,
        })
    }

    pub(crate) fn claim_refused(connection: ConnectionId) -> Self {
        Self(Between::ClaimRefused { connection })
    }

    pub(crate) fn surrender(
        held: CommitId,
        seat: Option<Arc<Seat>>,
        to: usize,
        claim: CommitId,
    ) -> Self {
        Self(Between::Surrender {
            held,
            seat,
            to,
            claim,
        })
    }
}
