//! What the broker asks the log to make true, and what follows once it is true.
//!
//! For: [`Commit`], which one PUBLISH, SUBSCRIBE or CONNECT becomes, and [`distribute`], which
//!   turns commits in their order into the Inputs of the shards.
//! Not for: how a commit is stored; `server` turns each into one unit of the log.
//! Holds: the order of commits is the truth. A Session's home changes here and nowhere else, so
//!   each delivery reaches exactly one shard.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;

use crate::directory::{Claimed, Seat};
use crate::input::ShardMessage;
use crate::matching::{Matched, Target};
use crate::{ConnectionId, Input, Message, Publisher, Shared, Ticket};

/// Where a record lies in the log. The partition number is never reused.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Position {
    pub partition: u32,
    pub offset: u64,
}

/// Names a commit within its shard, ascending.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct CommitId(pub u64);

/// The broker's tables: what is known after a restart besides what is owed.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Table {
    /// Session number -> client id, principal, expiry, Will.
    Sessions,
    /// Session number, Topic Filter -> options.
    Subscriptions,
    /// Topic Name -> Retained Message.
    Retained,
    /// Session number, Packet Identifier of a QoS 2 PUBLISH that was taken and not released.
    Inbound,
    /// Session number, Packet Identifier -> the owed QoS 2 message and how far it is.
    Outbound,
    /// Session number -> up to where everything owed is settled.
    Floors,
    /// Shard -> the next session number that it certainly never used.
    Numbers,
    /// Number of a group of Shared Subscriptions -> its name.
    Groups,
    /// Number of a group, sequence of a QoS 2 message that it no longer owes to any other member:
    /// one has it for good.
    Handed,
    /// Session number, ascending number -> a Will that the log is still to take.
    Wills,
}

impl Table {
    pub const ALL: [Self; 10] = [
        Self::Sessions,
        Self::Subscriptions,
        Self::Retained,
        Self::Inbound,
        Self::Outbound,
        Self::Floors,
        Self::Numbers,
        Self::Groups,
        Self::Handed,
        Self::Wills,
    ];

    /// 0 to 9, fixed for ever: `server` adds its base to get the log's table.
    pub fn index(self) -> u8 {
        match self {
            Self::Sessions => 0,
            Self::Subscriptions => 1,
            Self::Retained => 2,
            Self::Inbound => 3,
            Self::Outbound => 4,
            Self::Floors => 5,
            Self::Numbers => 6,
            Self::Groups => 7,
            Self::Handed => 8,
            Self::Wills => 9,
        }
    }
}

/// One row of one table set, or deleted by `None`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    pub table: Table,
    pub key: Bytes,
    pub value: Option<Bytes>,
}

/// One atomic step: all of it, or none. A commit without message to store, owed entry and changes
/// is empty: it only takes its place in the order and causes no sync.
#[derive(Debug)]
pub struct Commit {
    /// The shard that asked.
    pub origin: usize,
    pub id: CommitId,
    pub message: Option<Arc<Message>>,
    /// Some route takes `message`: store it where routes say.
    pub routed: bool,
    /// The owed entry, to be appended to the internal queue as a reference to `message`. A message
    /// that is owed, not routed and not `stored` goes to the internal kept topic.
    pub owed: Option<Bytes>,
    pub targets: Targets,
    /// `message` is the new Retained Message of its topic (an empty payload clears it).
    pub retain: bool,
    /// `message` is the Retained Message of its topic, and is not delivered if a newer one is by
    /// now: that one is.
    pub(crate) if_latest: bool,
    pub changes: Vec<Change>,
    /// Rows that must be like this at its turn, or it is refused.
    pub expects: Vec<Change>,
    /// It lets go of this Retained Message.
    pub(crate) expires: Option<Arc<Message>>,
    pub control: Option<Control>,
    /// Set when [`Input::Inject`] asked: the driver may add its own changes to this unit.
    pub ticket: Option<Ticket>,
    pub lane: Option<Lane>,
}

/// Commits of one lane never pass one another: the log sets the flag when it refuses one of them,
/// and refuses every later one that finds it set.
#[derive(Clone, Debug, Default)]
pub struct Lane(pub Arc<AtomicBool>);

