//! Kafka's primitive types, read within bounds and written.
//!
//! For: every field of every message; the field's form (compact or not) follows from whether the
//! message's version is flexible, so that a message is declared once for all its versions.
//! Not for: which fields a message has (`message`), nor frames and sockets (`connection`).
//! Holds: decoding a frame never costs more memory than its [`allowance`], whatever counts it
//! announces.

mod reader;
mod text;
mod writer;

pub use reader::DecodeError;
pub(crate) use reader::{Reader, allowance};
pub(crate) use text::Text;
pub(crate) use writer::Writer;

use bytes::Bytes;
use uuid::Uuid;

/// A value that stands in messages.
pub(crate) trait Wire: Sized {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError>;
    fn encode(&self, writer: &mut Writer);
}

macro_rules! fixed {
    ($($kind:ty, $read:ident, $write:ident;)*) => {$(
        impl Wire for $kind {
            fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
                reader.$read()
            }
            fn encode(&self, writer: &mut Writer) {
                writer.$write(*self);
            }
        }
    )*};
}

fixed! {
    bool, bool, put_bool;
    i8, i8, put_i8;
    i16, i16, put_i16;
    i32, i32, put_i32;
    i64, i64, put_i64;
    Uuid, uuid, put_uuid;
}

impl Wire for Text {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        reader.text()?.ok_or(DecodeError::UnexpectedNull)
    }
    fn encode(&self, writer: &mut Writer) {
        writer.put_text(Some(self));
    }
}

impl Wire for Option<Text> {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        reader.text()
    }
    fn encode(&self, writer: &mut Writer) {
        writer.put_text(self.as_ref());
    }
}

impl Wire for Bytes {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        reader.bytes()?.ok_or(DecodeError::UnexpectedNull)
    }
    fn encode(&self, writer: &mut Writer) {
        writer.put_bytes(Some(self));
    }
}

impl Wire for Option<Bytes> {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        reader.bytes()
    }
    fn encode(&self, writer: &mut Writer) {
        writer.put_bytes(self.as_ref());
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        reader.array()?.ok_or(DecodeError::UnexpectedNull)
    }
    fn encode(&self, writer: &mut Writer) {
        writer.put_array(Some(self));
    }
}

impl<T: Wire> Wire for Option<Vec<T>> {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        reader.array()
    }
    fn encode(&self, writer: &mut Writer) {
        writer.put_array(self.as_deref());
    }
}

#[cfg(test)]
mod tests;
