//! The Will: published when the connection ends without a normal DISCONNECT.
//!
//! Holds: logged with its Session; published once, in the commit that takes it out of the row;
//!   not before its delay, and not if the Session is taken up again by then [MQTT-3.1.3-9].

use std::sync::Arc;

use headwater_mqtt_codec::{PublishProperties, Will};

use crate::pending::Then;
use crate::rows::{self, WillRow};
use crate::{Change, Message, Now, Publisher, Shard};

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
            user_properties: all.user_properties,
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

impl Shard {
    /// Publishes the Will of a Session and changes its rows, in one commit if there is one.
    /// Returns whether there was.
    pub(crate) fn publish_will(
        &mut self,
        now: Now,
        slot: usize,
        changes: Vec<Change>,
        then: Then,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(slot) else {
            return false;
        };
        let Some(will) = session.will.take() else {
            return false;
        };
        session.will_at = None;
        let mut message = (*will.message).clone();
        message.arrive(now);
        if self.may_publish(slot, &message.topic).is_err() {
            self.counts.refused += 1;
            return self.change_rows(changes, Some(slot), then);
        }
        self.publish_other(now, message, changes, None, Some(slot), then)
    }

    /// A Session's timer: its Will Delay Interval, its expiry or a pause in reading has passed.
    pub(crate) fn session_due(&mut self, now: Now, slot: usize) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        if session.ends_at.is_some_and(|at| at <= now.mono_ms) {
            self.end_session(now, slot, Then::Nothing);
            return;
        }
        if session.will_at.is_some_and(|at| at <= now.mono_ms) {
            let mut changes = Vec::new();
            if session.has_rows {
                let mut row = session.row();
                row.will = None;
                changes.push(rows::session(session.number(), &row));
            }
            self.publish_will(now, slot, changes, Then::Nothing);
        }
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        if let Some(load) = &mut session.load
            && load.at.is_some_and(|at| at <= now.mono_ms)
        {
            load.at = None;
            self.feed(now, slot);
        }
        self.rearm_session(slot);
    }
}
