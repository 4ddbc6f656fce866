//! Consumer groups, decided without sockets, clocks or disk.
//!
//! For: the classic group protocol: who is a member, which generation holds, who gets what, and the
//! offsets the group has committed.
//! Not for: time (comes in as [`Now`]), disk (goes out as [`Effect::Persist`], comes back through
//! [`Coordinator::persisted`]), requests and their bytes (`handler`).
//! Calls: `membership`, one group's state machine; `row`, how it lies in the table.
//! Holds: an answer that promises durability goes out only after its rows are on disk; a
//! generation is never used again, not even by a group of a deleted group's name.

mod coordinator;
mod membership;
pub(crate) mod row;

pub(crate) use coordinator::Coordinator;

use bytes::Bytes;
use hashbrown::HashMap;
use headwater_commitlog::PartitionId;

use crate::error_code::ErrorCode;
use crate::options::GroupLimits;
use crate::view::GroupState;
use crate::wire::Text;

/// Both clocks: timeouts run on the first, offsets age by the second.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Now {
    pub(crate) mono_ms: u64,
    pub(crate) wall_ms: i64,
}

/// Names a request that waits for its answer.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Ticket(pub(crate) u64);

/// Names a change that waits for the disk.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct WriteId(pub(crate) u64);

/// One row of the groups' table; `None` deletes it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct RowChange {
    pub(crate) key: Bytes,
    pub(crate) value: Option<Bytes>,
}

/// What the driver must do, in order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Effect {
    Answer {
        ticket: Ticket,
        answer: Answer,
    },
    /// Commit these rows together, after all that were handed out before; then call `persisted`.
    Persist {
        write: WriteId,
        rows: Vec<RowChange>,
    },
}

/// What a request is told in the end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Answer {
    Joined(Joined),
    Synced(Synced),
    /// Commit, deletion of offsets or of a group.
    Done(ErrorCode),
}

/// JoinGroup's request, with what only the driver knows.
#[derive(Clone, Debug)]
pub(crate) struct Join {
    pub(crate) group_id: Text,
    pub(crate) member_id: Text,
    pub(crate) instance_id: Option<Text>,
    pub(crate) client_id: Text,
    pub(crate) client_host: Text,
    /// The id a new member gets; random, so that it names nobody else.
    pub(crate) fresh_member_id: Text,
    /// From version 4 a member without an id is first told one (KIP-394).
    pub(crate) member_id_required: bool,
    /// From version 9 a static leader that returns is told to skip the assignment (KIP-814).
    pub(crate) can_skip_assignment: bool,
    pub(crate) session_timeout_ms: u64,
    pub(crate) rebalance_timeout_ms: u64,
    pub(crate) protocol_type: Text,
    pub(crate) protocols: Vec<(Text, Bytes)>,
}

/// JoinGroup's answer.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Joined {
    pub(crate) error: ErrorCode,
    pub(crate) generation: i32,
    pub(crate) protocol_type: Option<Text>,
    pub(crate) protocol: Option<Text>,
    pub(crate) leader: Text,
    pub(crate) member_id: Text,
    pub(crate) skip_assignment: bool,
    /// Filled for the leader alone: member, instance, subscription.
    pub(crate) members: Vec<(Text, Option<Text>, Bytes)>,
}

impl Joined {
    fn refused(error: ErrorCode, member_id: Text) -> Self {
        Self {
            error,
            generation: -1,
            member_id,
            ..Self::default()
        }
    }
}

/// Who asks, and for which generation: what Heartbeat, SyncGroup and OffsetCommit share.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) group_id: Text,
    pub(crate) member_id: Text,
    pub(crate) instance_id: Option<Text>,
    pub(crate) generation: i32,
}

/// SyncGroup's request.
#[derive(Clone, Debug)]
pub(crate) struct Sync {
    pub(crate) caller: Caller,
    pub(crate) protocol_type: Option<Text>,
    pub(crate) protocol: Option<Text>,
    /// Filled by the leader alone.
    pub(crate) assignments: Vec<(Text, Bytes)>,
}

/// SyncGroup's answer.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Synced {
    pub(crate) error: ErrorCode,
    pub(crate) protocol_type: Option<Text>,
    pub(crate) protocol: Option<Text>,
    pub(crate) assignment: Bytes,
}

impl Synced {
    fn refused(error: ErrorCode) -> Self {
        Self {
            error,
            ..Self::default()
        }
    }
}

/// A group's offset in one partition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Committed {
    pub(crate) offset: i64,
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: Text,
    pub(crate) committed_at_ms: i64,
}

/// A group as it is at this moment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Description {
    pub(crate) group_id: Text,
    pub(crate) state: GroupState,
    pub(crate) generation: i32,
    pub(crate) protocol_type: Text,
    pub(crate) protocol: Text,
    pub(crate) members: Vec<MemberDescription>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct MemberDescription {
    pub(crate) member_id: Text,
    pub(crate) instance_id: Option<Text>,
    pub(crate) client_id: Text,
    pub(crate) client_host: Text,
    pub(crate) subscription: Bytes,
    pub(crate) assignment: Bytes,
}

/// One input's surroundings: the time, the limits, and where its effects go.
struct Turn<'a> {
    now: Now,
    limits: &'a GroupLimits,
    effects: &'a mut Vec<Effect>,
    writes: &'a mut Writes,
}

impl Turn<'_> {
    fn answer(&mut self, ticket: Ticket, answer: Answer) {
        self.effects.push(Effect::Answer { ticket, answer });
    }

    fn persist(&mut self, rows: Vec<RowChange>, write: Write) {
        let id = WriteId(self.writes.next);
        self.writes.next += 1;
        self.writes.waiting.insert(id, write);
        self.effects.push(Effect::Persist { write: id, rows });
    }
}

/// What waits for the disk.
#[derive(Debug, Default)]
struct Writes {
    next: u64,
    waiting: HashMap<WriteId, Write, foldhash::fast::RandomState>,
}

/// What happens once rows are on disk, or are known not to be.
#[derive(Debug)]
enum Write {
    /// A new generation: tell those who joined it.
    Generation {
        group_id: Text,
        generation: i32,
        answers: Vec<(Ticket, Joined)>,
    },
    /// An assignment: tell those who wait for it.
    Assignment {
        group_id: Text,
        generation: i32,
    },
    /// A static member came back under a new id.
    Replaced {
        group_id: Text,
        ticket: Ticket,
        joined: Joined,
    },
    Offsets {
        group_id: Text,
        ticket: Ticket,
        offsets: Vec<(PartitionId, Committed)>,
    },
    OffsetsDeleted {
        group_id: Text,
        ticket: Ticket,
        partitions: Vec<PartitionId>,
    },
    GroupDeleted {
        ticket: Ticket,
    },
    /// Nobody waits for it.
    Unwatched,
}

#[cfg(test)]
mod tests;
