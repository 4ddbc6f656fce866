//! The proof: whatever a crash or a failing disk leaves, what was acknowledged is there and
//! nothing is half.
//!
//! A seeded history of units runs on files that know what a power cut may leave. Each image is
//! recovered and compared with the history: it must be exactly the first so many units, at least
//! those that were acknowledged when the power went. Builds that are wrong on purpose must fail.

#![allow(
    clippy::cast_possible_truncation,
    reason = "a test's numbers are small"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::fs::{FaultFs, FaultKind, Fs, Open, PowerCutFs, Seed};
use crate::record::RecordBody;
use crate::{
    Admin, Append, AppendData, CommitError, Durability, Fault, Log, Options, PartitionId,
    TableChange, TableId, TopicConfig, Unit,
};

/// The partition that every unit writes its number to.
const COUNTED: PartitionId = PartitionId(1);
const PARTITIONS: u32 = 3;
const NOW_MS: i64 = 1_700_000_000_000;

fn options(fault: Option<Fault>) -> Options {
    let mut options = Options::new("/data");
    options.wal_bytes_max = Some(64 << 10);
    options.clock = Arc::new(|| NOW_MS);
    options.open_files_max = 4;
    options.fault = fault;
    options
}

fn record(partition: u32, value: Vec<u8>) -> Append {
    let body = RecordBody::new(None, Some(&value), []);
    let data = AppendData::Record {
        timestamp_ms: NOW_MS,
        body,
    };
    Append {
        partition: PartitionId(partition),
        data,
    }
}

/// Unit 0 makes the topic; unit n writes n into the counted partition and does something else.
fn history(seed: &mut Seed, count: u64) -> Vec<Unit> {
    let config = TopicConfig::default()
        .with("segment.bytes", "8192")
        .unwrap();
    let name = "a".to_owned();
    let create = Admin::CreateTopic {
        name,
        partitions: PARTITIONS,
        config: config.clone(),
    };
    let mut units = vec![Unit {
        admin: vec![create],
        ..Unit::default()
    }];
    let mut extra = false;
    for number in 1..=count {
        let mut unit = Unit::default();
        unit.appends
            .push(record(COUNTED.0, number.to_be_bytes().to_vec()));
        for partition in 2..=PARTITIONS {
            if seed.below(2) == 0 {
                let mut value = number.to_be_bytes().to_vec();
                value.resize(8 + seed.below(2500) as usize, number as u8);
                unit.appends.push(record(partition, value));
            }
        }
        let key = Bytes::from(vec![b'k', seed.below(6) as u8]);
        let value = (seed.below(4) > 0).then(|| Bytes::from(number.to_string()));
        unit.tables.push(TableChange {
            table: TableId(16),
            key,
            value,
        });
        match seed.below(12) {
            0 => unit.admin.push(Admin::TrimTo {
                partition: COUNTED,
                offset: number / 2,
            }),
            1 if !extra => {
                let config = config.clone();
                unit.admin.push(Admin::CreateTopic {
                    name: "b".into(),
                    partitions: 1,
                    config,
                });
                extra = true;
            }
            1 => {
                unit.admin.push(Admin::DeleteTopic { name: "b".into() });
                extra = false;
            }
            _ => {}
        }
        units.push(unit);
    }
    units
}

/// What the log must say after a number of units.
#[derive(Debug, Default, PartialEq)]
struct Model {
    records: BTreeMap<u32, Vec<Bytes>>,
    start: u64,
    rows: BTreeMap<Bytes, Bytes>,
    extra_topic: bool,
}

