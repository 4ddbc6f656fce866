//! What the MQTT broker decides, without sockets, clocks or disk.
//!
//! For: everything between a packet's bytes and the commit it causes: sessions, subscriptions,
//!   Retained Messages, Wills, what is owed to whom, and who may do it.
//! Not for: sockets, clocks, threads, disk, tokio. Bytes, committed facts and `now` come in as
//!   [`Input`]s; what must happen goes out as [`Effect`]s.
//! Calls: `mqtt-codec`. Called by: `server`, which drives one [`Shard`] a thread.
//! Holds: the order of commits is the truth. [`distribute`] turns it into the Inputs of the shards.
//!
//! A PUBLISH enters in `session::publish_in`, is matched in `matching` and becomes a [`Commit`] in
//! `pending` when something durable depends on it. Its answer comes back through [`distribute`]:
//! `pending` has the publisher acknowledged, `session::publish_out` sends to the subscribers.

mod aliases;
mod commit;
mod connection;
mod counts;
mod directory;
mod effect;
mod expiry;
mod groups;
mod input;
mod limits;
mod matching;
mod message;
mod output;
mod owed;
mod pace;
mod payloads;
mod pending;
mod policy;
mod pressure;
mod reasons;
mod restore;
mod retained;
mod retire;
mod rows;
mod session;
mod shard;
mod shared;
#[cfg(test)]
mod simulator;
mod system;
mod timers;
mod tree;

pub use commit::{
    Change, Claim, Commit, CommitId, Control, Delivery, Lane, Position, Receipt, Refusal, Table,
    Targets, distribute,
};
pub use counts::Counts;
pub use directory::Seat;
pub use effect::{Effect, OwedReference};
pub use groups::Strategy;
pub use input::{ConnectionId, Input, LoadId, Loaded, Moved, Now, Peer, ShardMessage, Ticket};
pub use limits::{ClientLimits, Limits, Rate};
pub use message::{Message, Publisher};
pub use output::Output;
pub use pace::Pace;
pub use policy::{
    AllowAll, Applicant, AuthenticationExchange, AuthenticationMethod, AuthenticationStep,
    NoRoutes, Policy, Routes, Verdict,
};
pub use restore::Restore;
pub use retire::Going;
pub use shard::Shard;
pub use shared::{Config, Shared};
pub use system::System;
