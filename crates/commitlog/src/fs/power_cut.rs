//! Files in memory that know what a power cut may leave of them.
//!
//! For: crash images. Of what was not synced, any subset may be on disk, in sectors of 512 bytes,
//! with or without the length it gave the file; a name is there for certain only after its folder
//! was synced.
//! Holds: what was synced is in every image. A file's failed sync drops what it should have written:
//! the next one says all is well and writes none of it, as Linux does.

use std::any::Any;
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

use super::{Entry, File, Fs, Open, Space};

const SECTOR: usize = 512;

/// A small generator: the same seed gives the same images everywhere.
#[derive(Clone, Copy, Debug)]
pub struct Seed(pub u64);

impl Seed {
    /// The next number of the SplitMix64 sequence.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// One of `0..bound`; `bound` must not be 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound.max(1)
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Node {
    File(usize),
    Dir(usize),
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Len(usize),
}

#[derive(Clone, Debug, Default)]
struct Content {
    now: Vec<u8>,
    synced: Vec<u8>,
    since: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Naming {
    Set(String, Node),
    Remove(String),
    Rename(String, String),
}

#[derive(Clone, Debug, Default)]
struct Folder {
    now: BTreeMap<String, Node>,
    synced: BTreeMap<String, Node>,
    since: Vec<Naming>,
}

#[derive(Clone, Debug)]
struct Disk {
    files: Vec<Content>,
    folders: Vec<Folder>,
    /// What was synced, in order.
    syncs: Vec<Synced>,
    fails: Option<FailingSync>,
}

/// One sync, failed or not.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Synced {
    /// The file or folder.
    pub path: PathBuf,
    pub thread: ThreadId,
}

#[derive(Clone, Copy, Debug)]
struct FailingSync {
    number: u64,
    errno: i32,
}

type Watcher = Box<dyn FnMut(&PowerCutFs) + Send>;

/// See the module. Clones share the disk.
#[derive(Clone)]
pub struct PowerCutFs {
    disk: Arc<Mutex<Disk>>,
    locks: Arc<Mutex<HashSet<PathBuf>>>,
    watcher: Arc<Mutex<Option<Watcher>>>,
}

impl Default for PowerCutFs {
    fn default() -> Self {
        Self::from_disk(Disk {
            files: Vec::new(),
            folders: vec![Folder::default()],
            syncs: Vec::new(),
            fails: None,
        })
    }
}

impl PowerCutFs {
    fn from_disk(disk: Disk) -> Self {
        Self {
            disk: Arc::new(Mutex::new(disk)),
            locks: Arc::default(),
            watcher: Arc::default(),
        }
    }

    /// Has `watcher` called before each operation that changes anything, syncs included.
    pub fn watch(&self, watcher: impl FnMut(&Self) + Send + 'static) {
        *self.watcher.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(watcher));
    }

    /// The sync of that number, counted from 1, of a file or a folder, fails with `errno`; a file's
    /// loses what it should have written.
    pub fn fail_sync_at(&self, number: u64, errno: i32) {
        self.disk().fails = Some(FailingSync { number, errno });
    }

    /// The syncs so far, in order.
    pub fn syncs(&self) -> Vec<Synced> {
        self.disk().syncs.clone()
    }

    /// The same files on a disk of their own: what kill -9 leaves. What was not synced still is not.
    pub fn killed(&self) -> Self {
        let mut disk = self.disk().clone();
        disk.syncs.clear();
        disk.fails = None;
        Self::from_disk(disk)
    }

    /// What a power cut right now may leave, one of many.
    pub fn cut(&self, seed: &mut Seed) -> Self {
        let mut disk = self.disk().clone();
        // Often all or nothing, else some of it.
        let mood = |seed: &mut Seed| match seed.below(4) {
            0 => 0,
            1 => 100,
            _ => seed.below(101),
        };
        for file in &mut disk.files {
            let percent = mood(seed);
            let mut left = std::mem::take(&mut file.synced);
            for change in file.since.drain(..) {
                match change {
                    Change::Len(len) if seed.below(100) < percent => left.resize(len, 0),
                    Change::Len(_) => {}
                    Change::Write { offset, bytes } => {
                        tear(&mut left, offset, &bytes, percent, seed)
                    }
                }
            }
            file.now = left.clone();
            file.synced = left;
        }
        for folder in &mut disk.folders {
            let percent = mood(seed);
            let mut left = std::mem::take(&mut folder.synced);
            for naming in folder.since.drain(..) {
                if seed.below(100) < percent {
                    name(&mut left, naming);
                }
            }
            folder.now = left.clone();
            folder.synced = left;
        }
        disk.syncs.clear();
        disk.fails = None;
        Self::from_disk(disk)
    }

