//! What a [`Shard`](crate::Shard) asks its driver to do.

use crate::retire::Going;
use crate::{Commit, ConnectionId, LoadId, Position, Refusal, ShardMessage, Ticket};

/// To be carried out in order. `Commit`s of one round become one submission to the log.
#[derive(Debug)]
pub enum Effect {
    /// Bytes wait in [`Shard::output`](crate::Shard::output): write them.
    Flush(ConnectionId),
    /// Write what waits in `Shard::output` (at most once, without blocking others), then close the
    /// socket. The Output goes with [`Shard::take_output`](crate::Shard::take_output); the shard
    /// has forgotten the connection and wants no `Closed` for it.
    Close(ConnectionId),
    /// Stop reading this socket.
    Pause(ConnectionId),
    /// Read it again.
    Resume(ConnectionId),
    Commit(Box<Commit>),
    /// Read these records and answer with `Input::Loaded`, as many from the front as fit
    /// `bytes_max`, but at least one.
    Load {
        request: LoadId,
        positions: Vec<Position>,
        bytes_max: usize,
    },
    /// Push this into the other shard's inbox, before this round's commits are submitted.
    ToShard(usize, ShardMessage),
    /// `Input::Inject` is done: `Ok` once what it promises is committed.
    Injected {
        ticket: Ticket,
        outcome: Result<(), Refusal>,
    },
    /// Answers `Input::Survey`: the lowest sequence and the lowest offset of the kept partition
    /// that a Session here needs; `None` when nobody needs any.
    Needs {
        survey: u64,
        sequence: Option<u64>,
        kept: Option<u64>,
    },
    /// Answers `Input::Retire`: what this shard's Sessions are owed of what shall go, ascending.
    /// Where records go: copy each, commit `entry` as an owed entry that refers to the copy, then
    /// send `Input::Moved` to every shard. Where entries go: commit `entry` anew.
    Owes {
        going: Going,
        references: Vec<OwedReference>,
        /// Not, when there were more than `references_max`.
        complete: bool,
    },
}

/// One message that Sessions of a shard are still owed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OwedReference {
    pub sequence: u64,
    pub position: Position,
    /// The owed entry that stands for the original one, for the Sessions of this shard.
    pub entry: bytes::Bytes,
}
