//! Any bytes, as record batches of a producer or of a damaged segment.
//!
//! For: no panic, bounded memory; what `validate` takes reads to the end, in as many records as
//! its header counts. The checksum is made right, so that the inside is reached.

#![no_main]

use bytes::Bytes;
use headwater_commitlog::record::{BatchHeader, Limits, records, validate, validate_all};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { batch_bytes_max: 1 << 20, decompressed_bytes_max: 1 << 18 };

fuzz_target!(|data: &[u8]| {
    let raw = Bytes::copy_from_slice(data);
    let _ = validate_all(raw.clone(), &LIMITS);
    let _ = records(raw, &LIMITS).count();

    let mut whole = data.to_vec();
    if whole.len() > 21 {
        let length = (whole.len() as u32 - 12).to_be_bytes();
        whole[8..12].copy_from_slice(&length);
        whole[16] = 2;
        let crc = crc32c::crc32c(&whole[21..]).to_be_bytes();
        whole[17..21].copy_from_slice(&crc);
    }
    let whole = Bytes::from(whole);
    let read: Result<Vec<_>, _> = records(whole.clone(), &LIMITS).collect();
    if let Ok(valid) = validate(whole.clone(), &LIMITS) {
        let read = read.expect("what is valid reads");
        let header = BatchHeader::parse(&whole).expect("what is valid has a header");
        assert_eq!(read.len(), header.record_count as usize);
        assert_eq!(valid.header(), header);
    }
});
