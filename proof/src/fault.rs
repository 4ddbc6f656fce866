//! The faults, each a run that ends in a verdict.

pub mod broken;
pub mod eio;
pub mod enospc;
pub mod kill9;
mod ledger;
pub mod order;
pub mod syscalls;

use std::path::{Path, PathBuf};

use crate::program::{Kind, Setup};

/// Where a fault run finds its program and leaves its evidence.
#[derive(Clone, Debug)]
pub struct Bench {
    pub binary: PathBuf,
    pub folder: PathBuf,
    pub environment: Vec<(String, String)>,
}

impl Bench {
    /// An empty folder of this name, and a setup in it.
    pub(crate) fn setup(&self, name: &str) -> anyhow::Result<(Setup, PathBuf)> {
        let folder = self.folder.join(name);
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        let kind = Kind::Headwater {
            binary: self.binary.clone(),
        };
        let mut setup = Setup::new(kind, &folder.join("program"))?;
        setup.environment.clone_from(&self.environment);
        Ok((setup, folder))
    }
}

/// Lets only the named system calls stop, so that the others cost nothing. Errors and delays are injected under it, but
/// strace 6.1 loses signals: all but the first of a process are not delivered at a stop that the filter makes.
const STOP_AT_NAMED: &str = "--seccomp-bpf";

/// strace around a program, with these options.
fn strace(trace: &Path, options: &[String]) -> Vec<String> {
    let mut words: Vec<String> = ["strace", "-f", "-qq", "-ttt", "-y", "-o"]
        .map(str::to_owned)
        .into();
    words.push(trace.display().to_string());
    words.extend_from_slice(options);
    words.push("--".to_owned());
    words
}
