//! Wakes a thread that waits for more records.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Raised by whoever has news, lowered by the one thread that waits.
#[derive(Default)]
pub(crate) struct Signal {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    raised: bool,
    stopping: bool,
}

impl Signal {
    pub(crate) fn raise(&self) {
        self.change(|state| state.raised = true);
    }

    /// Ends the waiting for good.
    pub(crate) fn stop(&self) {
        self.change(|state| state.stopping = true);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .stopping
    }

    /// Waits so long whatever is raised, unless it is stopped. What is raised meanwhile stays so.
    pub(crate) fn pause(&self, time: Duration) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .changed
            .wait_timeout_while(state, time, |state| !state.stopping);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits for news, at most `longest`. False once it was stopped.
    pub(crate) fn wait(&self, longest: Duration) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .changed
            .wait_timeout_while(state, longest, |state| !state.raised && !state.stopping);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.raised = false;
        !state.stopping
    }
}
