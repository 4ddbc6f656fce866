//! DISCONNECT: the last packet of a connection, with the reason (MQTT 5.0, 3.14).

use crate::property::UserProperties;
use crate::reason::reason_codes;
use crate::text::Text;

/// DISCONNECT (MQTT 5.0, 3.14). In 3.1 and 3.1.1 only a Client sends it, and it carries nothing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Disconnect {
    pub reason: DisconnectReason,
    /// In seconds; only from a Client [MQTT-3.14.2-2]. `None`: as it was in CONNECT.
    pub session_expiry_interval: Option<u32>,
    pub reason_string: Option<Text>,
    pub server_reference: Option<Text>,
    pub user_properties: UserProperties,
}

impl Disconnect {
    pub fn new(reason: DisconnectReason) -> Self {
        Self {
            reason,
            session_expiry_interval: None,
            reason_string: None,
            server_reference: None,
            user_properties: UserProperties::default(),
        }
    }
}

reason_codes! {
    /// DISCONNECT Reason Codes (MQTT 5.0, table 3-10).
    DisconnectReason of Disconnect {
        NormalDisconnection = 0x00,
        DisconnectWithWillMessage = 0x04,
        UnspecifiedError = 0x80,
        MalformedPacket = 0x81,
        ProtocolError = 0x82,
        ImplementationSpecificError = 0x83,
        NotAuthorized = 0x87,
        ServerBusy = 0x89,
        ServerShuttingDown = 0x8b,
        BadAuthenticationMethod = 0x8c,
        KeepAliveTimeout = 0x8d,
        SessionTakenOver = 0x8e,
        TopicFilterInvalid = 0x8f,
        TopicNameInvalid = 0x90,
        ReceiveMaximumExceeded = 0x93,
        TopicAliasInvalid = 0x94,
        PacketTooLarge = 0x95,
        MessageRateTooHigh = 0x96,
        QuotaExceeded = 0x97,
        AdministrativeAction = 0x98,
        PayloadFormatInvalid = 0x99,
        RetainNotSupported = 0x9a,
        QoSNotSupported = 0x9b,
        UseAnotherServer = 0x9c,
        ServerMoved = 0x9d,
        SharedSubscriptionsNotSupported = 0x9e,
        ConnectionRateExceeded = 0x9f,
        MaximumConnectTime = 0xa0,
        SubscriptionIdentifiersNotSupported = 0xa1,
        WildcardSubscriptionsNotSupported = 0xa2,
    }
}
