//! From the facts of a record to the text of its document.
//!
//! For: [`Facts`] in, one line of relaxed Extended JSON out, collected in a [`Batch`].
//! Not for: which records become documents and where they go (`bridge`), nor for SQL.
//! Calls: `payload`. Called by: the sink's driver; `writer` reads the batch.
//! Holds: every record makes a document; a payload that cannot stand as JSON stands as text or
//! base64, with its kind named.

use crate::Namespace;
use uuid::Uuid;

/// Where a record lies in the log; a document's `_id`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Position {
    /// The Kafka topic's random id: a topic made anew under the same name has another.
    pub topic: Uuid,
    pub partition: u32,
    /// At most `i64::MAX`, as Kafka's.
    pub offset: u64,
}

/// What is known of a record. All borrowed: [`Batch::push`] copies what it needs.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub position: Position,
    pub kafka_topic: &'a str,
    /// The record's timestamp, milliseconds since 1970.
    pub ts_ms: i64,
    /// The MQTT topic name; `None` for a record that did not come by MQTT.
    pub topic: Option<&'a str>,
    pub client: Option<&'a str>,
    pub qos: Option<u8>,
    pub retain: Option<bool>,
    /// The record's headers in order, without those the fields above were read from.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
    /// The record's value; `None` is Kafka's null.
    pub payload: Option<&'a [u8]>,
}

/// Documents on their way into the store: one buffer for all, to be cleared and used again.
#[derive(Debug, Default)]
pub struct Batch {
    text: String,
    rows: Vec<Row>,
    namespaces: Vec<Namespace>,
}

#[derive(Debug)]
struct Row {}

impl Batch {
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the document of `facts`, to be written into `namespace`.
    pub fn push(&mut self, namespace: &Namespace, facts: &Facts<'_>) {
        let _later = facts;
        self.namespaces.push(namespace.clone());
        self.rows.push(Row {});
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes of text held, for bounding a batch.
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    /// Forgets the documents, keeps the memory.
    pub fn clear(&mut self) {
        self.text.clear();
        self.rows.clear();
        self.namespaces.clear();
    }
}
