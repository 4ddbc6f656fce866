//! kill -9 at random moments, also in the middle of a recovery.
//!
//! Holds: a data directory lives through several rounds, so that what one recovery left is what the next one finds;
//! finished lives stand in a ledger, so that a long run can be stopped and taken up again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::ledger::{Ledger, Subject};
use crate::judge::{Figures, Kind as Violation, Verdict};
use crate::load::Cast;
use crate::program::{Kind, Setup};
use crate::trial::Trial;

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub program: Kind,
    pub rounds: u32,
    pub rounds_per_life: u32,
    pub messages_per_second: u32,
    pub folder: PathBuf,
    pub environment: Vec<(String, String)>,
    /// Stop at the first life with a violation.
    pub stop_at_first: bool,
}

/// What one life ended with; a line of `lives.ndjson`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Life {
    pub number: u32,
    pub rounds: u32,
    pub verdict: Verdict,
    /// Why it could not be finished: the program did not start again, or did not come to rest.
    pub broken: Option<String>,
}

/// All lives of a plan.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub lives: Vec<Life>,
}

impl Outcome {
    pub fn rounds(&self) -> u32 {
        self.lives.iter().map(|life| life.rounds).sum()
    }

    pub fn failed_lives(&self) -> usize {
        self.lives
            .iter()
            .filter(|life| life.broken.is_some() || !life.verdict.is_clean())
            .count()
    }

    pub fn sum(&self, of: impl Fn(&Figures) -> u64) -> u64 {
        self.lives
            .iter()
            .map(|life| of(&life.verdict.figures))
            .sum()
    }

    pub fn count(&self, of: impl Fn(&Verdict) -> u64) -> u64 {
        self.lives.iter().map(|life| of(&life.verdict)).sum()
    }

    /// One line of figures, as they are published.
    pub fn line(&self, name: &str) -> String {
        let slowest = self
            .lives
            .iter()
            .map(|life| life.verdict.figures.recovery_millis_max)
            .max()
            .unwrap_or(0);
        format!(
            "{name}: {} rounds, {} kills, {} acknowledged ({} within 100 ms before a kill), {} lost, {} QoS 2 doubled, \
             {} sessions lost, slowest recovery {slowest} ms",
            self.rounds(),
            self.sum(|figures| figures.faults),
            self.sum(|figures| figures.acked),
            self.sum(|figures| figures.acks_near_faults),
            self.sum(|figures| figures.lost),
            self.count(Verdict::doubled),
            self.count(|verdict| verdict.count(Violation::SessionLost)),
        )
    }
}

/// Runs what the folder does not hold yet.
pub fn run(plan: &Plan) -> anyhow::Result<Outcome> {
    std::fs::create_dir_all(&plan.folder)?;
    let subject = Subject::of(&plan.program, &plan.environment)?;
    let is_whole =
        |lives: &[Life]| lives.iter().map(|life| life.rounds).sum::<u32>() >= plan.rounds;
    let path = plan.folder.join("lives.ndjson");
    let (ledger, lives) = Ledger::open(&path, &subject, is_whole)?;
    let mut outcome = Outcome { lives };
    if !outcome.lives.is_empty() {
        eprintln!("taking up a run after {} rounds", outcome.rounds());
    }
    while outcome.rounds() < plan.rounds {
        let number = u32::try_from(outcome.lives.len())?;
        let rounds = plan.rounds_per_life.min(plan.rounds - outcome.rounds());
        let folder = plan.folder.join(format!("life-{number}"));
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        let life = live(plan, number, rounds, &folder);
        ledger.add(&life)?;
        let failed = life.broken.is_some() || !life.verdict.is_clean();
        eprintln!("life {number}, {rounds} rounds: {}", life.verdict);
        if let Some(why) = &life.broken {
            eprintln!("BROKEN life {number}: {why}");
        }
        if failed {
            eprintln!("evidence in {}", folder.display());
        } else {
            std::fs::remove_dir_all(&folder)?;
        }
        outcome.lives.push(life);
        if failed && plan.stop_at_first {
            break;
        }
    }
    Ok(outcome)
}

/// An error inside of a life is its end and a finding: a program that does not start again keeps no promise.
fn live(plan: &Plan, number: u32, rounds: u32, folder: &Path) -> Life {
    let mut life = Life {
        number,
        rounds,
        verdict: Verdict::default(),
        broken: None,
    };
    if let Err(error) = rounds_of(plan, rounds, folder, &mut life.verdict) {
        life.broken = Some(format!("{error:#}"));
    }
    life
}

fn rounds_of(plan: &Plan, rounds: u32, folder: &Path, verdict: &mut Verdict) -> anyhow::Result<()> {
    let mut setup = Setup::new(plan.program.clone(), &folder.join("program"))?;
    setup.environment.clone_from(&plan.environment);
    let mut trial = Trial::begin(setup, folder, Cast::standard(plan.messages_per_second))?;
    let mut random = rand::rng();
    for round in 0..rounds {
        trial.publish(20)?;
        std::thread::sleep(Duration::from_millis(random.random_range(20..900)));
        trial.kill()?;
        if random.random_bool(0.25) {
            let after = Duration::from_millis(random.random_range(1..60));
            trial.kill_while_recovering(after)?;
        }
        trial
            .restart()
            .with_context(|| format!("after the kill of round {round}"))?;
        if random.random_bool(0.5) {
            trial.publish(20)?;
        }
        trial
            .rest_and_read()
            .with_context(|| format!("round {round}"))?;
        let faults = u64::from(round) + 1;
        *verdict = trial.verdict(faults, faults)?;
        if !verdict.is_clean() {
            return Ok(());
        }
    }
    trial.end()
}
