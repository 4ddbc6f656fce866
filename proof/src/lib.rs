//! The proof that an acknowledgement means what `docs/proof.md` says: a history checker, and the faults it judges.
//!
//! For: driving the built program from outside, hurting it, and judging what it did from the history alone.
//! Not for: anything inside the program; of its crates only `headwater-mqtt-codec` is used, for the client's side of the wire.
//! Calls: `judge` is pure; `client`, `kafka` and `program` talk to what is under test; `fault` does the harm, `owed` asks what
//! absent Sessions cost, `scale` what many of something cost and whom they hinder.
//! Holds: the harness is never killed itself, and a run in which too little happened fails.

pub mod client;
pub mod documents;
pub mod evidence;
pub mod fault;
pub mod history;
pub mod judge;
pub mod kafka;
pub mod load;
pub mod metrics;
pub mod owed;
pub mod payload;
pub mod program;
pub mod scale;
pub mod stream;
pub mod tail;
pub mod trial;
