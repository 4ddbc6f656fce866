//! Any bytes as a Kafka request, for every (key, version) that is served.
//!
//! For: no panic, no count believed: what decoding allocates is bounded by the frame. An allocator
//! that counts stands guard, because libFuzzer's own limit needs a sanitizer: a frame here has a few
//! KiB, so 1 MiB is far more than the decoders' allowance and far less than most believed counts.
//! The first byte chooses the API, the second its version; the rest is the body.

#![no_main]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use headwater_kafka_server::check_frame;
use libfuzzer_sys::fuzz_target;

const KEYS: [i16; 28] = [
    0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 32, 35, 36, 37, 42,
    44, 47, 60,
];

/// Bytes that one input may hold at a time; libFuzzer's own are not counted.
const LIVE_BYTES_MAX: usize = 1 << 20;

struct Guard;

static LIVE_BYTES: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static GUARD: Guard = Guard;

// SAFETY: all of it is the system's allocator; only sizes are counted.
unsafe impl GlobalAlloc for Guard {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE_BYTES.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        if live > LIVE_BYTES_MAX {
            // The input is reported as one that crashes. A panic here would allocate.
            std::process::abort();
        }
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

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
