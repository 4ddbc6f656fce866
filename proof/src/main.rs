//! `headwater-proof`: drives a built program, hurts it, and judges what it did.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use headwater_proof::evidence::Evidence;
use headwater_proof::fault::kill9;
use headwater_proof::history::Recorder;
use headwater_proof::judge::{Rules, judge};
use headwater_proof::load::{Cast, Load, read_retained};
use headwater_proof::program::Kind;

/// Faults against a built server, and a judge over what it acknowledged and delivered.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Drives the standard load against a running server and writes its history.
    Load {
        #[arg(long, default_value = "127.0.0.1:1883")]
        mqtt: SocketAddr,
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// Messages a second of each of the nine publishers.
        #[arg(long, default_value_t = 200)]
        rate: u32,
        /// The folder for history.ndjson.
        #[arg(long)]
        out: PathBuf,
    },
    /// Judges a folder that a run left: history.ndjson, log.ndjson, documents.ndjson.
    Check {
        folder: PathBuf,
        /// The Kafka topic that took every MQTT message; without it no log is expected.
        #[arg(long)]
        routed_to: Option<String>,
        #[arg(long, default_value_t = 0)]
        faults_min: u64,
        #[arg(long, default_value_t = 0)]
        acks_near_faults_min: u64,
    },
    /// kill -9 at random moments under load.
    Kill9 {
        #[command(flatten)]
        program: ProgramArguments,
        #[arg(long, default_value_t = 20)]
        rounds: u32,
        #[arg(long, default_value_t = 10)]
        rounds_per_life: u32,
        #[arg(long, default_value_t = 150)]
        rate: u32,
    },
    /// The same against mosquitto with `persistence true`, for the row beside ours. Losses do not fail it.
    Mosquitto {
        #[arg(long, default_value = "/usr/sbin/mosquitto")]
        binary: PathBuf,
        #[arg(long)]
        out: PathBuf,
        #[arg(long, default_value_t = 5)]
        rounds: u32,
        #[arg(long, default_value_t = 150)]
        rate: u32,
        /// Its strictest file mode: save after each change.
        #[arg(long)]
        autosave_on_changes: bool,
    },
}

#[derive(Args, Debug)]
struct ProgramArguments {
    /// The built `headwater`.
    #[arg(long)]
    binary: PathBuf,
    /// Where the evidence goes; a run that was stopped is taken up from it.
    #[arg(long)]
    out: PathBuf,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("headwater-proof: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// False: the judge complained.
#[expect(
    clippy::print_stdout,
    reason = "a command's answer goes to standard output"
)]
fn run(command: Command) -> anyhow::Result<bool> {
    match command {
        Command::Load {
            mqtt,
            seconds,
            rate,
            out,
        } => {
            std::fs::create_dir_all(&out)?;
            let recorder = Arc::new(Recorder::create(&out.join("history.ndjson"))?);
            let cast = Cast::standard(rate);
            let run = "load";
            let load = Load::start(mqtt, run, Arc::clone(&recorder), &cast)?;
            std::thread::sleep(Duration::from_secs(seconds));
            load.settle()?;
            load.stop()?;
            read_retained(mqtt, run, &recorder, &cast.retained_topics())?;
            println!("{} events in {}", recorder.events()?.len(), out.display());
            Ok(true)
        }
        Command::Check {
            folder,
            routed_to,
            faults_min,
            acks_near_faults_min,
        } => {
            let evidence = Evidence::load(&folder)?;
            let verdict = judge(
                &evidence,
                &Rules {
                    routed_to,
                    faults_min,
                    acks_near_faults_min,
                },
            );
            print!("{verdict}");
            Ok(verdict.is_clean())
        }
        Command::Kill9 {
            program,
            rounds,
            rounds_per_life,
            rate,
        } => {
            let outcome = kill9::run(&kill9::Plan {
                program: Kind::Headwater {
                    binary: program.binary.canonicalize().context("--binary")?,
                },
                rounds,
                rounds_per_life,
                messages_per_second: rate,
                folder: program.out,
                environment: Vec::new(),
                stop_at_first: false,
            })?;
            println!("{}", outcome.line("headwater"));
            let failed = outcome.failed_lives();
            println!(
                "RESULT {} passed, {failed} failed",
                outcome.lives.len() - failed
            );
            Ok(failed == 0)
        }
        Command::Mosquitto {
            binary,
            out,
            rounds,
            rate,
            autosave_on_changes,
        } => {
            let outcome = kill9::run(&kill9::Plan {
                program: Kind::Mosquitto {
                    binary,
                    autosave_on_changes,
                },
                rounds,
                // It does not come back with what it had: each round is a life of its own.
                rounds_per_life: 1,
                messages_per_second: rate,
                folder: out,
                environment: Vec::new(),
                stop_at_first: false,
            })?;
            let name = if autosave_on_changes {
                "mosquitto, autosave_on_changes"
            } else {
                "mosquitto"
            };
            println!("{}", outcome.line(name));
            Ok(outcome.lives.iter().all(|life| life.broken.is_none()))
        }
    }
}
