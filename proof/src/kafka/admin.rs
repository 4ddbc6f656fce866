//! What a Kafka administrator does to topics: create, delete, let records go.
//!
//! For: CreateTopics 2, DeleteRecords 0, DeleteTopics 1; one topic of one partition at a time.

use anyhow::ensure;

use super::Connection;
use super::wire::{Reader, Writer};

/// How long the server may take over it, in milliseconds.
const TIMEOUT_MS: i32 = 10_000;
pub const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;

impl Connection {
    /// Creates a topic of one partition with these settings.
    pub fn create_topic(&mut self, topic: &str, settings: &[(&str, &str)]) -> anyhow::Result<()> {
        let mut body = Writer::default();
        body.i32(1).string(topic).i32(1).i16(1).i32(0);
        body.i32(i32::try_from(settings.len())?);
        for (key, value) in settings {
            body.string(key).string(value);
        }
        body.i32(TIMEOUT_MS).i8(0);
        let answer = self.call(19, 2, &body.bytes)?;
        let error = one_topic(&answer)?.i16()?;
        ensure!(error == 0, "CreateTopics of {topic}: error {error}");
        Ok(())
    }

    /// Lets the records of partition 0 below `before` go; the low watermark afterwards.
    pub fn delete_records(&mut self, topic: &str, before: u64) -> anyhow::Result<u64> {
        let mut body = Writer::default();
        body.i32(1).string(topic).i32(1).i32(0);
        body.i64(i64::try_from(before)?).i32(TIMEOUT_MS);
        let answer = self.call(21, 0, &body.bytes)?;
        let mut reader = one_topic(&answer)?;
        ensure!(reader.i32()? == 1, "DeleteRecords answered no partition");
        reader.i32()?;
        let low_watermark = reader.i64()?;
        let error = reader.i16()?;
        ensure!(error == 0, "DeleteRecords of {topic}: error {error}");
        Ok(u64::try_from(low_watermark)?)
    }

    /// Deletes a topic; Kafka's error code, 0 when it is gone now.
    pub fn delete_topic(&mut self, topic: &str) -> anyhow::Result<i16> {
        let mut body = Writer::default();
        body.i32(1).string(topic).i32(TIMEOUT_MS);
        let answer = self.call(20, 1, &body.bytes)?;
        one_topic(&answer)?.i16()
    }
}

/// What follows the name of the only topic in an answer that begins with a throttle time.
fn one_topic(answer: &[u8]) -> anyhow::Result<Reader<'_>> {
    let mut reader = Reader::new(answer);
    reader.i32()?;
    ensure!(
        reader.i32()? == 1,
        "an answer about another number of topics"
    );
    reader.string()?;
    Ok(reader)
}
