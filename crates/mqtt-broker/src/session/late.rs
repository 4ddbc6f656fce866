//! Wills that are due while their Client is back: each waits for the log in a row of its own.
//!
//! For: what CONNECT does with a Will that was not published in time, and the log's answers to it.
//! Not for: a Will in the row of its Session, see `will`.
//! Holds: a CONNECT never waits for a Will; each is published once, in the commit that deletes its
//!   row, the older first.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::pending::{Draft, Then};
use crate::session::Session;
use crate::session::will::RETRY_MS;
use crate::{Change, Lane, Message, Now, Refusal, Shard, rows};

/// So many wait for one Client, with that of its connection.
pub(crate) const LATE_MAX: usize = 16;

/// One that waits.
#[derive(Debug)]
struct Due {
    sequence: u64,
    message: Arc<Message>,
    /// It is never published: only its row is to go.
    is_refused: bool,
}

/// Those of one Session.
#[derive(Debug, Default)]
pub(crate) struct Late {
    /// Ascending.
    dues: VecDeque<Due>,
    /// Of which so many are asked for, from the front.
    asked: usize,
    /// None of them passes an older one.
    lane: Lane,
    /// When the log is asked again.
    pub(crate) at: Option<u64>,
}

impl Late {
    /// As the rows have them; `None` without any.
    pub(crate) fn restored(all: BTreeMap<u64, Arc<Message>>, now: Now) -> Option<Box<Self>> {
        let mut late = Self {
            at: Some(now.mono_ms),
            ..Self::default()
        };
        for (sequence, message) in all {
            late.push(sequence, message);
        }
        (!late.dues.is_empty()).then(|| Box::new(late))
    }

    fn push(&mut self, sequence: u64, message: Arc<Message>) {
        self.dues.push_back(Due {
            sequence,
            message,
            is_refused: false,
        });
    }

    #[cfg(test)]
    pub(crate) fn messages(&self) -> impl Iterator<Item = &Arc<Message>> {
        self.dues.iter().map(|due| &due.message)
    }
}

impl Session {
    fn next_late(&self) -> u64 {
        let last = self.late.as_ref().and_then(|late| late.dues.back());
        last.map_or(0, |last| last.sequence + 1)
    }

    /// What `keep_late` said is in the log.
    pub(crate) fn push_late(&mut self, messages: Vec<Arc<Message>>) {
        for message in messages {
            let sequence = self.next_late();
            self.late.get_or_insert_default().push(sequence, message);
        }
    }

    /// The rows of Wills that are to wait behind those that do.
    pub(crate) fn late_rows(&self, messages: &[Arc<Message>]) -> impl Iterator<Item = Change> {
        let (number, next) = (self.number(), self.next_late());
        (next..)
            .zip(messages)
            .map(move |(sequence, message)| rows::will(number, sequence, message))
    }

    pub(crate) fn late_gone(&self) -> impl Iterator<Item = Change> {
        let number = self.number();
        let dues = self.late.iter().flat_map(|late| &late.dues);
        dues.map(move |due| rows::will_gone(number, due.sequence))
    }

    /// The Wills that a CONNECT is not to lose: where it takes this Session up, one whose delay has
    /// passed and which the log refused; else all, because the Session ends [MQTT-3.1.3-9].
    pub(crate) fn wills_due(&self, now: Now, present: bool) -> Vec<Arc<Message>> {
        let is_late = self.will_at.is_some_and(|at| at <= now.mono_ms);
        let will = self.will.as_ref();
        let will = will.filter(|will| !present || is_late || will.delay_seconds == 0);
        let waiting = self.late.iter().filter(|_| !present);
        let waiting = waiting.flat_map(|late| late.dues.iter().filter(|due| !due.is_refused));
        let waiting = waiting.map(|due| &due.message);
        waiting
            .chain(will.map(|will| &will.message))
            .cloned()
            .collect()
    }

    pub(crate) fn late_count(&self) -> usize {
        self.late.as_ref().map_or(0, |late| late.dues.len())
    }
}

impl Shard {
    /// Asks the log for those that wait. Whatever is not to pass them goes in the lane it returns.
    pub(crate) fn publish_late(&mut self, now: Now, slot: usize) -> Option<Lane> {
        let session = self.sessions.get_mut(slot)?;
        let number = session.number();
        let late = session.late.as_mut()?;
        late.at = None;
        let lane = late.lane.clone();
        let mut asks = Vec::new();
        for due in late.dues.iter().skip(late.asked) {
            asks.push((due.sequence, (!due.is_refused).then(|| due.message.clone())));
        }
        late.asked = late.dues.len();
        for (sequence, message) in asks {
            let draft = Draft {
                lane: Some(lane.clone()),
                ..Draft::rows(vec![rows::will_gone(number, sequence)])
            };
            let then = Then::Late(sequence);
            let may = |message: &Arc<Message>| {
                self.judge_topic(&message.publisher, &message.topic).is_ok()
            };
            let is_new = message.is_some();
            if let Some(message) = message.filter(may) {
                let mut message = (*message).clone();
                message.arrive(now);
                self.publish_other(message, draft, None, Some(slot), then);
                continue;
            }
            if is_new {
                self.refuse_late(slot, sequence);
            }
            self.submit(draft, None, Some(slot), then);
        }
        Some(lane)
    }

    /// One is never published.
    fn refuse_late(&mut self, slot: usize, sequence: u64) {
        let session = self.sessions.get_mut(slot);
        let late = session.and_then(|session| session.late.as_mut());
        let due = late.and_then(|late| late.dues.iter_mut().find(|due| due.sequence == sequence));
        if let Some(due) = due
            && !due.is_refused
        {
            due.is_refused = true;
            self.counts.refused += 1;
        }
    }

    /// One is published, or refused.
    pub(crate) fn late_done(
        &mut self,
        now: Now,
        slot: usize,
        sequence: u64,
        outcome: Result<(), Refusal>,
    ) {
        if outcome == Err(Refusal::TooLarge) {
            self.refuse_late(slot, sequence); // For ever.
        }
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let Some(late) = &mut session.late else {
            return;
        };
        late.asked -= 1;
        if outcome.is_ok() {
            late.dues.retain(|due| due.sequence != sequence);
        } else {
            late.at = Some(now.mono_ms + RETRY_MS);
        }
        if outcome.is_err() && late.asked == 0 {
            late.lane = Lane::default();
        }
        if late.dues.is_empty() {
            session.late = None;
        }
        self.rearm_session(slot);
    }
}
