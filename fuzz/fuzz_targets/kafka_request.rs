//! Any bytes as a Kafka request, for every (key, version) that is served.
//!
//! For: no panic, no count believed: what decoding allocates is bounded by the frame. libFuzzer's
//! own malloc limit stands guard; a frame here is 64 KiB at the most, so 8 MiB is far more than
//! the decoders' allowance and far less than any believed count.
//! The first byte chooses the API, the second its version; the rest is the body.

#![no_main]

use bytes::Bytes;
use headwater_kafka_server::check_frame;
use libfuzzer_sys::fuzz_target;

const KEYS: [i16; 28] = [
    0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 32, 35, 36, 37, 42, 44,
    47, 60,
];

fuzz_target!(|data: &[u8]| {
    // As it is: the header is the peer's too.
    drop(check_frame(Bytes::copy_from_slice(data)));
    let [key, version, body @ ..] = data else {
        return;
    };
    let key = KEYS[usize::from(*key) % KEYS.len()];
    let mut frame = Vec::with_capacity(data.len() + 10);
    frame.extend(key.to_be_bytes());
    frame.extend([0, version % 14]);
    frame.extend([0, 0, 0, 1, 0xff, 0xff]);
    frame.extend(body);
    drop(check_frame(Bytes::from(frame)));
});
