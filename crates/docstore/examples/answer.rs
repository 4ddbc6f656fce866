//! Answers filters and sorts from standard input, so that a MongoDB can be asked the same.
//!
//! Each line is a verb and a JSON text: `insert PAYLOAD` (at offset 0, 1, …), `filter FILTER`,
//! `sort SORT`. For the latter two a line comes back: the offsets found, or `error …`.
//! tests/clients/docs/filters.py is at the other end.
#![allow(clippy::print_stdout, reason = "it is the answer")]

use anyhow::{Context, Result};
use headwater_docstore::{
    Batch, Bounds, Facts, Filter, Namespace, Options, Position, Query, Reader, Sort, Store,
};
use std::io::BufRead;
use std::ops::ControlFlow;
use uuid::Uuid;

fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let store = Store::open(folder.path(), Options::default())?;
    let (mut writer, mut reader) = (store.writer()?, store.reader()?);
    let namespace = Namespace::parse("test.answers")?;
    let mut batch = Batch::new();
    let mut offset = 0;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (verb, text) = line.split_once(' ').context("a verb and a JSON text")?;
        if verb == "insert" {
            batch.push(&namespace, &facts(offset, text));
            offset += 1;
            continue;
        }
        writer.insert(&batch, &[], 0)?;
        batch.clear();
        match query(verb, text) {
            Ok(query) => println!("{:?}", answer(&mut reader, &namespace, &query)?),
            Err(error) => println!("error {error}"),
        }
    }
    Ok(())
}

fn query(verb: &str, text: &str) -> Result<Query> {
    Ok(match verb {
        "filter" => Query {
            filter: Filter::parse(text)?,
            ..Query::default()
        },
        "sort" => Query {
            sort: Sort::parse(text)?,
            ..Query::default()
        },
        other => anyhow::bail!("{other} is no verb"),
    })
}

fn answer(reader: &mut Reader, namespace: &Namespace, query: &Query) -> Result<Vec<u64>> {
    let mut offsets = Vec::new();
    reader.find(namespace, query, &Bounds::default(), &mut |line| {
        let document: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        offsets.extend(document.get("offset").and_then(serde_json::Value::as_u64));
        ControlFlow::Continue(())
    })?;
    Ok(offsets)
}

fn facts(offset: u64, payload: &str) -> Facts<'_> {
    Facts {
        position: Position {
            topic: Uuid::from_u128(1),
            partition: 0,
            offset,
        },
        kafka_topic: "mqtt",
        ts_ms: 0,
        topic: None,
        client: None,
        qos: None,
        retain: None,
        headers: &[],
        payload: Some(payload.as_bytes()),
    }
}
