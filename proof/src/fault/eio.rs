//! A sync that fails, of the log or of the documents: the process ends with 1 and says so, nothing is acknowledged
//! afterwards, the next start is clean.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rand::RngExt;

use super::{Bench, STOP_AT_NAMED, strace};
use crate::history::Op;
use crate::load::Cast;
use crate::trial::Trial;

/// An answer that had left before the fault may still be on its way for this long.
const IN_FLIGHT_MICROS: u64 = 100_000;
/// Draws of K, the sync that fails, come from here.
const NTH_MAX: u32 = 40;

/// The documents' write-ahead file is synced every five seconds; this one fails.
const STORE_NTH: u32 = 2;
/// A thread that syncs rarely reaches its Nth sync late.
const FIRED_WAIT: Duration = Duration::from_secs(60);

/// What a sync fails with, in turn. None of them may be taken for a full disk, which passes.
const ERRORS: [&str; 3] = ["EIO", "ENOSPC", "EDQUOT"];

/// Which sync fails.
#[derive(Clone, Copy, Debug)]
enum Sync {
    /// The Kth `fdatasync` of a thread.
    Any(u32),
    /// The Kth of the documents' write-ahead file.
    Store(u32),
}

/// Runs it `times` times, each with another K, and once for the documents; the number of runs in which a promise was
/// broken.
pub fn run(bench: &Bench, times: u32) -> anyhow::Result<u32> {
    let mut failed = 0;
    let mut random = rand::rng();
    let mut syncs: Vec<Sync> = (0..times)
        .map(|_| Sync::Any(random.random_range(1..=NTH_MAX)))
        .collect();
    syncs.push(Sync::Store(STORE_NTH));
    let errors = ERRORS.into_iter().cycle();
    for (time, (sync, error)) in syncs.into_iter().zip(errors).enumerate() {
        match attempt(bench, sync, error) {
            Ok(line) => eprintln!("{line}"),
            Err(broken) => {
                failed += 1;
                let kept = bench.folder.join(format!("failed-{time}"));
                eprintln!(
                    "BROKEN {error} at {sync:?}: {broken:#}\nevidence in {}",
                    kept.display()
                );
                std::fs::rename(bench.folder.join("eio"), kept)?;
            }
        }
    }
    Ok(failed)
}

impl Sync {
    /// The options of strace that make it fail.
    fn options(self, error: &str, data: &Path) -> Vec<String> {
        let (calls, nth) = match self {
            Self::Any(nth) => ("fdatasync", nth),
            Self::Store(nth) => ("fsync,fdatasync", nth),
        };
        let mut options = vec![
            STOP_AT_NAMED.to_owned(),
            "-e".to_owned(),
            format!("trace={calls}"),
            "-e".to_owned(),
            format!("inject={calls}:error={error}:when={nth}"),
        ];
        if matches!(self, Self::Store(_)) {
            let wal = data.join("store/documents-000001.sqlite-wal");
            options.extend(["-P".to_owned(), wal.display().to_string()]);
        }
        options
    }
}

fn attempt(bench: &Bench, sync: Sync, error: &str) -> anyhow::Result<String> {
    let (setup, folder) = bench.setup("eio")?;
    let trace = folder.join("strace.log");
    let wrapped = setup.wrapped_in(strace(&trace, &sync.options(error, &setup.data_dir())));
    let name = format!("{error} at {sync:?}");
    let mut trial = Trial::begin_hurt(setup, Some((&wrapped, &name)), &folder, Cast::small(200))?;
    let begun = Instant::now();
    while trial.watch.fired.is_none() && begun.elapsed() < FIRED_WAIT {
        trial.publish(25)?;
    }
    let status = trial.watch.fired.context("the fault did not fire")?;
    ensure!(
        status.code() == Some(1),
        "after a failed sync it ended with {status}, not with exit code 1"
    );
    let said = trial.watch.program.everything_said()?;
    ensure!(
        said.lines()
            .any(|line| line.to_lowercase().contains("sync")),
        "no sentence about the failed sync on standard error:\n{said}"
    );

    let fault_at = injected_at(&std::fs::read_to_string(&trace)?)?;
    let wall_begun = trial.recorder.wall_begun_micros();
    trial.publish(20)?;
    trial.rest_and_read()?;
    let events = trial.recorder.events()?;
    let restarted = events
        .iter()
        .find(|event| event.op == Op::Ready)
        .map_or(u64::MAX, |event| event.t_mono);
    let late: Vec<_> = events
        .iter()
        .filter(|event| event.op == Op::Ack && event.t_mono < restarted)
        .filter(|event| wall_begun + event.t_mono > fault_at + IN_FLIGHT_MICROS)
        .collect();
    ensure!(
        late.is_empty(),
        "{} acknowledgements after the failed sync, the first {:?}",
        late.len(),
        late.first()
    );
    let verdict = trial.verdict(1, 0)?;
    ensure!(verdict.is_clean(), "{verdict}");
    trial.end()?;
    Ok(format!(
        "{name}: exit 1, {} acknowledged, 0 lost",
        verdict.figures.acked
    ))
}

/// When strace made the call fail, in microseconds of the wall clock.
fn injected_at(trace: &str) -> anyhow::Result<u64> {
    let line = trace
        .lines()
        .find(|line| line.contains("(INJECTED)"))
        .context("strace injected nothing")?;
    wall_micros(line).with_context(|| format!("no time in {line}"))
}

/// The time in a line of `strace -f -ttt`: "PID SECONDS.MICROS call(...)".
pub(super) fn wall_micros(line: &str) -> Option<u64> {
    let (seconds, micros) = line.split_whitespace().nth(1)?.split_once('.')?;
    Some(seconds.parse::<u64>().ok()? * 1_000_000 + micros.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_of_the_injected_failure_is_read() {
        let trace = "7 1763.000001 fdatasync(5</d/wal>) = 0\n\
                     7 1763.250000 fdatasync(5</d/wal>) = -1 EIO (Input/output error) (INJECTED)\n";
        assert_eq!(injected_at(trace).unwrap(), 1_763_250_000);
        assert!(injected_at("").is_err());
    }
}
