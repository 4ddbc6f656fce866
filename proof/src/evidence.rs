//! What is read back from the program under test: its log, through Kafka's protocol, and its documents.

use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::history::{Event, read_lines, write_lines};

/// Which message of the harness something is, or why it is none.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Identity {
    Message { producer: String, seq: u64 },
    Foreign { why: String },
}

/// One record as a reader saw it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct LogRecord {
    pub offset: u64,
    /// Over key, value, headers and timestamp: an offset's record never changes.
    pub checksum: u32,
    pub identity: Identity,
}

/// One pass over one partition.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct LogReading {
    /// The harness's time when this pass began.
    pub t_mono: u64,
    pub topic: String,
    pub partition: u32,
    /// The pass began here; every offset from here to `high_watermark` must be in `records`.
    pub from: u64,
    pub high_watermark: u64,
    pub records: Vec<LogRecord>,
}

/// One document as a query returned it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Document {
    pub id: String,
    pub topic: String,
    pub partition: u32,
    pub offset: u64,
    pub identity: Identity,
}

/// All that a judge is shown.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    pub events: Vec<Event>,
    /// In the order of time. For each partition the last one must reach from its start to its end.
    pub readings: Vec<LogReading>,
    /// `None` when the program under test keeps no documents.
    pub documents: Option<Vec<Document>>,
}

impl Evidence {
    /// Writes what a folder lacks of the evidence; the events stand there already, written as they happened.
    pub fn save_readings(&self, folder: &Path) -> anyhow::Result<()> {
        write_lines(&folder.join("log.ndjson"), &self.readings)?;
        if let Some(documents) = &self.documents {
            write_lines(&folder.join("documents.ndjson"), documents)?;
        }
        Ok(())
    }

    /// Reads a folder that a run left behind.
    pub fn load(folder: &Path) -> anyhow::Result<Self> {
        let events = read_lines(&folder.join("history.ndjson")).context("no history to judge")?;
        let log = folder.join("log.ndjson");
        let readings = if log.exists() {
            read_lines(&log)?
        } else {
            Vec::new()
        };
        let documents = folder.join("documents.ndjson");
        let documents = if documents.exists() {
            Some(read_lines(&documents)?)
        } else {
            None
        };
        Ok(Self {
            events,
            readings,
            documents,
        })
    }
}