fn model(units: &[Unit]) -> Model {
    let mut model = Model::default();
    for unit in units {
        for append in &unit.appends {
            let AppendData::Record { body, .. } = &append.data else {
                panic!("records only")
            };
            let (at, len) = body.value_range().unwrap();
            let value = body.as_bytes().slice(at..at + len);
            model
                .records
                .entry(append.partition.0)
                .or_default()
                .push(value);
        }
        for change in &unit.tables {
            match &change.value {
                Some(value) => model.rows.insert(change.key.clone(), value.clone()),
                None => model.rows.remove(&change.key),
            };
        }
        for admin in &unit.admin {
            match admin {
                Admin::TrimTo { offset, .. } => model.start = model.start.max(*offset),
                Admin::CreateTopic { name, .. } if name == "b" => model.extra_topic = true,
                Admin::DeleteTopic { .. } => model.extra_topic = false,
                _ => {}
            }
        }
    }
    if let Some(counted) = model.records.get_mut(&COUNTED.0) {
        counted.drain(..model.start as usize);
    }
    model.records.retain(|_, values| !values.is_empty());
    model
}

/// What the log says, and how many units that is.
fn observe(log: &Log) -> Result<(usize, Model), String> {
    let mut model = Model::default();
    if log.topic("a").is_none() {
        return Ok((0, model));
    }
    let counted = log
        .partition(COUNTED)
        .ok_or("the counted partition is gone")?;
    model.start = counted.log_start_offset();
    for id in 1..=PARTITIONS {
        let partition = log
            .partition(PartitionId(id))
            .ok_or("a partition is gone")?;
        let mut at = partition.log_start_offset();
        let values = model.records.entry(id).or_default();
        while at < partition.high_watermark() {
            for record in partition
                .records(at, 10_000)
                .map_err(|error| format!("{error:?}"))?
            {
                let record = record.map_err(|error| error.to_string())?;
                at = record.offset + 1;
                values.push(record.value.unwrap_or_default());
            }
        }
    }
    model.records.retain(|_, values| !values.is_empty());
    log.scan_table(TableId(16), &mut |key, value| {
        model.rows.insert(key.clone(), value.clone());
    });
    model.extra_topic = log.topic("b").is_some();
    Ok((counted.high_watermark() as usize + 1, model))
}

/// Recovers what `fs` holds and says what is wrong with it.
fn judge(fs: &PowerCutFs, units: &[Unit], acked: usize) -> Result<(), String> {
    let open = || Log::open(Arc::new(fs.clone()), options(None));
    let log = open().map_err(|error| format!("not opened: {error}: {error:?}"))?;
    let (count, seen) = observe(&log)?;
    if count < acked {
        return Err(format!(
            "{acked} units were acknowledged, {count} are there"
        ));
    }
    if seen != model(units.get(..count).ok_or("more than was ever submitted")?) {
        return Err(format!("not what {count} units make"));
    }
    // It goes on from there.
    if count > 0 {
        let more = record(2, b"after".to_vec());
        let unit = Unit {
            appends: [more].into_iter().collect(),
            ..Unit::default()
        };
        log.commit(unit)
            .map_err(|error| format!("not writable: {error}"))?;
    }
    Ok(())
}

struct Image {
    fs: PowerCutFs,
    acked: usize,
}

/// Has images taken at about every `every`th operation of `fs`.
fn take_images(fs: &PowerCutFs, every: u64, seed: u64, acked: &Arc<AtomicUsize>) -> Images {
    let images: Images = Arc::default();
    let (taken, acked, mut seed) = (Arc::clone(&images), Arc::clone(acked), Seed(seed));
    fs.watch(move |fs| {
        if seed.below(every) == 0 {
            // Read first: what is acknowledged from here on need not be in the image.
            let acked = acked.load(Ordering::SeqCst);
            let fs = fs.cut(&mut seed);
            taken.lock().unwrap().push(Image { fs, acked });
        }
    });
    images
}

type Images = Arc<Mutex<Vec<Image>>>;

/// Runs the history; gives what a power cut may leave at many moments of it.
fn run(
    fs: &PowerCutFs,
    units: &[Unit],
    seed: u64,
    every: u64,
    fault: Option<Fault>,
) -> (Vec<Image>, usize) {
    let acked = Arc::new(AtomicUsize::new(0));
    let images = take_images(fs, every, seed, &acked);
    submit(fs, units, seed, fault, &acked);
    let images = std::mem::take(&mut *images.lock().unwrap());
    (images, acked.load(Ordering::SeqCst))
}

