//! Requests and the disk: who waits for it, and how often it is read.

use std::any::Any;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use headwater_commitlog::fs::{Entry, File, Fs, Open, RealFs, Space};

use super::{DEADLINE, Running, batch, fetch, fetch_min, options, produce, produced};

/// The real files, but reads of segments are counted, and wait while the gate is shut.
#[derive(Clone, Default)]
struct Gated(Arc<Gate>);

#[derive(Default)]
struct Gate {
    is_shut: Mutex<bool>,
    changed: Condvar,
    waiting: AtomicU64,
    reads: AtomicU64,
}

impl Gate {
    fn set(&self, shut: bool) {
        *self.is_shut.lock().unwrap() = shut;
        self.changed.notify_all();
    }

    fn pass(&self) {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let is_shut = self.is_shut.lock().unwrap();
        self.waiting.fetch_add(1, Ordering::SeqCst);
        // Should the runtime itself stand here, the test goes on, and finds out.
        drop(
            self.changed
                .wait_timeout_while(is_shut, DEADLINE / 4, |shut| *shut),
        );
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

struct GatedFile {
    inner: Arc<dyn File>,
    gate: Arc<Gate>,
}

impl Fs for Gated {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let inner = RealFs.open(path, how)?;
        if how != Open::Read || path.extension().is_none_or(|kind| kind != "log") {
            return Ok(inner);
        }
        let gate = Arc::clone(&self.0);
        Ok(Arc::new(GatedFile { inner, gate }))
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealFs.create_dir(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        RealFs.remove_dir(path)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        RealFs.remove_file(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealFs.rename(from, to)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealFs.sync_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        RealFs.list(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        RealFs.lock(path)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        RealFs.space(path)
    }
}

impl File for GatedFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.gate.pass();
        self.inner.read_at(into, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.inner.write_at(bytes, offset)
    }
    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.inner.allocate(len)
    }
}

async fn start() -> (Running, Arc<Gate>) {
    let fs = Gated::default();
    let gate = Arc::clone(&fs.0);
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start_with(dir, Arc::new(fs), options()).await;
    (running.topic("t"), gate)
}

/// The test's runtime has one thread: what blocks it blocks all of this.
#[tokio::test]
async fn slow_disk_holds_up_its_readers_and_nobody_else() {
    let (running, gate) = start().await;
    let mut other = running.connect().await;
    let answer = other.ask(0, 3, &produce(-1, &batch())).await;
    assert_eq!(answer, produced(0, 0));
    gate.set(true);
    let (mut reader, mut seeker) = (running.connect().await, running.connect().await);
    reader.send(1, 4, &fetch(0, 0)).await;
    // ListOffsets 1 of "t" 0 by timestamp 1, replica -1.
    let mut by_time = vec![0xff; 4];
    by_time.extend([0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 0]);
    by_time.extend(1_u64.to_be_bytes());
    seeker.send(2, 1, &by_time).await;
    let begun = Instant::now();
    while gate.waiting.load(Ordering::SeqCst) < 2 {
        assert!(
            begun.elapsed() < DEADLINE,
            "the reads did not come to the disk"
        );
        tokio::task::yield_now().await;
    }
    // ApiVersions 0, and Heartbeat 0 of an unknown group, generation 1, member "m".
    other.ask(18, 0, &[]).await;
    let heartbeat = [0, 1, b'g', 0, 0, 0, 1, 0, 1, b'm'];
    assert_eq!(
        other.ask(12, 0, &heartbeat).await,
        [0, 25],
        "UNKNOWN_MEMBER_ID"
    );
    let answer = other.ask(0, 3, &produce(-1, &batch())).await;
    assert_eq!(answer, produced(0, 1));
    let waiting = gate.waiting.load(Ordering::SeqCst);
    assert_eq!(waiting, 2, "both still wait for the disk");
    gate.set(false);
    assert!(reader.receive().await.ends_with(&batch()));
    let found = seeker.receive().await;
    assert_eq!(
        found[15..],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    );
}

#[tokio::test]
async fn long_poll_reads_once_there_is_enough() {
    const BATCHES: u32 = 20;
    let (running, gate) = start().await;
    let (mut reader, mut writer) = (running.connect().await, running.connect().await);
    let bytes_min = BATCHES * batch().len() as u32;
    reader.send(1, 4, &fetch_min(0, 3_600_000, bytes_min)).await;
    // Whatever the server meets first: the poll must be there before there is enough.
    for offset in 0..i64::from(BATCHES) {
        let answer = writer.ask(0, 3, &produce(-1, &batch())).await;
        assert_eq!(answer, produced(0, offset));
    }
    let answer = reader.receive().await;
    let records = answer.windows(2).filter(|part| part == b"hi").count();
    assert_eq!(records, BATCHES as usize);
    let reads = gate.reads.load(Ordering::SeqCst);
    // One more if the poll came when some, but not enough, were there.
    assert!((1..=2).contains(&reads), "{reads} reads");
}
