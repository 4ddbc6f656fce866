//! kill -9 at the Nth system call of the write path, for N = 1, 2, 3, ... until none fires.
//!
//! strace counts for each thread apart: the first thread that reaches its Nth call of that name ends the process. Both in a
//! fresh data directory and in one that a kill left, so that recovery's own calls are among them.
//!
//! Holds: finished places stand in a ledger, so that the run over all of them can be stopped and taken up again.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};
use serde::{Deserialize, Serialize};

use super::ledger::{Ledger, Subject};
use super::{Bench, strace};
use crate::load::Cast;
use crate::program::Kind;
use crate::trial::Trial;

/// Every call by which a file or a folder changes. `write` and `writev` also speak to sockets.
pub const WRITE_PATH: [&str; 14] = [
    "write",
    "writev",
    "pwrite64",
    "pwritev",
    "pwritev2",
    "fdatasync",
    "fsync",
    "sync_file_range",
    "rename",
    "renameat2",
    "ftruncate",
    "fallocate",
    "unlink",
    "mkdir",
];
/// A sample draws N from here: the first calls are those of a start, the later ones those of commits.
const SAMPLE_N_MAX: u32 = 120;
/// A run that gets no deeper shows too little.
const DEEPEST_MIN: u32 = 3;

#[derive(Clone, Debug)]
pub struct Plan {
    pub bench: Bench,
    /// `None`: all of them.
    pub sample: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    pub fired: u32,
    /// The program came to its end before its Nth call of that name.
    pub not_reached: u32,
    pub failed: u32,
    /// The largest N that fired.
    pub deepest: u32,
    pub acked: u64,
}

/// One place to kill at.
#[derive(Clone, Copy, Debug)]
struct Place {
    syscall: &'static str,
    nth: u32,
    /// In a data directory that a kill left.
    recovering: bool,
}

pub fn run(plan: &Plan) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    match plan.sample {
        Some(count) => sample(plan, count, &mut outcome)?,
        None => all(plan, &mut outcome)?,
    }
    // Each thread's first call alone proves little, and a strace that loses its signals gets no further.
    ensure!(
        outcome.deepest >= DEEPEST_MIN,
        "no kill behind call {} of a thread: {outcome:?}",
        outcome.deepest
    );
    Ok(outcome)
}

/// What became of one place; a line of `places.ndjson`.
#[derive(Debug, Serialize, Deserialize)]
struct Visited {
    syscall: String,
    nth: u32,
    recovering: bool,
    fired: bool,
    failed: bool,
    acked: u64,
}

/// Where to go on with a call; `None` when its last place did not fire.
fn next(visited: &[Visited], syscall: &str, recovering: bool) -> Option<u32> {
    let same = |one: &&Visited| one.syscall == syscall && one.recovering == recovering;
    match visited.iter().filter(same).max_by_key(|one| one.nth) {
        None => Some(1),
        Some(last) => last.fired.then_some(last.nth + 1),
    }
}

fn is_whole(visited: &[Visited]) -> bool {
    WRITE_PATH.iter().all(|syscall| {
        let [fresh, hurt] = [false, true].map(|recovering| next(visited, syscall, recovering));
        fresh.is_none() && hurt.is_none()
    })
}

/// Every place until none fires, but for those that a stopped run of the same program has visited.
fn all(plan: &Plan, outcome: &mut Outcome) -> anyhow::Result<()> {
    let binary = plan.bench.binary.clone();
    let subject = Subject::of(&Kind::Headwater { binary }, &plan.bench.environment)?;
    let path = plan.bench.folder.join("places.ndjson");
    let (ledger, visited) = Ledger::open(&path, &subject, is_whole)?;
    for one in &visited {
        outcome.fired += u32::from(one.fired);
        outcome.not_reached += u32::from(!one.fired);
        outcome.failed += u32::from(one.failed);
        outcome.acked += one.acked;
        if one.fired {
            outcome.deepest = outcome.deepest.max(one.nth);
        }
    }
    for syscall in WRITE_PATH {
        for recovering in [false, true] {
            let mut going_on = next(&visited, syscall, recovering);
            while let Some(nth) = going_on {
                let place = Place {
                    syscall,
                    nth,
                    recovering,
                };
                let before = *outcome;
                let fired = at(plan, place, outcome)?;
                let line = Visited {
                    syscall: syscall.to_owned(),
                    nth,
                    recovering,
                    fired,
                    failed: outcome.failed > before.failed,
                    acked: outcome.acked - before.acked,
                };
                ledger.add(&line)?;
                going_on = fired.then_some(nth + 1);
            }
        }
    }
    Ok(())
}

