//! One thread's share of the broker: its connections, its Sessions, its round.
//!
//! For: taking Inputs to the exchange they belong to (`session::*`), ending a round with as few
//!   effects as possible.
//! Not for: what an exchange decides; commits and what follows them, see `pending`.
//! Holds: nothing here waits or fails. What a panic interrupts was either done with its effects, or
//!   not begun: the driver ends the one connection whose bytes caused it.

use std::collections::VecDeque;
use std::num::NonZeroI64;
use std::sync::Arc;

use bytes::Bytes;
use headwater_mqtt_codec::{ConnAckReason, DecodeError, DisconnectReason, Packet, Text, Version};
use slab::Slab;

use crate::connection::{Connection, Stage};
use crate::directory::Seat;
use crate::input::{Between, Forwarded};
use crate::matching::{FastMap, MatchCache};
use crate::pace::{Pace, Paces};
use crate::payloads::Payloads;
use crate::pending::{Draft, Pending, RowStep, Then};
use crate::retire::{Inquiry, Moves};
use crate::session::Session;
use crate::session::end::End;
use crate::session::feeds::Turn;
use crate::session::share::Given;
use crate::session::takeover::Arrival;
use crate::system;
use crate::timers::{Due, Timers};
use crate::{
    CommitId, ConnectionId, Counts, Effect, Input, Lane, LoadId, Now, Output, Peer, Position,
    Publisher, ShardMessage, Shared,
};

/// One a thread; owns its connections and the Sessions that live with them.
#[derive(Debug)]
pub struct Shard {
    pub(crate) shared: Arc<Shared>,
    pub(crate) index: usize,
    pub(crate) connections: Slab<Connection>,
    pub(crate) by_id: FastMap<ConnectionId, usize>,
    /// Outputs of connections whose `Effect::Close` is under way.
    pub(crate) closing: FastMap<ConnectionId, Output>,
    // Boxed, because a Session moves between shards.
    pub(crate) sessions: Slab<Box<Session>>,
    pub(crate) arrivals: FastMap<CommitId, Arrival>,
    /// Session number -> the claim it arrives for.
    pub(crate) arriving: FastMap<u64, CommitId>,
    /// Claims whose connection went before their turn.
    pub(crate) lost_claims: FastMap<CommitId, Arc<Publisher>>,
    pub(crate) pending: VecDeque<Pending>,
    pub(crate) next_commit: u64,
    pub(crate) next_load: u64,
    pub(crate) loads: FastMap<LoadId, (usize, Vec<(u64, Position)>)>,
    /// Behind the highest owed sequence seen here.
    pub(crate) next_sequence: u64,
    pub(crate) timers: Timers,
    sweep_at: Option<u64>,
    pub(crate) matches: MatchCache,
    pub(crate) payloads: Payloads,
    pub(crate) counts: Counts,
    /// Of announcements that Clients came or went.
    pub(crate) announcements: Pace,
    /// Sessions whose Retained Messages can go on, by slot and number.
    pub(crate) feeding: VecDeque<(usize, u64)>,
    /// Sessions whose floor is to be written.
    pub(crate) dirty: Vec<(usize, u64)>,
    /// Connections whose Output owns memory.
    warm: Vec<(usize, ConnectionId)>,
    /// What the pending commits weigh.
    pub(crate) pending_bytes: usize,
    /// Publishers are not read: too many commits are pending, until half of them are answered.
    pub(crate) full: bool,
    /// Connections that will be read then.
    pub(crate) waiting: Vec<(usize, ConnectionId)>,
    /// Since when no socket is read, if none is.
    pub(crate) held_since_ms: Option<u64>,
    /// For how long in all none was read before.
    pub(crate) held_ms_before: u64,
    /// The clock `hearing_ms` as of this Input.
    pub(crate) hears_at_ms: u64,
    /// Row steps the log refused, to be tried again.
    pub(crate) stalled: Vec<RowStep>,
    /// Messages of groups that the log still has as their members', with this sequence, or refused
    /// to owe them.
    pub(crate) giving_back: Vec<(Given, Option<u64>)>,
    /// Sessions with Retained Messages that the log refused to owe them, by slot and number.
    pub(crate) owing: Vec<(usize, u64)>,
    /// Of all row steps since one was refused.
    pub(crate) row_lane: Lane,
    /// Expired Retained Messages whose end is asked for.
    pub(crate) sweeping: usize,
    /// No more are looked for before then.
    pub(crate) sweep_expired_from: u64,
    /// What was moved in the log last, for messages of groups that were on their way meanwhile.
    pub(crate) moves: Moves,
    /// Below it session numbers are reserved in the log for this shard.
    pub(crate) numbers_reserved: u64,
    /// Below it they were asked for, answered or not: the row never goes back.
    pub(crate) numbers_asked: u64,
    /// Questions that wait for Sessions on their way here.
    pub(crate) inquiries: Vec<Inquiry>,
    // The round.
    pub(crate) turn: Turn,
    pub(crate) effects: Vec<Effect>,
    touched: Vec<usize>,
    pub(crate) forwards: Vec<Vec<Forwarded>>,
    pub(crate) row_steps: Vec<RowStep>,
    /// Messages of this shard to itself.
    pub(crate) own: VecDeque<ShardMessage>,
    /// Connections that are live now and held bytes until then.
    pub(crate) replay: Vec<usize>,
    /// The fault that the history checker must catch: `HEADWATER_FAULT=forget-packet-id`.
    pub(crate) forgets_packet_ids: bool,
    /// Steps until a panic that a test wants.
    #[cfg(test)]
    pub(crate) fuse: Option<u32>,
}

