//! What a member of a group does with the group's messages (MQTT 5.0, 4.8.2).
//!
//! For: telling the group's home that the member is there, sending what it gives, and saying what
//!   became of it: each [`Dispatch`] is answered once with [`Outcome::Done`], `Back` or `Unfit`.
//! Not for: who gets what, see `group`; the Packet Identifiers and acknowledgements of what was
//!   sent, which are the Session's like all others.
//! Holds: what was not sent, or not acknowledged at QoS 1, goes back when the connection is lost. A
//!   QoS 2 message of a group that is in the log becomes the member's in the commit that precedes
//!   its PUBLISH: it is completed by this member or by nobody [MQTT-4.8.2-4] [MQTT-4.8.2-5].

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use headwater_mqtt_codec::{QoS, SubscriptionId};
use smallvec::SmallVec;

use crate::connection::Stage;
use crate::directory::Seat;
use crate::input::Between;
use crate::matching::FastMap;
use crate::owed::Owed;
use crate::pending::{Draft, RowStep, Then};
use crate::rows;
use crate::session::group::Member;
use crate::session::publish_out::{Manner, is_too_long, wire};
use crate::session::{Inflight, Progress, Session};
use crate::{ConnectionId, Message, Now, Refusal, Shard};

/// One time that a group's message is given to a member.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    pub(crate) group: Arc<Seat>,
    /// The group's, ascending; 0 for a QoS 0 message, which nobody asks for again.
    pub(crate) number: u64,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// It is settled: acknowledged, sent at QoS 0, refused [MQTT-4.8.2-6], expired, or lost with a
    /// Session that may have seen it.
    Done,
    /// It is for another member.
    Back,
    /// The same, and this one is not there any more.
    Absent,
    /// The same, and not for this one as long as it has this connection and the reason stands.
    Unfit(Unfit),
    /// It is the member's for good, in the log, with this sequence; `Done` follows.
    Taken(u64),
}

/// Why a member does not take a message.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Unfit {
    /// It may not read it, by the rules of this generation.
    Denied { rules: u64 },
    /// It is longer than its Maximum Packet Size.
    TooLarge,
}

/// A message for a member.
#[derive(Clone, Debug)]
pub(crate) struct Dispatch {
    given: Given,
    member: Arc<Seat>,
    connection: ConnectionId,
    message: Arc<Message>,
    qos: QoS,
    retain: bool,
    id: Option<SubscriptionId>,
    /// At QoS 2, as the group is owed it by the log.
    owed: Option<Box<Owed>>,
    /// How many moves the group's home has made by then.
    moves: u64,
}

impl Dispatch {
    /// `qos` is what the member gets.
    pub(crate) fn new(
        given: Given,
        member: &Member,
        message: Arc<Message>,
        qos: QoS,
        moves: u64,
    ) -> Self {
        Self {
            given,
            member: member.seat.clone(),
            connection: member.connection,
            retain: message.retain && member.retain_as_published,
            message,
            qos,
            id: member.id,
            owed: None,
            moves,
        }
    }

    /// The log has it as the group's, and is to have it as the member's.
    pub(crate) fn takes(&mut self, owed: &Owed) {
        self.owed = Some(Box::new(Owed {
            qos: QoS::ExactlyOnce,
            retain: self.retain,
            ids: self.id.into_iter().collect(),
            group: self.given.group.number(),
            ..owed.clone()
        }));
    }
}

/// What a Session has of its groups' messages.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    /// Given to its connection and not sent.
    waiting: VecDeque<Dispatch>,
    /// Sent and not settled, by Packet Identifier.
    sent: FastMap<u16, Sent>,
    /// The commit that is to end the Session is under way.
    pub(crate) ending: bool,
    /// The Session's own messages had their turn.
    pub(crate) own_was_sent: bool,
}

#[derive(Debug)]
struct Sent {
    given: Given,
    /// The row that makes it the member's is on its way to the log.
    asked: bool,
}

impl Sent {
    fn new(given: Given) -> Self {
        Self {
            given,
            asked: false,
        }
    }
}

impl Shares {
    pub(crate) fn owed_mut(&mut self) -> impl Iterator<Item = &mut Owed> {
        self.waiting
            .iter_mut()
            .filter_map(|one| one.owed.as_deref_mut())
    }

