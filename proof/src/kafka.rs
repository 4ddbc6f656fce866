//! As much of a Kafka client as reading a log back and committing an offset needs.
//!
//! For: Metadata 1, ListOffsets 1, Fetch 4, Produce 3, OffsetCommit 2, OffsetFetch 1; uncompressed batches. `admin` has
//! what changes topics.
//! Not for: throughput, groups, retries. Written apart from the server, so that the judge does not read with its eyes.
//! Calls: `wire`. Called by: `fault`.

mod admin;
mod wire;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::evidence::{Identity, LogReading, LogRecord};
use crate::history::Recorder;
use crate::payload::Payload;
pub use admin::UNKNOWN_TOPIC_OR_PARTITION;
use wire::{Reader, Writer, batch, records};

const FRAME_BYTES_MAX: i32 = 64 << 20;
const FETCH_BYTES: i32 = 4 << 20;

#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    correlation: i32,
}

impl Connection {
    pub fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(15)))?;
        stream.set_write_timeout(Some(Duration::from_secs(15)))?;
        Ok(Self {
            stream,
            correlation: 0,
        })
    }

    fn call(&mut self, key: i16, version: i16, body: &[u8]) -> anyhow::Result<Vec<u8>> {
        self.correlation += 1;
        let mut request = Writer::default();
        request
            .i16(key)
            .i16(version)
            .i32(self.correlation)
            .string("headwater-proof");
        let mut frame = Writer::default();
        frame.i32(i32::try_from(request.bytes.len() + body.len())?);
        frame.bytes.extend_from_slice(&request.bytes);
        frame.bytes.extend_from_slice(body);
        self.stream.write_all(&frame.bytes)?;
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = i32::from_be_bytes(length);
        ensure!(
            (4..=FRAME_BYTES_MAX).contains(&length),
            "a frame of {length} bytes"
        );
        let mut answer = vec![0; usize::try_from(length)?];
        self.stream.read_exact(&mut answer)?;
        ensure!(
            Reader::new(&answer).i32()? == self.correlation,
            "an answer to another request"
        );
        Ok(answer.split_off(4))
    }

    /// The partitions of a topic. Asking makes the topic where the server creates topics on first use.
    pub fn partitions(&mut self, topic: &str) -> anyhow::Result<Vec<u32>> {
        let mut body = Writer::default();
        body.i32(1).string(topic);
        let answer = self.call(3, 1, &body.bytes)?;
        let mut reader = Reader::new(&answer);
        for _ in 0..reader.i32()? {
            reader.i32()?; // node
            reader.string()?; // host
            reader.i32()?; // port
            reader.string()?; // rack
        }
        reader.i32()?; // controller
        let mut partitions = Vec::new();
        for _ in 0..reader.i32()? {
            let error = reader.i16()?;
            ensure!(error == 0, "Metadata of {topic}: error {error}");
            reader.string()?;
            reader.i8()?; // internal
            for _ in 0..reader.i32()? {
                reader.i16()?; // error
                partitions.push(u32::try_from(reader.i32()?)?);
                reader.i32()?; // leader
                for _ in 0..2 {
                    for _ in 0..reader.i32()? {
                        reader.i32()?; // a replica
                    }
                }
            }
        }
        partitions.sort_unstable();
        Ok(partitions)
    }

    /// The log start offset.
    pub fn start_offset(&mut self, topic: &str, partition: u32) -> anyhow::Result<u64> {
        self.list_offset(topic, partition, -2)
    }

    /// The high watermark.
    pub fn end_offset(&mut self, topic: &str, partition: u32) -> anyhow::Result<u64> {
        self.list_offset(topic, partition, -1)
    }

    /// ListOffsets: -2 asks for the log start offset, -1 for the high watermark.
    fn list_offset(&mut self, topic: &str, partition: u32, which: i64) -> anyhow::Result<u64> {
        let mut body = Writer::default();
        body.i32(-1)
            .i32(1)
            .string(topic)
            .i32(1)
            .i32(i32::try_from(partition)?)
            .i64(which);
        let answer = self.call(2, 1, &body.bytes)?;
        let mut reader = Reader::new(&answer);
        reader.i32()?;
        reader.string()?;
        reader.i32()?;
        reader.i32()?;
        let error = reader.i16()?;
        ensure!(
            error == 0,
            "ListOffsets of {topic}/{partition}: error {error}"
        );
        reader.i64()?; // timestamp
        Ok(u64::try_from(reader.i64()?)?)
    }

    /// One Fetch: the high watermark and the bytes of whole batches.
    fn fetch(
        &mut self,
        topic: &str,
        partition: u32,
        offset: u64,
        wait_ms: i32,
    ) -> anyhow::Result<(u64, Vec<u8>)> {
        let mut body = Writer::default();
        body.i32(-1).i32(wait_ms).i32(1).i32(FETCH_BYTES).i8(0);
        body.i32(1).string(topic).i32(1);
        body.i32(i32::try_from(partition)?)
            .i64(i64::try_from(offset)?)
            .i32(FETCH_BYTES);
        let answer = self.call(1, 4, &body.bytes)?;
        let mut reader = Reader::new(&answer);
        reader.i32()?; // throttle
        ensure!(
            reader.i32()? == 1,
            "Fetch answered another number of topics"
        );
        reader.string()?;
        ensure!(
            reader.i32()? == 1,
            "Fetch answered another number of partitions"
        );
        reader.i32()?;
        let error = reader.i16()?;
        ensure!(
            error == 0,
            "Fetch of {topic}/{partition} at {offset}: error {error}"
        );
        let high_watermark = u64::try_from(reader.i64()?)?;
        reader.i64()?; // last stable offset
        for _ in 0..reader.i32()?.max(0) {
            reader.i64()?;
            reader.i64()?; // an aborted transaction
        }
        Ok((
            high_watermark,
            reader.nullable_bytes()?.unwrap_or_default().to_vec(),
        ))
    }

    /// Reads a partition from an offset to its end.
    pub fn read(
        &mut self,
        topic: &str,
        partition: u32,
        from: u64,
        run: &str,
        recorder: &Recorder,
    ) -> anyhow::Result<LogReading> {
        let t_mono = recorder.now();
        let mut reading = LogReading {
            t_mono,
            topic: topic.to_owned(),
            partition,
            from,
            high_watermark: from,
            records: Vec::new(),
        };
        let mut next = from;
        loop {
            let (high_watermark, bytes) = self.fetch(topic, partition, next, 1)?;
            reading.high_watermark = high_watermark;
            let found =
                records(&bytes).with_context(|| format!("{topic}/{partition} at {next}"))?;
            let before = next;
            for record in found {
                // The first batch may begin before the offset that was asked for.
                if record.offset < before {
                    continue;
                }
                next = record.offset + 1;
                reading.records.push(LogRecord {
                    offset: record.offset,
                    checksum: record.checksum,
                    identity: identity(record.value, run),
                });
            }
            if next >= high_watermark {
                return Ok(reading);
            }
            // Below the high watermark and nothing came: the judge finds the hole.
            if next == before {
                return Ok(reading);
            }
        }
    }

    /// Produce with acks=all: one record, and the offset it got.
    pub fn produce(
        &mut self,
        topic: &str,
        partition: u32,
        key: &[u8],
        value: &[u8],
    ) -> anyhow::Result<Result<u64, i16>> {
        let batch = batch(key, value);
        let mut body = Writer::default();
        body.i16(-1)
            .i16(-1)
            .i32(10_000)
            .i32(1)
            .string(topic)
            .i32(1)
            .i32(i32::try_from(partition)?);
        body.i32(i32::try_from(batch.len())?);
        body.bytes.extend_from_slice(&batch);
        let answer = self.call(0, 3, &body.bytes)?;
        let mut reader = Reader::new(&answer);
        reader.i32()?;
        reader.string()?;
        reader.i32()?;
        reader.i32()?;
        let error = reader.i16()?;
        let offset = reader.i64()?;
        if error == 0 {
            Ok(Ok(u64::try_from(offset)?))
        } else {
            Ok(Err(error))
        }
    }

    /// OffsetCommit of a consumer that assigned its partitions itself (generation -1).
    pub fn commit(
        &mut self,
        group: &str,
        topic: &str,
        partition: u32,
        offset: u64,
    ) -> anyhow::Result<()> {
        let mut body = Writer::default();
        body.string(group).i32(-1).string("").i64(-1);
        body.i32(1)
            .string(topic)
            .i32(1)
            .i32(i32::try_from(partition)?)
            .i64(i64::try_from(offset)?)
            .string("");
        let answer = self.call(8, 2, &body.bytes)?;
        let mut reader = Reader::new(&answer);
        reader.i32()?;
        reader.string()?;
        reader.i32()?;
        reader.i32()?;
        let error = reader.i16()?;
        ensure!(error == 0, "OffsetCommit of {group}: error {error}");
        Ok(())
    }

    /// Where a group stands; `None` when it never committed.
    pub fn committed(
        &mut self,
        group: &str,
        topic: &str,
        partition: u32,
    ) -> anyhow::Result<Option<u64>> {
        let mut body = Writer::default();
        body.string(group)
            .i32(1)
            .string(topic)
            .i32(1)
            .i32(i32::try_from(partition)?);
        let answer = self.call(9, 1, &body.bytes)?;
        let mut reader = Reader::new(&answer);
        reader.i32()?;
        reader.string()?;
        reader.i32()?;
        reader.i32()?;
        let offset = reader.i64()?;
        reader.string()?;
        let error = reader.i16()?;
        if error != 0 {
            bail!("OffsetFetch of {group}: error {error}");
        }
        Ok(u64::try_from(offset).ok())
    }
}

fn identity(value: Option<&[u8]>, run: &str) -> Identity {
    match value.map(|value| Payload::from_bytes(value, run)) {
        Some(Ok(payload)) => Identity::Message {
            producer: payload.producer,
            seq: payload.seq,
        },
        Some(Err(why)) => Identity::Foreign { why },
        None => Identity::Foreign {
            why: "no value".to_owned(),
        },
    }
}
