//! Where the broker's message and the log's record meet: the one adapter between the two.
//!
//! For: a message as `bridge` reads it, and a record as the broker's message.
//! Holds: what is read back from the log is what was published, but for the publisher's principal.

use std::sync::Arc;

use bytes::Bytes;
use headwater_bridge::{Incoming, Outgoing, Properties};
use headwater_mqtt_broker::{Message, Position, Publisher};
use headwater_mqtt_codec::{Binary, FieldError, PayloadFormat, PublishProperties, QoS, Text};

use super::Timeline;

/// Who publishes what did not come over a connection.
const NOBODY: &str = "anonymous";

/// The message as the flows see it; nothing is copied.
pub(crate) fn incoming(message: &Message) -> Incoming<'_> {
    Incoming {
        topic: &message.topic,
        payload: &message.payload,
        qos: message.qos as u8,
        retain: message.retain,
        client: message.client(),
        user: Some(message.principal()),
        at_ms: message.at_ms,
        properties: message
            .properties
            .as_deref()
            .map(properties)
            .unwrap_or_default(),
    }
}

fn properties(all: &PublishProperties) -> Properties<'_> {
    Properties {
        utf8: all
            .payload_format
            .map(|format| format == PayloadFormat::Utf8),
        expiry_s: all.message_expiry_interval,
        content_type: all.content_type.as_deref(),
        response_topic: all.response_topic.as_deref(),
        correlation_data: all.correlation_data.as_deref(),
        user: all.user_properties.iter().collect(),
    }
}

/// The broker's message of what a record says. `stored` is where the record lies, when the message
/// is just that record. Its Message Expiry Interval began when the record was written. Fails where a text is no MQTT text.
pub(crate) fn message(
    outgoing: &Outgoing<'_>,
    stored: Option<Position>,
    timeline: &Timeline,
) -> Result<Message, FieldError> {
    let all = &outgoing.properties;
    let properties = (*all != Properties::default())
        .then(|| own_properties(all))
        .transpose()?;
    let expires_at = all.expiry_s.map(|seconds| {
        let now = timeline.now();
        let age_ms = timeline.age_ms(now, outgoing.at_ms);
        let left_ms = (u64::from(seconds) * 1_000).saturating_sub(age_ms);
        now.mono_ms.saturating_add(left_ms)
    });
    Ok(Message {
        topic: Text::try_from(outgoing.topic.as_ref())?,
        payload: outgoing.payload.clone(),
        qos: QoS::from_bits(outgoing.qos).unwrap_or(QoS::AtLeastOnce),
        retain: outgoing.retain,
        properties: properties.map(Box::new),
        publisher: Arc::new(Publisher {
            client: outgoing.client.unwrap_or_default().into(),
            principal: NOBODY.into(),
        }),
        at_ms: outgoing.at_ms,
        expires_at,
        stored,
        from_log: true,
    })
}

fn own_properties(all: &Properties<'_>) -> Result<PublishProperties, FieldError> {
    let text = |text: Option<&str>| text.map(Text::try_from).transpose();
    let pair = |(name, value): &(&str, &str)| Ok((Text::try_from(*name)?, Text::try_from(*value)?));
    let user: Vec<(Text, Text)> = all
        .user
        .iter()
        .map(pair)
        .collect::<Result<_, FieldError>>()?;
    Ok(PublishProperties {
        payload_format: all.utf8.map(|utf8| match utf8 {
            true => PayloadFormat::Utf8,
            false => PayloadFormat::Unspecified,
        }),
        message_expiry_interval: all.expiry_s,
        response_topic: text(all.response_topic)?,
        correlation_data: (all.correlation_data)
            .map(|data| Binary::try_from(Bytes::copy_from_slice(data)))
            .transpose()?,
        content_type: text(all.content_type)?,
        user_properties: user.into_iter().collect(),
    })
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::mqtt::clock::tests::Told;

    /// What is left of a message that was written at `at_ms` to live for a minute.
    fn left_ms(timeline: &Timeline, at_ms: i64) -> u64 {
        let outgoing = Outgoing {
            topic: Cow::Borrowed("a"),
            payload: Bytes::from_static(b"x"),
            qos: 1,
            retain: false,
            client: None,
            at_ms,
            properties: Properties {
                expiry_s: Some(60),
                ..Properties::default()
            },
            headers_left_out: 0,
        };
        let message = message(&outgoing, None, timeline).unwrap();
        message.expires_at.unwrap() - timeline.now().mono_ms
    }

    #[test]
    fn what_is_owed_lives_as_long_as_it_was_sent_for_although_the_clock_is_set() {
        let told = Told::default();
        told.jump(1_000_000_000);
        let timeline = told.timeline();
        told.pass(5_000);
        let at_ms = timeline.now().wall_ms;
        told.pass(10_000);
        assert_eq!(left_ms(&timeline, at_ms), 50_000);
        told.jump(3_600_000);
        assert_eq!(left_ms(&timeline, at_ms), 50_000, "an hour forward");
        told.jump(-7_200_000);
        assert_eq!(left_ms(&timeline, at_ms), 50_000, "and two back");
        told.pass(49_999);
        assert_eq!(left_ms(&timeline, at_ms), 1);
        told.pass(2);
        assert_eq!(left_ms(&timeline, at_ms), 0, "and no longer");
    }
}
