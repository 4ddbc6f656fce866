//! The documents, read as a user reads them: with `headwater doc find` and `doc count`.

use std::process::Command;

use anyhow::{Context, ensure};
use serde::Deserialize;

use crate::evidence::{Document, Identity};
use crate::payload::Payload;
use crate::program::{Kind, Setup};

/// Where the default sink writes.
const COLLECTION: &str = "headwater.messages";

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "_id")]
    id: String,
    kafka_topic: String,
    partition: u32,
    offset: u64,
    payload: serde_json::Value,
}

fn run(setup: &Setup, arguments: &[&str]) -> anyhow::Result<String> {
    let Kind::Headwater { binary } = &setup.kind else {
        anyhow::bail!("it keeps no documents")
    };
    let output = Command::new(binary)
        .args(arguments)
        .args(["--url", &format!("http://{}", setup.http)])
        .arg("--data-dir")
        .arg(setup.data_dir())
        .output()
        .context("running headwater doc")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "headwater {}: {}, {said}",
        arguments.join(" "),
        output.status
    );
    Ok(String::from_utf8(output.stdout)?)
}

pub fn count(setup: &Setup) -> anyhow::Result<u64> {
    let text = run(setup, &["doc", "count", COLLECTION])?;
    text.trim()
        .parse()
        .with_context(|| format!("headwater doc count printed {text:?}"))
}

pub fn read(setup: &Setup, run_name: &str) -> anyhow::Result<Vec<Document>> {
    let text = run(setup, &["doc", "find", COLLECTION])?;
    let mut documents = Vec::new();
    for line in text.lines() {
        let line: Line = serde_json::from_str(line)
            .with_context(|| format!("headwater doc find printed {line}"))?;
        let identity = match Payload::from_value(line.payload, run_name) {
            Ok(payload) => Identity::Message {
                producer: payload.producer,
                seq: payload.seq,
            },
            Err(why) => Identity::Foreign { why },
        };
        let Line {
            id,
            kafka_topic,
            partition,
            offset,
            ..
        } = line;
        documents.push(Document {
            id,
            topic: kafka_topic,
            partition,
            offset,
            identity,
        });
    }
    Ok(documents)
}
