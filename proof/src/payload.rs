//! What a message of the harness carries: who made it, its number and a checksum, as a JSON object.
//!
//! JSON because a sink then stores it as a document whose fields can be compared, and a person can read it in kcat.

use serde::{Deserialize, Serialize};

/// The payload, in the order it stands on the wire.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payload {
    pub run: String,
    pub producer: String,
    pub seq: u64,
    pub pad: String,
    /// CRC-32C over the fields above.
    pub crc: u32,
}

impl Payload {
    pub fn new(run: &str, producer: &str, seq: u64, pad_bytes: usize) -> Self {
        let pad = "x".repeat(pad_bytes);
        let crc = checksum(run, producer, seq, &pad);
        Self {
            run: run.to_owned(),
            producer: producer.to_owned(),
            seq,
            pad,
            crc,
        }
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a payload back. The text says why it is not one of this run.
    pub fn from_bytes(bytes: &[u8], run: &str) -> Result<Self, String> {
        let payload: Self =
            serde_json::from_slice(bytes).map_err(|error| format!("not a payload: {error}"))?;
        payload.checked(run)
    }

    /// The same for a payload that arrived as a JSON value, out of a document.
    pub fn from_value(value: serde_json::Value, run: &str) -> Result<Self, String> {
        let payload: Self =
            serde_json::from_value(value).map_err(|error| format!("not a payload: {error}"))?;
        payload.checked(run)
    }

    fn checked(self, run: &str) -> Result<Self, String> {
        if self.run != run {
            return Err(format!("of another run, {}", self.run));
        }
        if self.crc != checksum(&self.run, &self.producer, self.seq, &self.pad) {
            return Err("checksum wrong".to_owned());
        }
        Ok(self)
    }
}

fn checksum(run: &str, producer: &str, seq: u64, pad: &str) -> u32 {
    crc32c::crc32c(format!("{run}/{producer}/{seq}/{pad}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_is_read_back_and_a_changed_one_is_not() {
        let bytes = Payload::new("r", "p", 3, 8).to_bytes();
        assert_eq!(Payload::from_bytes(&bytes, "r").unwrap().seq, 3);
        assert_eq!(
            Payload::from_bytes(&bytes, "q").unwrap_err(),
            "of another run, r"
        );
        let changed = String::from_utf8(bytes)
            .unwrap()
            .replace("\"seq\":3", "\"seq\":4");
        assert_eq!(
            Payload::from_bytes(changed.as_bytes(), "r").unwrap_err(),
            "checksum wrong"
        );
        assert!(
            Payload::from_bytes(b"\x00", "r")
                .unwrap_err()
                .starts_with("not a payload")
        );
    }
}
