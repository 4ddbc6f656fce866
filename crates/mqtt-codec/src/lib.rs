//! Bytes to MQTT 3.1, 3.1.1 and 5.0 packets and back.
//!
//! For: [`Decoder`], which takes packets off a stream; [`Packet::encode`]; the rules on topics.
//! Not for: what a packet means in its session. No socket, clock, disk or async here.
//! Calls: nothing of ours. Called by: mqtt-broker, and server's own client.
//! Holds: total over any bytes; after `decode` a malformed value cannot exist; payloads and text are
//! slices of the read buffer; nothing is allocated because a peer announced a length or a count.
//!
//! A version's missing fields are left out when encoding: a PUBLISH to a 3.1.1 subscriber loses its
//! properties, an acknowledgement its Reason Code.

mod ack;
mod auth;
mod connack;
mod connect;
mod decoder;
mod disconnect;
mod error;
mod packet;
mod property;
mod puback;
mod pubcomp;
mod publish;
mod pubrec;
mod pubrel;
mod reason;
mod suback;
mod subscribe;
mod text;
pub mod topic;
mod unsuback;
mod unsubscribe;
mod wire;

pub use ack::AckProperties;
pub use auth::{Auth, AuthReason};
pub use connack::{ConnAck, ConnAckProperties, ConnAckReason};
pub use connect::{Connect, ConnectProperties, Will, WillProperties};
pub use decoder::Decoder;
pub use disconnect::{Disconnect, DisconnectReason};
pub use error::{DecodeError, EncodeError};
pub use packet::{Packet, PacketId, PacketType, QoS, Version};
pub use property::{
    Authentication, PayloadFormat, PropertyId, SubscriptionId, UserProperties, UserPropertiesIter,
};
pub use puback::{PubAck, PubAckReason};
pub use pubcomp::{PubComp, PubCompReason};
pub use publish::{Delivery, Publish, PublishProperties, PublishRef};
pub use pubrec::{PubRec, PubRecReason};
pub use pubrel::{PubRel, PubRelReason};
pub use suback::{SubAck, SubAckReason};
pub use subscribe::{RetainHandling, Subscribe, Subscription, SubscriptionOptions};
pub use text::{Binary, FIELD_BYTES_MAX, FieldError, Text};
pub use unsuback::{UnsubAck, UnsubAckReason};
pub use unsubscribe::Unsubscribe;

/// The most a Remaining Length and any other Variable Byte Integer can say (MQTT 5.0, 1.5.5).
pub const REMAINING_LENGTH_MAX: u32 = 268_435_455;