/// Submits the history to a log on `fs`, a few units at a time, and closes it.
fn submit(
    fs: &PowerCutFs,
    units: &[Unit],
    seed: u64,
    fault: Option<Fault>,
    acked: &Arc<AtomicUsize>,
) {
    let log = Log::open(Arc::new(fs.clone()), options(fault)).unwrap();
    let mut draw = Seed(seed);
    let mut rest = units.to_vec();
    while !rest.is_empty() {
        let some = rest
            .drain(..(1 + draw.below(4) as usize).min(rest.len()))
            .collect();
        let counted = Arc::clone(acked);
        let (sender, receiver) = std::sync::mpsc::channel();
        let done = move |results: Vec<Result<_, _>>| {
            let count = results.iter().take_while(|result| result.is_ok()).count();
            counted.fetch_add(count, Ordering::SeqCst);
            sender.send(count == results.len()).unwrap_or_default();
        };
        log.submit(some, Box::new(done));
        // Now and then the next ones are submitted during the sync.
        if draw.below(3) > 0 && receiver.recv() == Ok(false) {
            break;
        }
    }
    drop(log);
}

fn violations(images: &[Image], units: &[Unit]) -> Vec<String> {
    images
        .iter()
        .filter_map(|image| judge(&image.fs, units, image.acked).err())
        .collect()
}

#[test]
fn every_power_cut_leaves_all_that_was_acknowledged_and_nothing_half() {
    let (mut judged, mut under_load) = (0, 0);
    for seed in 1..=6 {
        println!("seed {seed}");
        let units = history(&mut Seed(seed), 60);
        let (images, acked) = run(&PowerCutFs::default(), &units, seed, 2, None);
        assert_eq!(acked, units.len());
        under_load += images.iter().filter(|image| image.acked > 1).count();
        judged += images.len();
        assert_eq!(violations(&images, &units), [""; 0], "seed {seed}");
    }
    println!("{judged} images, {under_load} with acknowledged units");
    assert!(
        judged >= 1000 && under_load >= 500,
        "{judged} images, {under_load} under load"
    );
}

#[test]
fn without_syncs_a_power_cut_takes_the_newest_but_leaves_nothing_half() {
    for durability in [Durability::Os, Durability::Interval { interval_ms: 1 }] {
        let units = history(&mut Seed(7), 60);
        let fs = PowerCutFs::default();
        let images = take_images(&fs, 3, 7, &Arc::default());
        let options = Options {
            durability,
            ..options(None)
        };
        let log = Log::open(Arc::new(fs.clone()), options).unwrap();
        units
            .iter()
            .for_each(|unit| drop(log.commit(unit.clone()).unwrap()));
        drop(log);
        let images = std::mem::take(&mut *images.lock().unwrap());
        assert!(images.len() > 50, "{}", images.len());
        assert_eq!(violations(&images, &units), [""; 0], "{durability:?}");
    }
}

#[test]
fn a_power_cut_during_recovery_loses_nothing_either() {
    let mut judged = 0;
    for seed in 1..=3 {
        let units = history(&mut Seed(seed), 40);
        let (images, _) = run(&PowerCutFs::default(), &units, seed, 25, None);
        for (number, image) in images.iter().enumerate() {
            let acked = Arc::new(AtomicUsize::new(image.acked));
            let nested = take_images(&image.fs, 6, number as u64, &acked);
            drop(Log::open(Arc::new(image.fs.clone()), options(None)).unwrap());
            let nested = std::mem::take(&mut *nested.lock().unwrap());
            judged += nested.len();
            assert_eq!(
                violations(&nested, &units),
                [""; 0],
                "seed {seed}, image {number}"
            );
        }
    }
    println!("{judged} images of recoveries");
    assert!(judged >= 200, "{judged}");
}

