//! The history of a run: what each client sent, was promised, received and committed, and when a fault fired.
//!
//! For: one flat [`Event`] a line (NDJSON), so that a history can be read, cut and grepped by hand.
//! Not for: judging; the [judge](crate::judge) reads histories and nothing else.
//! Holds: events are written by the harness, which no fault ever kills, and a `send` is recorded before its bytes leave.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// What happened.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// A CONNACK with success; `session_present` says what it said, `lasting` what was asked.
    Connect,
    /// A SUBACK that granted `topic` (a Topic Filter) at `qos`.
    Subscribe,
    /// A message is about to leave: PUBLISH, or a Kafka Produce request.
    #[default]
    Send,
    /// The promise: PUBACK, PUBREC, or Produce's answer (then with `partition` and `offset`).
    Ack,
    /// A negative answer: this message must not appear anywhere.
    Fail,
    /// A PUBLISH arrived, as it stood on the wire; the judge applies the receiver's packet-identifier rule.
    Recv,
    /// A PUBREL arrived: the receiver frees `packet_id`.
    Release,
    /// A fresh subscriber read the Retained Message of `topic`; `seq` 0 says there was none.
    Retained,
    /// OffsetCommit was answered: group `client` stands at `offset`.
    Commit,
    /// OffsetFetch was answered: group `client` is said to stand at `offset`.
    Committed,
    /// The fault fired.
    Crash,
    /// The program under test is ready again; `millis` is the time from its start.
    Ready,
}

/// Whose protocol the event was spoken in.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proto {
    #[default]
    Mqtt,
    Kafka,
    Harness,
}

/// One line of a history. What does not apply to an operation is left at its default and not written.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// Microseconds since the recorder was made, by the monotonic clock.
    pub t_mono: u64,
    pub client: String,
    pub op: Op,
    pub proto: Proto,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub topic: String,
    /// The producer named in the payload.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// Counts from 1 for each producer.
    #[serde(skip_serializing_if = "is_default")]
    pub seq: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub qos: u8,
    #[serde(skip_serializing_if = "is_default")]
    pub packet_id: u16,
    #[serde(skip_serializing_if = "is_default")]
    pub dup: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub retain: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub session_epoch: u32,
    #[serde(skip_serializing_if = "is_default")]
    pub session_present: bool,
    /// The session outlives its connection.
    #[serde(skip_serializing_if = "is_default")]
    pub lasting: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub partition: u32,
    #[serde(skip_serializing_if = "is_default")]
    pub offset: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub millis: u64,
    /// For a person: a Reason Code, a fault's name, why a payload is not ours.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Where all clients of a run write. Also keeps the events, so that a round is judged without reading the file back.
#[derive(Debug)]
pub struct Recorder {
    begun: Instant,
    wall_begun_micros: u64,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    file: BufWriter<File>,
    events: Vec<Event>,
}

impl Recorder {
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        let kept = Kept {
            file: BufWriter::new(file),
            events: Vec::new(),
        };
        let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
        Ok(Self {
            begun: Instant::now(),
            wall_begun_micros: u64::try_from(since.as_micros())?,
            kept: Mutex::new(kept),
        })
    }

    /// Microseconds since this recorder was made.
    pub fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The wall clock when this recorder was made, to lay a trace of the program beside the history.
    pub fn wall_begun_micros(&self) -> u64 {
        self.wall_begun_micros
    }

    /// Stamps the event and appends it. A history that cannot be written is no evidence: the run ends.
    pub fn record(&self, mut event: Event) -> anyhow::Result<()> {
        let mut kept = self
            .kept
            .lock()
            .map_err(|_| anyhow::anyhow!("a recording thread died"))?;
        // Stamped under the lock: the order in the file is the order in time.
        event.t_mono = self.now();
        serde_json::to_writer(&mut kept.file, &event)?;
        kept.file.write_all(b"\n")?;
        kept.events.push(event);
        Ok(())
    }

    /// All events so far, in order.
    pub fn events(&self) -> anyhow::Result<Vec<Event>> {
        let mut kept = self
            .kept
            .lock()
            .map_err(|_| anyhow::anyhow!("a recording thread died"))?;
        kept.file.flush()?;
        Ok(kept.events.clone())
    }
}

impl Drop for Recorder {
    /// A run that broke off leaves its whole history behind.
    fn drop(&mut self) {
        if let Ok(mut kept) = self.kept.lock() {
            drop(kept.file.flush());
        }
    }
}

/// Reads a file of one JSON value a line.
pub fn read_lines<T: for<'a> Deserialize<'a>>(path: &Path) -> anyhow::Result<Vec<T>> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut values = Vec::new();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line?;
        let value = serde_json::from_str(&line)
            .with_context(|| format!("{}, line {}", path.display(), number + 1))?;
        values.push(value);
    }
    Ok(values)
}

/// Writes one JSON value a line.
pub fn write_lines<T: Serialize>(path: &Path, values: &[T]) -> anyhow::Result<()> {
    let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
    let mut file = BufWriter::new(file);
    for value in values {
        serde_json::to_writer(&mut file, value)?;
        file.write_all(b"\n")?;
    }
    Ok(file.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_survives_a_trip_through_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.ndjson");
        let recorder = Recorder::create(&path).unwrap();
        let sent = Event {
            client: "p1".into(),
            key: "p1".into(),
            seq: 7,
            qos: 2,
            ..Event::default()
        };
        recorder.record(sent).unwrap();
        recorder
            .record(Event {
                op: Op::Crash,
                proto: Proto::Harness,
                ..Event::default()
            })
            .unwrap();
        let kept = recorder.events().unwrap();
        assert_eq!(read_lines::<Event>(&path).unwrap(), kept);
        assert_eq!(kept.len(), 2);
        assert!(kept[0].t_mono <= kept[1].t_mono);
    }

    #[test]
    fn names_on_the_line_are_the_documented_ones() {
        let event = Event {
            op: Op::Recv,
            t_mono: 5,
            client: "s".into(),
            dup: true,
            ..Event::default()
        };
        let line = serde_json::to_string(&event).unwrap();
        assert_eq!(
            line,
            r#"{"t_mono":5,"client":"s","op":"recv","proto":"mqtt","dup":true}"#
        );
    }
}
