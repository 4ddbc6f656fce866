//! What must be true of the disk before an answer leaves, seen from outside: kill -9 leaves the page cache alive and would
//! not show it, a power cut would.
//!
//! Two observations of one run under strace, each sync made slow:
//! * no acknowledgement comes sooner after its message than one sync takes;
//! * each file and folder that is made in the log, and not removed again, is made durable by a sync of the folder it
//!   stands in, at the latest when the program has ended in peace.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{Bench, STOP_AT_NAMED, strace};
use crate::history::{Event, Op};
use crate::load::Cast;
use crate::trial::Trial;

/// How long each sync is made to take, at least.
const SYNC_MICROS: u64 = 200_000;
/// Folders of the data directory whose entries must survive a power cut before anything in them is promised.
const DURABLE: [&str; 2] = ["wal", "log"];

/// What was found; empty lists are what should be.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    pub acked: usize,
    pub soonest_ack_micros: u64,
    /// Files and folders made in the log.
    pub made: usize,
    pub acked_before_sync: Vec<String>,
    pub folders_not_synced: Vec<String>,
}

impl Findings {
    pub fn is_clean(&self) -> bool {
        self.acked_before_sync.is_empty() && self.folders_not_synced.is_empty()
    }
}

pub fn run(bench: &Bench) -> anyhow::Result<Findings> {
    let (setup, folder) = bench.setup("order")?;
    let trace = folder.join("strace.log");
    let options = [
        STOP_AT_NAMED.to_owned(),
        "-e".to_owned(),
        "trace=openat,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir,fsync,fdatasync".to_owned(),
        "-e".to_owned(),
        format!("inject=fsync,fdatasync:delay_enter={SYNC_MICROS}"),
    ];
    let data = setup.data_dir();
    let wrapped = setup.wrapped_in(strace(&trace, &options));
    let mut trial = Trial::begin(wrapped, &folder, Cast::small(40))?;
    trial.publish(60)?;
    let events = trial.recorder.events()?;
    let mut watch = trial.stop_clients()?;
    watch.program.stop()?;

    let mut findings = Findings::default();
    latencies(&events, &mut findings);
    let text = std::fs::read_to_string(&trace)?;
    let (made, unsynced) = entries(&text, &data);
    findings.made = made;
    findings.folders_not_synced = unsynced.into_iter().collect();
    anyhow::ensure!(findings.acked > 0, "nothing was acknowledged");
    anyhow::ensure!(findings.made > 0, "no file was made in {}", data.display());
    Ok(findings)
}

fn latencies(events: &[Event], findings: &mut Findings) {
    let mut sent: BTreeMap<(&str, u64), u64> = BTreeMap::new();
    findings.soonest_ack_micros = u64::MAX;
    for event in events {
        let message = (event.key.as_str(), event.seq);
        match event.op {
            Op::Send => {
                sent.entry(message).or_insert(event.t_mono);
            }
            Op::Ack => {
                let Some(at) = sent.get(&message) else {
                    continue;
                };
                let took = event.t_mono - at;
                findings.acked += 1;
                findings.soonest_ack_micros = took.min(findings.soonest_ack_micros);
                if took < SYNC_MICROS {
                    findings
                        .acked_before_sync
                        .push(format!("{message:?} at QoS {} after {took} us", event.qos));
                }
            }
            _ => {}
        }
    }
}

/// How many entries were made in the log's folders, and those whose folder was never synced afterwards.
fn entries(trace: &str, data: &Path) -> (usize, BTreeSet<String>) {
    let mut seen = BTreeSet::new();
    let mut unsynced: BTreeSet<String> = BTreeSet::new();
    for line in trace.lines().filter(|line| !line.contains(" = -1 ")) {
        if let Some(path) = made(line).filter(|path| is_durable(path, data)) {
            if seen.insert(path.to_owned()) {
                unsynced.insert(path.to_owned());
            }
        } else if line.contains(" unlink") || line.contains(" rmdir") {
            if let Some(path) = line.split('"').nth(1) {
                unsynced.remove(path);
            }
        } else if line.contains("fsync(") || line.contains("fdatasync(") {
            // "fsync(7</data/wal>) = 0": -y names the descriptor's path.
            let Some(folder) = line
                .split_once('<')
                .and_then(|(_, rest)| rest.split_once('>'))
                .map(|(path, _)| path)
            else {
                continue;
            };
            unsynced.retain(|path| Path::new(path).parent() != Some(Path::new(folder)));
        }
    }
    (seen.len(), unsynced)
}

