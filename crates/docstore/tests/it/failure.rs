//! Files that are not as they should be, disks that are full, processes that die.

use crate::support::{Fixture, NOW, collection, facts, find};
use headwater_docstore::{Batch, Bounds, Facts, InsertError, OpenError, Options, Query, Store};
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

fn volume(folder: &Path) -> PathBuf {
    folder.join("documents-000001.sqlite")
}

fn refusal(folder: &Path) -> OpenError {
    Store::open(folder, Options::default()).unwrap_err()
}

#[test]
fn a_file_that_is_no_store_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let garbage = b"this is not a database, but it is longer than a header of a hundred bytes. \
                    this is not a database, but it is longer than a header of a hundred bytes.";
    fs::write(volume(folder.path()), garbage).unwrap();
    let error = refusal(folder.path());
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error:?}");
    assert!(error.to_string().contains("is damaged; move it"), "{error}");
    assert_eq!(fs::read(volume(folder.path())).unwrap(), garbage);

    fs::remove_file(volume(folder.path())).unwrap();
    let other = rusqlite::Connection::open(volume(folder.path())).unwrap();
    other
        .execute_batch("CREATE TABLE somebody_elses (x)")
        .unwrap();
    drop(other);
    let error = refusal(folder.path());
    assert!(matches!(error, OpenError::Foreign { .. }), "{error:?}");
}

#[test]
fn a_newer_store_is_refused_with_both_versions() {
    let fixture = Fixture::new();
    let folder = fixture.folder;
    drop((fixture.writer, fixture.reader));
    let newer = rusqlite::Connection::open(volume(folder.path())).unwrap();
    newer.execute_batch("PRAGMA user_version = 7").unwrap();
    drop(newer);
    let error = refusal(folder.path()).to_string();
    assert!(
        error.contains("version 7, this program reads up to 2"),
        "{error}"
    );
}

#[test]
fn damage_inside_is_an_error_not_an_answer() {
    let mut fixture = Fixture::new();
    let payloads: Vec<String> = (0..2000).map(|n| format!("\"{n:0>100}\"")).collect();
    fixture.insert_payloads(&payloads);
    let folder = fixture.folder;
    drop((fixture.writer, fixture.reader, fixture.store));
    let mut bytes = fs::read(volume(folder.path())).unwrap();
    let (from, to) = (20 * 4096, bytes.len());
    bytes[from..to].fill(0xAA);
    fs::write(volume(folder.path()), bytes).unwrap();
    // The tables' roots lie at the front and are whole, so it opens; the damage is met later.
    let store = Store::open(folder.path(), Options::default()).unwrap();
    let mut reader = store.reader().unwrap();
    let error = find(&mut reader, &Query::default(), &Bounds::default()).unwrap_err();
    assert!(error.to_string().contains("is damaged"), "{error}");
}

#[test]
fn a_full_store_refuses_the_batch_and_goes_on_reading() {
    let mut fixture = Fixture::with(Options {
        bytes_max: Some(512 * 1024),
        ..Options::default()
    });
    let payload = vec![b'x'; 1000];
    let mut written = 0;
    let mut batch = Batch::new();
    let error = loop {
        batch.clear();
        for _ in 0..50 {
            let facts = Facts {
                payload: Some(&payload),
                ..facts(written + batch.len() as u64)
            };
            batch.push(&collection(), &facts);
        }
        match fixture.writer.insert(&batch, &[], NOW) {
            Ok(_) => written += batch.len() as u64,
            Err(error) => break error,
        }
        assert!(written < 10_000, "it is never full");
    };
    assert!(matches!(error, InsertError::Full), "{error}");
    assert_eq!(
        fixture.offsets("{}").len() as u64,
        written,
        "the refused batch left nothing"
    );
    // Small ones may still fit, and the same batch is refused again, not lost half way.
    assert!(matches!(
        fixture.writer.insert(&batch, &[], NOW),
        Err(InsertError::Full)
    ));
    assert_eq!(fixture.offsets("{}").len() as u64, written);
    fixture.writer.sync().unwrap();
}