    /// Messages that are not sent, or not settled.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.waiting.len() + self.sent.len()
    }
}

impl Session {
    fn note_sent(&mut self, id: u16, given: Given) {
        let shares = self.shares.get_or_insert_default();
        shares.sent.insert(id, Sent::new(given));
    }

    /// Whether what it is owed itself waits, and its groups have half of the Client's `window`; of
    /// one that is odd each has the larger half in turn.
    fn own_comes_first(&self, window: u16) -> bool {
        let Some(shares) = &self.shares else {
            return false;
        };
        let most = (usize::from(window) + usize::from(shares.own_was_sent)) / 2;
        let own_waits = !self.owed.is_empty() || !self.queue.is_empty();
        own_waits && shares.sent.len() >= most
    }
}

impl Shard {
    /// Tells the groups of a Session that is connected now.
    pub(crate) fn join_groups(&mut self, slot: usize) {
        let Some(session) = self.sessions.get(slot) else {
            return;
        };
        let subscriptions = session.subscriptions.iter();
        let shared = subscriptions.filter(|one| one.group.is_some());
        let filters: Vec<Box<str>> = shared.map(|one| one.filter.clone()).collect();
        for filter in filters {
            self.join_group(slot, &filter);
        }
    }

    /// Tells the group of this subscription that its member is connected, and how.
    pub(crate) fn join_group(&mut self, slot: usize, filter: &str) {
        let Some(session) = self.sessions.get(slot) else {
            return;
        };
        let connection = session.connection.and_then(|at| self.connections.get(at));
        let Some(connection) = connection.filter(|one| one.stage == Stage::Live) else {
            return;
        };
        let found = session.find_subscription(filter).ok();
        let Some(subscription) = found.and_then(|index| session.subscriptions.get(index)) else {
            return;
        };
        let Some(group) = subscription.group.clone() else {
            return;
        };
        let member = Member {
            seat: session.seat.clone(),
            connection: connection.id,
            shard: self.index,
            qos: subscription.options.qos,
            retain_as_published: subscription.options.retain_as_published,
            id: subscription.id,
            // The other half is the Session's own.
            window: usize::from(connection.window).div_ceil(2),
        };
        let member = Box::new(member);
        self.tell(group.home(), Between::Join { group, member });
    }

    /// A subscription of a group is gone. What was sent is still completed [MQTT-3.10.4-3].
    pub(crate) fn part_group(&mut self, slot: usize, group: &Arc<Seat>) {
        let Some(session) = self.sessions.get(slot) else {
            return;
        };
        let member = session.number();
        // First, so that nothing comes back to it.
        self.tell_parted(slot, member, group);
        let session = self.sessions.get_mut(slot);
        if let Some(shares) = session.and_then(|session| session.shares.as_mut()) {
            let mut back = Vec::new();
            shares.waiting.retain(|one| {
                let stays = !Arc::ptr_eq(&one.given.group, group);
                if !stays {
                    back.push(one.given.clone());
                }
                stays
            });
            let back = back.into_iter().map(|given| (given, Outcome::Back));
            self.answer_all(back.collect());
        }
    }

    fn tell_parted(&mut self, slot: usize, member: u64, group: &Arc<Seat>) {
        let session = self.sessions.get(slot);
        let at = session.and_then(|session| session.connection);
        let Some(connection) = at.and_then(|at| self.connections.get(at)).map(|one| one.id) else {
            return;
        };
        self.part(member, connection, group);
    }

    fn part(&mut self, member: u64, connection: ConnectionId, group: &Arc<Seat>) {
        let group = group.clone();
        let part = Between::Part {
            group: group.clone(),
            member,
            connection,
        };
        self.tell(group.home(), part);
    }

    /// The connection of a Session is gone: its groups' messages go where they belong.
    pub(crate) fn leave_groups(&mut self, slot: usize, connection: ConnectionId) {
        let Some(session) = self.sessions.get(slot) else {
            return;
        };
        let member = session.number();
        let groups = session.subscriptions.iter();
        let groups: Vec<Arc<Seat>> = groups.filter_map(|one| one.group.clone()).collect();
        // First, so that nothing comes back to it.
        for group in &groups {
            self.part(member, connection, group);
        }
        self.return_sent(slot);
    }

