//! Files that fail on purpose, at the operation that a test chooses.

use std::any::Any;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::{Entry, File, Fs, Open, Space};

/// What goes wrong. An operation that cannot fail in that way is counted and succeeds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FaultKind {
    /// EIO from anything.
    Io,
    /// ENOSPC from what needs space.
    Full,
    /// A write that takes half.
    ShortWrite,
    /// EINTR from a read or a write.
    Interrupted,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Operation {
    Read,
    Write,
    NeedsSpace,
    Other,
}

#[derive(Debug)]
struct Plan {
    kind: FaultKind,
    at: u64,
    for_ever: bool,
    operations: AtomicU64,
    fired: AtomicU64,
    healed: AtomicBool,
    broken: AtomicBool,
}

impl Plan {
    /// Counts an operation and says whether it is to fail.
    fn fails(&self, operation: Operation) -> Option<FaultKind> {
        let number = self.operations.fetch_add(1, Ordering::AcqRel) + 1;
        let broken = self.broken.load(Ordering::Acquire);
        let due = broken || number == self.at || (self.for_ever && number > self.at);
        if self.healed.load(Ordering::Acquire) {
            return None;
        }
        let fits = match self.kind {
            FaultKind::Io => true,
            FaultKind::Full => matches!(operation, Operation::Write | Operation::NeedsSpace),
            FaultKind::ShortWrite => operation == Operation::Write,
            FaultKind::Interrupted => matches!(operation, Operation::Write | Operation::Read),
        };
        // EINTR for ever would be a machine that does nothing at all.
        let once = self.kind == FaultKind::Interrupted && self.fired.load(Ordering::Acquire) > 100;
        (due && fits && !once).then(|| {
            self.fired.fetch_add(1, Ordering::AcqRel);
            self.kind
        })
    }

    fn pass(&self, operation: Operation) -> io::Result<()> {
        match self.fails(operation) {
            None | Some(FaultKind::ShortWrite) => Ok(()),
            // EIO has no kind of its own.
            Some(FaultKind::Io) => Err(io::Error::from_raw_os_error(5)),
            Some(FaultKind::Full) => Err(io::ErrorKind::StorageFull.into()),
            Some(FaultKind::Interrupted) => Err(io::ErrorKind::Interrupted.into()),
        }
    }
}

/// The descriptors of a process: files, and folders while they are listed or synced.
#[derive(Debug)]
struct Descriptors {
    open: AtomicUsize,
    most: AtomicUsize,
    max: AtomicUsize,
    refused: AtomicU64,
}

/// One of them; given back when dropped.
struct Descriptor(Arc<Descriptors>);

