//! Any bytes where a PROXY protocol header is due.
//!
//! For: no panic; no byte asked for beyond a header's longest; the same answer however reads cut the
//! bytes, and never one that takes more than the header.

#![no_main]

use libfuzzer_sys::fuzz_target;

// The server's own module: its crate would bring the whole program along.
#[allow(dead_code, unreachable_pub)]
#[path = "../../crates/server/src/mqtt/proxy.rs"]
mod proxy;

use proxy::{Header, HeaderError, V1_BYTES_MAX, V2_BYTES_MAX, parse};

fuzz_target!(|data: &[u8]| {
    // The first byte: how many bytes a read has.
    let Some((read_bytes, stream)) = data.split_first() else {
        return;
    };
    let (at_once, took) = read(stream, usize::MAX);
    let (in_pieces, took_in_pieces) = read(stream, usize::from(*read_bytes).max(1));
    match (at_once, in_pieces) {
        // What is refused may be refused sooner.
        (Some(Err(_)), Some(Err(_)) | None) => {}
        (at_once, in_pieces) => assert_eq!((at_once, took), (in_pieces, took_in_pieces)),
    }
});

/// As the door reads: only what is needed, in reads of so many bytes at most. `None`: the bytes end
/// before it is decided. And how many were taken.
fn read(stream: &[u8], read_bytes: usize) -> (Option<Result<Header, HeaderError>>, usize) {
    let mut filled = 0;
    loop {
        match parse(&stream[..filled]) {
            Ok(Header::Needs(needs)) => {
                assert!(filled < needs && needs <= V1_BYTES_MAX.max(V2_BYTES_MAX));
                if filled == stream.len() {
                    return (None, filled);
                }
                let more = (needs - filled).min(read_bytes).min(stream.len() - filled);
                filled += more;
            }
            decided => return (Some(decided), filled),
        }
    }
}
