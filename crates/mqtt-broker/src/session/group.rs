//! A group of Shared Subscriptions at its home: what it is owed, and which member gets it (MQTT
//! 5.0, 4.8.2).
//!
//! For: a Session without a Client. It is matched, owed, restored and retired like any other;
//!   instead of a connection it has members, wherever they live, and what becomes of each message
//!   they say (`share`).
//! Not for: who subscribes, see `groups`; what a member does with a message, see `share`.
//! Holds: each message is with one member at a time. It goes back in its place when that one is
//!   lost, and to the next; not at QoS 2, once it was sent [MQTT-4.8.2-5]. A member is given no
//!   more than it has room for, so that what waits, waits here. What waits for one member, because
//!   the others refused it, is overtaken by what those take.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use headwater_mqtt_codec::{QoS, SubscriptionId};
use smallvec::SmallVec;

use crate::directory::Seat;
use crate::groups::Strategy;
use crate::input::Between;
use crate::matching::{FastMap, Target};
use crate::message::memory;
use crate::owed::Owed;
use crate::pending::Then;
use crate::session::returned::{Back, Item, OVERTAKEN_MAX, Refusal, Refused, Returned};
use crate::session::share::{Dispatch, Given, Outcome, Unfit};
use crate::session::{Queued, Session};
use crate::{CommitId, ConnectionId, Message, Now, Publisher, Shard};

/// One that is connected.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) seat: Arc<Seat>,
    pub(crate) connection: ConnectionId,
    /// Where that connection is.
    pub(crate) shard: usize,
    pub(crate) qos: QoS,
    pub(crate) retain_as_published: bool,
    pub(crate) id: Option<SubscriptionId>,
    /// Messages it may have at once.
    pub(crate) window: usize,
}

impl Member {
    fn number(&self) -> u64 {
        self.seat.number()
    }

    /// To be owed a message by the log.
    fn target(&self, qos: QoS) -> Target {
        Target {
            seat: self.seat.clone(),
            qos,
            retain_as_published: self.retain_as_published,
            lasting: true,
            ids: self.id.map(|id| Arc::from([id])),
        }
    }
}

/// What one connection of a member has, not settled.
#[derive(Debug, Default)]
struct Hand {
    messages: usize,
    bytes: usize,
}

/// A message that is with a member.
#[derive(Debug)]
struct Out {
    turn: u64,
    member: u64,
    connection: ConnectionId,
    weight: usize,
    /// `None` when that member has it for good.
    item: Option<Item>,
    refused: Refused,
}

/// Where a message waits.
#[derive(Clone, Copy, Debug)]
enum Place {
    Returned(u64),
    Queue,
    Owed,
}

/// What waits there.
enum Waits {
    Owed(Owed),
    Memory(Arc<Message>),
}

/// What a Session has that is a group.
#[derive(Debug, Default)]
pub(crate) struct Group {
    /// Ascending by number.
    members: Vec<Member>,
    /// Those of them that have room.
    ready: BTreeSet<u64>,
    /// The generation of the [`Policy`](crate::Policy) by which they may read.
    rules: u64,
    /// Who had the last message.
    last: u64,
    /// By a number of its own each time one is given to somebody.
    out: BTreeMap<u64, Out>,
    /// By member and connection, of those that have any.
    hands: FastMap<(u64, ConnectionId), Hand>,
    last_out: u64,
    pub(crate) back: Back,
    last_turn: u64,
    /// What the messages that are with members take in memory.
    pub(crate) out_bytes: u64,
    /// What it counts with in [`Held`](super::held::Held).
    pub(crate) counted: u64,
    /// Sequences whose rows in `Table::Handed` are to be deleted along with the floor.
    pub(crate) handed: Vec<u64>,
}

impl Group {
    /// What it still owes besides its queue, ascending by sequence once sorted.
    pub(crate) fn owed(&self) -> impl Iterator<Item = &Owed> {
        let out = self.out.values().filter_map(|one| one.item.as_ref());
        out.chain(self.back.items()).filter_map(Item::owed)
    }

