//! Taking a Session over: a claim's turn, the old holder's surrender, the Session on its way.
//!
//! Holds: a client id has one holder in commit order; a Session is handed over when nothing of it
//!   is pending; what is delivered to it on its way is kept until it is here.

use std::sync::Arc;

use headwater_mqtt_codec::{ConnAckReason, DisconnectReason};

use crate::commit::Delivery;
use crate::directory::Seat;
use crate::input::Between;
use crate::matching::Target;
use crate::reasons::Rejection;
use crate::session::Session;
use crate::session::end::End;
use crate::{CommitId, ConnectionId, Moved, Now, Shard};

const NOT_YOURS: Rejection = Rejection::new(
    ConnAckReason::NotAuthorized,
    "this client identifier belongs to another user",
);

/// A Session that was claimed and is not here yet.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// `None` when the connection that claimed it is gone.
    pub(super) connection: Option<ConnectionId>,
    number: u64,
    /// What was delivered to it meanwhile, in order.
    kept: Vec<(Delivery, Target)>,
    /// Where its messages went meanwhile.
    pub(crate) moved: Vec<Arc<[Moved]>>,
    /// Somebody else has claimed it already.
    surrender: Option<(usize, CommitId)>,
}

impl Shard {
    /// Word from the commit stream, or from the shard that held the Session before.
    pub(crate) fn between(&mut self, now: Now, message: Between) {
        match message {
            Between::Forward(forwarded) => {
                for one in forwarded {
                    let mut shared = Some(one.message.clone());
                    self.deliver_all(now, &one.message, &mut shared, &one.targets);
                }
            }
            Between::Claimed {
                connection,
                claim,
                previous,
            } => {
                self.claimed(now, connection, claim, previous);
            }
            Between::ClaimRefused { connection } => {
                if let Some(at) = self.by_id.get(&connection).copied() {
                    self.refuse_connect(now, at, NOT_YOURS);
                }
            }
            Between::Surrender {
                held,
                seat,
                to,
                claim,
            } => {
                self.surrender(now, held, seat.as_ref(), to, claim);
            }
            Between::Handover { claim, session } => self.arrived(now, claim, session),
            Between::Restored(session) => self.restored(now, session),
            Between::Group(seat) => drop(self.group_slot(&seat)),
            Between::Join { group, member } => self.joined(now, &group, *member),
            Between::Part {
                group,
                member,
                connection,
            } => self.parted(now, &group, member, connection),
            Between::Disband(seat) => self.disband(now, &seat),
            Between::Dispatch(dispatch) => self.dispatched(now, *dispatch),
            Between::Settled { group, turns } => self.settled(now, &group, &turns),
        }
    }

    /// The turn of a CONNECT has come: the client id is ours.
    fn claimed(
        &mut self,
        now: Now,
        connection: ConnectionId,
        claim: CommitId,
        previous: Option<u64>,
    ) {
        let is_here = self.by_id.contains_key(&connection);
        let number = previous.unwrap_or(Seat::NOBODY);
        let connection = is_here.then_some(connection);
        let arrival = Arrival {
            connection,
            number,
            kept: Vec::new(),
            moved: Vec::new(),
            surrender: None,
        };
        self.arrivals.insert(claim, arrival);
        if number != Seat::NOBODY {
            self.arriving.insert(number, claim);
        }
        if previous.is_none() {
            self.arrived(now, claim, None);
        }
    }

    /// Keeps a delivery for a Session that is on its way here; `false` when it is not.
    pub(crate) fn keep_for_arrival(&mut self, delivery: &Delivery, target: &Target) -> bool {
        let claim = self.arriving.get(&target.seat.number());
        let Some(arrival) = claim.and_then(|claim| self.arrivals.get_mut(claim)) else {
            return false;
        };
        arrival.kept.push((delivery.clone(), target.clone()));
        true
    }

