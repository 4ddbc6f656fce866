//! What Sessions that are away are owed, through the built program: that it outlives its records, and what it costs.
//!
//! For: runs that end in an error or a line of figures. Not for: faults at arbitrary moments; `fault` has those.
//! Calls: `stream`, `program`, `kafka`, `metrics`.

pub mod away;
pub mod broadcast;
pub mod retention;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::program::{Program, Setup};
use crate::stream::Stream;

/// Between two looks at something that changes by itself.
const PAUSE: Duration = Duration::from_millis(50);
/// Resident memory is at rest when it stays within this for [`REST_LOOKS`] looks.
const REST_BYTES: u64 = 256 << 10;
const REST_LOOKS: u32 = 40;
const REST_WAIT: Duration = Duration::from_secs(60);

/// The program of such a run, killed and stopped in turn.
pub(crate) struct Running {
    pub(crate) setup: Setup,
    pub(crate) program: Program,
}

impl Running {
    pub(crate) fn start(setup: Setup) -> anyhow::Result<Self> {
        let program = setup.start()?;
        Ok(Self { setup, program })
    }

    /// kill -9 and a new start; how long until it was ready.
    pub(crate) fn kill_and_start(&mut self) -> anyhow::Result<Duration> {
        self.program.kill()?;
        self.start_again().context("after a kill -9")
    }

    /// SIGTERM and a new start; how long until it was ready.
    pub(crate) fn stop_and_start(&mut self) -> anyhow::Result<Duration> {
        self.program.stop()?;
        self.start_again().context("after a stop")
    }

    fn start_again(&mut self) -> anyhow::Result<Duration> {
        self.program = self.setup.spawn()?;
        self.program.wait_until_ready()
    }

    /// Each stream's numbers, all streams at once.
    fn publish(
        &self,
        run: &str,
        streams: &[Stream],
        numbers: std::ops::Range<u64>,
    ) -> anyhow::Result<()> {
        let address = self.setup.mqtt;
        std::thread::scope(|scope| {
            let publish = |stream| {
                let numbers = numbers.clone();
                scope.spawn(move || Stream::publish(stream, address, run, numbers))
            };
            let threads: Vec<_> = streams.iter().map(publish).collect();
            threads.into_iter().try_for_each(joined)
        })
    }

    /// Bytes of the records of a topic's only partition, as the files say.
    fn partition_bytes(&self, topic: &str) -> anyhow::Result<u64> {
        let folder = self.setup.data_dir().join(format!("log/{topic}-0"));
        bytes_of(&folder, "log")
    }
}

/// What a thread of a scope came to.
pub(crate) fn joined<T>(
    thread: std::thread::ScopedJoinHandle<'_, anyhow::Result<T>>,
) -> anyhow::Result<T> {
    thread
        .join()
        .map_err(|_| anyhow::anyhow!("a thread of the harness panicked"))?
}

/// Bytes of the files with this extension in a folder and all below it.
fn bytes_of(folder: &Path, extension: &str) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            bytes += bytes_of(&path, extension)?;
        } else if path.extension().is_some_and(|found| found == extension) {
            // It may go between the look and the question.
            bytes += path.metadata().map_or(0, |about| about.len());
        }
    }
    Ok(bytes)
}

/// The resident memory once it does not change any more.
pub(crate) fn at_rest(program: &Program) -> anyhow::Result<u64> {
    let begun = Instant::now();
    let (mut lowest, mut highest) = (u64::MAX, 0);
    let mut looks = 0;
    while looks < REST_LOOKS {
        let now = program.resident_bytes()?;
        (lowest, highest) = (lowest.min(now), highest.max(now));
        looks += 1;
        if highest - lowest > REST_BYTES {
            (lowest, highest, looks) = (now, now, 0);
        }
        ensure!(
            begun.elapsed() < REST_WAIT,
            "its memory does not come to rest in {REST_WAIT:?}"
        );
        std::thread::sleep(PAUSE);
    }
    Ok(highest)
}

/// Looks again and again until it is so.
pub(crate) fn until(
    what: &str,
    at_most: Duration,
    mut is_so: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    while !is_so()? {
        ensure!(begun.elapsed() < at_most, "after {at_most:?}: not {what}");
        std::thread::sleep(PAUSE);
    }
    Ok(begun.elapsed())
}

pub(crate) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// A name for the payloads of one run.
fn run_name() -> String {
    format!("{:08x}", rand::random::<u32>())
}
