//! Headwater: configuration, listeners, wiring and the command line.
//!
//! For: making one program of the crates below: it maps what the broker calls a message to what
//! the log calls a record, and runs each on the threads it needs.
//! Not for: protocol rules (`mqtt-broker`, `kafka-server`), storage (`commitlog`, `docstore`), what
//! a flow means (`bridge`).
//! Calls: every other crate. Called by: `main`.
//! Holds: no door opens before everything behind it stands; what is acknowledged was committed.
//!
//! A PUBLISH comes in at `mqtt::connection`, is decided in `mqtt-broker`, becomes a unit of the log in
//! `mqtt::commits`, and goes on to documents in `flows::sinks`. Kafka records reach devices in
//! `flows::delivers`.

mod cli;
mod config;
mod data_dir;
mod failure;
mod flows;
mod http;
mod kafka;
mod listen;
mod mqtt;
mod permissions;
mod serve;
mod start_block;
mod tls;
mod verbs;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Verb};

/// Wrong use of the command line.
const WRONG_USE: u8 = 2;

/// Runs the program: 0 done, 1 failed, 2 wrong use.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no failure and belong on standard output; clap knows.
            error.print().ok();
            return if error.use_stderr() {
                ExitCode::from(WRONG_USE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match dispatch(cli) {
        Ok(code) => code,
        // A reader that went away (`| head`) is no failure of ours.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            writeln!(io::stderr(), "headwater: {error:#}").ok();
            ExitCode::FAILURE
        }
    }
}

fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    let target = cli.target;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let code = match cli.verb {
        None => serve::run(&target, &cli.serve)?,
        Some(Verb::Serve(mut options)) => {
            options.take_missing(cli.serve);
            serve::run(&target, &options)?
        }
        Some(Verb::Check(mut options)) => {
            options.take_missing(cli.serve);
            verbs::check::run(&options, &mut out)?
        }
        Some(Verb::Pub(verb)) => verbs::publish::run(&target, &verb).map(|()| ExitCode::SUCCESS)?,
        Some(Verb::Sub(verb)) => verbs::subscribe::run(&target, &verb, &mut out)?,
        Some(Verb::Bench(verb)) => verbs::bench::run(&target, &verb, &mut out)?,
        Some(Verb::Produce(verb)) => done(verbs::log::produce(&target, &verb))?,
        Some(Verb::Consume(verb)) => done(verbs::log::consume(&target, &verb, &mut out))?,
        Some(Verb::Topic(verb)) => done(verbs::log::topic(&target, &verb, &mut out))?,
        Some(Verb::Group(verb)) => done(verbs::log::group(&target, &verb, &mut out))?,
        Some(Verb::Doc(verb)) => done(verbs::doc::run(&target, &verb, &mut out))?,
    };
    out.flush()?;
    Ok(code)
}

fn done(result: anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    result.map(|()| ExitCode::SUCCESS)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}