fn forgets_packet_ids() -> bool {
    #[cfg(faults)]
    return std::env::var("HEADWATER_FAULT").as_deref() == Ok("forget-packet-id");
    #[cfg(not(faults))]
    false
}

impl Shard {
    /// `index` is below `Config::shards`.
    pub fn new(shared: Arc<Shared>, index: usize) -> Self {
        Self {
            index,
            connections: Slab::new(),
            by_id: FastMap::default(),
            closing: FastMap::default(),
            sessions: Slab::new(),
            arrivals: FastMap::default(),
            arriving: FastMap::default(),
            lost_claims: FastMap::default(),
            pending: VecDeque::new(),
            next_commit: 0,
            next_load: 0,
            loads: FastMap::default(),
            next_sequence: 0,
            timers: Timers::default(),
            sweep_at: None,
            matches: MatchCache::new(shared.limits.matches_max),
            payloads: Payloads::new(shared.limits.cache_bytes_max),
            counts: Counts::default(),
            announcements: Pace::new(shared.system.announcements(shared.shards)),
            feeding: VecDeque::new(),
            turn: Turn::default(),
            dirty: Vec::new(),
            warm: Vec::new(),
            pending_bytes: 0,
            full: false,
            waiting: Vec::new(),
            held_since_ms: None,
            held_ms_before: 0,
            hears_at_ms: 0,
            stalled: Vec::new(),
            giving_back: Vec::new(),
            owing: Vec::new(),
            row_lane: Lane::default(),
            sweeping: 0,
            sweep_expired_from: 0,
            moves: Moves::default(),
            numbers_reserved: 0,
            numbers_asked: 0,
            inquiries: Vec::new(),
            effects: Vec::new(),
            touched: Vec::new(),
            forwards: (0..shared.shards).map(|_| Vec::new()).collect(),
            row_steps: Vec::new(),
            own: VecDeque::new(),
            replay: Vec::new(),
            forgets_packet_ids: forgets_packet_ids(),
            #[cfg(test)]
            fuse: None,
            shared,
        }
    }

    /// Applies one Input and ends the round: [`step`](Self::step), then [`settle`](Self::settle).
    pub fn handle(&mut self, now: Now, input: Input, effects: &mut Vec<Effect>) {
        self.step(now, input, effects);
        self.settle(now, effects);
    }

    /// Applies one Input. What can be gathered over several Inputs is: flushes, messages to other
    /// shards, commits of rows. Call `settle` before waiting for anything.
    pub fn step(&mut self, now: Now, input: Input, effects: &mut Vec<Effect>) {
        self.hears_at_ms = self.hearing_ms(now);
        self.apply(now, input);
        self.hear_own(now);
        // Behind what a panic left there: a commit that is counted as pending must be asked for.
        effects.append(&mut self.effects);
    }

    /// What this shard has told itself.
    fn hear_own(&mut self, now: Now) {
        loop {
            if let Some(message) = self.own.pop_front() {
                self.between(now, message.0);
            } else if let Some(at) = self.replay.pop() {
                self.replay_held(now, at);
            } else {
                return;
            }
        }
    }

