//! Kafka's requests and responses, each declared once with the versions its fields stand in.
//!
//! For: the shape of every message we serve; `judge` in the tests holds each against
//! `kafka-protocol` in both directions, byte for byte.
//! Not for: what a field means to us (`handler`).
//! A field reads `name: Type [versions] = default; null versions`: outside its versions it is not
//! on the wire and has its default; `null` names the versions that may say null. Tagged fields
//! (KIP-482) are skipped and never sent: none of the served versions needs one.

mod admin;
mod cluster;
mod configs;
mod fetch;
mod groups;
mod offsets;
mod produce;

pub(crate) use admin::*;
pub(crate) use cluster::*;
pub(crate) use configs::*;
pub(crate) use fetch::*;
pub(crate) use groups::*;
pub(crate) use offsets::*;
pub(crate) use produce::*;

macro_rules! message {
    ($(
        $(#[$attribute:meta])*
        struct $name:ident {
            $($(#[$note:meta])* $field:ident: $kind:ty [$versions:expr] $(= $default:expr)? $(; null $null:expr)?),* $(,)?
        }
    )*) => {$(
        $(#[$attribute])*
        #[derive(Clone, Debug, PartialEq)]
        pub(crate) struct $name {
            $($(#[$note])* pub(crate) $field: $kind),*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $crate::message::message!(@default $($default)?)),* }
            }
        }

        impl $crate::wire::Wire for $name {
            fn decode(reader: &mut $crate::wire::Reader) -> Result<Self, $crate::wire::DecodeError> {
                let version = reader.version();
                let message = Self {
                    $($field: if ($versions).contains(&version) {
                        $crate::wire::Wire::decode(reader)?
                    } else {
                        $crate::message::message!(@default $($default)?)
                    }),*
                };
                reader.end_of_struct()?;
                Ok(message)
            }

            fn encode(&self, writer: &mut $crate::wire::Writer) {
                let version = writer.version();
                $(if ($versions).contains(&version) {
                    $crate::message::message!(@encode writer, version, &self.$field $(, $null)?);
                })*
                writer.end_of_struct();
            }
        }

        #[cfg(test)]
        impl $crate::message::sample::Sample for $name {
            fn sample(source: &mut $crate::message::sample::Source) -> Self {
                Self { $($field: $crate::message::sample::Sample::sample(source)),* }
            }
        }
    )*};
    (@default) => { Default::default() };
    (@default $default:expr) => { $default };
    (@encode $writer:ident, $version:ident, $field:expr) => {
        $crate::wire::Wire::encode($field, $writer);
    };
    (@encode $writer:ident, $version:ident, $field:expr, $null:expr) => {
        if $field.is_none() && !($null).contains(&$version) {
            let mut filled = $field.clone();
            filled.get_or_insert_default();
            $crate::wire::Wire::encode(&filled, $writer);
        } else {
            $crate::wire::Wire::encode($field, $writer);
        }
    };
}
use message;

#[cfg(test)]
mod judge;
#[cfg(test)]
pub(crate) mod sample;
