//! The broker's state after a restart, from the rows of its tables and the owed entries.

use std::sync::Arc;

use bytes::Bytes;

use crate::{Input, Now, Position, Shared, Table};

/// Gathers what the log holds; `finish` gives each shard its Sessions.
#[derive(Debug)]
pub struct Restore {
    shared: Arc<Shared>,
}

impl Restore {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// One row. Every row of every [`Table`] first, in any order.
    pub fn row(&mut self, table: Table, key: &[u8], value: &Bytes) {
        let _ = (&self.shared, table, key, value);
    }

    /// After the rows: the lowest sequence anyone may still be owed; scan the owed partition from
    /// here. `None`: nobody is owed anything.
    pub fn owed_from(&self) -> Option<u64> {
        None
    }

    /// Then every owed record from there, ascending: its own offset, the message's position from
    /// the first 12 bytes of its value, and the rest of its value.
    pub fn owed(&mut self, sequence: u64, position: Position, entry: &Bytes) {
        let _ = (sequence, position, entry);
    }

    /// The first Inputs of each shard, before any connection is opened.
    pub fn finish(self, now: Now) -> Vec<Vec<Input>> {
        let _ = now;
        (0..self.shared.shards).map(|_| Vec::new()).collect()
    }
}