    /// Tells a shard something, before this round's commits are submitted.
    pub(crate) fn tell(&mut self, shard: usize, message: Between) {
        let message = ShardMessage(message);
        if shard == self.index {
            self.own.push_back(message);
        } else {
            self.effects.push(Effect::ToShard(shard, message));
        }
    }

    /// Ends a round: one Flush a touched connection, one message a shard, one commit of rows.
    pub fn settle(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.hears_at_ms = self.hearing_ms(now);
        self.run_feeds(now);
        self.hear_own(now);
        self.turn = Turn::default();
        self.flush_rows();
        for shard in 0..self.forwards.len() {
            let Some(batch) = self.forwards.get_mut(shard) else {
                break;
            };
            if !batch.is_empty() {
                let message = ShardMessage(Between::Forward(std::mem::take(batch)));
                self.effects.push(Effect::ToShard(shard, message));
            }
        }
        let refused =
            !self.stalled.is_empty() || !self.giving_back.is_empty() || !self.owing.is_empty();
        if !self.warm.is_empty() || !self.dirty.is_empty() || refused {
            let at = self
                .sweep_at
                .unwrap_or(now.mono_ms + self.shared.limits.floors_ms_max);
            self.timers.set(Due::Sweep, &mut self.sweep_at, Some(at));
        }
        while let Some(at) = self.touched.pop() {
            if let Some(connection) = self.connections.get_mut(at)
                && connection.touched
            {
                connection.touched = false;
                self.counts.sent(&mut connection.output);
                self.effects.push(Effect::Flush(connection.id));
            }
        }
        effects.append(&mut self.effects);
    }

    /// Bytes waiting for that socket.
    pub fn output(&mut self, connection: ConnectionId) -> Option<&mut Output> {
        let at = self.by_id.get(&connection)?;
        self.connections
            .get_mut(*at)
            .map(|connection| &mut connection.output)
    }

    /// The Output of a connection whose `Effect::Close` is being carried out.
    pub fn take_output(&mut self, connection: ConnectionId) -> Option<Output> {
        self.closing.remove(&connection)
    }

