use bytes::Bytes;

use super::*;

fn reader(bytes: &'static [u8], flexible: bool) -> Reader {
    let mut reader = Reader::new(Bytes::from_static(bytes), 0);
    reader.set_version(0, flexible);
    reader
}

#[test]
fn lengths_have_two_forms_and_null_in_both() {
    for (bytes, flexible, expected) in [
        (&b"\x00\x02hi"[..], false, Ok(Some("hi"))),
        (b"\xff\xff", false, Ok(None)),
        (b"\x03hi", true, Ok(Some("hi"))),
        (b"\x01", true, Ok(Some(""))),
        (b"\x00", true, Ok(None)),
        (b"\xff\xfe", false, Err(DecodeError::Length { length: -2 })),
        (
            b"\x00\x03hi",
            false,
            Err(DecodeError::Truncated { need: 3, have: 2 }),
        ),
        (b"\x03\xc3\x28", true, Err(DecodeError::Text)),
        (b"\xff\xff\xff\xff\x1f", true, Err(DecodeError::Varint)),
        (b"\xff\xff\xff\xff\xff\x01", true, Err(DecodeError::Varint)),
    ] {
        let text = reader(bytes, flexible).text();
        assert_eq!(
            text,
            expected.map(|text| text.map(Text::from)),
            "{bytes:?} {flexible}"
        );
    }
}

#[test]
fn null_is_refused_where_a_value_is_needed() {
    assert_eq!(
        Text::decode(&mut reader(b"\x00", true)),
        Err(DecodeError::UnexpectedNull)
    );
    assert_eq!(
        Bytes::decode(&mut reader(b"\xff\xff\xff\xff", false)),
        Err(DecodeError::UnexpectedNull)
    );
    assert_eq!(
        Vec::<i32>::decode(&mut reader(b"\x00", true)),
        Err(DecodeError::UnexpectedNull)
    );
}

#[test]
fn long_byte_strings_are_passed_on_without_a_copy() {
    let records = Bytes::from(vec![7; 100_000]);
    let mut writer = Writer::new();
    writer.put_i32(1);
    writer.put_bytes(Some(&records));
    writer.put_i32(2);
    let frame = writer.into_frame();
    assert!(frame.iter().any(|chunk| chunk.as_ptr() == records.as_ptr()));
    assert_eq!(frame.concat()[..4], 100_012_u32.to_be_bytes());
}
