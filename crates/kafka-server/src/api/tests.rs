use proptest::prelude::*;

use super::*;

fn decode(bytes: Bytes) -> Result<Frame, DecodeError> {
    let allowance = crate::wire::allowance(bytes.len());
    Frame::decode(bytes, allowance).map(|(frame, _)| frame)
}

/// A request header of version 1: key, version, correlation id 7, client id "c".
fn header(key: i16, version: i16) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(key.to_be_bytes());
    bytes.extend(version.to_be_bytes());
    bytes.extend([0, 0, 0, 7, 0, 1, b'c']);
    bytes
}

#[test]
fn api_versions_3_is_read_with_its_flexible_header() {
    let mut frame = header(18, 3);
    // Header tags; software name "a" and version "b" compact; tags with one unknown: 9, "xy".
    frame.extend([0, 2, b'a', 2, b'b', 1, 9, 2, b'x', b'y']);
    let header = Header {
        key: ApiKey::ApiVersions,
        version: 3,
        correlation_id: 7,
        client_id: Some(Text::from("c")),
    };
    let request = Box::new(Request::ApiVersions(ApiVersionsRequest {
        client_software_name: Text::from("a"),
        client_software_version: Text::from("b"),
    }));
    assert_eq!(decode(frame.into()), Ok(Frame::Request(header, request)));
}

#[test]
fn an_api_versions_request_of_the_future_is_answered_and_not_refused() {
    let frame = [header(18, 99), vec![0xff; 3]].concat();
    assert_eq!(
        decode(frame.into()),
        Ok(Frame::ApiVersionsUnknown { correlation_id: 7 })
    );
}

#[test]
fn what_is_not_in_the_table_is_refused() {
    for (key, version, expected) in [
        (0, 2, DecodeError::UnknownVersion { key: 0, version: 2 }),
        (
            1,
            13,
            DecodeError::UnknownVersion {
                key: 1,
                version: 13,
            },
        ),
        (
            3,
            -1,
            DecodeError::UnknownVersion {
                key: 3,
                version: -1,
            },
        ),
        (24, 0, DecodeError::UnknownKey { key: 24 }),
    ] {
        assert_eq!(
            decode(header(key, version).into()),
            Err(expected),
            "{key} {version}"
        );
    }
}

#[test]
fn a_count_beyond_the_frame_is_refused_before_anything_is_made_for_it() {
    // The four bytes that abort kafka-protocol 0.18: Metadata 1 with 2,147,483,647 topics.
    let frame = [header(3, 1), vec![0x7f, 0xff, 0xff, 0xff]].concat();
    let expected = DecodeError::Count {
        count: 0x7fff_ffff,
        have: 0,
    };
    assert_eq!(decode(frame.into()), Err(expected));
}

#[test]
fn arrays_of_wide_structs_are_held_to_the_allowance() {
    // A compact empty string is one byte and a tag byte; the struct for it is many times as wide.
    let topics = 200_000_u32;
    let mut frame = header(3, 9);
    frame.push(0);
    let mut count = topics + 1;
    while count >= 0x80 {
        frame.push(count.to_le_bytes()[0] | 0x80);
        count >>= 7;
    }
    frame.push(count.to_le_bytes()[0]);
    frame.extend(std::iter::repeat_n([1, 0], topics as usize).flatten());
    frame.extend([0, 0, 0, 0]);
    let length = frame.len();
    assert_eq!(
        decode(frame.into()),
        Err(DecodeError::Allowance { frame: length })
    );
}

#[test]
fn bytes_left_over_are_passed_over_as_kafka_does() {
    // librdkafka 2.16 sends three bytes too many with Metadata 12.
    let frame = [header(16, 0), vec![0, 0, 0]].concat();
    assert!(matches!(
        decode(frame.into()),
        Ok(Frame::Request(_, request)) if matches!(*request, Request::ListGroups(_))
    ));
}

#[test]
fn a_response_has_its_length_and_the_header_of_its_version() {
    let header = |version| Header {
        key: ApiKey::Heartbeat,
        version,
        correlation_id: 7,
        client_id: None,
    };
    let body = HeartbeatResponse {
        throttle_time_ms: 0,
        error: crate::ErrorCode::IllegalGeneration,
    };
    assert_eq!(
        encode_response(&header(1), &body).concat(),
        [0, 0, 0, 10, 0, 0, 0, 7, 0, 0, 0, 0, 0, 22]
    );
    assert_eq!(
        encode_response(&header(4), &body).concat(),
        [0, 0, 0, 12, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 22, 0],
        "tags after the header and after the body"
    );
}

#[test]
fn an_api_versions_response_has_no_tags_in_its_header() {
    let header = Header {
        key: ApiKey::ApiVersions,
        version: 3,
        correlation_id: 7,
        client_id: None,
    };
    let frame = encode_response(&header, &ApiVersionsResponse::default()).concat();
    assert_eq!(frame, [0, 0, 0, 12, 0, 0, 0, 7, 0, 0, 1, 0, 0, 0, 0, 0]);
}

#[test]
fn versions_that_make_librdkafka_compress_are_announced() {
    assert_eq!(ApiKey::Produce.row().advertised_min, 0);
    assert_eq!(ApiKey::FindCoordinator.row().advertised_min, 0);
    assert_eq!(ApiKey::JoinGroup.row().advertised_min, 0);
    assert_eq!(ApiKey::Fetch.row().advertised_min, 4);
}

proptest! {
    #[test]
    fn decoding_is_total(
        key in 0_usize..API_KEYS.len(),
        version in 0_i16..14,
        body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let frame = [header(API_KEYS[key] as i16, version), body].concat();
        drop(decode(frame.into()));
    }
}