    /// `mono_ms` of the next needed [`Input::Tick`].
    pub fn deadline(&self) -> Option<u64> {
        if !self.feeding.is_empty() || self.has_inquiries() {
            Some(0)
        } else {
            let all = self
                .timers
                .next()
                .into_iter()
                .chain(self.sweep_expired_at());
            all.min()
        }
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Commits that are asked for and not answered.
    pub fn pending_commits(&self) -> usize {
        self.pending.len()
    }

    fn apply(&mut self, now: Now, input: Input) {
        match input {
            Input::Received { connection, bytes } => {
                self.counts.bytes_received += bytes.len() as u64;
                if let Some(at) = self.by_id.get(&connection).copied() {
                    self.pay(now, at, bytes.len());
                    self.received(now, at, bytes, true);
                }
            }
            Input::Opened {
                connection,
                peer,
                limits,
                handshake_ms,
            } => {
                let left_ms = limits.connect_ms_max.saturating_sub(handshake_ms);
                self.opened(now, connection, peer, left_ms);
                if let Some(at) = self.by_id.get(&connection)
                    && let Some(connection) = self.connections.get_mut(*at)
                {
                    connection.paces = Paces::new(&limits);
                }
            }
            Input::Closed { connection } => {
                if let Some(at) = self.by_id.get(&connection).copied() {
                    self.announce_gone(now, at, system::TCP_CLOSED);
                    self.gone(now, at, End::Abnormal);
                }
            }
            Input::Blocked { connection } => {
                if let Some(at) = self.by_id.get(&connection).copied() {
                    self.blocked(now, at);
                }
            }
            Input::Drained { connection } => {
                if let Some(at) = self.by_id.get(&connection).copied() {
                    self.drained(now, at);
                }
            }
            Input::Disconnect { connection, reason } => {
                if let Some(at) = self.by_id.get(&connection).copied() {
                    self.close(now, at, Some(reason.into()), End::Abnormal);
                }
            }
            Input::Committed { id, outcome } => self.committed(now, id, outcome),
            Input::Deliver(deliveries) => self.deliver_committed(now, deliveries),
            Input::FromShard(message) => self.between(now, message.0),
            Input::Loaded { request, items } => self.loaded(now, request, items),
            Input::Inject { ticket, message } => {
                // It always commits: the driver has something to add, and wants its turn.
                let draft = Draft {
                    ticket: Some(ticket),
                    ..Draft::default()
                };
                self.publish_other(*message, draft, None, None, Then::Injected(ticket));
            }
            Input::Survey { id, kept } => self.survey(id, kept),
            Input::Retire {
                going,
                references_max,
            } => self.retire(going, references_max),
            Input::Moved(moved) => self.follow(&moved),
            Input::Held => self.hold_all(now, true),
            Input::Released => self.hold_all(now, false),
            Input::System(values) => self.system(now, values),
            Input::Tick => self.tick(now),
            Input::Stop => self.stop(now),
        }
    }

    fn opened(&mut self, now: Now, id: ConnectionId, peer: Peer, left_ms: u64) {
        let mut connection = Connection::new(id, peer, &self.shared.limits);
        let due = Some(now.mono_ms + left_ms);
        let entry = self.connections.vacant_entry();
        let at = entry.key();
        self.timers
            .set(Due::Connection(at), &mut connection.timer, due);
        entry.insert(connection);
        self.by_id.insert(id, at);
        self.counts.opened += 1;
    }

    /// The bytes of a read are counted against the Client's rate.
    fn pay(&mut self, now: Now, at: usize, count: usize) {
        if let Some(connection) = self.connections.get_mut(at)
            && connection.stage == Stage::Live
            && let Some(paces) = &mut connection.paces
        {
            paces.bytes(now.mono_ms, count);
        }
    }

    /// All packets of one read; of a `fresh` one, or of what is left of it.
    fn received(&mut self, now: Now, at: usize, mut bytes: Bytes, fresh: bool) {
        let heard_ms = self.hearing_ms(now);
        loop {
            let Some(connection) = self.connections.get_mut(at) else {
                return;
            };
            match connection.stage {
                Stage::Fresh | Stage::Authenticating | Stage::Live => {}
                Stage::Claiming => return self.hold(now, at, bytes),
                Stage::Closing => return,
            }
            if let Some(paces) = &mut connection.paces
                && connection.stage == Stage::Live
                && let Some(until_ms) = paces.ahead_until(now.mono_ms)
            {
                // A copy: it may be little of a large buffer. What was held is one already.
                if fresh {
                    bytes = Bytes::copy_from_slice(&bytes);
                }
                return self.wait_for_pace(now, at, until_ms, bytes);
            }
            match connection.decoder.decode_read(&mut bytes) {
                Ok(Some(packet)) => {
                    connection.heard_ms = heard_ms;
                    if let (Some(paces), Packet::Publish(_)) = (&mut connection.paces, &packet) {
                        paces.message(now.mono_ms);
                    }
                    self.counts.packets_received += 1;
                    if !self.packet(now, at, packet) {
                        return;
                    }
                    self.burn();
                }
                Ok(None) => return self.pause_if_over(at),
                Err(error) => return self.malformed(now, at, &error),
            }
        }
    }

    /// Where a test may want a panic.
    pub(crate) fn burn(&mut self) {
        #[cfg(test)]
        match &mut self.fuse {
            Some(0) => {
                self.fuse = None;
                // Past the hook, which would print each.
                std::panic::resume_unwind(Box::new("fuse"));
            }
            Some(left) => *left -= 1,
            None => {}
        }
    }

    /// Keeps what a Client sends before its CONNACK, up to a bound.
    fn hold(&mut self, now: Now, at: usize, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        let held_max = self.shared.limits.connect_bytes_max as usize;
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        if connection.held.len() + bytes.len() > held_max.max(64 << 10) {
            return self.close(now, at, None, End::Abnormal);
        }
        connection.held = if connection.held.is_empty() {
            Bytes::copy_from_slice(&bytes)
        } else {
            [&connection.held[..], &bytes[..]].concat().into()
        };
        self.pause(at);
    }

    fn replay_held(&mut self, now: Now, at: usize) {
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        let held = std::mem::take(&mut connection.held);
        if !held.is_empty() {
            self.received(now, at, held, false);
        }
        self.resume(now, at);
    }

    /// One packet; `false` when the connection is no more.
    fn packet(&mut self, now: Now, at: usize, packet: Packet) -> bool {
        let Some(connection) = self.connections.get(at) else {
            return false;
        };
        if connection.stage == Stage::Fresh {
            if let Packet::Connect(connect) = packet {
                if let Err(reason) = self.connect_in(now, at, connect) {
                    self.refuse_connect(now, at, reason);
                    return false;
                }
                return true;
            }
            self.close(now, at, None, End::Abnormal); // [MQTT-3.1.0-1]
            return false;
        }
        if connection.stage == Stage::Authenticating {
            if matches!(packet, Packet::Disconnect(_)) {
                self.close(now, at, None, End::Abnormal);
                return false;
            }
            if let Err(why) = self.authenticating(at, &packet) {
                self.refuse_connect(now, at, why);
                return false;
            }
            return true;
        }
        let outcome = match packet {
            Packet::Publish(publish) => self.publish_in(now, at, publish),
            Packet::PubAck(ack) => self.puback_in(now, at, ack.packet_id),
            Packet::PubRec(ack) => self.pubrec_in(now, at, ack.packet_id, ack.reason.is_error()),
            Packet::PubRel(release) => {
                self.release_in(at, &release);
                Ok(())
            }
            Packet::PubComp(ack) => self.pubcomp_in(now, at, ack.packet_id),
            Packet::Subscribe(subscribe) => self.subscribe_in(at, &subscribe),
            Packet::Unsubscribe(unsubscribe) => {
                self.unsubscribe_in(now, at, unsubscribe);
                Ok(())
            }
            Packet::PingReq => {
                if let Some(connection) = self.connections.get_mut(at) {
                    connection.send(&Packet::PingResp);
                }
                self.touch(at);
                Ok(())
            }
            Packet::Disconnect(disconnect) => self.disconnect_in(now, at, &disconnect),
            Packet::Auth(auth) => self.auth_in(now, at, &auth),
            // A second CONNECT [MQTT-3.1.0-2]; the others only a Server sends.
            Packet::Connect(_)
            | Packet::ConnAck(_)
            | Packet::SubAck(_)
            | Packet::UnsubAck(_)
            | Packet::PingResp => Err(DisconnectReason::ProtocolError.into()),
        };
        if let Err(why) = outcome {
            self.close(now, at, Some(why), End::Abnormal);
            return false;
        }
        true
    }

    /// Bytes that are no packet: the protocol's own code, then the end (4.13).
    fn malformed(&mut self, now: Now, at: usize, error: &DecodeError) {
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        let why = Text::try_from(error.to_string()).unwrap_or_default();
        if connection.stage == Stage::Authenticating {
            return self.refuse_connect_saying(now, at, error.connack_reason(), why);
        }
        if connection.stage != Stage::Fresh {
            let why = Some((error.disconnect_reason(), why));
            return self.close_saying(now, at, why, End::Abnormal);
        }
        match (connection.decoder.version(), error) {
            (Some(Version::V5), _) => {
                connection.version = Version::V5;
                self.refuse_connect_saying(now, at, error.connack_reason(), why);
            }
            (_, DecodeError::ProtocolLevel { level }) => {
                // Return code 1, in the form that every version before 5.0 reads; 0x84 to those
                // behind it (MQTT 5.0, 3.1.2.2).
                connection.version = if *level > 5 {
                    Version::V5
                } else {
                    Version::V311
                };
                let reason = ConnAckReason::UnsupportedProtocolVersion;
                self.refuse_connect_saying(now, at, reason, why);
            }
            _ => self.close(now, at, None, End::Abnormal),
        }
    }

    /// The connection gets a Flush at the end of the round.
    pub(crate) fn touch(&mut self, at: usize) {
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        if !connection.touched {
            connection.touched = true;
            self.touched.push(at);
            if !connection.warm {
                connection.warm = true;
                self.warm.push((at, connection.id));
            }
        }
    }

    fn tick(&mut self, now: Now) {
        self.sweep_expired(now);
        self.inquire_on();
        while let Some(due) = self.timers.pop(now.mono_ms) {
            match due {
                Due::Connection(at) => self.connection_due(now, at),
                Due::Session(slot) => {
                    if let Some(session) = self.sessions.get_mut(slot) {
                        session.timer = None;
                    }
                    self.session_due(now, slot);
                }
                Due::Sweep => {
                    self.sweep_at = None;
                    self.sweep();
                }
            }
        }
    }

    pub(crate) fn rearm_session(&mut self, slot: usize) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let load_at = session.load.as_ref().and_then(|load| load.at);
        let waits = session.unsettled || session.connection.is_some();
        let ends = [session.will_at, session.ends_at];
        let ends = ends.into_iter().flatten().filter(|_| !waits);
        let late_at = session.late.as_ref().and_then(|late| late.at);
        let late_at = late_at.filter(|_| !session.unsettled);
        let due = ends.chain(load_at).chain(late_at).min();
        self.timers.set(Due::Session(slot), &mut session.timer, due);
    }

