//! The flows at work: which ones stand, and the threads that carry records on.
//!
//! For: swapping the whole set at once, answering the broker whether a route takes a message.
//! Not for: what a flow means (`bridge`).
//! Calls: `sinks`, `delivers`. Called by: `serve`.

mod dead_letters;
pub(crate) mod delivers;
mod positions;
mod signal;
pub(crate) mod sinks;
mod troubles;

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use headwater_bridge::Flows;
use headwater_mqtt_broker::{Message, Routes};

use crate::mqtt::incoming;

pub(crate) use signal::Signal;
pub(crate) use troubles::Troubles;

/// The flows that stand now; a reload swaps all of them or nothing.
pub(crate) struct Current(ArcSwap<Flows>);

impl Current {
    pub(crate) fn new(flows: Flows) -> Self {
        Self(ArcSwap::from_pointee(flows))
    }

    pub(crate) fn load(&self) -> Guard<Arc<Flows>> {
        self.0.load()
    }

    pub(crate) fn swap(&self, flows: Flows) {
        self.0.store(Arc::new(flows));
    }
}

/// The broker's question at every PUBLISH.
pub(crate) struct RouteQuestion(pub(crate) Arc<Current>);

impl Routes for RouteQuestion {
    fn takes(&self, message: &Message) -> bool {
        self.0.load().takes(&incoming(message))
    }
}