    /// All files and their bytes.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let disk = self.disk();
        let mut found = BTreeMap::new();
        let mut open = vec![(PathBuf::from("/"), 0)];
        while let Some((path, folder)) = open.pop() {
            let entries = disk
                .folders
                .get(folder)
                .into_iter()
                .flat_map(|folder| &folder.now);
            for (name, node) in entries {
                let path = path.join(name);
                match node {
                    Node::Dir(folder) => open.push((path, *folder)),
                    Node::File(file) => {
                        let bytes = disk.files.get(*file).map(|file| file.now.clone());
                        found.insert(path, bytes.unwrap_or_default());
                    }
                }
            }
        }
        found
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) {
        let mut watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watcher) = watcher.as_mut() {
            watcher(self);
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Disk) -> io::Result<T>) -> io::Result<T> {
        self.seen();
        change(&mut self.disk())
    }
}

/// Writes some of the sectors, and perhaps only the length.
fn tear(left: &mut Vec<u8>, offset: usize, bytes: &[u8], percent: u64, seed: &mut Seed) {
    let end = offset + bytes.len();
    if seed.below(100) < percent && left.len() < end {
        left.resize(end, 0);
    }
    let mut at = offset;
    let mut rest = bytes;
    while !rest.is_empty() {
        let len = (SECTOR - at % SECTOR).min(rest.len());
        let (sector, after) = rest.split_at_checked(len).unwrap_or((rest, &[]));
        if seed.below(100) < percent {
            put(left, at, sector);
        }
        (at, rest) = (at + len, after);
    }
}

fn put(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    if let Some(room) = content.get_mut(offset..end) {
        room.copy_from_slice(bytes);
    }
}

fn name(entries: &mut BTreeMap<String, Node>, naming: Naming) {
    match naming {
        Naming::Set(name, node) => {
            entries.insert(name, node);
        }
        Naming::Remove(name) => {
            entries.remove(&name);
        }
        Naming::Rename(from, to) => {
            if let Some(node) = entries.remove(&from) {
                entries.insert(to, node);
            }
        }
    }
}

