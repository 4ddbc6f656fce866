//! `kafka-protocol` judges our encoders and decoders: each message, each version we serve, both
//! ways, byte for byte.

use bytes::{Buf, Bytes};
use kafka_protocol::protocol::{Decodable, Encodable};
use proptest::prelude::*;

use super::sample::{Sample, Source};
use crate::api::{API_KEYS, ApiKey, for_each_api};
use crate::message::*;
use crate::wire::{Reader, Wire, Writer};

fn encoded(message: &impl Wire, key: ApiKey, version: i16) -> Bytes {
    let mut writer = Writer::new();
    writer.set_version(version, key.is_flexible(version));
    message.encode(&mut writer);
    writer.into_bytes()
}

/// Their decoder takes all of our bytes and their encoder gives the same back; so does our decoder.
fn judge<Ours, Theirs>(key: ApiKey, choices: &[u8])
where
    Ours: Wire + Sample + std::fmt::Debug,
    Theirs: Encodable + Decodable + std::fmt::Debug,
{
    let row = key.row();
    for version in row.min..=row.max {
        let ours = Ours::sample(&mut Source::new(choices.to_vec()));
        let wire = encoded(&ours, key, version);
        let mut left = wire.clone();
        let theirs = Theirs::decode(&mut left, version)
            .unwrap_or_else(|error| panic!("{key:?} {version}: {error}\n{ours:?}\n{wire:?}"));
        assert!(
            !left.has_remaining(),
            "{key:?} {version}: {left:?} left of {ours:?}"
        );
        let mut again = bytes::BytesMut::new();
        theirs.encode(&mut again, version).unwrap();
        assert_eq!(again, wire, "{key:?} {version}: {theirs:?}");
        let mut reader = Reader::new(wire.clone(), usize::MAX);
        reader.set_version(version, key.is_flexible(version));
        let back = Ours::decode(&mut reader)
            .unwrap_or_else(|error| panic!("{key:?} {version}: {error}\n{ours:?}"));
        assert_eq!(reader.left_over(), 0, "{key:?} {version}");
        assert_eq!(
            encoded(&back, key, version),
            wire,
            "{key:?} {version}: {back:?}"
        );
    }
}

macro_rules! judge_one {
    ($name:ident, $request:ident, $response:ident) => {
        #[expect(non_snake_case, reason = "named after the API")]
        #[test]
        fn $name() {
            proptest!(ProptestConfig::with_cases(48), |(choices: Vec<u8>)| {
                judge::<$request, kafka_protocol::messages::$request>(ApiKey::$name, &choices);
                judge::<$response, kafka_protocol::messages::$response>(ApiKey::$name, &choices);
            });
        }
    };
}

mod agrees_with_kafka_protocol_on {
    use super::*;
    for_each_api!(judge_one);
}

#[test]
fn headers_are_flexible_where_kafka_protocol_says_so() {
    for key in API_KEYS {
        let theirs = kafka_protocol::messages::ApiKey::try_from(*key as i16).unwrap();
        let row = key.row();
        for version in row.min..=row.max {
            let request = if key.is_flexible(version) { 2 } else { 1 };
            assert_eq!(
                request,
                theirs.request_header_version(version),
                "{key:?} {version}"
            );
            let response = i16::from(key.is_flexible(version) && *key != ApiKey::ApiVersions);
            assert_eq!(
                response,
                theirs.response_header_version(version),
                "{key:?} {version}"
            );
        }
    }
}
