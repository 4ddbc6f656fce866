//! What the tests share: a store in a temporary folder and short ways to fill and ask it.

use headwater_docstore::{
    Batch, Bounds, Facts, Filter, FindError, Namespace, Options, Position, Query, Reader, Sort,
    Store, Writer,
};
use std::ops::ControlFlow;
use tempfile::TempDir;
use uuid::Uuid;

pub(crate) const KAFKA_TOPIC: Uuid = Uuid::from_u128(0x6b61_666b_6100_4000_8000_0000_0000_0001);

/// When documents come, where it does not matter.
pub(crate) const NOW: i64 = 1_800_000_000_000;

pub(crate) struct Fixture {
    pub(crate) folder: TempDir,
    pub(crate) store: Store,
    pub(crate) writer: Writer,
    pub(crate) reader: Reader,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::with(Options::default())
    }

    pub(crate) fn with(options: Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), options).unwrap();
        let (writer, reader) = (store.writer().unwrap(), store.reader().unwrap());
        Self {
            folder,
            store,
            writer,
            reader,
        }
    }

    /// Writes payloads at offsets 0, 1, …
    pub(crate) fn insert_payloads<P: AsRef<[u8]>>(&mut self, payloads: &[P]) {
        let mut batch = Batch::new();
        for (offset, payload) in payloads.iter().enumerate() {
            batch.push(
                &collection(),
                &Facts {
                    payload: Some(payload.as_ref()),
                    ..facts(offset as u64)
                },
            );
        }
        self.writer.insert(&batch, &[], NOW).unwrap();
    }

    pub(crate) fn find(&mut self, query: &Query) -> Vec<String> {
        find(&mut self.reader, query, &Bounds::default()).unwrap()
    }

    /// The offsets of what a filter finds, ascending.
    pub(crate) fn offsets(&mut self, filter: &str) -> Vec<u64> {
        let query = Query {
            filter: Filter::parse(filter).unwrap(),
            ..Query::default()
        };
        let mut offsets: Vec<u64> = self.find(&query).iter().map(|line| offset(line)).collect();
        offsets.sort_unstable();
        let counted = self
            .reader
            .count(&collection(), &query.filter, &Bounds::default())
            .unwrap();
        assert_eq!(
            counted,
            offsets.len() as u64,
            "count and find differ on {filter}"
        );
        offsets
    }

    /// The offsets in the order of a sort.
    pub(crate) fn sorted(&mut self, sort: &str, skip: u64, limit: Option<u64>) -> Vec<u64> {
        let sort = Sort::parse(sort).unwrap();
        let query = Query {
            sort,
            skip,
            limit,
            ..Query::default()
        };
        self.find(&query).iter().map(|line| offset(line)).collect()
    }
}

pub(crate) fn find(
    reader: &mut Reader,
    query: &Query,
    bounds: &Bounds,
) -> Result<Vec<String>, FindError> {
    let mut lines = Vec::new();
    reader.find(&collection(), query, bounds, &mut |line| {
        lines.push(line.to_owned());
        ControlFlow::Continue(())
    })?;
    Ok(lines)
}

pub(crate) fn collection() -> Namespace {
    Namespace::parse("iot.telemetry").unwrap()
}

pub(crate) fn offset(line: &str) -> u64 {
    json(line)["offset"].as_u64().unwrap()
}

pub(crate) fn json(line: &str) -> serde_json::Value {
    serde_json::from_str(line).unwrap()
}

/// A record as the default route makes it; one second and one topic level further each offset.
pub(crate) fn facts(offset: u64) -> Facts<'static> {
    const TOPICS: [&str; 3] = ["a/0", "a/1", "b/0"];
    Facts {
        position: Position {
            topic: KAFKA_TOPIC,
            partition: 0,
            offset,
        },
        kafka_topic: "mqtt",
        ts_ms: 1_700_000_000_000 + 1000 * i64::try_from(offset).unwrap_or(0),
        topic: Some(TOPICS[usize::try_from(offset % 3).unwrap()]),
        client: Some("client"),
        qos: Some(1),
        retain: Some(false),
        headers: &[],
        payload: Some(b"{}"),
    }
}