/// What a process that is killed leaves: the files as they are at that moment, the write-ahead file
/// cut anywhere in what was not yet synced.
#[test]
fn every_image_of_a_crash_opens_with_whole_batches() {
    let mut fixture = Fixture::new();
    let mut batch = Batch::new();
    let mut lengths = Vec::new();
    let wal = fixture.folder.path().join("documents-000001.sqlite-wal");
    for n in 0..6 {
        batch.clear();
        for m in 0..10 {
            batch.push(&collection(), &facts(n * 10 + m));
        }
        fixture.writer.insert(&batch, &[], NOW).unwrap();
        if n == 2 {
            fixture.writer.sync().unwrap();
        }
        lengths.push(fs::metadata(&wal).unwrap().len());
    }
    let synced = lengths[2];
    let bytes = fs::read(&wal).unwrap();
    let end = bytes.len() as u64;
    for cut in (synced..=end).step_by(1031).chain([end]) {
        let image = tempfile::tempdir().unwrap();
        fs::copy(volume(fixture.folder.path()), volume(image.path())).unwrap();
        let cut_at = usize::try_from(cut).unwrap();
        let mut torn = bytes[..cut_at].to_vec();
        // A tail that never reached the disk reads as zeros.
        torn.resize(bytes.len(), 0);
        fs::write(image.path().join("documents-000001.sqlite-wal"), torn).unwrap();
        let store = Store::open(image.path(), Options::default()).unwrap();
        let mut reader = store.reader().unwrap();
        let found = find(&mut reader, &Query::default(), &Bounds::default())
            .unwrap()
            .len();
        let whole = lengths.iter().filter(|length| **length <= cut).count() * 10;
        assert_eq!(found, whole, "cut at {cut} of {end}");
        assert!(found >= 30, "what was synced is there");
    }
}

#[test]
fn what_a_killed_process_left_in_the_write_ahead_file_is_written_again_before_the_writer() {
    let mut fixture = Fixture::new();
    fixture.insert_payloads(&["1", "2"]);
    let image = tempfile::tempdir().unwrap();
    for name in ["documents-000001.sqlite", "documents-000001.sqlite-wal"] {
        fs::copy(fixture.folder.path().join(name), image.path().join(name)).unwrap();
    }
    // Beside it SQLite would not do so by itself: only whoever closes last does.
    let other = rusqlite::Connection::open(volume(image.path())).unwrap();
    let documents = "SELECT count(*) FROM documents_1";
    let count = |other: &rusqlite::Connection| {
        let row = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
        other.query_row(documents, [], row).unwrap()
    };
    assert_eq!(count(&other), 2);
    // Who reads an old state keeps the file from being begun anew.
    other.execute_batch("BEGIN").unwrap();
    assert_eq!(count(&other), 2);
    let store = Store::open(image.path(), Options::default()).unwrap();
    let error = store.writer().unwrap_err();
    assert!(matches!(error, OpenError::Busy { .. }), "{error:?}");
    for who in ["another program since", "a query of this one"] {
        assert!(error.to_string().contains(who), "{error}");
    }
    let mut reader = store.reader().unwrap();
    let found = find(&mut reader, &Query::default(), &Bounds::default());
    assert_eq!(found.unwrap().len(), 2, "readers need not wait");
    other.execute_batch("COMMIT").unwrap();
    let _writer = store.writer().unwrap();
    let wal = fs::metadata(image.path().join("documents-000001.sqlite-wal")).unwrap();
    assert_eq!(wal.len(), 0);
    let main = tempfile::tempdir().unwrap();
    fs::copy(volume(image.path()), volume(main.path())).unwrap();
    let main = rusqlite::Connection::open(volume(main.path())).unwrap();
    assert_eq!(count(&main), 2);
}