    pub(crate) fn owed_mut(&mut self) -> impl Iterator<Item = &mut Owed> {
        let out = self.out.values_mut().filter_map(|one| one.item.as_mut());
        out.chain(self.back.items_mut()).filter_map(Item::owed_mut)
    }

    /// What came back, can go on and must be read from the log again, in its order.
    pub(crate) fn owed_again(&self) -> impl Iterator<Item = &Owed> {
        let mut overtaken = 0;
        let all = self.back.unblocked().map_while(move |one| {
            let goes = self.can_go(&one.refused);
            overtaken += usize::from(!goes);
            (overtaken < OVERTAKEN_MAX).then_some(goes.then_some(one))
        });
        all.flatten().filter_map(|one| one.item.owed())
    }

    /// Puts aside what cannot go before the first that can: it is looked at again when a member
    /// becomes ready that has not refused it, when one parts, or by other rules, and not for each
    /// message that overtakes it.
    fn block(&mut self) {
        while let Some((turn, one)) = self.back.first()
            && !self.can_go(&one.refused)
        {
            self.back.block(turn);
        }
    }

    /// This member is ready now.
    fn unblock(&mut self, number: u64) {
        let mut back = std::mem::take(&mut self.back);
        back.unblock(|refused| self.refusal(refused, number).is_none());
        self.back = back;
    }

    /// One that has room may take it, or nobody takes it at all.
    fn can_go(&self, refused: &[Refusal]) -> bool {
        let mut ready = self.ready.iter();
        ready.any(|number| self.refusal(refused, *number).is_none())
            || self.all_refuse(refused).is_some()
    }

    /// Why this member does not take it, as far as it has said so on its connection of now, by the
    /// rules of now.
    fn refusal(&self, refused: &[Refusal], number: u64) -> Option<Unfit> {
        let index = refused.binary_search_by_key(&number, |one| one.member);
        let refusal = refused.get(index.ok()?)?;
        self.stands(refusal).then_some(refusal.why)
    }

    fn stands(&self, refusal: &Refusal) -> bool {
        if let Unfit::Denied { rules } = refusal.why
            && rules != self.rules
        {
            return false;
        }
        let member = self.find(refusal.member).ok();
        let member = member.and_then(|index| self.members.get(index));
        member.is_some_and(|member| member.connection == refusal.connection)
    }

    /// What members said of the message in this place.
    fn refused_at(&self, place: Place) -> &[Refusal] {
        match place {
            Place::Returned(turn) => self.back.get(turn).map_or(&[], |one| &one.refused),
            Place::Queue | Place::Owed => &[],
        }
    }

    pub(crate) fn has_members(&self) -> bool {
        !self.members.is_empty()
    }

    fn has_given(&self) -> bool {
        !self.out.is_empty()
    }

