//! AUTH: one step of an enhanced authentication (MQTT 5.0, 3.15).

use crate::property::{Authentication, UserProperties};
use crate::reason::reason_codes;
use crate::text::Text;

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
