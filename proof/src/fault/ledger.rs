//! What a long run has finished, so that it can be stopped and taken up again.
//!
//! For: one JSON value a line, under a first line that says what they were found with.
//! Holds: what one build has passed is not taken for another's; a run that came to its end is not taken up: it begins
//! anew.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::program::Kind;

/// What was run: the program by its bytes, wherever it lies, and all that changes what it does.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(super) struct Subject {
    length: usize,
    crc32c: u32,
    kind: String,
    environment: Vec<(String, String)>,
}

impl Subject {
    pub(super) fn of(kind: &Kind, environment: &[(String, String)]) -> anyhow::Result<Self> {
        let (binary, kind) = match kind {
            Kind::Headwater { binary } => (binary, "headwater".to_owned()),
            Kind::Mosquitto {
                binary,
                autosave_on_changes,
            } => (
                binary,
                format!("mosquitto, autosave_on_changes {autosave_on_changes}"),
            ),
        };
        let bytes = std::fs::read(binary).with_context(|| binary.display().to_string())?;
        Ok(Self {
            length: bytes.len(),
            crc32c: crc32c::crc32c(&bytes),
            kind,
            environment: environment.to_vec(),
        })
    }
}

#[derive(Debug)]
pub(super) struct Ledger {
    path: PathBuf,
}

impl Ledger {
    /// With what was finished before, if it is of this subject and not the whole of a run.
    pub(super) fn open<T: DeserializeOwned>(
        path: &Path,
        subject: &Subject,
        is_whole: impl FnOnce(&[T]) -> bool,
    ) -> anyhow::Result<(Self, Vec<T>)> {
        let ledger = Self {
            path: path.to_owned(),
        };
        if path.exists() {
            let finished = ledger.finished(subject)?.filter(|found| !is_whole(found));
            if let Some(finished) = finished {
                return Ok((ledger, finished));
            }
            eprintln!(
                "beginning anew: {} is another program's, or a whole run's",
                path.display()
            );
        }
        File::create(path).with_context(|| path.display().to_string())?;
        ledger.add(subject)?;
        Ok((ledger, Vec::new()))
    }

    /// `None`: of another subject.
    fn finished<T: DeserializeOwned>(&self, subject: &Subject) -> anyhow::Result<Option<Vec<T>>> {
        let text = std::fs::read_to_string(&self.path)?;
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        if serde_json::from_str(first).ok().as_ref() != Some(subject) {
            return Ok(None);
        }
        let finished = lines.map(serde_json::from_str).collect::<Result<_, _>>();
        Ok(Some(
            finished.with_context(|| self.path.display().to_string())?,
        ))
    }

    pub(super) fn add(&self, line: &impl Serialize) -> anyhow::Result<()> {
        let mut file = OpenOptions::new().append(true).open(&self.path)?;
        // In one piece, so that a run that is stopped here leaves no half of it.
        Ok(file.write_all(format!("{}\n", serde_json::to_string(line)?).as_bytes())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(binary: &Path, fault: &str) -> Subject {
        let environment = [("HEADWATER_FAULT".to_owned(), fault.to_owned())];
        let binary = binary.to_owned();
        Subject::of(&Kind::Headwater { binary }, &environment).unwrap()
    }

    fn found(path: &Path, subject: &Subject) -> Vec<u32> {
        let whole = |finished: &[u32]| finished.len() == 3;
        Ledger::open(path, subject, whole).unwrap().1
    }

    #[test]
    fn a_run_is_taken_up_for_the_same_program_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (path, binary) = (folder.path().join("ledger"), folder.path().join("program"));
        std::fs::write(&binary, "one build").unwrap();
        let first = subject(&binary, "");
        let (ledger, _) = Ledger::open(&path, &first, |_: &[u32]| false).unwrap();
        for line in [7_u32, 8] {
            ledger.add(&line).unwrap();
        }
        let elsewhere = folder.path().join("moved");
        std::fs::rename(&binary, &elsewhere).unwrap();
        assert_eq!(found(&path, &subject(&elsewhere, "")), [7, 8]);
        std::fs::write(&elsewhere, "two build").unwrap();
        assert_eq!(found(&path, &subject(&elsewhere, "")), [0; 0]);
        // The first is forgotten with that.
        assert_eq!(found(&path, &first), [0; 0]);
        ledger.add(&9_u32).unwrap();
        assert_eq!(found(&path, &first), [9]);
        std::fs::write(&elsewhere, "one build").unwrap();
        assert_eq!(found(&path, &subject(&elsewhere, "ack-early")), [0; 0]);
    }

    #[test]
    fn a_run_that_came_to_its_end_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, binary) = (folder.path().join("ledger"), folder.path().join("program"));
        std::fs::write(&binary, "one build").unwrap();
        let subject = subject(&binary, "");
        assert_eq!(found(&path, &subject), [0; 0]);
        let ledger = Ledger { path: path.clone() };
        for line in 0..3_u32 {
            assert_eq!(found(&path, &subject).len(), line as usize);
            ledger.add(&line).unwrap();
        }
        assert_eq!(found(&path, &subject), [0; 0]);
    }

    #[test]
    fn lines_without_a_subject_are_nobodys() {
        let folder = tempfile::tempdir().unwrap();
        let (path, binary) = (folder.path().join("ledger"), folder.path().join("program"));
        std::fs::write(&binary, "one build").unwrap();
        std::fs::write(&path, "7\n8\n").unwrap();
        assert_eq!(found(&path, &subject(&binary, "")), [0; 0]);
    }
}