    /// Floors, what the log refused, memory of idle connections.
    fn sweep(&mut self) {
        self.write_dirty();
        let connections = &mut self.connections;
        let (mut packets, mut bytes) = (0, 0);
        self.warm.retain(|(at, id)| {
            let connection = connections.get_mut(*at).filter(|one| one.id == *id);
            connection.is_some_and(|connection| {
                packets += connection.output.packets_waiting();
                bytes += connection.output.len() as u64;
                connection.output.release();
                connection.warm = connection.output.owns_memory();
                connection.warm
            })
        });
        (self.counts.waiting_packets, self.counts.waiting_bytes) = (packets, bytes);
    }

    /// The process ends: everyone is told, floors are written, Wills stay in their rows.
    fn stop(&mut self, now: Now) {
        let connected = self.connections.iter();
        let connected: Vec<_> = connected
            .filter_map(|(_, one)| Some((one.session?, one.id)))
            .collect();
        for (slot, connection) in connected {
            self.leave_groups(slot, connection);
        }
        self.flush_rows();
        let mut draft = Draft::default();
        for (_, session) in &mut self.sessions {
            if session.group.is_some() && !session.unsettled {
                session.take_floor(&mut draft);
            } else if session.has_rows && session.connection.is_some() && !session.unsettled {
                session.left_at_ms = NonZeroI64::new(now.wall_ms);
                session.row_dirty = true;
                session.take_floor(&mut draft);
            }
            session.connection = None;
        }
        if !draft.changes.is_empty() {
            self.submit(draft, None, None, Then::Nothing);
        }
        let all: Vec<usize> = self.connections.iter().map(|(at, _)| at).collect();
        for at in all {
            if let Some(connection) = self.connections.get_mut(at) {
                connection.session = None;
            }
            self.close(
                now,
                at,
                Some(DisconnectReason::ServerShuttingDown.into()),
                End::Abnormal,
            );
        }
    }

