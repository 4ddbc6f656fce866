//! AUTH: one step of an enhanced authentication (MQTT 5.0, 3.15).

use bytes::Bytes;

use crate::error::{DecodeError, EncodeError};
use crate::packet::{PacketType, Version};
use crate::property::{
    Authentication, Owner, Properties, PropertyId, PropertyReader, PropertyWriter, UserProperties,
    authentication, put_properties,
};
use crate::reason::reason_codes;
use crate::text::Text;
use crate::wire::{self, Body, Writer};

/// AUTH (MQTT 5.0, 3.15). Always with a method: to omit it is a Protocol Error (3.15.2.2.2), also in
/// the short form without properties that 3.15.2.1 otherwise allows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Auth {
    pub reason: AuthReason,
    pub authentication: Authentication,
    pub reason_string: Option<Text>,
    pub user_properties: UserProperties,
}

reason_codes! {
    /// Authenticate Reason Codes (MQTT 5.0, table 3-11).
    AuthReason of Auth {
        Success = 0x00,
        ContinueAuthentication = 0x18,
        ReAuthenticate = 0x19,
    }
}

impl Auth {
    pub(crate) fn decode(body: &mut Bytes) -> Result<Self, DecodeError> {
        if body.is_empty() {
            return Err(DecodeError::NoAuthenticationMethod);
        }
        let reason = AuthReason::try_from(wire::u8(body, "authenticate reason code")?)?;
        let mut reader = PropertyReader::open(body, Owner::Packet(PacketType::Auth))?;
        let (mut method, mut data, mut reason_string) = (None, None, None);
        while let Some(id) = reader.next()? {
            match id {
                PropertyId::AuthenticationMethod => method = Some(reader.text(id)?),
                PropertyId::AuthenticationData => data = Some(reader.binary(id)?),
                PropertyId::ReasonString => reason_string = Some(reader.text(id)?),
                other => return Err(reader.not_allowed(other)),
            }
        }
        let user_properties = reader.finish();
        let authentication = authentication(method, data)?;
        let authentication = authentication.ok_or(DecodeError::NoAuthenticationMethod)?;
        Ok(Self {
            reason,
            authentication,
            reason_string,
            user_properties,
        })
    }
}

impl Body for Auth {
    fn first_byte(&self) -> u8 {
        0xf0
    }

    fn check(&self, version: Version) -> Result<(), EncodeError> {
        match version {
            Version::V5 => Ok(()),
            Version::V31 | Version::V311 => Err(EncodeError::NotInVersion {
                packet: PacketType::Auth,
                version,
            }),
        }
    }

    fn write<W: Writer>(&self, _: Version, out: &mut W) {
        out.put_u8(self.reason.code());
        put_properties(self, out);
    }
}

impl Properties for Auth {
    fn write<W: Writer>(&self, out: &mut PropertyWriter<'_, W>) {
        out.authentication(Some(&self.authentication));
        out.text(PropertyId::ReasonString, self.reason_string.as_ref());
        out.user_properties(&self.user_properties);
    }
}