impl Commit {
    /// Whether `message` must be appended to the log by this commit.
    pub fn stores_message(&self) -> bool {
        self.message
            .as_ref()
            .is_some_and(|message| message.stored.is_none())
            && (self.routed || self.owed.is_some())
    }

    /// Nothing to sync: only a place in the order.
    pub fn is_empty(&self) -> bool {
        !self.stores_message() && self.owed.is_none() && self.changes.is_empty()
    }
}

/// The Sessions a message goes to after its commit.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    matched: Option<Arc<Matched>>,
    publisher: Option<u64>,
}

impl Targets {
    /// `publisher` is the Session whose own No Local subscriptions do not count.
    pub(crate) fn new(matched: Arc<Matched>, publisher: Option<u64>) -> Self {
        let matched = Some(matched);
        Self { matched, publisher }
    }

    pub fn is_empty(&self) -> bool {
        (self.matched.as_ref()).is_none_or(|matched| matched.is_empty())
    }
}

/// What a commit does to the order of things besides its records.
#[derive(Debug)]
pub enum Control {
    /// A CONNECT takes its client id.
    Claim(Claim),
}

/// A CONNECT's claim on its client id.
#[derive(Debug)]
pub struct Claim {
    pub publisher: Arc<Publisher>,
    pub connection: ConnectionId,
}

/// What the log says about a commit that is synced and readable.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Receipt {
    /// Where the message lies (the first route's record), if the commit stored one or it lay there.
    pub stored: Option<Position>,
    /// Offset of the owed entry in the internal queue.
    pub owed: Option<u64>,
}

/// Why the log did not take a commit. Nothing of it happened.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    #[error("the disk is full")]
    Full,
    #[error("what follows the log is too far behind")]
    Backlog,
    #[error("the message is too large for the log")]
    TooLarge,
    #[error("the log has failed")]
    Failed,
}

/// A committed message for some Sessions of one shard.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub(crate) message: Arc<Message>,
    pub(crate) stored: Option<Position>,
    pub(crate) owed: Option<u64>,
    pub(crate) targets: Arc<[Target]>,
    /// The targets subscribed after it was matched; the log does not know that they are owed it.
    pub(crate) late: bool,
    /// Not to be sent if a newer message is retained by now.
    pub(crate) if_latest: bool,
}

/// Turns commits, in commit order, into Inputs: `into[shard]` gets that shard's. Called by one
/// thread at a time, the one that knows the order; short, and never blocks for long.
pub fn distribute(
    shared: &Shared,
    committed: Vec<(Box<Commit>, Result<Receipt, Refusal>)>,
    into: &mut [Vec<Input>],
) {
    for (commit, outcome) in committed {
        let commit = *commit;
        if let Ok(receipt) = &outcome {
            if let (Some(message), Some(matched)) = (&commit.message, &commit.targets.matched) {
                let mut delivery = Delivery {
                    message: message.clone(),
                    stored: message.stored.or(receipt.stored),
                    owed: receipt.owed,
                    targets: Arc::default(),
                    late: false,
                    if_latest: commit.if_latest,
                };
                deliver(&delivery, matched, into);
                if commit.retain {
                    // Whoever subscribed since it was matched has not found it there.
                    delivery.late = true;
                    let publisher = commit.targets.publisher;
                    let late = shared.retained.set_and(message, || {
                        matched.late(&shared.tree, &message.topic, publisher)
                    });
                    deliver(&delivery, &late, into);
                }
            }
            if let Some(expired) = &commit.expires {
                shared.retained.expire(expired);
            }
            if let Some(Control::Claim(claim)) = &commit.control {
                flip(shared, commit.origin, commit.id, claim, into);
            }
        }
        push(
            into,
            commit.origin,
            Input::Committed {
                id: commit.id,
                outcome,
            },
        );
    }
}

fn push(into: &mut [Vec<Input>], shard: usize, input: Input) {
    if let Some(inputs) = into.get_mut(shard) {
        inputs.push(input);
    }
}

/// Gives it to the shards in which its targets live now.
fn deliver(delivery: &Delivery, matched: &Matched, into: &mut [Vec<Input>]) {
    for (shard, targets) in &matched.groups {
        if targets.iter().all(|target| target.seat.home() == *shard) {
            push_delivery(into, *shard, delivery, targets.clone());
            continue;
        }
        // Some moved since they were matched: sort them by where they are now.
        let mut homes: Vec<usize> = targets.iter().map(|target| target.seat.home()).collect();
        homes.sort_unstable();
        homes.dedup();
        for home in homes {
            let here = targets
                .iter()
                .filter(|target| target.seat.home() == home)
                .cloned();
            push_delivery(into, home, delivery, here.collect());
        }
    }
}

