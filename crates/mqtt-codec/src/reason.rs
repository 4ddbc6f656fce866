//! The macro behind each packet's Reason Code enum (MQTT 5.0, 2.4). The enums stand with their packets.

/// Defines an enum of Reason Codes with its `TryFrom<u8>`; a code the packet does not know is refused.
macro_rules! reason_codes {
    ($(#[$doc:meta])* $name:ident of $packet:ident { $($variant:ident = $code:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        #[repr(u8)]
        pub enum $name { $($variant = $code,)+ }

        impl $name {
            /// Every code, in ascending order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The byte on the wire.
            pub const fn code(self) -> u8 {
                self as u8
            }

            /// 0x80 and above: what was asked did not happen.
            pub const fn is_error(self) -> bool {
                self as u8 >= 0x80
            }
        }

        impl TryFrom<u8> for $name {
            type Error = $crate::DecodeError;

            fn try_from(code: u8) -> Result<Self, $crate::DecodeError> {
                match code {
                    $($code => Ok(Self::$variant),)+
                    _ => Err($crate::DecodeError::ReasonCode {
                        packet: $crate::PacketType::$packet,
                        code,
                    }),
                }
            }
        }
    };
}

pub(crate) use reason_codes;
