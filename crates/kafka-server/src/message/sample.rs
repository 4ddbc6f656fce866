//! Values for the tests: any message, made from bytes that proptest chooses and shrinks.

use bytes::Bytes;
use uuid::Uuid;

use crate::error_code::ErrorCode;
use crate::wire::Text;

/// Bytes that stand for choices; zeros once they are used up, so that everything ends.
pub(crate) struct Source {
    bytes: std::vec::IntoIter<u8>,
}

impl Source {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self {
            bytes: bytes.into_iter(),
        }
    }

    fn byte(&mut self) -> u8 {
        self.bytes.next().unwrap_or(0)
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }
}

/// A type that can be made from choices.
pub(crate) trait Sample {
    fn sample(source: &mut Source) -> Self;
}

macro_rules! numbers {
    ($($kind:ty),*) => {$(
        impl Sample for $kind {
            fn sample(source: &mut Source) -> Self {
                Self::from_be_bytes(source.array())
            }
        }
    )*};
}
numbers!(i8, i16, i32, i64);

impl Sample for bool {
    fn sample(source: &mut Source) -> Self {
        source.byte() % 2 == 1
    }
}

impl Sample for Uuid {
    fn sample(source: &mut Source) -> Self {
        Self::from_bytes(source.array())
    }
}

impl Sample for ErrorCode {
    fn sample(source: &mut Source) -> Self {
        Self::ALL[usize::from(source.byte()) % Self::ALL.len()]
    }
}

impl Sample for Text {
    fn sample(source: &mut Source) -> Self {
        let length = source.byte() % 8;
        let text: String = (0..length)
            .map(|_| char::from(source.byte() % 128))
            .collect();
        Self::from(text)
    }
}

impl Sample for Bytes {
    fn sample(source: &mut Source) -> Self {
        // Now and then long enough to become a chunk of its own.
        let length = match source.byte() {
            255 => 5_000,
            length => usize::from(length % 16),
        };
        (0..length).map(|_| source.byte()).collect()
    }
}

impl<T: Sample> Sample for Option<T> {
    fn sample(source: &mut Source) -> Self {
        bool::sample(source).then(|| T::sample(source))
    }
}

impl<T: Sample> Sample for Vec<T> {
    fn sample(source: &mut Source) -> Self {
        (0..source.byte() % 4).map(|_| T::sample(source)).collect()
    }
}