impl Descriptor {
    /// EMFILE when there is none left.
    fn take(all: &Arc<Descriptors>) -> io::Result<Self> {
        let open = all.open.fetch_add(1, Ordering::AcqRel) + 1;
        let taken = Self(Arc::clone(all));
        if open > all.max.load(Ordering::Acquire) {
            all.refused.fetch_add(1, Ordering::AcqRel);
            return Err(rustix::io::Errno::MFILE.into());
        }
        all.most.fetch_max(open, Ordering::AcqRel);
        Ok(taken)
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Passes everything on, but the chosen operation fails.
#[derive(Clone)]
pub struct FaultFs {
    inner: Arc<dyn Fs>,
    plan: Arc<Plan>,
    descriptors: Arc<Descriptors>,
}

impl FaultFs {
    /// Operation number `at`, counted from 1, fails; all from there on if `for_ever`.
    pub fn new(inner: Arc<dyn Fs>, kind: FaultKind, at: u64, for_ever: bool) -> Self {
        let (operations, fired) = (AtomicU64::new(0), AtomicU64::new(0));
        let (healed, broken) = (AtomicBool::new(false), AtomicBool::new(false));
        let plan = Plan {
            kind,
            at,
            for_ever,
            operations,
            fired,
            healed,
            broken,
        };
        let descriptors = Descriptors {
            open: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            max: AtomicUsize::new(usize::MAX),
            refused: AtomicU64::new(0),
        };
        Self {
            inner,
            plan: Arc::new(plan),
            descriptors: Arc::new(descriptors),
        }
    }

    /// Nothing fails, but at most `max` descriptors are open at once.
    pub fn with_descriptors(inner: Arc<dyn Fs>, max: usize) -> Self {
        let fs = Self::new(inner, FaultKind::Io, u64::MAX, false);
        fs.allow_descriptors(max);
        fs
    }

    /// As many may be open from now on; those that are stay so.
    pub fn allow_descriptors(&self, max: usize) {
        self.descriptors.max.store(max, Ordering::Release);
    }

    /// Descriptors that are open now.
    pub fn open_descriptors(&self) -> usize {
        self.descriptors.open.load(Ordering::Acquire)
    }

    /// Most descriptors that were ever open at once.
    pub fn most_descriptors(&self) -> usize {
        self.descriptors.most.load(Ordering::Acquire)
    }

    /// Opens that found no descriptor.
    pub fn refused_opens(&self) -> u64 {
        self.descriptors.refused.load(Ordering::Acquire)
    }

    /// From now on nothing fails any more.
    pub fn heal(&self) {
        self.plan.healed.store(true, Ordering::Release);
    }

    /// From now on everything that can fails, whatever `at` said.
    pub fn break_now(&self) {
        self.plan.broken.store(true, Ordering::Release);
        self.plan.healed.store(false, Ordering::Release);
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.plan.operations.load(Ordering::Acquire)
    }

    /// Operations that really failed.
    pub fn fired(&self) -> u64 {
        self.plan.fired.load(Ordering::Acquire)
    }
}

impl Fs for FaultFs {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let creates = how == Open::Create;
        self.plan.pass(if creates {
            Operation::NeedsSpace
        } else {
            Operation::Other
        })?;
        let descriptor = Descriptor::take(&self.descriptors)?;
        let inner = self.inner.open(path, how)?;
        Ok(Arc::new(FaultFile {
            inner,
            plan: Arc::clone(&self.plan),
            _descriptor: descriptor,
        }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.plan.pass(Operation::NeedsSpace)?;
        self.inner.create_dir(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.plan.pass(Operation::Other)?;
        self.inner.remove_dir(path)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.plan.pass(Operation::Other)?;
        self.inner.remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.plan.pass(Operation::NeedsSpace)?;
        self.inner.rename(from, to)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.plan.pass(Operation::Other)?;
        let _open = Descriptor::take(&self.descriptors)?;
        self.inner.sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        self.plan.pass(Operation::Other)?;
        let _open = Descriptor::take(&self.descriptors)?;
        self.inner.list(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        self.plan.pass(Operation::Other)?;
        self.inner.lock(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.plan.pass(Operation::Other)?;
        self.inner.space(path)
    }
}

struct FaultFile {
    inner: Arc<dyn File>,
    plan: Arc<Plan>,
    _descriptor: Descriptor,
}

impl File for FaultFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.plan.pass(Operation::Read)?;
        self.inner.read_at(into, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        match self.plan.fails(Operation::Write) {
            None => self.inner.write_at(bytes, offset),
            Some(FaultKind::ShortWrite) => {
                let half = bytes.get(..bytes.len().div_ceil(2)).unwrap_or(bytes);
                self.inner.write_at(half, offset)
            }
            Some(FaultKind::Full) => {
                // What a disk takes before it is full.
                let half = bytes.get(..bytes.len() / 2).unwrap_or_default();
                self.inner.write_at(half, offset)?;
                Err(io::ErrorKind::StorageFull.into())
            }
            Some(FaultKind::Io) => Err(io::Error::from_raw_os_error(5)),
            Some(FaultKind::Interrupted) => Err(io::ErrorKind::Interrupted.into()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.plan.pass(Operation::Other)?;
        self.inner.sync()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.plan.pass(Operation::Other)?;
        self.inner.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.plan.pass(Operation::Other)?;
        self.inner.len()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.plan.pass(Operation::NeedsSpace)?;
        self.inner.allocate(len)
    }
}
