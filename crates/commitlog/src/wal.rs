//! The write-ahead file: appending frames to it, and reading it back after a crash.
//!
//! For: one file at a time, `DIR/wal/<20 digits>.wal`, each with an epoch of its own.
//! Not for: deciding when to sync or to switch files (`committer`, `checkpoint`).
//! Holds: a frame is written behind a whole chain; a bad frame with a valid successor that was
//! written after a sync is damage and is reported, a bad last frame is a torn write and is cut.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::context::Context;
use crate::error::OpenError;
use crate::frame::{self, Link};
use crate::fs::{File, Open, read_full_at, write_all_at};
use crate::record::varint::Reader;

/// The file's own header; frames begin behind it.
const HEADER_LEN: usize = 64;
const MAGIC: [u8; 8] = *b"HWWAL\0\0\x01";
/// Space is taken this far ahead of the frames.
const CHUNK: u64 = 16 << 20;
const SUFFIX: &str = ".wal";

/// An open write-ahead file.
pub(crate) struct WalFile {
    pub(crate) number: u64,
    epoch: u64,
    file: Arc<dyn File>,
    at: u64,
    allocated: u64,
    /// The most that is ever taken ahead.
    bytes_max: u64,
}

pub(crate) fn path(context: &Context, number: u64) -> PathBuf {
    context.wal_dir().join(format!("{number:020}{SUFFIX}"))
}

impl WalFile {
    /// Makes file `number`, on disk with its name when this returns.
    pub(crate) fn create(context: &Context, number: u64, bytes_max: u64) -> io::Result<Self> {
        let path = path(context, number);
        let file = context.open(&path, Open::Create)?;
        let salt = u64::from(uuid::Uuid::new_v4().as_fields().0);
        let epoch = salt << 32 | number & 0xffff_ffff;
        let mut header = Vec::with_capacity(HEADER_LEN);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&number.to_be_bytes());
        header.extend_from_slice(&epoch.to_be_bytes());
        let crc = crc32c::crc32c(&header);
        header.extend_from_slice(&crc.to_be_bytes());
        header.resize(HEADER_LEN, 0);
        write_all_at(&*file, &header, 0)?;
        context.sync(&*file)?;
        context.sync_dir(&context.wal_dir())?;
        let at = HEADER_LEN as u64;
        Ok(Self {
            number,
            epoch,
            file,
            at,
            allocated: at,
            bytes_max,
        })
    }

    /// Bytes of frames in it.
    pub(crate) fn len(&self) -> u64 {
        self.at
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Makes sure that a frame of `len` bytes finds space.
    pub(crate) fn reserve(&mut self, len: usize) -> io::Result<()> {
        let need = self.at + len as u64;
        if need <= self.allocated {
            return Ok(());
        }
        let ahead = need.next_multiple_of(CHUNK).min(self.bytes_max).max(need);
        self.file.allocate(ahead)?;
        self.allocated = ahead;
        Ok(())
    }

    /// Writes a sealed frame at the end. Not synced.
    pub(crate) fn write(&mut self, sealed: &[u8]) -> io::Result<()> {
        write_all_at(&*self.file, sealed, self.at)?;
        self.at += sealed.len() as u64;
        Ok(())
    }

    pub(crate) fn sync(&self, context: &Context) -> io::Result<()> {
        context.sync(&*self.file)
    }
}

/// Puts the header of file `number` and its name on disk, before a next file makes it indispensable:
/// a sync of the process that made the file may have failed, and what was read back is then in memory
/// only. What else of the file may be so, the next snapshot stands for.
pub(crate) fn secure(context: &Context, number: u64) -> io::Result<()> {
    let file = match context.open(&path(context, number), Open::Write) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    let mut header = [0; HEADER_LEN];
    let filled = read_full_at(&*file, &mut header, 0)?;
    write_all_at(&*file, header.get(..filled).unwrap_or_default(), 0)?;
    context.sync(&*file)?;
    context.sync_dir(&context.wal_dir())
}