fn answer(fails: Option<i32>) -> io::Result<()> {
    fails.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk {
    /// Counts a sync; the errno with which it fails, if it is to.
    fn count_sync(&mut self, path: &Path) -> Option<i32> {
        self.syncs.push(Synced {
            path: path.to_owned(),
            thread: std::thread::current().id(),
        });
        let fails = self.fails?;
        (fails.number == self.syncs.len() as u64).then_some(fails.errno)
    }

    /// The folder that `path` lies in, and its name there.
    fn parent(&self, path: &Path) -> io::Result<(usize, String)> {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .ok_or_else(not_found)?;
        let parent = self.folder(path.parent().ok_or_else(not_found)?)?;
        Ok((parent, name.to_owned()))
    }

    fn folder(&self, path: &Path) -> io::Result<usize> {
        let mut at = 0;
        for component in path.components() {
            if let Component::Normal(name) = component {
                let name = name.to_str().ok_or_else(not_found)?;
                let folder = self.folders.get(at).ok_or_else(not_found)?;
                match folder.now.get(name) {
                    Some(Node::Dir(next)) => at = *next,
                    _ => return Err(not_found()),
                }
            }
        }
        Ok(at)
    }

    fn node(&self, path: &Path) -> io::Result<Option<Node>> {
        let (parent, name) = self.parent(path)?;
        Ok(self
            .folders
            .get(parent)
            .and_then(|folder| folder.now.get(&name))
            .copied())
    }

    fn name(&mut self, folder: usize, naming: Naming) -> io::Result<()> {
        let folder = self.folders.get_mut(folder).ok_or_else(not_found)?;
        name(&mut folder.now, naming.clone());
        folder.since.push(naming);
        Ok(())
    }

    fn file(&mut self, file: usize) -> io::Result<&mut Content> {
        self.files.get_mut(file).ok_or_else(not_found)
    }
}

impl Fs for PowerCutFs {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let found = self.disk().node(path)?;
        let file = match (found, how) {
            (Some(Node::File(file)), Open::Create) => self.change(|disk| {
                let content = disk.file(file)?;
                content.now.clear();
                content.since.push(Change::Len(0));
                Ok(file)
            })?,
            (Some(Node::File(file)), _) => file,
            (None, Open::Create) => self.change(|disk| {
                let (parent, name) = disk.parent(path)?;
                disk.files.push(Content::default());
                let file = disk.files.len() - 1;
                disk.name(parent, Naming::Set(name, Node::File(file)))?;
                Ok(file)
            })?,
            _ => return Err(not_found()),
        };
        Ok(Arc::new(PowerCutFile {
            fs: self.clone(),
            path: path.to_owned(),
            file,
        }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.change(|disk| {
            let (parent, name) = disk.parent(path)?;
            if disk.node(path)?.is_some() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            disk.folders.push(Folder::default());
            let folder = disk.folders.len() - 1;
            disk.name(parent, Naming::Set(name, Node::Dir(folder)))
        })
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.change(|disk| {
            let folder = disk.folder(path)?;
            if disk
                .folders
                .get(folder)
                .is_some_and(|folder| !folder.now.is_empty())
            {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            let (parent, name) = disk.parent(path)?;
            disk.name(parent, Naming::Remove(name))
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.change(|disk| {
            disk.node(path)?.ok_or_else(not_found)?;
            let (parent, name) = disk.parent(path)?;
            disk.name(parent, Naming::Remove(name))
        })
    }

    /// Within one folder only, which is all the log needs.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|disk| {
            disk.node(from)?.ok_or_else(not_found)?;
            let ((parent, from), (other, to)) = (disk.parent(from)?, disk.parent(to)?);
            if parent != other {
                return Err(io::ErrorKind::Unsupported.into());
            }
            disk.name(parent, Naming::Rename(from, to))
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.change(|disk| {
            let folder = disk.folder(path)?;
            let fails = disk.count_sync(path);
            let folder = disk.folders.get_mut(folder).ok_or_else(not_found)?;
            // A folder that changes again is written whole again, so a failure loses no name for good.
            if fails.is_none() {
                folder.synced = folder.now.clone();
                folder.since.clear();
            }
            answer(fails)
        })
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let disk = self.disk();
        let folder = disk.folders.get(disk.folder(path)?).ok_or_else(not_found)?;
        let entries = folder.now.iter().map(|(name, node)| Entry {
            name: name.clone(),
            is_dir: matches!(node, Node::Dir(_)),
        });
        Ok(entries.collect())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        if !locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Lock {
            locks: Arc::clone(&self.locks),
            path: path.to_owned(),
        }))
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        Ok(Space {
            total: 1 << 40,
            available: 1 << 40,
        })
    }
}

struct Lock {
    locks: Arc<Mutex<HashSet<PathBuf>>>,
    path: PathBuf,
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.locks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.path);
    }
}

struct PowerCutFile {
    fs: PowerCutFs,
    path: PathBuf,
    file: usize,
}

impl File for PowerCutFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut disk = self.fs.disk();
        let content = &disk.file(self.file)?.now;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = content.get(offset..).unwrap_or_default();
        let len = rest.len().min(into.len());
        if let (Some(into), Some(from)) = (into.get_mut(..len), rest.get(..len)) {
            into.copy_from_slice(from);
        }
        Ok(len)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.fs.change(|disk| {
            let offset = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
            let content = disk.file(self.file)?;
            put(&mut content.now, offset, bytes);
            content.since.push(Change::Write {
                offset,
                bytes: bytes.to_vec(),
            });
            Ok(bytes.len())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.fs.change(|disk| {
            let fails = disk.count_sync(&self.path);
            let content = disk.file(self.file)?;
            for change in content.since.drain(..) {
                match change {
                    // The pages are clean now, but never reached the disk.
                    _ if fails.is_some() => {}
                    Change::Len(len) => content.synced.resize(len, 0),
                    Change::Write { offset, bytes } => put(&mut content.synced, offset, &bytes),
                }
            }
            answer(fails)
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.fs.change(|disk| {
            let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
            let content = disk.file(self.file)?;
            content.now.resize(len, 0);
            content.since.push(Change::Len(len));
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.fs.disk().file(self.file)?.now.len() as u64)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        if self.len()? >= len {
            Ok(())
        } else {
            self.set_len(len)
        }
    }
}