    /// Messages with members, and messages that came back.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> (usize, usize) {
        (self.out.len(), self.back.len())
    }

    fn find(&self, number: u64) -> Result<usize, usize> {
        self.members.binary_search_by_key(&number, Member::number)
    }

    /// Who shall have the next message, of all or of those with room; a `key` prefers the same
    /// member for the same key, a turn passes to the next.
    fn choose(
        &self,
        strategy: Strategy,
        key: u64,
        refused: &[Refusal],
        with_room: bool,
    ) -> Option<usize> {
        let count = self.members.len();
        let preferred = match strategy {
            Strategy::RoundRobin => self.last.wrapping_add(1),
            Strategy::Sticky => self.last,
            Strategy::HashClient | Strategy::HashTopic => {
                let index = usize::try_from(key % count.max(1) as u64).unwrap_or(0);
                self.members.get(index)?.number()
            }
        };
        if !with_room {
            let index = self.members.partition_point(|one| one.number() < preferred);
            return index.checked_rem(count);
        }
        let ready = &self.ready;
        let mut in_turn = ready.range(preferred..).chain(ready.range(..preferred));
        let number = in_turn.find(|number| self.refusal(refused, **number).is_none())?;
        self.find(*number).ok()
    }

    /// The turn of what leaves this place.
    fn next_turn(&self, place: Place) -> u64 {
        match place {
            Place::Returned(turn) => turn,
            Place::Queue | Place::Owed => self.last_turn + 1,
        }
    }

    /// A message is with a member from now on.
    fn give(&mut self, out: Out, bytes_max: usize) {
        let member = out.member;
        self.last = member;
        self.last_turn = self.last_turn.max(out.turn);
        self.out_bytes += memory(out.weight) as u64;
        let hand = self.hands.entry((member, out.connection)).or_default();
        hand.messages += 1;
        hand.bytes += out.weight;
        self.last_out += 1;
        self.out.insert(self.last_out, out);
        self.note_room(member, bytes_max);
    }

    /// Whether this member is there and has room: then it is ready.
    fn note_room(&mut self, number: u64, bytes_max: usize) {
        let member = self.find(number).ok();
        let member = member.and_then(|index| self.members.get(index));
        let has_room = member.is_some_and(|member| {
            let hand = self.hands.get(&(number, member.connection));
            hand.is_none_or(|hand| hand.messages < member.window && hand.bytes < bytes_max)
        });
        if !has_room {
            self.ready.remove(&number);
        } else if self.ready.insert(number) {
            self.unblock(number);
        }
    }

    /// A member is gone, unless it has another connection by now.
    fn part(&mut self, number: u64, connection: ConnectionId) {
        if let Ok(index) = self.find(number)
            && let Some(member) = self.members.get(index)
            && member.connection == connection
        {
            self.members.remove(index);
            self.ready.remove(&number);
            // It may have been the last that could take them.
            self.back.unblock(|_| true);
        }
    }

    /// Whether less is owed now.
    fn settle(&mut self, number: u64, outcome: Outcome, bytes_max: usize) -> bool {
        if let Outcome::Taken(sequence) = outcome {
            if let Some(out) = self.out.get_mut(&number) {
                out.item = None;
            }
            self.handed.push(sequence);
            return true;
        }
        let Some(mut out) = self.out.remove(&number) else {
            return false;
        };
        self.out_bytes -= memory(out.weight) as u64;
        let key = (out.member, out.connection);
        if let Some(hand) = self.hands.get_mut(&key) {
            hand.messages -= 1;
            hand.bytes -= out.weight;
            if hand.messages == 0 {
                self.hands.remove(&key);
            }
        }
        self.note_room(out.member, bytes_max);
        let goes_on = match outcome {
            Outcome::Done | Outcome::Taken(_) => false,
            Outcome::Back => true,
            Outcome::Absent => {
                self.part(out.member, out.connection);
                true
            }
            Outcome::Unfit(why) => {
                let (member, connection) = (out.member, out.connection);
                let refused = &mut out.refused;
                // Those that went are not remembered.
                refused.retain(|one| one.member != member && self.stands(one));
                let at = refused.partition_point(|one| one.member < member);
                let refusal = Refusal {
                    member,
                    connection,
                    why,
                };
                refused.insert(at, refusal);
                true
            }
        };
        let refused = out.refused;
        match out.item {
            Some(item) if goes_on => {
                self.back.insert(out.turn, Returned { item, refused });
                false
            }
            item => item.is_some_and(|item| item.owed().is_some()),
        }
    }

    /// Why nobody takes it, however much room there were; too long for one of them is too long.
    fn all_refuse(&self, refused: &[Refusal]) -> Option<Unfit> {
        if refused.len() < self.members.len() {
            return None;
        }
        let mut members = self.members.iter();
        let denied = Unfit::Denied { rules: self.rules };
        members.try_fold(denied, |why, member| {
            Some(why.max(self.refusal(refused, member.number())?))
        })
    }
}

impl Session {
    /// A group's.
    pub(crate) fn for_group(seat: Arc<Seat>) -> Self {
        let client = seat.group().map_or("", |group| &group.name);
        let publisher = Publisher {
            client: client.into(),
            principal: "".into(),
        };
        // No claim of a CONNECT: the directory knows nothing of it.
        let mut session = Self::new(seat, Arc::new(publisher), CommitId(u64::MAX));
        session.group = Some(Box::default());
        session.becomes_lasting();
        session
    }

