//! Connections that say nothing: how many fit, what each costs, and that the other doors still answer.

use std::time::Duration;

use anyhow::{Context, ensure};

use super::Scale;
use crate::kafka;
use crate::metrics::Metrics;
use crate::owed::{Running, at_rest, mebibytes, until};

/// The promise for TCP, in bytes of resident memory a connection, and from how many on it is held to that: what the first
/// few need once is most of theirs.
const BYTES_MAX: f64 = 3_072.0;
const FROM: u64 = 5_000;
const WAIT: Duration = Duration::from_secs(60);

/// Holds `connections` over TCP; the line of figures.
pub fn run(scale: &Scale, connections: u64) -> anyhow::Result<String> {
    let (setup, _) = scale.bench.setup("idle")?;
    let mut running = Running::start(setup)?;
    let before = at_rest(&running.program)?;
    let words = format!("conn --n {connections} --rate 5000 --keepalive 600 --settle 0 --hold 5");
    let load = scale.load(&running, &words)?;
    let said = || Metrics::read(&running.setup)?.value("headwater_connections");
    let came = until("all are connected", WAIT, || Ok(said()? == connections))?;
    let after = at_rest(&running.program)?;
    // Every other door still has places.
    let partitions = kafka::Connection::open(running.setup.kafka)?.partitions("mqtt")?;
    ensure!(!partitions.is_empty(), "Kafka's clients see no topic");
    ensure!(said()? == connections, "some went away");
    let figures = load.figures(WAIT)?;
    figures.none_of(&["refused"])?;
    ensure!(
        figures.number("alive_after_hold")? == connections as f64,
        "some were closed"
    );
    until("all have gone", WAIT, || Ok(said()? == 0))?;
    let left = at_rest(&running.program)?;
    running.program.stop().context("after many connections")?;
    let each = after.saturating_sub(before) as f64 / connections as f64;
    let line = format!(
        "{connections} idle connections: {each:.0} bytes of resident memory each ({:.1} MiB before, {:.1} MiB with them, {:.1} MiB \
         after them), connected in {:.1} s; Kafka and HTTP answered meanwhile",
        mebibytes(before),
        mebibytes(after),
        mebibytes(left),
        came.as_secs_f64(),
    );
    ensure!(
        connections < FROM || each <= BYTES_MAX,
        "more memory than promised: {line}"
    );
    Ok(line)
}
