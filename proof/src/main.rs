//! `headwater-proof`: drives a built program, hurts it, and judges what it did.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use headwater_proof::evidence::Evidence;
use headwater_proof::fault::{Bench, broken, eio, enospc, kill9, order, syscalls};
use headwater_proof::history::Recorder;
use headwater_proof::judge::{Rules, judge};
use headwater_proof::load::{Cast, Load, read_retained};
use headwater_proof::owed::{away, broadcast, retention};
use headwater_proof::program::Kind;
use headwater_proof::scale::{Scale, idle, restart, retained, slow, storm};

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
    /// kill -9 at the Nth write-path system call, fresh and recovering; without --sample all N until none fires.
    Strace {
        #[command(flatten)]
        program: ProgramArguments,
        /// Only this many, drawn at random.
        #[arg(long)]
        sample: Option<u32>,
    },
    /// A sync that fails: exit code 1, a sentence, nothing acknowledged afterwards, a clean restart.
    Eio {
        #[command(flatten)]
        program: ProgramArguments,
        #[arg(long, default_value_t = 3)]
        times: u32,
    },
    /// A full disk; --tmpfs is an empty small file system.
    Enospc {
        #[command(flatten)]
        program: ProgramArguments,
        #[arg(long)]
        tmpfs: PathBuf,
    },
    /// Records go that a session is owed: it gets them all, and the space comes back.
    Retention {
        #[command(flatten)]
        program: ProgramArguments,
        /// Messages of each of the ten publishers.
        #[arg(long, default_value_t = 1_000)]
        each: u64,
    },
    /// Messages to one session that is away, with a kill and a stop in between.
    Away {
        #[command(flatten)]
        program: ProgramArguments,
        #[arg(long, default_value_t = 100_000)]
        messages: u64,
    },
    /// Sessions that are away and owed the same messages: at most 16 bytes of memory and 4 bytes of log each.
    Broadcast {
        #[command(flatten)]
        program: ProgramArguments,
        #[arg(long, default_value_t = 100_000)]
        sessions: u64,
        #[arg(long, default_value_t = 100)]
        broadcasts: u64,
    },
    /// Connections that say nothing: how many fit, and what each costs.
    Idle {
        #[command(flatten)]
        scale: ScaleArguments,
        #[arg(long, default_value_t = 19_000)]
        connections: u64,
        /// Over TLS, in a run of their own.
        #[arg(long, default_value_t = 5_000)]
        tls: u64,
    },
    /// CONNECTs at a fixed rate beside others' messages.
    Storm {
        #[command(flatten)]
        scale: ScaleArguments,
        /// CONNECTs a second.
        #[arg(long, default_value_t = 5_000)]
        rate: u32,
        #[arg(long, default_value_t = 4)]
        seconds: u32,
        #[arg(long, default_value_t = 5)]
        rounds: u32,
    },
    /// Sessions that are away, with a subscription each: how long a start takes.
    Restart {
        #[command(flatten)]
        scale: ScaleArguments,
        #[arg(long, default_value_t = 100_000)]
        sessions: u64,
    },
    /// Retained Messages of 64 bytes: a start with them, and one subscriber that streams them all beside others.
    Retained {
        #[command(flatten)]
        scale: ScaleArguments,
        #[arg(long, default_value_t = 1_000_000)]
        messages: u64,
    },
    /// Retained Messages of 1,000 bytes to many subscribers at once; then they are cleared, and the memory comes back.
    Crowd {
        #[command(flatten)]
        scale: ScaleArguments,
        #[arg(long, default_value_t = 100_000)]
        messages: u64,
        #[arg(long, default_value_t = 20)]
        subscribers: u64,
    },
    /// One subscriber that never reads, or never acknowledges, beside a full load.
    Slow {
        #[command(flatten)]
        scale: ScaleArguments,
        #[arg(long, default_value_t = 3)]
        seconds: u32,
        #[arg(long, default_value_t = 5)]
        rounds: u32,
        /// Only the heaviest kind.
        #[arg(long)]
        brief: bool,
    },
    /// With slow syncs: no answer before its sync returned, no file whose folder is not synced.
    Order {
        #[command(flatten)]
        program: ProgramArguments,
    },
    /// A build with `--cfg faults` must be caught at each of its faults, and pass without one.
    Broken {
        #[command(flatten)]
        program: ProgramArguments,
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

#[derive(Args, Debug)]
struct ScaleArguments {
    #[command(flatten)]
    program: ProgramArguments,
    /// The built `tests/mqttload`.
    #[arg(long)]
    generator: PathBuf,
    /// A time or a rate that is missed fails the run: for a machine that nobody else uses.
    #[arg(long)]
    strict: bool,
}

impl ScaleArguments {
    fn scale(self) -> anyhow::Result<Scale> {
        Ok(Scale {
            bench: self.program.bench()?,
            generator: self.generator.canonicalize().context("--generator")?,
            strict: self.strict,
        })
    }
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

impl ProgramArguments {
    fn bench(self) -> anyhow::Result<Bench> {
        std::fs::create_dir_all(&self.out)?;
        Ok(Bench {
            binary: self.binary.canonicalize().context("--binary")?,
            folder: self.out.canonicalize()?,
            environment: Vec::new(),
        })
    }
}

#[expect(
    clippy::print_stdout,
    reason = "a command's answer goes to standard output"
)]
fn say(line: impl Display) {
    println!("{line}");
}