fn push_delivery(
    into: &mut [Vec<Input>],
    shard: usize,
    delivery: &Delivery,
    targets: Arc<[Target]>,
) {
    let Some(inputs) = into.get_mut(shard) else {
        return;
    };
    let delivery = Delivery {
        targets,
        ..delivery.clone()
    };
    if let Some(Input::Deliver(deliveries)) = inputs.last_mut() {
        deliveries.push(delivery);
    } else {
        inputs.push(Input::Deliver(vec![delivery]));
    }
}

/// The turn of a CONNECT: its client id belongs to it from here on, whatever the old holder does.
fn flip(shared: &Shared, shard: usize, claim_id: CommitId, claim: &Claim, into: &mut [Vec<Input>]) {
    let connection = claim.connection;
    match shared.directory.claim(&claim.publisher, shard, claim_id) {
        Claimed::Fresh => {
            let message = ShardMessage::claimed(connection, claim_id, None);
            push(into, shard, Input::FromShard(message));
        }
        Claimed::Foreign => {
            push(
                into,
                shard,
                Input::FromShard(ShardMessage::claim_refused(connection)),
            );
        }
        Claimed::Held {
            shard: holder,
            claim: held,
            seat,
        } => {
            if let Some(seat) = &seat {
                // From here on every delivery goes to the new shard, which keeps it until the
                // Session is there.
                seat.move_to(shard);
                if holder != shard {
                    shared.tree.touch_all();
                }
            }
            let number = seat.as_ref().map_or(Seat::NOBODY, |seat| seat.number());
            let message = ShardMessage::claimed(connection, claim_id, Some(number));
            push(into, shard, Input::FromShard(message));
            let message = ShardMessage::surrender(held, seat, shard, claim_id);
            push(into, holder, Input::FromShard(message));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use headwater_mqtt_codec::SubscriptionOptions;

    use super::*;
    use crate::Config;
    use crate::matching::MatchCache;
    use crate::retained::Scan;
    use crate::tree::Subscriber;

    fn retain(message: Message, matched: Arc<Matched>) -> Box<Commit> {
        Box::new(Commit {
            origin: 0,
            id: CommitId::default(),
            message: Some(Arc::new(message)),
            routed: false,
            owed: None,
            targets: Targets::new(matched, None),
            retain: true,
            if_latest: false,
            changes: Vec::new(),
            expects: Vec::new(),
            expires: None,
            control: None,
            ticket: None,
            lane: None,
        })
    }

    /// One thread commits, another subscribes.
    #[test]
    fn a_retained_message_stands_or_is_late_and_never_both() {
        let shared = Shared::new(Config::default());
        let mut cache = MatchCache::new(1);
        for number in 1..3_000 {
            let topic = format!("t/{number}");
            let matched = cache.find(&shared.tree, &topic).clone();
            let commit = retain(Message::example(&topic), matched);
            let subscriber = Subscriber {
                seat: Arc::new(Seat::new(number, 0, false)),
                options: SubscriptionOptions::default(),
                id: None,
            };
            let (shared, together) = (&shared, Barrier::new(2));
            let (stood_at, late) = thread::scope(|threads| {
                let committer = threads.spawn(|| {
                    let mut into = vec![Vec::new()];
                    together.wait();
                    distribute(shared, vec![(commit, Ok(Receipt::default()))], &mut into);
                    let inputs = into.iter().flatten();
                    inputs
                        .filter(|one| matches!(one, Input::Deliver(_)))
                        .count()
                });
                together.wait();
                let stood_at = shared.retained.standing(|| {
                    shared.tree.subscribe(&topic, subscriber);
                });
                (stood_at, committer.join().unwrap())
            });
            let mut scan = Scan::new(stood_at);
            let stood = shared.retained.slice(&topic, &mut scan, 9, 9).found.len();
            assert_eq!(stood + late, 1, "{number}: {stood} found, {late} late");
        }
    }
}
