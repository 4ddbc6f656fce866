//! Runs of `tests/mqttload`, the load generator: one process, one JSON line.
//!
//! Holds: no generator outlives its [`Load`].

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;

use super::Scale;
use crate::owed::{Running, until};

/// A generator at work.
pub(super) struct Load {
    child: Child,
    what: String,
}

/// What a generator said at its end.
pub(super) struct Figures(Value);

impl Scale {
    /// Starts the generator against the program; `words` are its arguments but for the address.
    pub(super) fn load(&self, running: &Running, words: &str) -> anyhow::Result<Load> {
        let child = command(&self.generator, running, words)
            .spawn()
            .with_context(|| format!("starting {}", self.generator.display()))?;
        Ok(Load {
            child,
            what: words.to_owned(),
        })
    }
}

fn command(generator: &Path, running: &Running, words: &str) -> Command {
    let mut command = Command::new(generator);
    command
        .args(words.split_whitespace())
        .arg("--port")
        .arg(running.setup.mqtt.port().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command
}

impl Load {
    /// Waits for its end, at most so long.
    pub(super) fn figures(mut self, at_most: Duration) -> anyhow::Result<Figures> {
        let child = &mut self.child;
        until("at its end", at_most, || Ok(child.try_wait()?.is_some()))
            .with_context(|| format!("mqttload {}", self.what))?;
        let mut line = String::new();
        let out = self.child.stdout.take().context("no output")?;
        std::io::Read::read_to_string(&mut { out }, &mut line)?;
        ensure!(
            self.child.wait()?.success(),
            "mqttload {} failed",
            self.what
        );
        Ok(Figures(serde_json::from_str(&line)?))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // By its own id; it may have ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Figures {
    pub(super) fn number(&self, name: &str) -> anyhow::Result<f64> {
        let value = self.0.get(name).and_then(Value::as_f64);
        value.with_context(|| format!("mqttload did not say {name}: {}", self.0))
    }

    pub(super) fn milliseconds(&self, name: &str) -> anyhow::Result<f64> {
        Ok(self.number(name)? / 1_000.0)
    }

    /// That these are all 0.
    pub(super) fn none_of(&self, names: &[&str]) -> anyhow::Result<()> {
        for name in names {
            ensure!(self.number(name)? == 0.0, "{name}: {}", self.0);
        }
        Ok(())
    }
}