/// Until this many have fired. A call that the program does not make is not drawn again.
fn sample(plan: &Plan, count: u32, outcome: &mut Outcome) -> anyhow::Result<()> {
    let mut random = rand::rng();
    let mut ceilings: Vec<(&str, bool, u32)> = WRITE_PATH
        .iter()
        .flat_map(|syscall| {
            [
                (*syscall, false, SAMPLE_N_MAX),
                (*syscall, true, SAMPLE_N_MAX),
            ]
        })
        .collect();
    ceilings.shuffle(&mut random);
    while outcome.fired < count {
        ceilings.retain(|(_, _, ceiling)| *ceiling > 1);
        let chosen = ceilings
            .choose(&mut random)
            .copied()
            .context("fewer write-path calls than the sample wants")?;
        let (syscall, recovering, ceiling) = chosen;
        // Small N as likely as large: half of the magnitudes, then a number below.
        let below = random.random_range(1..=ceiling);
        let nth = random.random_range(1..=below);
        let fired = at(
            plan,
            Place {
                syscall,
                nth,
                recovering,
            },
            outcome,
        )?;
        for entry in ceilings
            .iter_mut()
            .filter(|entry| entry.0 == syscall && entry.1 == recovering && !fired)
        {
            entry.2 = nth;
        }
    }
    Ok(())
}

/// True: the fault fired.
fn at(plan: &Plan, place: Place, outcome: &mut Outcome) -> anyhow::Result<bool> {
    let folder: PathBuf = plan.bench.folder.join("at");
    let name = format!(
        "kill -9 at {} {}{}",
        place.syscall,
        place.nth,
        if place.recovering { ", recovering" } else { "" }
    );
    match attempt(plan, place, &name, outcome) {
        Ok(true) => outcome.fired += 1,
        Ok(false) => {
            outcome.not_reached += 1;
            return Ok(false);
        }
        Err(error) => {
            outcome.failed += 1;
            outcome.fired += 1;
            let kept = plan.bench.folder.join(format!("failed-{}", outcome.failed));
            eprintln!("BROKEN {name}: {error:#}\nevidence in {}", kept.display());
            if kept.exists() {
                std::fs::remove_dir_all(&kept)?;
            }
            std::fs::rename(&folder, &kept)?;
        }
    }
    outcome.deepest = outcome.deepest.max(place.nth);
    Ok(true)
}

fn attempt(plan: &Plan, place: Place, name: &str, outcome: &mut Outcome) -> anyhow::Result<bool> {
    let (setup, folder) = plan.bench.setup("at")?;
    let set = place.syscall;
    let options = [
        "-e".to_owned(),
        format!("trace={set}"),
        "-e".to_owned(),
        format!("inject={set}:signal=KILL:when={}", place.nth),
    ];
    let wrapped = setup.wrapped_in(strace(&folder.join("strace.log"), &options));
    let cast = Cast::small(100);
    let mut trial = if place.recovering {
        let mut trial = Trial::begin(setup, &folder, cast)?;
        trial.publish(30)?;
        trial.kill()?;
        trial.restart_hurt(&wrapped, name)?;
        trial
    } else {
        Trial::begin_hurt(setup, Some((&wrapped, name)), &folder, cast)?
    };
    trial.publish(40)?;
    if trial.watch.fired.is_none() {
        // Last chance: what the program does when it is asked to end.
        trial.terminate_armed(name)?;
    }
    let Some(status) = trial.watch.fired else {
        return Ok(false);
    };
    ensure!(
        status.signal() == Some(9),
        "it ended with {status} instead of being killed"
    );
    trial.publish(10)?;
    trial.rest_and_read()?;
    let verdict = trial.verdict(1, 0)?;
    outcome.acked += verdict.figures.acked;
    ensure!(verdict.is_clean(), "{verdict}");
    trial.end()?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(syscall: &str, nth: u32, recovering: bool, fired: bool) -> Visited {
        Visited {
            syscall: syscall.to_owned(),
            nth,
            recovering,
            fired,
            failed: false,
            acked: 0,
        }
    }

    #[test]
    fn a_run_is_whole_when_every_call_has_come_to_its_end() {
        assert!(!is_whole(&[]));
        let mut visited = Vec::new();
        for syscall in WRITE_PATH {
            for recovering in [false, true] {
                visited.push(at(syscall, 1, recovering, true));
                assert_eq!(next(&visited, syscall, recovering), Some(2));
                assert!(!is_whole(&visited));
                visited.push(at(syscall, 2, recovering, false));
                assert_eq!(next(&visited, syscall, recovering), None);
            }
        }
        assert!(is_whole(&visited));
    }
}