    /// Where a Session is in this shard, if it is.
    pub(crate) fn slot_of(&self, seat: &Arc<Seat>) -> Option<usize> {
        let slot = seat.slot();
        self.sessions
            .get(slot)
            .filter(|session| Arc::ptr_eq(&session.seat, seat))
            .map(|_| slot)
    }

    pub(crate) fn put_session(&mut self, session: Box<Session>) -> usize {
        let (seat, is_client) = (session.seat.clone(), session.group.is_none());
        self.counts.add_subscriptions(session.filters());
        let slot = self.sessions.insert(session);
        seat.set_slot(slot);
        if let Some(session) = self.sessions.get(slot)
            && session.floor_dirty
        {
            self.dirty.push((slot, session.number()));
        }
        self.counts.sessions += u64::from(is_client);
        if !is_client {
            self.shared.held.add();
        }
        slot
    }

    pub(crate) fn take_session(&mut self, slot: usize) -> Option<Box<Session>> {
        let mut session = self.sessions.try_remove(slot)?;
        self.timers
            .set(Due::Session(slot), &mut session.timer, None);
        session.seat.set_slot(usize::MAX);
        self.counts.sessions -= u64::from(session.group.is_none());
        if let Some(group) = &session.group {
            self.shared.held.remove(group);
        }
        self.counts.drop_subscriptions(session.filters());
        Some(session)
    }

    /// A Session as it stood in the log at start.
    pub(crate) fn restored(&mut self, now: Now, session: Box<Session>) {
        self.next_sequence = self.next_sequence.max(session.next_sequence);
        let slot = self.put_session(session);
        self.rearm_session(slot);
        self.session_due(now, slot);
    }
}