    /// The group is in the log by now: from here on so is what it is owed.
    pub(crate) fn becomes_lasting(&mut self) -> bool {
        let is_lasting =
            self.group.is_some() && self.seat.group().is_some_and(|one| one.is_lasting());
        if is_lasting {
            self.expiry_seconds = u32::MAX;
            self.has_rows = true;
        }
        is_lasting
    }

    /// Where the next message is that can go to somebody.
    fn place(&self, group: &Group) -> Option<Place> {
        if let Some((turn, _)) = group.back.first() {
            return Some(Place::Returned(turn));
        }
        if group.back.len() >= OVERTAKEN_MAX {
            return None;
        }
        if !self.queue.is_empty() {
            return Some(Place::Queue);
        }
        (!self.owed.is_empty()).then_some(Place::Owed)
    }

    fn waits_at(&self, place: Place) -> Option<Waits> {
        Some(match place {
            Place::Returned(turn) => match &self.group.as_ref()?.back.get(turn)?.item {
                Item::Owed(owed) => Waits::Owed((**owed).clone()),
                Item::Memory { message, .. } => Waits::Memory(message.clone()),
            },
            Place::Queue => Waits::Memory(self.queue.front()?.message.clone()),
            Place::Owed => Waits::Owed(self.owed.front()?),
        })
    }

    /// Takes the message out of its place.
    fn take_item(&mut self, place: Place) -> Option<Returned> {
        let item = match place {
            Place::Returned(turn) => return self.group.as_mut()?.back.remove(turn),
            Place::Queue => {
                let queued = self.pop_queued()?;
                let qos = match queued.exactly_once {
                    true => QoS::ExactlyOnce,
                    false => QoS::AtLeastOnce,
                };
                let message = queued.message;
                Item::Memory { message, qos }
            }
            Place::Owed => Item::Owed(Box::new(self.owed.pop()?)),
        };
        let refused = Refused::new();
        Some(Returned { item, refused })
    }
}