/// The numbers of the write-ahead files that are there, in order.
pub(crate) fn list(context: &Context) -> io::Result<Vec<u64>> {
    let entries = context.list(&context.wal_dir())?;
    let numbers = entries
        .iter()
        .filter_map(|entry| entry.name.strip_suffix(SUFFIX)?.parse().ok());
    Ok(numbers.collect())
}

/// The end of the chain, as far as it was followed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct ChainEnd {
    pub(crate) sequence: u64,
    pub(crate) crc: u32,
}

/// What [`replay`] found.
pub(crate) struct Replayed {
    pub(crate) end: ChainEnd,
    /// The number to give the next file; one that never got its header is made again.
    pub(crate) next_number: u64,
    /// Bytes of a torn last frame, for the start block.
    pub(crate) torn_bytes: u64,
}

/// Gives the payloads of all whole frames behind `from` to `apply`, in order, beginning with file
/// `first`.
pub(crate) fn replay(
    context: &Context,
    first: u64,
    from: ChainEnd,
    must_exist: bool,
    mut apply: impl FnMut(Bytes) -> Result<(), OpenError>,
) -> Result<Replayed, OpenError> {
    let dir = context.wal_dir();
    let numbers = list(context).map_err(|source| OpenError::io(&dir, source))?;
    let mut found = Replayed {
        end: from,
        next_number: first,
        torn_bytes: 0,
    };
    for number in numbers.into_iter().filter(|number| *number >= first) {
        let path = path(context, number);
        let bytes = read_all(context, &path)?;
        let Some(epoch) = parse_header(&bytes, number) else {
            // The file was being made; a later one is refused below.
            continue;
        };
        if number != found.next_number {
            return Err(OpenError::damaged(
                &path,
                0,
                "a write-ahead file before it is missing",
            ));
        }
        found.next_number = number + 1;
        let end = follow(&bytes, epoch, &mut found.end, &mut apply, &path)?;
        if has_successor(&bytes, end, epoch, found.end.sequence) {
            let what = "a frame is damaged and valid ones follow it";
            return Err(OpenError::damaged(&path, end as u64, what));
        }
        // A later file may go on behind a torn frame (one that a full disk refused): that nothing is
        // missing in between is what the chain says.
        found.torn_bytes += torn_len(bytes.get(end..).unwrap_or_default());
    }
    if must_exist && found.next_number == first {
        return Err(OpenError::damaged(
            &path(context, first),
            0,
            "the write-ahead file is missing",
        ));
    }
    Ok(found)
}

fn read_all(context: &Context, path: &Path) -> Result<Bytes, OpenError> {
    let read = || {
        let file = context.open(path, Open::Read)?;
        let len = usize::try_from(file.len()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut bytes = vec![0; len];
        let filled = read_full_at(&*file, &mut bytes, 0)?;
        bytes.truncate(filled);
        Ok(Bytes::from(bytes))
    };
    read().map_err(|source| OpenError::io(path, source))
}

fn parse_header(bytes: &[u8], number: u64) -> Option<u64> {
    let mut reader = Reader::new(bytes.get(..HEADER_LEN)?);
    let valid = reader.array::<8>()? == MAGIC && reader.u64()? == number;
    let epoch = reader.u64()?;
    let covered = crc32c::crc32c(bytes.get(..reader.position())?);
    (valid && reader.u32()? == covered).then_some(epoch)
}

/// Applies whole frames in chain order; gives where they end.
fn follow(
    bytes: &Bytes,
    epoch: u64,
    end: &mut ChainEnd,
    apply: &mut impl FnMut(Bytes) -> Result<(), OpenError>,
    path: &Path,
) -> Result<usize, OpenError> {
    let mut at = HEADER_LEN;
    while let Some(frame) = bytes.get(at..).and_then(frame::parse) {
        if frame.link.epoch != epoch || frame.link.sequence != end.sequence + 1 {
            // A whole frame of this very file that does not continue the chain: a file is gone,
            // or was put here from elsewhere.
            if frame.link.epoch == epoch {
                return Err(OpenError::damaged(
                    path,
                    at as u64,
                    "a commit is missing before it",
                ));
            }
            break;
        }
        if frame.link.previous_crc != end.crc {
            return Err(OpenError::damaged(
                path,
                at as u64,
                "the frame continues another history",
            ));
        }
        apply(bytes.slice_ref(frame.payload))?;
        *end = ChainEnd {
            sequence: frame.link.sequence,
            crc: frame.crc,
        };
        at += frame.len;
    }
    Ok(at)
}

/// Whether a valid frame of this epoch, written after a sync, lies behind the bad one at `end`.
fn has_successor(bytes: &[u8], end: usize, epoch: u64, last_sequence: u64) -> bool {
    let mut at = end + frame::ALIGN;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with(&frame::MAGIC)
            && let Some(frame) = frame::parse(rest)
            && frame.link.epoch == epoch
            && frame.link.sequence > last_sequence + 1
            && frame.link.previous_synced
        {
            return true;
        }
        at += frame::ALIGN;
    }
    false
}

