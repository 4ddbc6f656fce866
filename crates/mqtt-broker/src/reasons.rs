//! What refusals say to people: one sentence beside each Reason Code (MQTT 5.0, 2.4).
//!
//! For: Reason Strings of CONNACK, DISCONNECT and the acknowledgements; never for a success.
//! Not for: whether one may be sent, see `Connection::send_explained`.
//! Holds: constant text; nothing a Client sent, and nothing of another Client, stands in it.

use headwater_mqtt_codec::{ConnAckReason, DisconnectReason, PubAckReason, SubAckReason};

/// Why a CONNECT is refused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rejection {
    pub(crate) reason: ConnAckReason,
    pub(crate) why: &'static str,
}

impl Rejection {
    pub(crate) const fn new(reason: ConnAckReason, why: &'static str) -> Self {
        Self { reason, why }
    }
}

/// Why a connection is closed from here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Violation {
    pub(crate) reason: DisconnectReason,
    pub(crate) why: &'static str,
}

impl Violation {
    pub(crate) const fn new(reason: DisconnectReason, why: &'static str) -> Self {
        Self { reason, why }
    }

    pub(crate) const fn protocol(why: &'static str) -> Self {
        Self::new(DisconnectReason::ProtocolError, why)
    }
}

/// With what can be said where only the code is known; nothing where that says it all.
impl From<DisconnectReason> for Violation {
    fn from(reason: DisconnectReason) -> Self {
        let why = match reason {
            DisconnectReason::UnspecifiedError => "a fault in the server ended this connection",
            DisconnectReason::ServerShuttingDown => {
                "the server is shutting down; connect again later"
            }
            DisconnectReason::KeepAliveTimeout => {
                "nothing was heard for one and a half times the keep alive"
            }
            DisconnectReason::SessionTakenOver => {
                "another connection uses this client identifier; each client needs its own"
            }
            DisconnectReason::QuotaExceeded => {
                "the server has no room for this now; connect again later"
            }
            DisconnectReason::AdministrativeAction => "an administrator ended this connection",
            _ => "",
        };
        Self::new(reason, why)
    }
}

/// Of a refused PUBLISH.
pub(crate) const fn publish(reason: PubAckReason) -> &'static str {
    match reason {
        PubAckReason::NotAuthorized => "this client may not publish to this topic",
        PubAckReason::TopicNameInvalid => {
            "the topic has more levels or bytes than this server takes"
        }
        PubAckReason::QuotaExceeded => "there is no room for this message now; try again later",
        PubAckReason::ImplementationSpecificError => "the log did not take this message",
        PubAckReason::Success
        | PubAckReason::NoMatchingSubscribers
        | PubAckReason::UnspecifiedError
        | PubAckReason::PacketIdentifierInUse
        | PubAckReason::PayloadFormatInvalid => "",
    }
}

/// Of a refused Topic Filter.
pub(crate) const fn subscribe(reason: SubAckReason) -> &'static str {
    match reason {
        SubAckReason::NotAuthorized => "this client may not subscribe to one of these filters",
        SubAckReason::TopicFilterInvalid => {
            "a filter has more levels or bytes than this server takes"
        }
        SubAckReason::QuotaExceeded => {
            "too many subscriptions or filters, or no room on the disk: fewer, or later"
        }
        SubAckReason::SharedSubscriptionsNotSupported => "shared subscriptions are not available",
        SubAckReason::WildcardSubscriptionsNotSupported => {
            "filters with wildcards are not available"
        }
        SubAckReason::GrantedAtMostOnce
        | SubAckReason::GrantedAtLeastOnce
        | SubAckReason::GrantedExactlyOnce
        | SubAckReason::UnspecifiedError
        | SubAckReason::ImplementationSpecificError
        | SubAckReason::PacketIdentifierInUse
        | SubAckReason::SubscriptionIdentifiersNotSupported => "",
    }
}

/// Of an UNSUBSCRIBE that the log refused.
pub(crate) const UNSUBSCRIBE: &str = "the log did not take this; the subscriptions stay";