#[test]
fn a_power_cut_during_the_recovery_after_a_kill_loses_nothing_either() {
    let mut judged = 0;
    for seed in 1..=6 {
        let (fs, units) = (PowerCutFs::default(), history(&mut Seed(seed), 60));
        let acked = Arc::<AtomicUsize>::default();
        let killed = kill_after_each_snapshot(&fs, &acked);
        submit(&fs, &units, seed, None, &acked);
        let killed = std::mem::take(&mut *killed.lock().unwrap());
        for (number, image) in killed.iter().enumerate() {
            let acked = Arc::new(AtomicUsize::new(image.acked));
            let nested = take_images(&image.fs, 1, number as u64, &acked);
            drop(Log::open(Arc::new(image.fs.clone()), options(None)).unwrap());
            let nested = std::mem::take(&mut *nested.lock().unwrap());
            judged += nested.len();
            let found = violations(&nested, &units);
            assert_eq!(found, [""; 0], "seed {seed}, kill {number}");
        }
    }
    println!("{judged} images of recoveries");
    assert!(judged >= 1000, "{judged}");
}

/// Has images taken, as kills leave them, of moments when a snapshot has its name and the name is not
/// synced.
fn kill_after_each_snapshot(fs: &PowerCutFs, acked: &Arc<AtomicUsize>) -> Images {
    let images: Images = Arc::default();
    let (taken, acked, mut was_fresh) = (Arc::clone(&images), Arc::clone(acked), false);
    fs.watch(move |fs| {
        let fresh = Path::new("/data/wal/snapshot.new");
        let is_fresh = fs.open(fresh, Open::Read).is_ok();
        if std::mem::replace(&mut was_fresh, is_fresh) && !is_fresh {
            let (acked, fs) = (acked.load(Ordering::SeqCst), fs.killed());
            taken.lock().unwrap().push(Image { fs, acked });
        }
    });
    images
}

#[test]
fn recovering_twice_gives_the_same_bytes() {
    let units = history(&mut Seed(5), 60);
    let (images, _) = run(&PowerCutFs::default(), &units, 5, 8, None);
    let segments = |fs: &PowerCutFs| -> BTreeMap<PathBuf, Vec<u8>> {
        let files = fs.files().into_iter();
        files
            .filter(|(path, _)| path.starts_with("/data/log"))
            .collect()
    };
    assert!(images.len() > 20);
    for image in images {
        let (one, other) = (image.fs.killed(), image.fs.killed());
        for fs in [&one, &other] {
            drop(Log::open(Arc::new(fs.clone()), options(None)).unwrap());
        }
        assert_eq!(segments(&one), segments(&other));
        drop(Log::open(Arc::new(other.clone()), options(None)).unwrap());
        assert_eq!(
            segments(&one),
            segments(&other),
            "a second recovery changes nothing"
        );
    }
}

#[test]
fn the_power_cut_finds_an_answer_before_the_sync() {
    let units = history(&mut Seed(1), 60);
    let (images, _) = run(
        &PowerCutFs::default(),
        &units,
        1,
        4,
        Some(Fault::AckBeforeSync),
    );
    let found = violations(&images, &units);
    assert!(
        found.iter().any(|what| what.contains("were acknowledged")),
        "{found:?}"
    );
}

#[test]
fn the_power_cut_finds_a_folder_that_was_not_synced() {
    let units = history(&mut Seed(2), 60);
    let (images, _) = run(
        &PowerCutFs::default(),
        &units,
        2,
        4,
        Some(Fault::SkipDirFsync),
    );
    assert!(!violations(&images, &units).is_empty());
}

/// EIO, ENOSPC, EDQUOT: what a sync may fail with.
const ERRNOS: [i32; 3] = [5, 28, 122];

