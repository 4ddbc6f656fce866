//! Liveness: at rest, with every socket read and every answer given, nothing is left undone.
//!
//! For: what a schedule ends with. A message that only a reconnect, a restart or another message
//!   would set in motion again is a lost wake-up, and nobody may need that luck.
//! Holds: nothing here looks at time: what waits for a deadline has had it.

use std::sync::atomic::Ordering;

use super::World;
use crate::Shard;
use crate::session::Session;

impl World {
    /// Every socket takes everything again.
    pub(crate) fn read_all(&mut self) {
        self.room.clear();
        let open: Vec<_> = self.open.iter().map(|(id, shard)| (*id, *shard)).collect();
        for (connection, shard) in open {
            self.write(shard, connection);
        }
    }

    /// Everything that waits for something that will not come.
    pub(crate) fn stuck(&self) -> Vec<String> {
        let mut found = Vec::new();
        let held = self.shared.held.bytes();
        if held > 0 {
            found.push(format!("{held} bytes that groups hold"));
        }
        for (index, shard) in self.shards.iter().enumerate() {
            let mut say = |what: String| found.push(format!("shard {index}: {what}"));
            for (what, count) in left_in(shard) {
                if count > 0 {
                    say(format!("{count} {what}"));
                }
            }
            for (_, session) in &shard.sessions {
                for (what, count) in left_of(session) {
                    if (session.connection.is_some() || session.group.is_some()) && count > 0 {
                        say(format!("{}: {count} {what}", session.publisher.client));
                    }
                }
            }
            for (_, connection) in &shard.connections {
                let is_stuck = connection.paused
                    || connection.pending > 0
                    || connection.pending_bytes > 0
                    || connection.output.is_congested()
                    || !connection.output.is_empty()
                    || !connection.acks.is_empty()
                    || !connection.held.is_empty();
                let lane = connection.lane.as_ref();
                let is_refused = lane.is_some_and(|lane| lane.0.load(Ordering::Relaxed));
                if is_stuck || is_refused {
                    say(format!("{connection:?}"));
                }
            }
        }
        found
    }
}

fn left_in(shard: &Shard) -> [(&'static str, usize); 10] {
    [
        ("commits not answered", shard.pending.len()),
        ("bytes of them", shard.pending_bytes),
        ("connections waiting for those", shard.waiting.len()),
        ("sessions with feeds", shard.feeding.len()),
        ("steps refused", shard.stalled.len()),
        ("messages to be given back", shard.giving_back.len()),
        ("steps not asked for", shard.row_steps.len()),
        ("loads", shard.loads.len()),
        ("arrivals", shard.arrivals.len()),
        ("inquiries", shard.inquiries.len()),
    ]
}

fn left_of(session: &Session) -> [(&'static str, usize); 10] {
    let group = session.group.as_ref();
    let (out, returned) = group.map_or((0, 0), |group| group.waiting());
    [
        ("feeds", session.feeds_len()),
        ("owed", session.owed.len()),
        ("queued", session.queue.len()),
        ("to be sent again", session.resend.len()),
        ("in flight", session.inflight.len()),
        ("bytes being stored", session.storing_bytes),
        ("commits not answered", session.pending as usize),
        ("with members", out),
        ("back from members", returned),
        (
            "of groups",
            session.shares.as_ref().map_or(0, |shares| shares.len()),
        ),
    ]
}
