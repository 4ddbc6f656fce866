//! Many Sessions that are away: how long a start takes with them, after a kill and after a stop.

use std::time::Duration;

use anyhow::ensure;

use super::Scale;
use crate::metrics::Metrics;
use crate::owed::{Running, at_rest, mebibytes};

/// The promise, from start to ready.
const READY: Duration = Duration::from_secs(5);
/// Sessions made by one run of the generator, which keeps their connections until its end.
const AT_ONCE: u64 = 10_000;
const WAIT: Duration = Duration::from_secs(120);

/// `sessions` lasting Sessions with a subscription each; the line of figures.
pub fn run(scale: &Scale, sessions: u64) -> anyhow::Result<String> {
    let (setup, _) = scale.bench.setup("restart")?;
    let mut running = Running::start(setup)?;
    let empty = at_rest(&running.program)?;
    let mut made = 0;
    while made < sessions {
        let some = AT_ONCE.min(sessions - made);
        // The generator's process id is part of each client id and filter.
        let words =
            format!("conn --n {some} --rate max --persist --subscribe --qos 1 --settle 0 --hold 0");
        let figures = scale.load(&running, &words)?.figures(WAIT)?;
        figures.none_of(&["refused"])?;
        made += some;
    }
    there(&running, sessions)?;
    let killed = running.kill_and_start()?;
    there(&running, sessions)?;
    let resident = at_rest(&running.program)?;
    let stopped = running.stop_and_start()?;
    there(&running, sessions)?;
    running.program.stop()?;
    let line = format!(
        "{sessions} sessions that are away, with a subscription each: ready {} ms after kill -9, {} ms after a stop; {:.0} bytes of \
         resident memory each after a restart ({:.1} MiB in all)",
        killed.as_millis(),
        stopped.as_millis(),
        resident.saturating_sub(empty) as f64 / sessions as f64,
        mebibytes(resident),
    );
    scale.promise(killed.max(stopped) < READY, line)
}

fn there(running: &Running, sessions: u64) -> anyhow::Result<()> {
    let there = Metrics::read(&running.setup)?.value("headwater_sessions{state=\"persistent\"}")?;
    ensure!(there == sessions, "{there} sessions of {sessions}");
    Ok(())
}
