//! Deliberately broken builds must be caught, so that the judge is known to be able to fail.
//!
//! One binary built with `--cfg faults`; the environment chooses the fault. Without a fault the same binary must pass the
//! same checks: what is caught then is the fault and nothing else.

use anyhow::ensure;

use super::{Bench, kill9, order};
use crate::judge::{Kind as Violation, Verdict};
use crate::program::Kind;

const VARIABLE: &str = "HEADWATER_FAULT";
/// A forgotten identifier shows only when a kill falls between a message and its PUBREC's arrival.
const ROUNDS: u32 = 8;

/// What each fault must be caught by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Catch {
    AckBeforeSync,
    FolderNotSynced,
    Doubled,
}

const FAULTS: [(&str, Catch); 3] = [
    ("ack-before-sync", Catch::AckBeforeSync),
    ("skip-dir-fsync", Catch::FolderNotSynced),
    ("forget-packet-id", Catch::Doubled),
];

/// Two of a sound build, one of each fault.
pub const CHECKS: usize = 2 + FAULTS.len();

/// Runs all; the number of faults that went unnoticed, or checks that a sound build failed.
pub fn run(bench: &Bench) -> anyhow::Result<u32> {
    let mut failed = 0;
    let mut report = |name: String, result: anyhow::Result<()>| match result {
        Ok(()) => eprintln!("ok      {name}"),
        Err(error) => {
            failed += 1;
            eprintln!("FAILED  {name}: {error:#}");
        }
    };
    for catch in [Catch::AckBeforeSync, Catch::Doubled] {
        report(
            format!("no fault, nothing caught: {catch:?}"),
            sound(bench, catch),
        );
    }
    for (fault, catch) in FAULTS {
        report(format!("{fault} is caught"), caught(bench, fault, catch));
    }
    Ok(failed)
}

fn with_fault(bench: &Bench, fault: Option<&str>) -> Bench {
    let name = fault.unwrap_or("sound");
    let environment = fault
        .map(|fault| (VARIABLE.to_owned(), fault.to_owned()))
        .into_iter()
        .collect();
    Bench {
        environment,
        folder: bench.folder.join(name),
        binary: bench.binary.clone(),
    }
}

fn rounds(bench: &Bench, rounds: u32) -> anyhow::Result<kill9::Outcome> {
    if bench.folder.exists() {
        std::fs::remove_dir_all(&bench.folder)?;
    }
    kill9::run(&kill9::Plan {
        program: Kind::Headwater {
            binary: bench.binary.clone(),
        },
        rounds,
        rounds_per_life: rounds,
        messages_per_second: 150,
        folder: bench.folder.clone(),
        environment: bench.environment.clone(),
        stop_at_first: true,
    })
}

fn sound(bench: &Bench, catch: Catch) -> anyhow::Result<()> {
    let bench = with_fault(bench, None);
    if catch == Catch::Doubled {
        let outcome = rounds(&bench, 2)?;
        ensure!(
            outcome.failed_lives() == 0,
            "{}",
            outcome.line("sound build")
        );
    } else {
        let findings = order::run(&bench)?;
        ensure!(findings.is_clean(), "{findings:?}");
    }
    Ok(())
}

fn caught(bench: &Bench, fault: &str, catch: Catch) -> anyhow::Result<()> {
    let bench = with_fault(bench, Some(fault));
    match catch {
        Catch::AckBeforeSync => {
            let findings = order::run(&bench)?;
            ensure!(
                !findings.acked_before_sync.is_empty(),
                "every acknowledgement waited for a sync"
            );
        }
        Catch::FolderNotSynced => {
            let findings = order::run(&bench)?;
            ensure!(
                !findings.folders_not_synced.is_empty(),
                "every folder was synced"
            );
        }
        Catch::Doubled => {
            let outcome = rounds(&bench, ROUNDS)?;
            let doubled = outcome.count(Verdict::doubled);
            let other = outcome.count(|verdict| verdict.count(Violation::LostToSession));
            ensure!(
                doubled > 0,
                "nothing was doubled in {} rounds",
                outcome.rounds()
            );
            ensure!(
                other == 0,
                "{other} lost besides: {}",
                outcome.line("broken build")
            );
        }
    }
    Ok(())
}