/// The last line of a run, which ./test counts. False: something failed.
fn result(passed: usize, failed: usize) -> bool {
    say(format_args!("RESULT {passed} passed, {failed} failed"));
    failed == 0
}

/// The end of a run that would have failed with an error.
fn passed(line: impl Display) -> bool {
    say(line);
    result(1, 0)
}

/// The same of several lines, each said when it is there.
fn all(lines: impl Iterator<Item = anyhow::Result<String>>) -> bool {
    let (mut passed, mut failed) = (0, 0);
    for line in lines {
        match line {
            Ok(line) => {
                say(line);
                passed += 1;
            }
            Err(error) => {
                say(format!("FAILED {error:#}"));
                failed += 1;
            }
        }
    }
    result(passed, failed)
}

/// False: the judge complained.
fn run(command: Command) -> anyhow::Result<bool> {
    match command {
        Command::Load {
            mqtt,
            seconds,
            rate,
            out,
        } => load(mqtt, seconds, rate, &out),
        Command::Check {
            folder,
            routed_to,
            faults_min,
            acks_near_faults_min,
        } => check(
            &folder,
            &Rules {
                routed_to,
                faults_min,
                acks_near_faults_min,
            },
        ),
        Command::Kill9 {
            program,
            rounds,
            rounds_per_life,
            rate,
        } => kill9(program, rounds, rounds_per_life, rate),
        Command::Strace { program, sample } => strace(program.bench()?, sample),
        Command::Eio { program, times } => {
            let failed = usize::try_from(eio::run(&program.bench()?, times)?)?;
            // One more than asked for: the documents'.
            Ok(result(usize::try_from(times)? + 1 - failed, failed))
        }
        Command::Enospc { program, tmpfs } => Ok(passed(enospc::run(&program.bench()?, &tmpfs)?)),
        Command::Retention { program, each } => {
            Ok(passed(retention::run(&program.bench()?, each)?))
        }
        Command::Away { program, messages } => Ok(passed(away::run(&program.bench()?, messages)?)),
        Command::Broadcast {
            program,
            sessions,
            broadcasts,
        } => {
            let plan = broadcast::Plan {
                sessions,
                broadcasts,
            };
            Ok(passed(broadcast::run(&program.bench()?, plan)?))
        }
        Command::Idle {
            scale,
            connections,
            tls,
        } => {
            let scale = scale.scale()?;
            let plain = || idle::run(&scale, connections);
            let lines = std::iter::once_with(plain);
            let lines = lines.chain(std::iter::once_with(|| idle::run_tls(&scale, tls)));
            Ok(all(lines))
        }
        Command::Storm {
            scale,
            rate,
            seconds,
            rounds,
        } => {
            let plan = storm::Plan {
                rate,
                seconds,
                rounds,
            };
            Ok(all(storm::run(&scale.scale()?, plan)))
        }
        Command::Restart { scale, sessions } => {
            Ok(passed(restart::run(&scale.scale()?, sessions)?))
        }
        Command::Retained { scale, messages } => {
            Ok(passed(retained::run(&scale.scale()?, messages)?))
        }
        Command::Crowd {
            scale,
            messages,
            subscribers,
        } => Ok(passed(retained::crowd(
            &scale.scale()?,
            messages,
            subscribers,
        )?)),
        Command::Slow {
            scale,
            seconds,
            rounds,
            brief,
        } => {
            let plan = slow::Plan {
                seconds,
                rounds,
                brief,
            };
            Ok(all(slow::run(&scale.scale()?, plan)))
        }
        Command::Order { program } => slow_syncs(&program.bench()?),
        Command::Broken { program } => {
            let failed = usize::try_from(broken::run(&program.bench()?)?)?;
            Ok(result(broken::CHECKS - failed, failed))
        }
        Command::Mosquitto {
            binary,
            out,
            rounds,
            rate,
            autosave_on_changes,
        } => {
            let kind = Kind::Mosquitto {
                binary,
                autosave_on_changes,
            };
            beside(kind, out, rounds, rate)
        }
    }
}