/// Runs `run` with sync 1, 2, 3 … of a fresh disk failing, and losing what it should have written,
/// until no sync is left to fail. `run` gives images of the disk, and whether the log reported a
/// failure. Gives how many syncs failed, and what was wrong.
fn fail_each_sync(
    errno: i32,
    fresh: impl Fn() -> PowerCutFs,
    run: impl Fn(&PowerCutFs, u64) -> (Vec<Image>, bool),
    units: &[Unit],
) -> (u64, Vec<String>) {
    let (mut failed, mut found) = (0, Vec::new());
    for number in 1.. {
        let fs = fresh();
        fs.fail_sync_at(number, errno);
        let (mut images, reported) = run(&fs, number);
        let syncs = fs.syncs();
        let Some((first, after)) = syncs
            .get(number as usize - 1..)
            .and_then(<[_]>::split_first)
        else {
            assert!(!reported, "nothing failed");
            return (failed, found);
        };
        failed += 1;
        if !reported {
            found.push(format!("{errno} of a sync was not reported: {first:?}"));
        }
        // The other thread may just have been about to sync the same file; it does not do so later.
        if after.contains(first) {
            found.push(format!("{errno}, and synced again: {first:?}"));
        }
        // The next start reads back what is in memory, also what never reached the disk.
        let acked = images.last().map_or(0, |image| image.acked);
        let images_of_restart = take_images(&fs, 50, number, &Arc::new(AtomicUsize::new(acked)));
        drop(Log::open(Arc::new(fs.clone()), options(None)));
        images.append(&mut images_of_restart.lock().unwrap());
        images.push(Image {
            fs: fs.cut(&mut Seed(number)),
            acked,
        });
        found.extend(violations(&images, units));
    }
    unreachable!("it ends when no sync is left")
}

/// A history on `fs`, up to the first refusal.
fn run_to_refusal(
    fs: &PowerCutFs,
    with: Options,
    units: &[Unit],
    number: u64,
) -> (Vec<Image>, bool) {
    let promised = with.durability == Durability::Sync;
    let (mut acked, mut images, mut seed) = (0, Vec::new(), Seed(number));
    let mut image = |acked| {
        let fs = fs.cut(&mut seed);
        let acked = if promised { acked } else { 0 };
        images.push(Image { fs, acked });
    };
    let mut reported = true;
    // The first sync of all is the data directory's parent's.
    if let Ok(log) = Log::open(Arc::new(fs.clone()), with) {
        let mut late = 2;
        for unit in units {
            if log.commit(unit.clone()).is_err() {
                break;
            }
            acked += 1;
            // The next checkpoint may hide what the write-ahead file lost.
            if fs.syncs().len() as u64 >= number && late > 0 {
                late -= 1;
                image(acked);
            }
        }
        reported = log.close().is_err();
    }
    image(acked);
    (images, reported)
}

#[test]
fn a_failed_sync_ends_the_log_is_not_tried_again_and_loses_nothing() {
    let units = history(&mut Seed(3), 30);
    // Without syncs of frames, a switch of write-ahead files has one of its own.
    let every = ERRNOS.map(|errno| (Durability::Sync, errno));
    for (durability, errno) in every.into_iter().chain([(Durability::Os, 28)]) {
        let options = || Options {
            durability,
            ..options(None)
        };
        let run = |fs: &PowerCutFs, number| run_to_refusal(fs, options(), &units, number);
        let (failed, found) = fail_each_sync(errno, PowerCutFs::default, run, &units);
        assert!(failed > 30, "{failed} syncs");
        assert_eq!(found, [""; 0], "{durability:?}, {errno}");
    }
}

#[test]
fn a_failed_sync_during_recovery_is_not_tried_again_and_loses_nothing() {
    let units = history(&mut Seed(6), 60);
    let (mut images, _) = run(&PowerCutFs::default(), &units, 6, 40, None);
    images.retain(|image| image.acked > 20);
    assert!(images.len() > 2, "{}", images.len());
    for (image, errno) in images.iter().zip(ERRNOS.into_iter().cycle()) {
        // Its indexes have to be made again.
        let fresh = || {
            let fs = image.fs.killed();
            let files = fs.files().into_keys();
            for path in files.filter(|path| path.extension().is_some_and(|end| end == "index")) {
                fs.remove_file(&path).unwrap();
            }
            fs
        };
        let run = |fs: &PowerCutFs, number| {
            let log = Log::open(Arc::new(fs.clone()), options(None));
            let reported = log.is_err() || log.is_ok_and(|log| log.close().is_err());
            let fs = fs.cut(&mut Seed(number));
            let acked = image.acked;
            (vec![Image { fs, acked }], reported)
        };
        let (failed, found) = fail_each_sync(errno, fresh, run, &units);
        assert!(failed > 5, "{failed} syncs");
        assert_eq!(found, [""; 0], "{errno}");
    }
}

