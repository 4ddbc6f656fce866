//! One MQTT message on its way through the broker.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use headwater_mqtt_codec::{PublishProperties, QoS, Text};

use crate::session::Queued;
use crate::{Now, Position};

/// Who published a message, or who owns a Session.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Publisher {
    pub client: Box<str>,
    pub principal: Box<str>,
}

/// An application message. One for all its subscribers.
#[derive(Clone, Debug)]
pub struct Message {
    pub topic: Text,
    pub payload: Bytes,
    /// As published; a subscriber gets at most its subscription's.
    pub qos: QoS,
    /// As published.
    pub retain: bool,
    /// As published, without Topic Alias and Subscription Identifiers.
    pub properties: Option<Box<PublishProperties>>,
    pub publisher: Arc<Publisher>,
    /// Arrival, wall clock.
    pub at_ms: i64,
    /// End of its Message Expiry Interval, as [`Now::mono_ms`].
    pub expires_at: Option<u64>,
    /// Where it lies in the log already: nothing stores it again.
    pub stored: Option<Position>,
    /// It came out of the log (by `deliver`, or read back): no route takes it again.
    pub from_log: bool,
}

/// Slices up to this length are copied when a message must be kept, so that 64 bytes of payload
/// do not hold on to the 64 KiB read they arrived in.
const DETACH_BYTES_MAX: usize = 16 << 10;

/// The same of a message of this weight.
pub(crate) fn memory(weight: usize) -> usize {
    // The queue's entry, the shared message, and the allocator's part of each of its pieces.
    const BESIDES: usize = size_of::<Queued>() + size_of::<Message>() + 96;
    weight + BESIDES
}

impl Message {
    pub fn client(&self) -> &str {
        &self.publisher.client
    }

    pub fn principal(&self) -> &str {
        &self.publisher.principal
    }

    pub(crate) fn is_expired(&self, now: Now) -> bool {
        self.expires_at.is_some_and(|at| at <= now.mono_ms)
    }

    /// Seconds left of the Message Expiry Interval [MQTT-3.3.2-6].
    pub(crate) fn expiry_left(&self, now: Now) -> Option<u32> {
        let left_ms = self.expires_at?.saturating_sub(now.mono_ms);
        // Rounded up, so that a message that is still alive never says zero.
        Some(u32::try_from(left_ms.div_ceil(1_000)).unwrap_or(u32::MAX))
    }

    /// Its Message Expiry Interval as published, in milliseconds.
    pub(crate) fn expiry_ms(&self) -> Option<u64> {
        let properties = self.properties.as_ref()?;
        let seconds = properties.message_expiry_interval?;
        Some(u64::from(seconds) * 1_000)
    }

    /// It arrives now: its Message Expiry Interval begins.
    pub(crate) fn arrive(&mut self, now: Now) {
        self.at_ms = now.wall_ms;
        self.expires_at = self.expiry_ms().map(|ms| now.mono_ms + ms);
    }

    /// Bytes this message is counted with.
    pub(crate) fn weight(&self) -> usize {
        let properties = self.properties.as_ref();
        self.topic.len() + self.payload.len() + properties.map_or(0, |all| all.size_bytes())
    }

    /// Bytes of memory that one more message in a queue takes.
    pub(crate) fn memory(&self) -> usize {
        memory(self.weight())
    }

    /// The message to keep: in memory of its own when it is small.
    pub(crate) fn detach(self) -> Arc<Self> {
        if self.weight() > DETACH_BYTES_MAX {
            return Arc::new(self);
        }
        let mut own = BytesMut::with_capacity(self.topic.len() + self.payload.len());
        own.extend_from_slice(self.topic.as_bytes());
        own.extend_from_slice(&self.payload);
        let mut own = own.freeze();
        let topic = own.split_to(self.topic.len());
        match Text::try_from(topic) {
            Ok(topic) => Arc::new(Self {
                topic,
                payload: own,
                properties: self.properties.map(|all| Box::new(all.detached())),
                ..self
            }),
            Err(_) => Arc::new(self),
        }
    }
}

#[cfg(test)]
impl Message {
    /// "x" at QoS 1 to this Topic Name, retained; a test says what else matters to it.
    pub(crate) fn example(topic: &str) -> Self {
        Self {
            topic: topic.parse().unwrap(),
            payload: Bytes::from_static(b"x"),
            qos: QoS::AtLeastOnce,
            retain: true,
            properties: None,
            publisher: Arc::new(Publisher {
                client: "p".into(),
                principal: "anonymous".into(),
            }),
            at_ms: 0,
            expires_at: None,
            stored: None,
            from_log: false,
        }
    }
}
