//! Expired Retained Messages leave the log and memory.
//!
//! For: finding them, slice by slice, and asking for the end of their rows.
//! Not for: not delivering them, which `feeds` sees to until they are gone.
//! Holds: only what expired goes. A newer message of the topic may be committed while the sweep is
//!   under way: the commit says which row it means, and is refused when that is another by then.

use crate::pending::{Draft, Then};
use crate::rows;
use crate::session::will::RETRY_MS;
use crate::{Change, Now, Refusal, Shard};

/// Messages that are swept at once.
const SLICE: usize = 64;

impl Shard {
    /// When the next sweep is due; one shard sweeps for all.
    pub(crate) fn sweep_expired_at(&self) -> Option<u64> {
        if self.index > 0 || self.sweeping > 0 {
            return None;
        }
        let at = self.shared.retained.next_expiry();
        (at < u64::MAX).then(|| at.max(self.sweep_expired_from))
    }

    /// Asks for the end of some that have expired, if it is time.
    pub(crate) fn sweep_expired(&mut self, now: Now) {
        if self.sweep_expired_at().is_none_or(|at| at > now.mono_ms) {
            return;
        }
        for message in self.shared.retained.expired(now, SLICE) {
            let row = rows::retained(&message);
            let gone = Change {
                value: None,
                ..row.clone()
            };
            let draft = Draft {
                changes: vec![gone],
                expects: vec![row],
                expires: Some(message),
                ..Draft::default()
            };
            self.sweeping += 1;
            self.submit(draft, None, None, Then::Swept);
        }
    }

    pub(crate) fn swept(&mut self, now: Now, outcome: Result<(), Refusal>) {
        self.sweeping -= 1;
        match outcome {
            Ok(()) => self.counts.retained_expired += 1,
            // A full disk; or a newer message, which expires when it does.
            Err(_) => self.sweep_expired_from = now.mono_ms + RETRY_MS,
        }
    }
}
