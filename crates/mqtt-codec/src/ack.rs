//! What the packets that answer others share: a Reason String and User Properties.

use crate::property::UserProperties;
use crate::text::Text;

/// The properties of PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK (MQTT 5.0, 3.4.2.2).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AckProperties {
    /// For people, not for programs.
    pub reason_string: Option<Text>,
    pub user_properties: UserProperties,
}
