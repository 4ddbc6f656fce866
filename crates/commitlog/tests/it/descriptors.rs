//! Many partitions, few file descriptors.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use bytes::Bytes;
use headwater_commitlog::fs::{FaultFs, Fs, PowerCutFs, RealFs};
use headwater_commitlog::{CommitError, Log, Options, PartitionId, TableChange, Unit};

use tempfile::TempDir;

use crate::support::*;

const PARTITIONS: u32 = 1_000;
const DESCRIPTORS_MAX: usize = 256;
/// Partitions that get records; the others stay empty.
const USED: usize = 500;

/// In memory where that is possible: a thousand folders are synced, and that is not the question.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

fn few(dir: &Path) -> (Options, FaultFs) {
    let mut options = options(dir);
    options.open_files_max = 192;
    options.wal_bytes_max = Some(600_000);
    let fs = FaultFs::with_descriptors(Arc::new(RealFs), DESCRIPTORS_MAX);
    (options, fs)
}

/// A round of `len` bytes into each of the used partitions, many in one commit.
fn write_round(log: &Log, partitions: &[PartitionId], round: usize, len: usize) {
    for some in partitions[..USED].chunks(20) {
        let value = format!("{round:03}{}", "x".repeat(len));
        let appends = some.iter().map(|id| record(*id, value.as_bytes()));
        log.commit(unit(appends)).unwrap();
    }
}

fn check(log: &Log, partitions: &[PartitionId], rounds: usize) {
    for id in &partitions[..USED] {
        let found = values(log, *id, 0);
        assert_eq!(found.len(), rounds, "{id:?}");
        for (round, value) in found.iter().enumerate() {
            assert!(
                value.starts_with(format!("{round:03}").as_bytes()),
                "{id:?}"
            );
        }
    }
    for id in &partitions[USED..] {
        assert_eq!(log.partition(*id).unwrap().high_watermark(), 0);
    }
}

#[test]
fn a_thousand_partitions_need_few_descriptors() {
    let dir = folder();
    let (options, fs) = few(dir.path());
    let log = Log::open(Arc::new(fs.clone()), options).unwrap();
    let partitions = create(&log, "many", PARTITIONS);
    (0..3).for_each(|round| write_round(&log, &partitions, round, 3000));
    check(&log, &partitions, 3);
    assert!(log.stats().checkpoints >= 3, "{:?}", log.stats());
    let crashed = folder();
    copy(&dir.path().join("data"), &crashed.path().join("data"));
    log.close().unwrap();
    assert!(fs.most_descriptors() > 30, "they are used");
    assert_eq!(fs.refused_opens(), 0, "at most {}", fs.most_descriptors());
    assert_eq!(fs.open_descriptors(), 0);
    for dir in [dir, crashed] {
        let (options, fs) = few(dir.path());
        let log = Log::open(Arc::new(fs.clone()), options).unwrap();
        check(&log, &partitions, 3);
        write_round(&log, &partitions, 3, 10);
        check(&log, &partitions, 4);
        log.close().unwrap();
        assert_eq!(fs.refused_opens(), 0, "at most {}", fs.most_descriptors());
    }
}

#[test]
fn a_checkpoint_leaves_idle_partitions_alone() {
    let dir = folder();
    let log = open(dir.path());
    create(&log, "idle", 3);
    log.close().unwrap();
    let names = std::fs::read_dir(dir.path().join("data/log/idle-1")).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["00000000000000000000.log"]);
}

#[test]
fn a_want_of_descriptors_delays_commits_and_ends_nothing() {
    let dir = folder();
    let (options, fs) = few(dir.path());
    let log = Log::open(Arc::new(fs.clone()), options).unwrap();
    let partitions = create(&log, "many", PARTITIONS);
    write_round(&log, &partitions, 0, 700);
    // Others have taken what there was: nothing can be opened, also not after all is closed.
    fs.allow_descriptors(0);
    let (sender, answers) = channel();
    for some in partitions[..USED].chunks(20) {
        let unit = unit(some.iter().map(|id| record(*id, b"001")));
        let sender = sender.clone();
        log.submit(
            vec![unit],
            Box::new(move |results| sender.send(results).unwrap()),
        );
    }
    until("an open is refused and tried again", || {
        fs.refused_opens() > 4
    });
    assert!(!log.stats().failed);
    // As many as the write-ahead file and the lock have, and a few more.
    fs.allow_descriptors(fs.open_descriptors() + 8);
    for _ in partitions[..USED].chunks(20) {
        let results = answers.recv_timeout(Duration::from_secs(60)).unwrap();
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }
    fs.allow_descriptors(DESCRIPTORS_MAX);
    check(&log, &partitions, 2);
    log.close().unwrap();
    let (options, fs) = few(dir.path());
    check(&Log::open(Arc::new(fs), options).unwrap(), &partitions, 2);
}

#[test]
fn commits_that_need_a_checkpoint_are_refused_while_it_lacks_descriptors() {
    let disk = PowerCutFs::default();
    let fs = FaultFs::with_descriptors(Arc::new(disk.clone()), DESCRIPTORS_MAX);
    let options = Options {
        wal_bytes_max: Some(600_000),
        ..options(Path::new("/data"))
    };
    disk.create_dir(Path::new("/data")).unwrap();
    let wal_dir = options.dir.join("wal");
    let log = Log::open(Arc::new(fs.clone()), options).unwrap();
    // The last step before a checkpoint begins: its own opens are the first that fail.
    let (others, mut begun) = (fs.clone(), false);
    disk.watch(move |disk| {
        let files = disk.list(&wal_dir).unwrap();
        let mut wals = files.iter().filter(|file| file.name.ends_with(".wal"));
        let (count, newest) = (
            wals.clone().count(),
            wals.next_back().map(|file| &file.name),
        );
        let syncs = disk.syncs();
        let synced = syncs.last().and_then(|synced| synced.path.file_name());
        if !begun && count > 1 && synced.is_some_and(|name| name.to_str() == newest.map(|n| &**n)) {
            begun = true;
            others.allow_descriptors(0);
        }
    });
    let value = Bytes::from(vec![b'x'; 20_000]);
    let commit = |log: &Log| {
        let (sender, answer) = channel();
        let unit = Unit {
            tables: vec![TableChange {
                value: Some(value.clone()),
                ..put(16, "key", "")
            }],
            ..Unit::default()
        };
        let done = move |mut results: Vec<_>| sender.send(results.pop().unwrap()).unwrap();
        log.submit(vec![unit], Box::new(done));
        answer.recv_timeout(Duration::from_secs(30)).unwrap()
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    let refused = loop {
        assert!(Instant::now() < deadline, "nothing is refused");
        if let Err(refused) = commit(&log) {
            break refused;
        }
    };
    assert_eq!(refused, CommitError::OutOfFiles);
    assert!(!log.stats().failed && !log.stats().full);
    fs.allow_descriptors(DESCRIPTORS_MAX);
    until("it goes on by itself", || commit(&log).is_ok());
    log.close().unwrap();
}

fn until(what: &str, happened: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !happened() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}