/// The path that a successful call made: a file opened with O_CREAT, a folder, the new name of a rename.
fn made(line: &str) -> Option<&str> {
    let quoted: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
    if line.contains(" openat(") && line.contains("O_CREAT") || line.contains(" mkdir") {
        quoted.first().copied()
    } else if line.contains(" rename") {
        quoted.get(1).copied()
    } else {
        None
    }
}

fn is_durable(path: &str, data: &Path) -> bool {
    DURABLE
        .iter()
        .any(|name| Path::new(path).starts_with(data.join(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries_of(lines: &[&str]) -> (usize, Vec<String>) {
        let (made, unsynced) = entries(&lines.join("\n"), Path::new("/d"));
        (made, unsynced.into_iter().collect())
    }

    const OPEN: &str =
        r#"7 1.0 openat(AT_FDCWD</x>, "/d/wal/1", O_RDWR|O_CREAT|O_CLOEXEC, 0666) = 5</d/wal/1>"#;

    #[test]
    fn file_whose_folder_is_synced_later_is_durable() {
        let synced = [
            OPEN,
            "7 1.1 fdatasync(5</d/wal/1>) = 0",
            "7 1.2 fsync(6</d/wal>) = 0",
        ];
        assert_eq!(entries_of(&synced), (1, vec![]));
    }

    #[test]
    fn file_whose_folder_is_not_synced_or_only_before_is_found() {
        let lost = (1, vec!["/d/wal/1".to_owned()]);
        assert_eq!(
            entries_of(&[OPEN, "7 1.1 fdatasync(5</d/wal/1>) = 0"]),
            lost
        );
        assert_eq!(entries_of(&["7 0.9 fsync(6</d/wal>) = 0", OPEN]), lost);
        assert_eq!(
            entries_of(&[OPEN, "7 1.1 fsync(6</d/wal>) = -1 EIO (Input/output error)"]),
            lost
        );
    }

    #[test]
    fn file_that_is_removed_again_needs_no_sync() {
        assert_eq!(
            entries_of(&[OPEN, r#"7 1.1 unlink("/d/wal/1") = 0"#]),
            (1, vec![])
        );
    }

    #[test]
    fn folders_and_renames_are_made_too_and_other_files_do_not_matter() {
        let lines = [
            r#"7 1.0 mkdir("/d/log/t-0", 0777) = 0"#,
            r#"7 1.0 rename("/d/wal/x.tmp", "/d/wal/x") = 0"#,
            r#"7 1.0 openat(AT_FDCWD</x>, "/d/store/db", O_RDWR|O_CREAT, 0666) = 5</d/store/db>"#,
            r#"7 1.0 openat(AT_FDCWD</x>, "/d/wal/2", O_RDONLY) = 5</d/wal/2>"#,
        ];
        assert_eq!(
            entries_of(&lines),
            (2, vec!["/d/log/t-0".to_owned(), "/d/wal/x".to_owned()])
        );
    }

    #[test]
    fn acknowledgement_sooner_than_a_sync_is_found() {
        let event = |t_mono, op| Event {
            t_mono,
            op,
            key: "p".into(),
            seq: 1,
            ..Event::default()
        };
        for (acked_at, expected) in [(SYNC_MICROS + 5, 0), (5_000, 1)] {
            let mut findings = Findings::default();
            latencies(
                &[event(5, Op::Send), event(acked_at, Op::Ack)],
                &mut findings,
            );
            assert_eq!(findings.acked_before_sync.len(), expected, "{acked_at}");
        }
    }
}