/// What prefers a member; the same in every process.
fn key(strategy: Strategy, message: &Message) -> u64 {
    let of = match strategy {
        Strategy::RoundRobin | Strategy::Sticky => return 0,
        Strategy::HashClient => message.client(),
        Strategy::HashTopic => &*message.topic,
    };
    // FNV-1a: whoever makes two collide only shares a member.
    of.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl Shard {
    /// Where a group is that lives here; it is made when it is first heard of. `None` when it lives
    /// elsewhere, or no more.
    pub(crate) fn group_slot(&mut self, seat: &Arc<Seat>) -> Option<usize> {
        let group = seat.group()?;
        let slot = match self.slot_of(seat) {
            Some(slot) => slot,
            None if group.is_over() || seat.home() != self.index => return None,
            None => self.put_session(Box::new(Session::for_group(seat.clone()))),
        };
        if let Some(session) = self.sessions.get_mut(slot)
            && !session.has_rows
            && session.becomes_lasting()
        {
            // A restart looks for what it is owed from its first floor on.
            session.next_sequence = session.next_sequence.max(self.next_sequence);
            self.mark_dirty(slot);
        }
        Some(slot)
    }

    /// A message that the log does not owe the group.
    pub(crate) fn offer(
        &mut self,
        now: Now,
        slot: usize,
        message: &Message,
        shared: &mut Option<Arc<Message>>,
        qos: QoS,
    ) {
        if message.is_expired(now) {
            self.counts.dropped_expired += 1;
            return;
        }
        let message = shared
            .get_or_insert_with(|| message.clone().detach())
            .clone();
        if qos > QoS::AtMostOnce {
            let queued = Queued {
                exactly_once: qos == QoS::ExactlyOnce,
                retain: message.retain,
                ids: SmallVec::new(),
                message,
            };
            self.enqueue(slot, queued);
            self.dispatch(now, slot);
            return self.shed(slot);
        }
        let strategy = self.shared.strategy;
        let key = key(strategy, &message);
        let session = self.sessions.get_mut(slot);
        let Some((seat, group)) =
            session.and_then(|one| Some((one.seat.clone(), one.group.as_mut()?)))
        else {
            return;
        };
        let chosen = group.choose(strategy, key, &[], false);
        let Some(member) = chosen.and_then(|index| group.members.get(index)) else {
            self.counts.dropped_qos0 += 1;
            return;
        };
        group.last = member.number();
        let given = Given::nobody(&seat);
        let dispatch = Dispatch::new(given, member, message, qos, self.moves.count);
        let shard = member.shard;
        self.tell(shard, Between::Dispatch(Box::new(dispatch)));
    }

    /// Gives what waits to members that have room.
    pub(crate) fn dispatch(&mut self, now: Now, slot: usize) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        if let Some(group) = &mut session.group {
            let rules = self.shared.policy.generation();
            if rules != group.rules {
                group.rules = rules;
                group.back.unblock(|_| true);
            }
        }
        let is_group = session.group.is_some() && !session.over;
        while is_group && self.dispatch_one(now, slot) {}
        self.weigh_group(slot);
    }

    /// `false` when nothing more can be done now.
    fn dispatch_one(&mut self, now: Now, slot: usize) -> bool {
        let Some(session) = self.sessions.get_mut(slot) else {
            return false;
        };
        let Some(group) = session.group.as_mut().filter(|one| !one.ready.is_empty()) else {
            return false;
        };
        group.block();
        let session = &*session;
        let Some(group) = session.group.as_deref() else {
            return false;
        };
        let Some(place) = session.place(group) else {
            return false;
        };
        let message = match session.waits_at(place) {
            Some(Waits::Memory(message)) => message,
            // What is settled sets it going again.
            Some(Waits::Owed(_)) if group.has_given() && self.shared.held.is_too_much(session) => {
                return false;
            }
            Some(Waits::Owed(owed)) => match self.payload(slot, &owed) {
                Some(Some(message)) => message,
                Some(None) => {
                    self.counts.dropped_gone += 1;
                    return self.drop_item(slot, place);
                }
                None => {
                    self.load_owed(slot);
                    return false;
                }
            },
            None => return false,
        };
        if message.is_expired(now) {
            self.counts.dropped_expired += 1;
            return self.drop_item(slot, place);
        }
        let strategy = self.shared.strategy;
        let key = key(strategy, &message);
        let Some(group) = self.sessions.get(slot).and_then(|one| one.group.as_ref()) else {
            return false;
        };
        let refused = group.refused_at(place);
        if let Some(index) = group.choose(strategy, key, refused, true) {
            return self.dispatch_to(slot, place, index, message);
        }
        match group.all_refuse(refused) {
            Some(Unfit::TooLarge) => self.counts.dropped_too_large += 1,
            Some(Unfit::Denied { .. }) => self.counts.dropped_denied += 1,
            None => return false,
        }
        self.drop_item(slot, place)
    }

    fn drop_item(&mut self, slot: usize, place: Place) -> bool {
        if let Some(session) = self.sessions.get_mut(slot) {
            session.take_item(place);
        }
        self.mark_dirty(slot);
        true
    }

    /// Gives the message in this place to a member with room.
    fn dispatch_to(
        &mut self,
        slot: usize,
        place: Place,
        index: usize,
        message: Arc<Message>,
    ) -> bool {
        let bytes_max = self.shared.limits.output_bytes_max;
        let Some(session) = self.sessions.get_mut(slot) else {
            return false;
        };
        let Some(Returned { item, refused }) = session.take_item(place) else {
            return false;
        };
        let seat = session.seat.clone();
        let Some(group) = &mut session.group else {
            return false;
        };
        let Some(member) = group.members.get(index) else {
            return false;
        };
        let qos = item.qos().min(member.qos);
        let given = Given {
            group: seat,
            number: group.last_out + 1,
        };
        let (shard, moves) = (member.shard, self.moves.count);
        let mut dispatch = Dispatch::new(given.clone(), member, message.clone(), qos, moves);
        let mut target = None;
        match &item {
            Item::Owed(owed) if qos == QoS::ExactlyOnce => dispatch.takes(owed),
            // It has to be completed, also on the member's next connection [MQTT-4.8.2-4].
            Item::Memory { .. } if qos == QoS::ExactlyOnce && member.seat.is_persistent() => {
                target = Some(member.target(qos));
            }
            Item::Owed(_) | Item::Memory { .. } => {}
        }
        let out = Out {
            turn: group.next_turn(place),
            member: member.number(),
            connection: member.connection,
            weight: message.weight(),
            item: Some(item),
            refused,
        };
        group.give(out, bytes_max);
        match target {
            Some(target) => self.owe_one(None, None, &target, &message, Then::HandedOver(given)),
            None => self.tell(shard, Between::Dispatch(Box::new(dispatch))),
        }
        true
    }

    /// What became of messages that were given to a member.
    pub(crate) fn settled(&mut self, now: Now, seat: &Arc<Seat>, turns: &[(u64, Outcome)]) {
        let slot = self.slot_of(seat);
        let session = slot.and_then(|slot| self.sessions.get(slot));
        let stands = session.is_some_and(|session| !session.unsettled && !session.over);
        let Some(slot) = slot.filter(|_| stands) else {
            for (_, outcome) in turns {
                if let Outcome::Taken(sequence) = outcome {
                    // The group has ended, and its other rows with it.
                    self.give_back(Given::nobody(seat), *sequence);
                }
            }
            return;
        };
        if (turns.iter()).any(|(_, outcome)| matches!(outcome, Outcome::Taken(_))) {
            // The member may have been asked before it had the message.
            self.inquire_leaving(slot);
        }
        let bytes_max = self.shared.limits.output_bytes_max;
        let session = self.sessions.get_mut(slot);
        let Some(group) = session.and_then(|session| session.group.as_mut()) else {
            return;
        };
        let before = group.back.bytes();
        let mut is_dirty = false;
        for (number, outcome) in turns {
            is_dirty |= group.settle(*number, *outcome, bytes_max);
        }
        let more_waits = group.back.bytes() > before;
        if is_dirty {
            self.mark_dirty(slot);
        }
        self.dispatch(now, slot);
        if more_waits {
            self.shed(slot);
        }
    }

    /// A member is connected, or has changed its options.
    pub(crate) fn joined(&mut self, now: Now, seat: &Arc<Seat>, member: Member) {
        let Some(slot) = self.group_slot(seat) else {
            return;
        };
        let session = self.sessions.get_mut(slot);
        let Some(group) = session.and_then(|session| session.group.as_mut()) else {
            return;
        };
        let number = member.number();
        match group.find(number) {
            Ok(index) => {
                if let Some(old) = group.members.get_mut(index) {
                    *old = member;
                }
                // What it refused on another connection it may take on this one.
                group.ready.remove(&number);
            }
            Err(index) => group.members.insert(index, member),
        }
        group.note_room(number, self.shared.limits.output_bytes_max);
        self.dispatch(now, slot);
    }

    /// A member's connection is gone, or its subscription.
    pub(crate) fn parted(
        &mut self,
        now: Now,
        seat: &Arc<Seat>,
        number: u64,
        connection: ConnectionId,
    ) {
        let Some(slot) = self.slot_of(seat) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let Some(group) = &mut session.group else {
            return;
        };
        group.part(number, connection);
        if group.members.is_empty() {
            session.load = None;
        }
        // What nobody takes who is still there is not waited with.
        self.dispatch(now, slot);
    }

    /// Nobody subscribes any more: the group ends, and what it is owed with it.
    pub(crate) fn disband(&mut self, now: Now, seat: &Arc<Seat>) {
        let is_lasting = seat.group().is_some_and(|group| group.is_lasting());
        let slot = match self.slot_of(seat) {
            Some(slot) => slot,
            None if is_lasting => self.put_session(Box::new(Session::for_group(seat.clone()))),
            None => return,
        };
        self.inquire_leaving(slot);
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        session.becomes_lasting();
        session.load = None;
        let Some(group) = &mut session.group else {
            return;
        };
        let handed = std::mem::take(&mut group.handed);
        let dropped = session.owed.len() + session.queue.len() + group.back.len();
        **group = Group {
            handed,
            counted: group.counted,
            ..Group::default()
        };
        session.owed = Default::default();
        session.queue = Default::default();
        session.queue_bytes = 0;
        self.counts.dropped_group += dropped as u64;
        self.weigh_group(slot);
        self.end_session(now, slot, None);
    }
}
