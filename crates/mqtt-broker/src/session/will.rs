//! The Will: published when the connection ends without a normal DISCONNECT.
//!
//! Not for: one that the log refused and whose Client is back, see `late`.
//! Holds: logged with its Session; published once, in the commit that takes it out of the row;
//!   not before its delay, and not if the Session is taken up again by then [MQTT-3.1.3-9].

use std::sync::Arc;

use headwater_mqtt_codec::{PublishProperties, Will};

use crate::pending::{Draft, Then};
use crate::rows::{self, WillRow};
use crate::{ConnectionId, Message, Now, Publisher, Refusal, Shard};

/// The Will of a CONNECT, in memory of its own.
pub(crate) fn will_row(will: Will, publisher: &Arc<Publisher>) -> WillRow {
    let mut properties = None;
    let mut delay_seconds = 0;
    if let Some(all) = will.properties {
        delay_seconds = all.delay_interval;
        properties = Some(Box::new(PublishProperties {
            payload_format: all.payload_format,
            message_expiry_interval: all.message_expiry_interval,
            response_topic: all.response_topic.map(|text| text.detached()),
            correlation_data: all.correlation_data.map(|data| data.detached()),
            content_type: all.content_type.map(|text| text.detached()),
            user_properties: all.user_properties.detached(),
        }));
    }
    let message = Message {
        topic: will.topic.detached(),
        payload: will.payload.detached().into_bytes(),
        qos: will.qos,
        retain: will.retain,
        properties,
        publisher: publisher.clone(),
        at_ms: 0,
        expires_at: None,
        stored: None,
        from_log: false,
    };
    WillRow {
        delay_seconds,
        message: Arc::new(message),
    }
}

/// The pause before the log is asked again for what it refused.
pub(crate) const RETRY_MS: u64 = 1_000;

impl Shard {
    /// Publishes the Will of a Session, if it has one, in one commit with `draft`, behind those that
    /// wait. It stays with the Session until that is answered.
    pub(crate) fn publish_will(&mut self, now: Now, slot: usize, mut draft: Draft, then: Then) {
        draft.lane = self.publish_late(now, slot);
        let will = self.sessions.get(slot).and_then(|one| one.will.as_ref());
        let Some(will) = will else {
            self.submit(draft, None, Some(slot), then);
            return;
        };
        let mut message = (*will.message).clone();
        message.arrive(now);
        if self.may_publish(slot, &message.topic).is_err() {
            self.counts.refused += 1;
            self.submit(draft, None, Some(slot), then);
            return;
        }
        self.publish_other(message, draft, None, Some(slot), then);
    }

    /// A Will whose time has come goes out in the commit that takes it out of the row.
    pub(crate) fn will_due(&mut self, now: Now, slot: usize, said: Option<ConnectionId>) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let mut row = session.row();
        row.will = None;
        let mut draft = Draft::rows(vec![rows::session(session.number(), &row)]);
        session.row_dirty = false;
        session.take_floor(&mut draft);
        session.unsettled = true;
        self.publish_will(now, slot, draft, Then::Willed(said));
    }

    pub(crate) fn willed(&mut self, now: Now, slot: usize, outcome: Result<(), Refusal>) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        session.unsettled = false;
        if outcome == Err(Refusal::TooLarge) && session.will.take().is_some() {
            self.counts.refused += 1; // For ever.
            session.will_at = None;
            self.mark_row_dirty(slot);
        } else if outcome.is_ok() {
            (session.will, session.will_at) = (None, None);
        } else {
            session.will_at = Some(now.mono_ms + RETRY_MS);
            if let Some(will) = &mut session.will {
                will.delay_seconds = 0; // It has passed.
            }
            self.mark_row_dirty(slot);
        }
        self.rearm_session(slot);
    }

    /// A Session's timer: its Will Delay Interval, its expiry or a pause in reading has passed.
    pub(crate) fn session_due(&mut self, now: Now, slot: usize) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let is_due = |at: Option<u64>| at.is_some_and(|at| at <= now.mono_ms);
        if !session.unsettled && session.connection.is_none() {
            if is_due(session.ends_at) {
                self.counts.sessions_expired += u64::from(!session.over);
                return self.end_session(now, slot, None);
            }
            if is_due(session.will_at) {
                return self.will_due(now, slot, None);
            }
        }
        let late_at = session.late.as_ref().and_then(|late| late.at);
        if !session.unsettled && is_due(late_at) {
            self.publish_late(now, slot);
        }
        if let Some(session) = self.sessions.get_mut(slot)
            && let Some(load) = &mut session.load
            && is_due(load.at)
        {
            load.at = None;
            self.feed(now, slot);
        }
        self.rearm_session(slot);
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use headwater_mqtt_codec::{
        Binary, Connect, ConnectProperties, Decoder, Packet, Version, WillProperties,
    };

    use super::*;

    fn binary(bytes: &'static [u8]) -> Binary {
        Bytes::from_static(bytes).try_into().unwrap()
    }

    #[test]
    fn a_will_holds_no_read_buffer() {
        let properties = WillProperties {
            response_topic: Some("r".parse().unwrap()),
            correlation_data: Some(binary(b"c")),
            content_type: Some("t".parse().unwrap()),
            user_properties: [("name".parse().unwrap(), "value".parse().unwrap())]
                .into_iter()
                .collect(),
            ..WillProperties::default()
        };
        let will = Will {
            topic: "w".parse().unwrap(),
            payload: binary(b"gone"),
            qos: headwater_mqtt_codec::QoS::AtLeastOnce,
            retain: true,
            properties: Some(Box::new(properties)),
        };
        let connect = Connect {
            version: Version::V5,
            bridge: false,
            clean_start: true,
            keep_alive: 0,
            client_id: "c".parse().unwrap(),
            will: Some(will),
            user_name: None,
            password: None,
            properties: ConnectProperties::default(),
        };
        let mut read = BytesMut::new();
        Packet::Connect(Box::new(connect))
            .encode(Version::V5, &mut read)
            .unwrap();
        let read = read.freeze();
        let packet = Decoder::new(u32::MAX).decode_read(&mut read.clone());
        let Ok(Some(Packet::Connect(connect))) = packet else {
            panic!("{packet:?}");
        };
        let publisher = Arc::new(Publisher {
            client: "c".into(),
            principal: "p".into(),
        });
        let will = connect.will.clone().unwrap();
        drop(connect);
        let row = will_row(will, &publisher);
        assert!(read.is_unique(), "nothing of {row:?} is a slice of it");
    }
}