#[test]
fn writer_waits_for_a_query_that_ends_in_time() {
    let mut fixture = Fixture::new();
    fixture.insert_payloads(&["1", "2"]);
    let image = tempfile::tempdir().unwrap();
    for name in ["documents-000001.sqlite", "documents-000001.sqlite-wal"] {
        fs::copy(fixture.folder.path().join(name), image.path().join(name)).unwrap();
    }
    // Whoever closes last would put the file in order.
    let other = rusqlite::Connection::open(volume(image.path())).unwrap();
    other.busy_timeout(Duration::ZERO).unwrap();
    let count = "SELECT count(*) FROM documents_1";
    other.query_row(count, [], |_| Ok(())).unwrap();
    let store = Store::open(image.path(), Options::default()).unwrap();
    let mut reader = store.reader().unwrap();
    thread::scope(|scope| {
        let (begin, begun) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        scope.spawn(move || {
            let mut each = |_: &str| {
                begin.send(()).unwrap();
                ended.recv().unwrap_err();
                ControlFlow::Break(())
            };
            let (query, bounds) = (Query::default(), Bounds::default());
            reader.find(&collection(), &query, &bounds, &mut each)
        });
        begun.recv().unwrap();
        let error = store.writer().unwrap_err();
        assert!(matches!(error, OpenError::Busy { .. }), "{error:?}");
        let writer = scope.spawn(|| store.writer_within(Duration::from_secs(60)));
        // While it waits it lets nobody else write.
        let may_write = || other.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_ok();
        while may_write() && !writer.is_finished() {
            thread::yield_now();
        }
        drop(end);
        writer.join().unwrap().unwrap();
    });
}

#[test]
fn syncing_before_anything_is_written_is_no_error() {
    let mut fixture = Fixture::new();
    fixture.writer.sync().unwrap();
    fixture.insert_payloads(&["1"]);
    fixture.writer.sync().unwrap();
    fixture.writer.sync().unwrap();
}

#[test]
#[ignore = "needs HEADWATER_SMALL_DISK, the mount point of an empty tmpfs of 6 MiB"]
fn a_full_disk_refuses_reads_on_and_recovers_by_itself() {
    let disk = PathBuf::from(std::env::var("HEADWATER_SMALL_DISK").unwrap());
    let ballast = disk.join("ballast");
    fs::write(&ballast, vec![1; 2 << 20]).unwrap();
    let store = Store::open(&disk.join("store"), Options::default()).unwrap();
    let (mut writer, mut reader) = (store.writer().unwrap(), store.reader().unwrap());
    let payload = vec![b'x'; 1000];
    let mut batch = Batch::new();
    let mut written = 0;
    let mut fill = |writer: &mut headwater_docstore::Writer, written: &mut u64| loop {
        batch.clear();
        for _ in 0..100 {
            let offset = *written + batch.len() as u64;
            batch.push(
                &collection(),
                &Facts {
                    payload: Some(&payload),
                    ..facts(offset)
                },
            );
        }
        match writer.insert(&batch, &[], NOW) {
            Ok(_) => *written += batch.len() as u64,
            Err(error) => break error,
        }
        assert!(*written < 100_000, "it is never full");
    };
    let error = fill(&mut writer, &mut written);
    assert!(matches!(error, InsertError::Full), "{error:?}");
    let count = |reader: &mut headwater_docstore::Reader| {
        find(reader, &Query::default(), &Bounds::default())
            .unwrap()
            .len() as u64
    };
    assert_eq!(count(&mut reader), written);
    writer.sync().unwrap();

    fs::remove_file(ballast).unwrap();
    let before = written;
    let error = fill(&mut writer, &mut written);
    assert!(matches!(error, InsertError::Full), "{error:?}");
    assert!(written > before, "with space again it goes on");
    assert_eq!(count(&mut reader), written);
    drop((writer, reader, store));
    let store = Store::open(&disk.join("store"), Options::default()).unwrap();
    assert_eq!(count(&mut store.reader().unwrap()), written);
}