#[test]
fn the_power_cut_finds_a_sync_that_was_tried_again() {
    let units = history(&mut Seed(3), 30);
    let faulty = || options(Some(Fault::RetryFsync));
    let run = |fs: &PowerCutFs, number| run_to_refusal(fs, faulty(), &units, number);
    let (_, found) = fail_each_sync(5, PowerCutFs::default, run, &units);
    for what in ["were acknowledged", "synced again", "not reported"] {
        assert!(
            found.iter().any(|found| found.contains(what)),
            "{what}: {found:?}"
        );
    }
}

/// Fails the Nth operation for N = 1, 2, 3 … until none fails any more.
fn fail_each_operation(kind: FaultKind, for_ever: bool) {
    let units = history(&mut Seed(4), 25);
    let mut fired = 0;
    for number in 1.. {
        let disk = PowerCutFs::default();
        let inner: Arc<dyn Fs> = Arc::new(disk.clone());
        let fs = FaultFs::new(inner, kind, number, for_ever);
        let outcomes = Arc::new(Mutex::new(Vec::new()));
        if let Ok(log) = Log::open(Arc::new(fs.clone()), options(None)) {
            for unit in &units {
                let outcomes = Arc::clone(&outcomes);
                let done = move |mut results: Vec<_>| {
                    outcomes.lock().unwrap().push(results.pop().unwrap());
                };
                log.submit(vec![unit.clone()], Box::new(done));
            }
            drop(log.close());
            assert_eq!(
                outcomes.lock().unwrap().len(),
                units.len(),
                "all are answered"
            );
        }
        if number > fs.operations() {
            break;
        }
        fired += fs.fired();
        let outcomes = std::mem::take(&mut *outcomes.lock().unwrap());
        check_outcomes(&disk.killed(), &units, &outcomes)
            .unwrap_or_else(|what| panic!("{kind:?} at {number}, for ever: {for_ever}: {what}"));
    }
    assert!(fired > 20, "{fired} faults fired");
}

/// Committed units are there, refused ones are not, those of a log that failed may be.
fn check_outcomes(
    fs: &PowerCutFs,
    units: &[Unit],
    outcomes: &[Result<crate::Receipt, CommitError>],
) -> Result<(), String> {
    let open = Log::open(Arc::new(fs.clone()), options(None));
    let log = open.map_err(|error| format!("not opened: {error}: {error:?}"))?;
    let committed: Vec<_> = units
        .iter()
        .zip(outcomes)
        .filter(|(_, outcome)| outcome.is_ok())
        .map(|(unit, _)| unit.clone())
        .collect();
    let unknown: Vec<_> = units
        .iter()
        .zip(outcomes)
        .filter(|(_, outcome)| matches!(outcome, Err(CommitError::Poisoned { .. })))
        .map(|(unit, _)| unit.clone())
        .collect();
    let (_, seen) = observe(&log)?;
    let mut possible = committed;
    if seen == model(&possible) {
        return Ok(());
    }
    for unit in unknown {
        possible.push(unit);
        if seen == model(&possible) {
            return Ok(());
        }
    }
    Err(format!(
        "neither what was committed nor what may have been: {seen:?}"
    ))
}

#[test]
fn each_failing_operation_leaves_what_was_acknowledged() {
    fail_each_operation(FaultKind::Io, false);
}

#[test]
fn each_operation_from_which_all_fail_leaves_what_was_acknowledged() {
    fail_each_operation(FaultKind::Io, true);
}

#[test]
fn each_short_write_is_continued() {
    fail_each_operation(FaultKind::ShortWrite, false);
    fail_each_operation(FaultKind::ShortWrite, true);
}