fn load(mqtt: SocketAddr, seconds: u64, rate: u32, out: &Path) -> anyhow::Result<bool> {
    std::fs::create_dir_all(out)?;
    let recorder = Arc::new(Recorder::create(&out.join("history.ndjson"))?);
    let cast = Cast::standard(rate);
    let run = "load";
    let load = Load::start(mqtt, run, Arc::clone(&recorder), &cast, &mut || Ok(()))?;
    std::thread::sleep(Duration::from_secs(seconds));
    load.settle(&mut || Ok(()))?;
    load.stop()?;
    read_retained(mqtt, run, &recorder, &cast.retained_topics())?;
    let count = recorder.events()?.len();
    say(format_args!("{count} events in {}", out.display()));
    Ok(true)
}

fn check(folder: &Path, rules: &Rules) -> anyhow::Result<bool> {
    let verdict = judge(&Evidence::load(folder)?, rules);
    say(&verdict);
    Ok(verdict.is_clean())
}

fn kill9(
    program: ProgramArguments,
    rounds: u32,
    rounds_per_life: u32,
    messages_per_second: u32,
) -> anyhow::Result<bool> {
    let outcome = kill9::run(&kill9::Plan {
        program: Kind::Headwater {
            binary: program.binary.canonicalize().context("--binary")?,
        },
        rounds,
        rounds_per_life,
        messages_per_second,
        folder: program.out,
        environment: Vec::new(),
        stop_at_first: false,
    })?;
    say(outcome.line("headwater"));
    let failed = outcome.failed_lives();
    Ok(result(outcome.lives.len() - failed, failed))
}

fn strace(bench: Bench, sample: Option<u32>) -> anyhow::Result<bool> {
    let outcome = syscalls::run(&syscalls::Plan { bench, sample })?;
    say(format_args!(
        "kill -9 at the Nth write-path call: {} fired, the deepest at call {}, {} not reached, {} acknowledged, {} failed",
        outcome.fired, outcome.deepest, outcome.not_reached, outcome.acked, outcome.failed
    ));
    let failed = usize::try_from(outcome.failed)?;
    Ok(result(usize::try_from(outcome.fired)? - failed, failed))
}

fn slow_syncs(bench: &Bench) -> anyhow::Result<bool> {
    let findings = order::run(bench)?;
    say(format_args!(
        "slow syncs: {} acknowledged, the soonest after {} us; {} files and folders made",
        findings.acked, findings.soonest_ack_micros, findings.made
    ));
    let broken = findings.acked_before_sync.iter();
    for line in broken.chain(&findings.folders_not_synced).take(20) {
        say(format_args!("BROKEN {line}"));
    }
    let failed = usize::from(!findings.is_clean());
    Ok(result(1 - failed, failed))
}

/// What it loses does not fail the run; that it cannot be run does.
fn beside(
    program: Kind,
    folder: PathBuf,
    rounds: u32,
    messages_per_second: u32,
) -> anyhow::Result<bool> {
    let autosave = matches!(
        program,
        Kind::Mosquitto {
            autosave_on_changes: true,
            ..
        }
    );
    let outcome = kill9::run(&kill9::Plan {
        program,
        rounds,
        // It does not come back with what it had: each round is a life of its own.
        rounds_per_life: 1,
        messages_per_second,
        folder,
        environment: Vec::new(),
        stop_at_first: false,
    })?;
    let name = if autosave {
        "mosquitto, autosave_on_changes"
    } else {
        "mosquitto"
    };
    say(outcome.line(name));
    Ok(outcome.lives.iter().all(|life| life.broken.is_none()))
}
