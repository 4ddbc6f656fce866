//! Messages that come from elsewhere than a connection, and what is to be committed with them.
//!
//! For: giving an injected message its ticket, adding the caller's own rows to the unit that the
//! message becomes, and telling the caller once it is done.
//! Called by: `flows::delivers` (asks), `commits` (adds the rows), `shard` (tells).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use headwater_commitlog::{Lane, TableChange};
use headwater_mqtt_broker::{Refusal, Ticket};

/// What became of an injected message.
pub(crate) struct Injected {
    pub(crate) outcome: Result<(), Refusal>,
    /// Whether the rows were committed with it; nothing durable depended on the message if not.
    pub(crate) rows_committed: bool,
}

type Done = Box<dyn FnOnce(Injected) + Send>;

struct Waiting {
    rows: Vec<TableChange>,
    lane: Option<Lane>,
    rows_taken: bool,
    done: Done,
}

/// One for the process.
#[derive(Default)]
pub(crate) struct Injections {
    next: AtomicU64,
    waiting: Mutex<HashMap<Ticket, Waiting>>,
}

impl Injections {
    /// A ticket for a message that is about to be injected. `done` is called on a shard's thread
    /// and must be short.
    pub(crate) fn ticket(&self, rows: Vec<TableChange>, lane: Option<Lane>, done: Done) -> Ticket {
        let ticket = Ticket(self.next.fetch_add(1, Ordering::Relaxed));
        self.lock().insert(
            ticket,
            Waiting {
                rows,
                lane,
                rows_taken: false,
                done,
            },
        );
        ticket
    }

    /// The rows to commit together with that message, and its lane.
    pub(crate) fn changes(&self, ticket: Ticket) -> (Vec<TableChange>, Option<Lane>) {
        let mut all = self.lock();
        let Some(waiting) = all.get_mut(&ticket) else {
            return (Vec::new(), None);
        };
        waiting.rows_taken = true;
        // A copy: the same commit is looked at again when a topic had to be made first.
        (waiting.rows.clone(), waiting.lane.clone())
    }

    /// The broker's answer.
    pub(crate) fn answered(&self, ticket: Ticket, outcome: Result<(), Refusal>) {
        let waiting = self.lock().remove(&ticket);
        if let Some(waiting) = waiting {
            let rows_committed = waiting.rows_taken && outcome.is_ok();
            (waiting.done)(Injected {
                outcome,
                rows_committed,
            });
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Ticket, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
