//! Many connections, many Sessions, many Retained Messages, one slow subscriber: what each costs, and whom it hinders.
//!
//! For: runs that end in an error or a line of figures; each takes its size from the command line.
//! Not for: faults. Not for latencies on a busy machine: a run says what it saw, and `strict` makes a time or a rate that is
//! missed an error. Memory and counts always are.
//! Calls: `generator` for load, `owed` for starts and stops, `client` for what needs a look at each packet.

mod generator;
pub mod idle;
pub mod restart;
pub mod retained;
pub mod slow;
pub mod storm;

use std::fmt::Display;
use std::path::PathBuf;

use anyhow::ensure;

use crate::fault::Bench;

/// What the runs are started with.
#[derive(Clone, Debug)]
pub struct Scale {
    pub bench: Bench,
    /// The built `tests/mqttload`.
    pub generator: PathBuf,
    /// Whether times and rates that are missed fail the run.
    pub strict: bool,
}

impl Scale {
    /// A promise about time or rate: on a machine that others use it is only said.
    fn promise(&self, held: bool, line: impl Display) -> anyhow::Result<String> {
        ensure!(held || !self.strict, "not as promised: {line}");
        Ok(match held {
            true => line.to_string(),
            false => format!("{line}; NOT AS PROMISED on this machine, now"),
        })
    }
}

/// The middle one; of an even number the lower.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len().saturating_sub(1) / 2;
    values.get(middle).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn median_is_the_middle_one() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0]), 1.0);
        assert!(median(Vec::new()).is_nan());
    }
}