    /// Another CONNECT has our client id.
    fn surrender(
        &mut self,
        now: Now,
        held: CommitId,
        seat: Option<&Arc<Seat>>,
        to: usize,
        claim: CommitId,
    ) {
        if let Some(arrival) = self.arrivals.get_mut(&held) {
            arrival.surrender = Some((to, claim));
            let connection = arrival.connection.take();
            if let Some(at) = connection.and_then(|id| self.by_id.get(&id)).copied() {
                self.close(
                    now,
                    at,
                    Some(DisconnectReason::SessionTakenOver.into()),
                    End::Abnormal,
                );
            }
            return;
        }
        let slot = seat.and_then(|seat| self.slot_of(seat));
        let Some(slot) = slot else {
            self.hand_over(to, claim, None);
            return;
        };
        if let Some(session) = self.sessions.get_mut(slot) {
            session.surrender = Some(Box::new((to, claim)));
            if let Some(at) = session.connection {
                // [MQTT-3.1.4-3]
                self.close(
                    now,
                    at,
                    Some(DisconnectReason::SessionTakenOver.into()),
                    End::Abnormal,
                );
            }
        }
        self.flush_rows();
        self.try_hand_over(slot);
    }

    /// Hands a wanted Session over once nothing of it is pending.
    pub(crate) fn try_hand_over(&mut self, slot: usize) {
        let Some(session) = self.sessions.get(slot) else {
            return;
        };
        let Some((to, claim)) = session.surrender.as_deref().copied() else {
            return;
        };
        if session.pending > 0 {
            return;
        }
        self.inquire_leaving(slot);
        let mut session = self.take_session(slot);
        if let Some(session) = &mut session {
            session.surrender = None;
        }
        self.hand_over(to, claim, session);
    }

    pub(crate) fn hand_over(&mut self, to: usize, claim: CommitId, session: Option<Box<Session>>) {
        self.tell(to, Between::Handover { claim, session });
    }

    /// The claimed Session is here, or there is none.
    fn arrived(&mut self, now: Now, claim: CommitId, session: Option<Box<Session>>) {
        let Some(arrival) = self.arrivals.remove(&claim) else {
            return;
        };
        // A later claim of this shard may wait for the same Session.
        if self.arriving.get(&arrival.number) == Some(&claim) {
            self.arriving.remove(&arrival.number);
        }
        let lost = self.lost_claims.remove(&claim);
        let at = arrival
            .connection
            .and_then(|id| self.by_id.get(&id))
            .copied();
        let slot = session.map(|session| self.put_session(session));
        if let Some(slot) = slot {
            if let Some(session) = self.sessions.get_mut(slot) {
                session.claim = claim;
            }
            for (delivery, target) in &arrival.kept {
                self.deliver_one(now, slot, delivery, target);
            }
            if let Some(session) = self.sessions.get_mut(slot) {
                for moved in &arrival.moved {
                    session.follow(moved);
                }
            }
        }
        self.inquire_arrived(claim, slot);
        if let Some((to, claim)) = arrival.surrender {
            match slot {
                Some(slot) => {
                    if let Some(session) = self.sessions.get_mut(slot) {
                        session.surrender = Some(Box::new((to, claim)));
                    }
                    self.try_hand_over(slot);
                }
                None => self.hand_over(to, claim, None),
            }
            return;
        }
        match (at, slot) {
            (Some(at), slot) => self.establish(now, at, claim, slot),
            // The connection that claimed went before its Session came.
            (None, Some(slot)) => {
                self.settle_seat(slot, claim);
                self.rearm_session(slot);
            }
            (None, None) => {
                if let Some(publisher) = lost {
                    self.shared
                        .directory
                        .release(&publisher.client, self.index, claim);
                }
            }
        }
    }

    /// Whether the directory still knows this claim, which now has this Session.
    pub(crate) fn settle_seat(&mut self, slot: usize, claim: CommitId) -> bool {
        self.sessions.get(slot).is_some_and(|session| {
            let client = &session.publisher.client;
            self.shared
                .directory
                .settle(client, self.index, claim, &session.seat)
        })
    }
}
