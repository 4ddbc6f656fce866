//! A full disk: publishes are refused, readers go on, nothing acknowledged is lost, and it recovers by itself.
//!
//! The data directory lies on a small tmpfs, which the caller mounts: that needs root or a namespace of one's own.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use headwater_mqtt_codec::Version;

use super::Bench;
use crate::history::Op;
use crate::kafka;
use crate::load::Cast;
use crate::trial::{ROUTED_TO, Trial};

/// Given back in the middle of the run.
const BALLAST_BYTES: usize = 24 << 20;
const FILL_WAIT: Duration = Duration::from_secs(120);

/// `tmpfs` is where the small file system is mounted; it must be empty.
pub fn run(bench: &Bench, tmpfs: &Path) -> anyhow::Result<String> {
    let (mut setup, folder) = bench.setup("enospc")?;
    setup.data = Some(tmpfs.join("data"));
    let ballast = tmpfs.join("ballast");
    std::fs::write(&ballast, vec![0x5a; BALLAST_BYTES]).context("the ballast")?;

    let mut cast = Cast::small(400);
    for plan in &mut cast.publishers {
        plan.pad_bytes = 8 << 10;
        // 3.1.1 has no negative answer: its connections are closed and it tries again, so only 5.0 can count refusals.
        plan.version = if plan.name.ends_with("v311") {
            Version::V311
        } else {
            Version::V5
        };
    }
    let mut trial = Trial::begin(setup, &folder, cast)?;
    let refused = |trial: &Trial| -> anyhow::Result<usize> {
        Ok(trial
            .recorder
            .events()?
            .iter()
            .filter(|event| event.op == Op::Fail && event.detail == "0x97")
            .count())
    };
    let deadline = Instant::now() + FILL_WAIT;
    trial.publish(1)?;
    while refused(&trial)? < 20 {
        ensure!(
            Instant::now() < deadline,
            "after {FILL_WAIT:?} fewer than 20 publishes were refused with 0x97"
        );
        trial.tend()?;
        std::thread::sleep(Duration::from_millis(50));
    }
    let full = refused(&trial)?;

    // Readers go on while it is full.
    let mut reader = kafka::Connection::open(trial.watch.setup.kafka)?;
    for partition in reader.partitions(ROUTED_TO)? {
        reader
            .start_offset(ROUTED_TO, partition)
            .context("a reader while the disk is full")?;
        trial
            .read_beside(&mut reader, partition)
            .context("a reader while the disk is full")?;
    }

    // Space returns, and with it the acknowledgements, by itself.
    std::fs::remove_file(&ballast)?;
    trial
        .publish(100)
        .context("publishing after space has returned")?;
    trial.kill()?;
    trial.restart()?;
    trial.rest_and_read()?;
    let verdict = trial.verdict(1, 0)?;
    ensure!(verdict.is_clean(), "{verdict}");
    trial.end()?;
    Ok(format!(
        "full disk: {full} refused before space returned, {} acknowledged, 0 lost",
        verdict.figures.acked
    ))
}
