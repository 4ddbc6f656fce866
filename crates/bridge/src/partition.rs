//! Which partition a key belongs to, as Java's DefaultPartitioner decides it.
//!
//! For: records with a key. Not for: records without one; `server` spreads those.
//! Holds: a device's messages by MQTT and a Java producer's records with the same key meet in one
//! partition.

/// The partition of `key` among `partitions`, of which there is at least one (zero counts as one).
pub fn partition_for_key(key: &[u8], partitions: u32) -> u32 {
    // Java's toPositive drops the sign bit; it is not the absolute value.
    (murmur2(key) & 0x7FFF_FFFF) % partitions.max(1)
}

/// MurmurHash2, 32 bits, with the seed that Kafka's clients use.
pub fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_B28C;
    const MULTIPLIER: u32 = 0x5BD1_E995;
    // Java counts with int; a key of 4 GiB does not exist.
    #[expect(clippy::cast_possible_truncation, reason = "wraps as Java's int does")]
    let mut hash = SEED ^ data.len() as u32;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(MULTIPLIER);
        k ^= k >> 24;
        hash = hash.wrapping_mul(MULTIPLIER) ^ k.wrapping_mul(MULTIPLIER);
    }
    if !tail.is_empty() {
        let rest = tail
            .iter()
            .rev()
            .fold(0, |rest, byte| rest << 8 | u32::from(*byte));
        hash = (hash ^ rest).wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn murmur2_is_kafkas() {
        for (key, expected) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), expected, "{key}");
        }
    }

    #[test]
    fn a_negative_hash_loses_its_sign_bit_not_its_sign() {
        // (-973932308 & 0x7fffffff) % 4 = 1173551340 % 4
        assert_eq!(partition_for_key(b"21", 4), 0);
        // (-790332482 & 0x7fffffff) % 10 = 1357151166 % 10
        assert_eq!(partition_for_key(b"foobar", 10), 6);
        assert_eq!(partition_for_key(b"foobar", 0), 0);
    }
}
