//! One thread's share of the broker.

use std::sync::Arc;

use crate::{ConnectionId, Counts, Effect, Input, Now, Output, Shared};

/// One a thread; owns its connections and the Sessions that live with them.
#[derive(Debug)]
pub struct Shard {
    shared: Arc<Shared>,
    index: usize,
}

impl Shard {
    /// `index` is below `Config::shards`.
    pub fn new(shared: Arc<Shared>, index: usize) -> Self {
        Self { shared, index }
    }

    /// Applies one Input and settles: [`step`](Self::step), then [`settle`](Self::settle).
    pub fn handle(&mut self, now: Now, input: Input, effects: &mut Vec<Effect>) {
        self.step(now, input, effects);
        self.settle(now, effects);
    }

    /// Applies one Input. What can be gathered over several Inputs is: flushes, messages to other
    /// shards, commits that need not stand alone. Call `settle` before waiting for anything.
    pub fn step(&mut self, now: Now, input: Input, effects: &mut Vec<Effect>) {
        let _ = (&self.shared, self.index, now, input, effects);
    }

    /// Ends a round: one Flush a touched connection, one message a shard.
    pub fn settle(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let _ = (now, effects);
    }

    /// Bytes waiting for that socket.
    pub fn output(&mut self, connection: ConnectionId) -> Option<&mut Output> {
        let _ = connection;
        None
    }

    /// The Output of a connection whose `Effect::Close` is being carried out.
    pub fn take_output(&mut self, connection: ConnectionId) -> Option<Output> {
        let _ = connection;
        None
    }

    /// `mono_ms` of the next needed [`Input::Tick`].
    pub fn deadline(&self) -> Option<u64> {
        None
    }

    pub fn counts(&self) -> Counts {
        Counts::default()
    }
}