#[test]
fn each_interrupted_call_is_repeated() {
    fail_each_operation(FaultKind::Interrupted, false);
}

#[test]
fn each_full_disk_refuses_cleanly() {
    fail_each_operation(FaultKind::Full, false);
    fail_each_operation(FaultKind::Full, true);
}

/// Commits one record, again and again until it is taken.
fn commit_until_taken(log: &Log) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let more = record(1, vec![b'x'; 3000]);
        let unit = Unit {
            appends: [more].into_iter().collect(),
            ..Unit::default()
        };
        match log.commit(unit) {
            Ok(_) => return,
            Err(refused) => assert!(Instant::now() < deadline, "still {refused}"),
        }
    }
}

#[test]
fn a_full_disk_refuses_appends_serves_readers_and_recovers_by_itself() {
    let disk = PowerCutFs::default();
    let fs = FaultFs::new(Arc::new(disk.clone()), FaultKind::Full, u64::MAX, false);
    let log = Log::open(Arc::new(fs.clone()), options(None)).unwrap();
    for unit in history(&mut Seed(1), 0) {
        log.commit(unit).unwrap();
    }
    commit_until_taken(&log);
    // A frame that is synced waits for its segment, so nobody waits for answers here.
    fs.break_now();
    let (sender, outcomes) = std::sync::mpsc::channel();
    while !log.stats().full {
        let more = record(1, vec![b'x'; 3000]);
        let unit = Unit {
            appends: [more].into_iter().collect(),
            ..Unit::default()
        };
        let sender = sender.clone();
        let done = move |results: Vec<Result<_, _>>| sender.send(results).unwrap_or_default();
        log.submit(vec![unit.clone(), unit], Box::new(done));
        std::thread::yield_now();
    }
    let partition = log.partition(COUNTED).unwrap();
    assert!(!partition.read(0, 100).unwrap().is_empty(), "readers go on");
    assert!(!log.stats().failed);
    fs.heal();
    commit_until_taken(&log);
    assert!(!log.stats().full);
    drop(sender);
    let committed = outcomes.iter().flatten().filter(Result::is_ok).count() as u64;
    assert_eq!(
        partition.high_watermark(),
        committed + 2,
        "what was refused is not there"
    );
    let end = log.partition(COUNTED).unwrap().high_watermark();
    log.close().unwrap();
    let log = Log::open(Arc::new(disk), options(None)).unwrap();
    assert_eq!(log.partition(COUNTED).unwrap().high_watermark(), end);
}

#[test]
fn a_disk_that_stays_full_is_not_taken_for_one_with_space() {
    let disk = PowerCutFs::default();
    let fs = FaultFs::new(Arc::new(disk), FaultKind::Full, u64::MAX, false);
    let mut options = options(None);
    options.wal_bytes_max = Some(64 << 20);
    options.message_bytes_max = 8 << 20;
    let log = Log::open(Arc::new(fs.clone()), options).unwrap();
    for unit in history(&mut Seed(1), 0) {
        log.commit(unit).unwrap();
    }
    let big = || Unit {
        appends: [record(1, vec![b'x'; 6 << 20])].into_iter().collect(),
        ..Unit::default()
    };
    // The write-ahead file grows by 16 MiB: the third does not fit, a small one would.
    log.commit(big()).unwrap();
    log.commit(big()).unwrap();
    fs.break_now();
    assert!(matches!(log.commit(big()), Err(CommitError::Full)));
    let (fired, deadline) = (fs.fired(), Instant::now() + Duration::from_secs(20));
    while fs.fired() < fired + 3 {
        assert!(
            log.stats().full,
            "it has looked again, and there is no space"
        );
        assert!(Instant::now() < deadline, "it does not look again");
        std::thread::yield_now();
    }
    fs.heal();
    while log.stats().full {
        assert!(Instant::now() < deadline, "it does not look again");
        std::thread::yield_now();
    }
    log.commit(big()).unwrap();
}
