//! Flows between MQTT, the log and the documents: routes, delivers, sinks.
//!
//! For: deciding where a message goes in the log and as which record ([`Flows::route`],
//! [`encode_record`]), what a record says to devices ([`Deliver::render`]) and which facts become
//! its document ([`Sink::document`]); compiling and checking the configuration of all that.
//! Not for: sockets, disk, clocks, threads. Nothing here blocks or fails half-way.
//! Calls: `commitlog`'s record codec. Called by: `server`, never the other way round.
//! Holds: a record made from a message gives that message back exactly; nobody outside can fake a
//! header of ours; a configuration with one error is refused whole.
//!
//! # Headers of a record
//!
//! Names that begin with `mqtt-` or `headwater-` are ours. A User Property of such a name, or of one that begins with
//! `~`, is written with one more `~` in front ([`record`]).
//!
//! | header | value | when |
//! | --- | --- | --- |
//! | `mqtt-topic` | Topic Name | always |
//! | `mqtt-client` | Client Identifier of the publisher | always |
//! | `mqtt-qos` | `0`, `1`, `2` | always |
//! | `mqtt-retain` | `true`, `false` | always |
//! | `mqtt-format` | Payload Format Indicator, `0` or `1` | MQTT 5.0, if sent |
//! | `mqtt-expiry` | Message Expiry Interval as received, in seconds, decimal | MQTT 5.0, if sent |
//! | `mqtt-content-type` | Content Type | MQTT 5.0, if sent |
//! | `mqtt-response-topic` | Response Topic | MQTT 5.0, if sent |
//! | `mqtt-correlation-data` | Correlation Data, bytes as they are | MQTT 5.0, if sent |
//! | any other | the User Property of that name, repeated ones repeated, in order | MQTT 5.0, if sent |
//! | `headwater-dead-*` | see [`dead_letter`] | in `headwater.dead-letters` |

pub mod check;
pub mod condition;
pub mod config;
pub mod dead_letter;
pub mod deliver;
pub mod diagnostic;
pub mod filter;
pub mod flows;
pub mod kafka_name;
pub mod message;
pub mod partition;
pub mod record;
mod scope;
pub mod sink;
pub mod template;

pub use check::check;
pub use config::{CommitPoint, DeliverConfig, FlowConfig, FlowKind, Qos, RouteConfig, SinkConfig};
pub use dead_letter::{DEAD_LETTERS, Rejected};
pub use deliver::Deliver;
pub use diagnostic::{Diagnostic, nearest};
pub use flows::{FlowError, Flows, Route, Routed};
pub use message::{Incoming, Outgoing, Properties};
pub use partition::partition_for_key;
pub use record::{Record, decode_record, encode_record, read_owed};
pub use sink::{DocumentFacts, Place, Sink};