/// How many bytes lie there that are not the zeros of space taken ahead.
fn torn_len(tail: &[u8]) -> u64 {
    tail.iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last as u64 + 1)
}

/// The link of the next frame.
pub(crate) fn next_link(file: &WalFile, end: ChainEnd, previous_synced: bool) -> Link {
    Link {
        epoch: file.epoch(),
        sequence: end.sequence + 1,
        previous_crc: end.crc,
        previous_synced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::{Fs, PowerCutFs};
    use crate::options::Options;

    fn context() -> Context {
        let fs = PowerCutFs::default();
        ["/data", "/data/wal"]
            .iter()
            .for_each(|dir| fs.create_dir(Path::new(dir)).unwrap());
        Context::new(Arc::new(fs), Options::new("/data"), 1 << 20)
    }

    fn sealed(file: &WalFile, end: &mut ChainEnd, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        frame::begin(&mut frame);
        frame.extend_from_slice(payload);
        let crc = frame::seal(&mut frame, next_link(file, *end, true));
        let sequence = end.sequence + 1;
        *end = ChainEnd { sequence, crc };
        frame
    }

    fn replayed(context: &Context) -> Result<(Vec<Bytes>, Replayed), OpenError> {
        let mut payloads = Vec::new();
        let take = |payload| {
            payloads.push(payload);
            Ok(())
        };
        let replayed = replay(context, 1, ChainEnd::default(), true, take)?;
        Ok((payloads, replayed))
    }

    #[test]
    fn a_frame_that_a_full_disk_tore_does_not_hide_the_next_file() {
        let (context, mut end) = (context(), ChainEnd::default());
        let mut first = WalFile::create(&context, 1, 1 << 20).unwrap();
        let frame = sealed(&first, &mut end, b"one");
        first.write(&frame).unwrap();
        // ENOSPC after half of it, and then the switch, which frees space.
        let torn = sealed(&first, &mut end.clone(), &[7; 3000]);
        write_all_at(&*first.file, &torn[..1500], first.at).unwrap();
        let mut second = WalFile::create(&context, 2, 1 << 20).unwrap();
        let frame = sealed(&second, &mut end, b"two");
        second.write(&frame).unwrap();
        let (payloads, found) = replayed(&context).unwrap();
        assert_eq!(payloads, [&b"one"[..], b"two"]);
        assert_eq!((found.end, found.next_number), (end, 3));
        assert_eq!(found.torn_bytes, 1500);
        // If something is missing before the next file, its frames say so.
        let mut third = WalFile::create(&context, 3, 1 << 20).unwrap();
        end.sequence += 1;
        let frame = sealed(&third, &mut end, b"four");
        third.write(&frame).unwrap();
        let lost = replayed(&context).err().unwrap();
        let what = "a commit is missing before it";
        assert!(matches!(lost, OpenError::Damaged { what: found, .. } if found == what));
    }
}
