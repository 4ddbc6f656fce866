//! Groups as the command line and the metrics show them.

/// Where a group stands in its protocol. A group that is not there is Dead to clients.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum GroupState {
    /// No members; may have offsets.
    #[default]
    Empty,
    /// Waits for its members to join the next generation.
    PreparingRebalance,
    /// Waits for the leader's assignment.
    CompletingRebalance,
    Stable,
}

impl GroupState {
    /// Kafka's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// One group: who is in it and how far it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GroupView {
    pub group_id: String,
    pub state: GroupState,
    pub generation: i32,
    /// The assignment strategy all members agreed on; empty without members.
    pub protocol: String,
    pub members: Vec<MemberView>,
    /// Ordered by topic and partition.
    pub offsets: Vec<OffsetView>,
}

impl GroupView {
    /// Records between the committed offsets and the high watermarks.
    pub fn lag(&self) -> u64 {
        self.offsets.iter().map(OffsetView::lag).sum()
    }
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MemberView {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
}

/// A committed offset beside the partition's end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OffsetView {
    pub topic: String,
    pub partition: u32,
    pub committed: u64,
    pub high_watermark: u64,
}

impl OffsetView {
    pub fn lag(&self) -> u64 {
        self.high_watermark.saturating_sub(self.committed)
    }
}

/// Bytes of memory, over all connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Memory {
    /// Requests that come, wait or are worked on.
    pub requests_bytes: usize,
    /// Fetched records on their way to clients.
    pub responses_bytes: usize,
}
