//! Where the broker's message and the log's record meet: the one adapter between the two.
//!
//! For: a message as `bridge` reads it, and a record as the broker's message.
//! Holds: what is read back from the log is what was published, but for the publisher's principal.

use std::sync::Arc;

use bytes::Bytes;
use headwater_bridge::{Incoming, Outgoing, Properties};
use headwater_mqtt_broker::{Message, Position, Publisher};
use headwater_mqtt_codec::{Binary, FieldError, PayloadFormat, PublishProperties, QoS, Text};

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
/// is just that record. Fails where a text is no MQTT text.
pub(crate) fn message(
    outgoing: &Outgoing<'_>,
    stored: Option<Position>,
) -> Result<Message, FieldError> {
    let all = &outgoing.properties;
    let properties = (*all != Properties::default())
        .then(|| own_properties(all))
        .transpose()?;
    let expires_ms = all
        .expiry_s
        .map(|s| outgoing.at_ms.saturating_add(i64::from(s) * 1_000));
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
        expires_ms,
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
