//! DISCONNECT: the last packet of a connection, with the reason (MQTT 5.0, 3.14).

use bytes::Bytes;

use crate::decoder::Side;
use crate::error::DecodeError;
use crate::packet::{PacketType, Version};
use crate::property::{
    Owner, Properties, PropertyId, PropertyReader, PropertyWriter, UserProperties, properties_len,
    put_properties,
};
use crate::reason::reason_codes;
use crate::text::Text;
use crate::wire::{self, Body, Writer};

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

impl Disconnect {
    pub(crate) fn decode(
        body: &mut Bytes,
        version: Version,
        from: Side,
    ) -> Result<Self, DecodeError> {
        let mut disconnect = Self::new(DisconnectReason::NormalDisconnection);
        // A Remaining Length of 0 means a normal one, of 1 no properties (3.14.2.1, 3.14.2.2.1).
        if version < Version::V5 || body.is_empty() {
            return Ok(disconnect);
        }
        disconnect.reason = DisconnectReason::try_from(wire::u8(body, "disconnect reason code")?)?;
        if body.is_empty() {
            return Ok(disconnect);
        }
        let mut reader = PropertyReader::open(body, Owner::Packet(PacketType::Disconnect))?;
        while let Some(id) = reader.next()? {
            match id {
                // [MQTT-3.14.2-2]
                PropertyId::SessionExpiryInterval if from == Side::Server => {
                    let packet = PacketType::Disconnect;
                    return Err(DecodeError::PropertyDirection {
                        packet,
                        property: id,
                    });
                }
                PropertyId::SessionExpiryInterval => {
                    disconnect.session_expiry_interval = Some(reader.u32(id)?);
                }
                PropertyId::ReasonString => disconnect.reason_string = Some(reader.text(id)?),
                PropertyId::ServerReference => disconnect.server_reference = Some(reader.text(id)?),
                other => return Err(reader.not_allowed(other)),
            }
        }
        disconnect.user_properties = reader.finish();
        Ok(disconnect)
    }
}

impl Body for Disconnect {
    fn first_byte(&self) -> u8 {
        0xe0
    }

    fn write<W: Writer>(&self, version: Version, out: &mut W) {
        let properties = properties_len(self) > 0;
        let normal = self.reason == DisconnectReason::NormalDisconnection;
        if version < Version::V5 || (normal && !properties) {
            return;
        }
        out.put_u8(self.reason.code());
        if properties {
            put_properties(self, out);
        }
    }
}

impl Properties for Disconnect {
    fn write<W: Writer>(&self, out: &mut PropertyWriter<'_, W>) {
        out.optional_u32(
            PropertyId::SessionExpiryInterval,
            self.session_expiry_interval,
        );
        out.text(PropertyId::ServerReference, self.server_reference.as_ref());
        out.text(PropertyId::ReasonString, self.reason_string.as_ref());
        out.user_properties(&self.user_properties);
    }
}