    fn return_sent(&mut self, slot: usize) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let Some(shares) = session.shares.take() else {
            return;
        };
        let Shares {
            waiting, mut sent, ..
        } = *shares;
        let unsent = waiting.into_iter();
        let mut settled: Vec<_> = unsent.map(|one| (one.given, Outcome::Back)).collect();
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let number = session.number();
        let inflight = session.inflight.iter();
        let progress: FastMap<u16, Progress> = inflight.map(|one| (one.id, one.progress)).collect();
        let mut unasked = BTreeSet::new();
        sent.retain(|id, one| {
            let outcome = match progress.get(id) {
                Some(Progress::Sent) => Outcome::Back,
                // What becomes of its row decides.
                Some(Progress::Storing) if one.asked => return true,
                Some(Progress::Storing) => {
                    unasked.insert(*id);
                    Outcome::Back
                }
                _ => Outcome::Done,
            };
            settled.push((one.given.clone(), outcome));
            false
        });
        if !unasked.is_empty() {
            session.inflight.retain(|one| !unasked.contains(&one.id));
            for steps in [&mut self.row_steps, &mut self.stalled] {
                steps.retain(|row| row.number != number || !unasked.contains(&row.id));
            }
        }
        self.answer_all(settled);
        if !sent.is_empty()
            && let Some(session) = self.sessions.get_mut(slot)
        {
            let shares = Shares {
                sent,
                ..Shares::default()
            };
            session.shares = Some(Box::new(shares));
        }
    }

    /// A Session has ended: what it still has of its groups it never saw.
    pub(crate) fn drop_shares(&mut self, shares: Option<Box<Shares>>) {
        let Some(shares) = shares else { return };
        let waiting = shares.waiting.into_iter().map(|one| one.given);
        // What the log was asked for comes back with its answer.
        let sent = shares.sent.into_values().filter(|one| !one.asked);
        let sent = sent.map(|one| one.given);
        let all = waiting.chain(sent);
        self.answer_all(all.map(|given| (given, Outcome::Back)).collect());
    }

    /// A message for a member here.
    pub(crate) fn dispatched(&mut self, now: Now, mut dispatch: Dispatch) {
        let slot = self.slot_of(&dispatch.member).filter(|slot| {
            let at = self.sessions.get(*slot).and_then(|one| one.connection);
            let connection = at.and_then(|at| self.connections.get(at));
            connection.is_some_and(|one| one.id == dispatch.connection && one.stage == Stage::Live)
        });
        let Some(slot) = slot else {
            if dispatch.given.number == 0 {
                self.counts.dropped_qos0 += 1;
            }
            return self.answer(dispatch.given, Outcome::Absent);
        };
        if dispatch.given.number == 0 {
            let mut shared = Some(dispatch.message.clone());
            let manner = Manner {
                retain: dispatch.retain,
                ids: dispatch.id.as_slice(),
            };
            return self.send_transient(
                now,
                slot,
                &dispatch.message,
                &mut shared,
                QoS::AtMostOnce,
                manner,
            );
        }
        if let Some(owed) = &mut dispatch.owed
            && !self.moves.catch_up(dispatch.moves, owed)
        {
            return self.answer(dispatch.given, Outcome::Back);
        }
        if let Some(session) = self.sessions.get_mut(slot) {
            let shares = session.shares.get_or_insert_default();
            shares.waiting.push_back(dispatch);
        }
        self.feed_shares(now, slot);
    }

    /// Sends what its groups gave it, as far as there is room.
    pub(crate) fn feed_shares(&mut self, now: Now, slot: usize) {
        loop {
            let Some(session) = self.sessions.get(slot) else {
                return;
            };
            let Some(shares) = &session.shares else {
                return;
            };
            let Some(at) = session.connection.filter(|_| session.resend.is_empty()) else {
                return;
            };
            let Some(dispatch) = shares.waiting.front().cloned() else {
                return;
            };
            if session.own_comes_first(self.connections.get(at).map_or(0, |one| one.window)) {
                return;
            }
            if !self.has_room(slot, at) {
                return;
            }
            // In this order, and nothing between: at every moment it is in one place, also for a
            // panic that ends another connection.
            self.send_share(now, slot, at, dispatch);
            let session = self.sessions.get_mut(slot);
            if let Some(shares) = session.and_then(|session| session.shares.as_mut()) {
                shares.waiting.pop_front();
                shares.own_was_sent = false;
            }
            self.burn();
        }
    }

    fn send_share(&mut self, now: Now, slot: usize, at: usize, dispatch: Dispatch) {
        let Dispatch {
            given,
            message,
            qos,
            retain,
            id: subscription,
            owed,
            ..
        } = dispatch;
        if message.is_expired(now) {
            self.counts.dropped_expired += 1;
            return self.answer(given, Outcome::Done);
        }
        // First: rules that change meanwhile have it asked again.
        let rules = self.shared.policy.generation();
        if !self.may_receive(slot, &message.topic) {
            return self.answer(given, Outcome::Unfit(Unfit::Denied { rules }));
        }
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let ids = subscription.as_slice();
        let manner = Manner { retain, ids };
        // Whatever its Packet Identifier will be.
        let like = wire(qos, 1, false);
        if is_too_long(connection, now, &message, like, manner) {
            return self.answer(given, Outcome::Unfit(Unfit::TooLarge));
        }
        if let Some(owed) = owed {
            let id = session.next_id();
            session.finished.retain(|finished| *finished != id);
            session.inflight.push_back(Inflight {
                id,
                progress: Progress::Storing,
                owed: Some(owed.clone()),
            });
            session.note_sent(id, given);
            return self.store_id(slot, id, &owed, &message);
        }
        let Some(id) = self.send_unowed(now, slot, at, &message, qos, manner) else {
            return self.answer(given, Outcome::Done);
        };
        if let Some(session) = self.sessions.get_mut(slot) {
            session.note_sent(id, given);
        }
    }

    /// The row that makes a group's message the member's is in the log.
    pub(crate) fn share_taken(&mut self, slot: usize, id: u16, sequence: u64) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let is_away = session.connection.is_none();
        let Some(shares) = &mut session.shares else {
            return;
        };
        let Some(sent) = shares.sent.get_mut(&id) else {
            return;
        };
        sent.asked = false;
        let given = sent.given.clone();
        if is_away {
            // It went during the commit, and gets it when it returns.
            shares.sent.remove(&id);
        }
        self.answer(given.clone(), Outcome::Taken(sequence));
        if is_away {
            self.answer(given, Outcome::Done);
        }
    }

    /// The log has answered for that row of a Session that has ended meanwhile.
    pub(crate) fn share_left(&mut self, row: RowStep, outcome: Result<(), Refusal>) {
        let Some((given, sequence)) = row.taken_over() else {
            return;
        };
        match outcome {
            Ok(()) => self.give_back(given, sequence),
            Err(_) => self.answer(given, Outcome::Back),
        }
    }

    /// Has the log let go of the row of a message that its member never saw.
    pub(crate) fn give_back(&mut self, given: Given, sequence: u64) {
        let gone = rows::handed_gone(given.group.number(), sequence);
        let then = Then::GivenBack(given, sequence);
        self.submit(Draft::rows(vec![gone]), None, None, then);
    }

    /// It has: the message is the group's again. Or not, and is asked again.
    pub(crate) fn given_back(&mut self, given: Given, sequence: u64, outcome: Result<(), Refusal>) {
        match outcome {
            Ok(()) => self.answer(given, Outcome::Back),
            Err(_) => self.giving_back.push((given, Some(sequence))),
        }
    }

    /// The log owes a member what only memory had, or refused to.
    pub(crate) fn handed_over(&mut self, given: Given, outcome: Result<(), Refusal>) {
        match outcome {
            Ok(()) => self.answer(given, Outcome::Done),
            // It never takes that one.
            Err(Refusal::TooLarge) => self.answer(given, Outcome::Unfit(Unfit::TooLarge)),
            Err(_) => self.giving_back.push((given, None)),
        }
    }

    /// What the log refused is tried again.
    pub(crate) fn give_back_again(&mut self) {
        for (given, sequence) in std::mem::take(&mut self.giving_back) {
            match sequence {
                Some(sequence) => self.give_back(given, sequence),
                None => self.answer(given, Outcome::Back),
            }
        }
    }

    /// The log refused that row: `true` if the member went meanwhile, which never saw the message.
    pub(crate) fn share_refused(&mut self, row: &RowStep) -> bool {
        let Some(session) = self.sessions.get_mut(row.slot) else {
            return false;
        };
        let Some(shares) = session.shares.as_mut().filter(|_| row.takes_over()) else {
            return false;
        };
        let Some(sent) = shares.sent.get_mut(&row.id) else {
            return false;
        };
        sent.asked = false;
        if session.connection.is_some() {
            return false;
        }
        let given = sent.given.clone();
        shares.sent.remove(&row.id);
        if let Some(index) = session.find_inflight(row.id) {
            session.inflight.remove(index);
        }
        self.answer(given, Outcome::Back);
        true
    }

    /// Which message of a group this identifier stands for.
    pub(crate) fn given_of(session: &Session, id: u16) -> Option<Given> {
        let sent = session.shares.as_ref()?.sent.get(&id)?;
        Some(sent.given.clone())
    }

    /// Whether the log has been asked for the row of this identifier already, or just is.
    pub(crate) fn note_asked(session: &mut Session, id: u16, asked: bool) -> bool {
        let shares = session.shares.as_mut();
        let sent = shares.and_then(|shares| shares.sent.get_mut(&id));
        sent.is_some_and(|sent| {
            let was_asked = sent.asked;
            sent.asked |= asked;
            was_asked
        })
    }

    /// The log has answered for the row of this identifier.
    pub(crate) fn note_answered(session: &mut Session, id: u16) {
        let shares = session.shares.as_mut();
        if let Some(sent) = shares.and_then(|shares| shares.sent.get_mut(&id)) {
            sent.asked = false;
        }
    }

    /// A Session does not end after all: what the log made its own meanwhile it gets when it
    /// returns.
    pub(crate) fn keep_taken(&mut self, slot: usize) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let Some(mut shares) = session.shares.take() else {
            return;
        };
        let mut taken = Vec::new();
        for inflight in &mut session.inflight {
            let Some(sent) = shares.sent.remove(&inflight.id) else {
                continue;
            };
            inflight.progress = Progress::SentOnce;
            if let Some(owed) = &inflight.owed {
                taken.push((sent.given, owed.sequence));
            }
        }
        for (given, sequence) in taken {
            self.answer(given.clone(), Outcome::Taken(sequence));
            self.answer(given, Outcome::Done);
        }
    }

    /// What a Client answered settles a message of a group, if it was one.
    #[inline]
    pub(crate) fn settle_share(&mut self, slot: usize, id: u16) {
        let session = self.sessions.get_mut(slot);
        let shares = session.and_then(|session| session.shares.as_mut());
        if let Some(sent) = shares.and_then(|shares| shares.sent.remove(&id)) {
            self.answer(sent.given, Outcome::Done);
        }
    }

    fn answer(&mut self, given: Given, outcome: Outcome) {
        if given.number > 0 {
            let turns = SmallVec::from_buf([(given.number, outcome)]);
            let group = given.group;
            self.tell(group.home(), Between::Settled { group, turns });
        }
    }

    /// All of a group at once, so that what comes back is given on in its order.
    fn answer_all(&mut self, mut turns: Vec<(Given, Outcome)>) {
        turns.sort_by_key(|(given, _)| (given.group.number(), given.number));
        for same in turns.chunk_by(|(a, _), (b, _)| Arc::ptr_eq(&a.group, &b.group)) {
            let Some((first, _)) = same.first() else {
                continue;
            };
            let group = first.group.clone();
            let turns = same.iter().map(|(given, outcome)| (given.number, *outcome));
            let turns = turns.collect();
            self.tell(group.home(), Between::Settled { group, turns });
        }
    }

    /// A subscription of a group, or a wish for one, is gone; it counted with `qos`.
    pub(crate) fn leave_group(&mut self, group: &Arc<Seat>, qos: Option<QoS>) {
        let shared = &self.shared;
        if shared.groups.leave(&shared.tree, group, qos) {
            self.tell(group.home(), Between::Disband(group.clone()));
        }
    }
}

impl Given {
    /// One whose fate nobody waits for.
    pub(crate) fn nobody(group: &Arc<Seat>) -> Self {
        Self {
            group: group.clone(),
            number: 0,
        }
    }
}
