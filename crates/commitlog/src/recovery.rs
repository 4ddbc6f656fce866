//! Opening a data directory: whatever happened to it, to the state of the last commit.
//!
//! For: format, snapshot, cutting the segments, applying the write-ahead files again, and a fresh
//! checkpoint, all before anyone may use the log.
//! Not for: repairing damage. What cannot have come from a crash is refused with file and offset.
//! Holds: it may be killed anywhere and repeated; it gives the same bytes each time.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::checkpoint::{self, Checkpoint};
use crate::context::Context;
use crate::entry::{self, Entry};
use crate::error::OpenError;
use crate::fs::{File, Open, read_full_at, write_all_at};
use crate::index::{Indexes, OffsetEntry, TimeEntry};
use crate::partition;
use crate::record::varint::Reader;
use crate::record::{BatchHeader, HEADER_LEN};
use crate::segment::{Segment, SegmentMark};
use crate::snapshot::{self, Loaded, PartitionMark};
use crate::state::State;
use crate::wal::{self, ChainEnd, WalFile};

const FORMAT_VERSION: u64 = 1;
const FORMAT_FEATURES: u64 = 0;

/// A state at the end of all that was committed, and the file for what comes next.
pub(crate) struct Recovered {
    pub(crate) state: State,
    pub(crate) wal: WalFile,
    pub(crate) end: ChainEnd,
    pub(crate) frames: u64,
    pub(crate) torn_bytes: u64,
}

/// Makes the folders and the format file, or checks them.
pub(crate) fn prepare(context: &Context) -> Result<(), OpenError> {
    let path = context.options.dir.join("format");
    match context.open(&path, Open::Read) {
        Ok(file) => check_format(&path, &*file)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = format!("version = {FORMAT_VERSION}\nfeatures = {FORMAT_FEATURES}\n");
            write_format(context, &path, &text).map_err(|error| OpenError::io(&path, error))?;
        }
        Err(error) => return Err(OpenError::io(&path, error)),
    }
    for dir in [context.wal_dir(), context.log_dir()] {
        make_dir(context, &dir).map_err(|error| OpenError::io(&dir, error))?;
    }
    context
        .sync_dir(&context.options.dir)
        .map_err(|error| OpenError::io(&context.options.dir, error))
}

pub(crate) fn make_dir(context: &Context, dir: &Path) -> io::Result<()> {
    match context.fs.create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

fn write_format(context: &Context, path: &Path, text: &str) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let file = context.open(&fresh, Open::Create)?;
    write_all_at(&*file, text.as_bytes(), 0)?;
    context.sync(&*file)?;
    context.fs.rename(&fresh, path)
}

fn check_format(path: &Path, file: &dyn File) -> Result<(), OpenError> {
    let mut bytes = [0; 256];
    let filled = read_full_at(file, &mut bytes, 0).map_err(|error| OpenError::io(path, error))?;
    let text = bytes
        .get(..filled)
        .and_then(|bytes| str::from_utf8(bytes).ok())
        .unwrap_or("");
    let number = |key: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once('='));
        lines
            .find(|(have, _)| have.trim() == key)?
            .1
            .trim()
            .parse::<u64>()
            .ok()
    };
    let (Some(found), Some(features)) = (number("version"), number("features")) else {
        return Err(OpenError::Format {
            file: path.to_owned(),
        });
    };
    if found > FORMAT_VERSION || features & !FORMAT_FEATURES != 0 {
        let known = FORMAT_VERSION;
        return Err(OpenError::Newer {
            file: path.to_owned(),
            found,
            known,
        });
    }
    Ok(())
}

/// Brings the state back and leaves a directory that needs no recovery.
pub(crate) fn recover(context: &Arc<Context>) -> Result<Recovered, OpenError> {
    // Applying again may need the space.
    let reserve = context.reserve_path();
    checkpoint::remove_file(context, &reserve).map_err(|error| OpenError::io(&reserve, error))?;
    let (mut state, from, first, must_exist) = match snapshot::load(context)? {
        Some(loaded) => {
            // A process that was killed may not have synced the snapshot's name, and after a power cut
            // the one before stands there: it must find what it names, until this one is sure to stay.
            let dir = context.wal_dir();
            let synced = context.sync_dir(&dir);
            synced.map_err(|error| OpenError::io(&dir, error))?;
            let (from, first) = (loaded.end, loaded.wal_number);
            (restore(context, loaded)?, from, first, true)
        }
        None => {
            let first = refuse_orphans(context)?;
            (
                State::new(Arc::clone(context)),
                ChainEnd::default(),
                first,
                false,
            )
        }
    };
    let replayed = wal::replay(context, first, from, must_exist, |payload| {
        apply(&mut state, payload)
    })?;
    let frames = replayed.end.sequence - from.sequence;
    if frames > 0 && !must_exist {
        return Err(orphaned(context));
    }
    let dir = context.options.dir.clone();
    let io = |error| OpenError::io(&dir, error);
    wal::secure(context, replayed.next_number.saturating_sub(1)).map_err(io)?;
    let wal =
        WalFile::create(context, replayed.next_number, context.wal_bytes_max / 2).map_err(io)?;
    let mut checkpoint = Checkpoint::take(&mut state, wal.number, replayed.end);
    checkpoint.run(context).map_err(io)?;
    Ok(Recovered {
        state,
        wal,
        end: replayed.end,
        frames,
        torn_bytes: replayed.torn_bytes,
    })
}

/// Without a snapshot nothing was ever committed: the first one is written before the log opens.
/// Anything that says otherwise is a loss. Gives the first write-ahead file that is there.
fn refuse_orphans(context: &Context) -> Result<u64, OpenError> {
    let dir = context.log_dir();
    let entries = context
        .list(&dir)
        .map_err(|error| OpenError::io(&dir, error))?;
    let numbers = wal::list(context).map_err(|error| OpenError::io(&dir, error))?;
    if entries.is_empty() {
        Ok(numbers.first().copied().unwrap_or(1))
    } else {
        Err(orphaned(context))
    }
}

fn orphaned(context: &Context) -> OpenError {
    OpenError::damaged(
        &context.snapshot_path(),
        0,
        "it is missing, but there are commits",
    )
}

fn restore(context: &Arc<Context>, loaded: Loaded) -> Result<State, OpenError> {
    let mut state = State::new(Arc::clone(context));
    state.next_partition = loaded.next_partition;
    state.next_producer_id = loaded.next_producer_id;
    let topics: Vec<_> = loaded.topics.into_iter().map(Arc::new).collect();
    topics
        .iter()
        .for_each(|topic| state.topics.insert_topic(Arc::clone(topic)));
    remove_strays(context, &loaded.partitions)?;
    for mark in loaded.partitions {
        let Some(topic) = state.topics.by_name(&mark.topic).map(Arc::clone) else {
            let path = context.snapshot_path();
            return Err(OpenError::damaged(&path, 0, "a partition has no topic"));
        };
        let dir = partition::dir(&context.log_dir(), &mark.topic, mark.index);
        let newest = mark.segments.len().saturating_sub(1);
        let mut segments = Vec::with_capacity(mark.segments.len());
        for (number, segment) in mark.segments.into_iter().enumerate() {
            segments.push(Arc::new(restore_segment(
                context,
                &dir,
                segment,
                number == newest,
            )?));
        }
        let offsets = (mark.log_start, mark.next_offset);
        state.add_partition(&topic, mark.id, mark.index, offsets, segments);
    }
    let producers_max = context.options.producers_max;
    for (partition, id, producer) in loaded.producers {
        state.producers.set(partition, id, producer, producers_max);
    }
    for (table, key, value) in loaded.rows {
        state.change(table, key, Some(value));
    }
    Ok(state)
}

/// Removes what the snapshot does not name: it came later, and the write-ahead file makes it
/// again, or it was deleted.
fn remove_strays(context: &Context, partitions: &[PartitionMark]) -> Result<(), OpenError> {
    let log_dir = context.log_dir();
    let io = |path: &Path, error| OpenError::io(path, error);
    let known: hashbrown::HashMap<String, &PartitionMark> = partitions
        .iter()
        .map(|mark| (format!("{}-{}", mark.topic, mark.index), mark))
        .collect();
    for folder in context
        .list(&log_dir)
        .map_err(|error| io(&log_dir, error))?
    {
        let dir = log_dir.join(&folder.name);
        let Some(mark) = known.get(&folder.name) else {
            if folder.is_dir {
                checkpoint::remove_dir(context, &dir).map_err(|error| io(&dir, error))?;
            }
            continue;
        };
        for file in context.list(&dir).map_err(|error| io(&dir, error))? {
            let base = file
                .name
                .split_once('.')
                .and_then(|(base, _)| base.parse::<u64>().ok());
            let named = mark
                .segments
                .iter()
                .any(|segment| Some(segment.base_offset) == base);
            if !named {
                let path = dir.join(file.name);
                checkpoint::remove_file(context, &path).map_err(|error| io(&path, error))?;
            }
        }
    }
    Ok(())
}

/// Cuts a segment to what the snapshot says and brings its indexes back.
fn restore_segment(
    context: &Context,
    dir: &Path,
    mut mark: SegmentMark,
    newest: bool,
) -> Result<Segment, OpenError> {
    let segment = Segment::from_mark(dir, mark, None);
    let path = segment.path();
    let io = |error| OpenError::io(path, error);
    let file = match context.open(path, Open::Write) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(OpenError::damaged(path, 0, "the segment is missing"));
        }
        file => file.map_err(io)?,
    };
    let len = file.len().map_err(io)?;
    if len < mark.len {
        return Err(OpenError::damaged(
            path,
            len,
            "the segment is shorter than was synced",
        ));
    }
    if len > mark.len {
        file.set_len(mark.len).map_err(io)?;
    }
    let Some(indexes) = load_indexes(context, &segment, mark)? else {
        let rebuilt = rebuild_indexes(&*file, path, mark)?;
        (mark.offset_entries, mark.time_entries) = (0, 0);
        if newest {
            // Written as a whole by the checkpoint that ends recovery.
            return Ok(Segment::from_mark(dir, mark, Some(rebuilt)));
        }
        write_indexes(context, &segment, &rebuilt, &mut mark)?;
        return Ok(Segment::from_mark(dir, mark, None).with_index_files());
    };
    let indexes = match newest {
        true => Some(resume_indexes(&*file, path, mark, indexes)?),
        false => None,
    };
    Ok(Segment::from_mark(dir, mark, indexes).with_index_files())
}

/// The entries that the snapshot says are there; `None` if the files do not have them.
fn load_indexes(
    context: &Context,
    segment: &Segment,
    mark: SegmentMark,
) -> Result<Option<Indexes>, OpenError> {
    let offsets = load_index(context, &segment.index_path(), mark.offset_entries)?;
    let times = load_index(context, &segment.time_index_path(), mark.time_entries)?;
    let (Some(offsets), Some(times)) = (offsets, times) else {
        return Ok(None);
    };
    let offsets: Vec<_> = offsets.into_iter().map(OffsetEntry::from_bytes).collect();
    let times: Vec<_> = times.into_iter().map(TimeEntry::from_bytes).collect();
    let sorted = offsets.is_sorted_by(|a, b| a.position < b.position)
        && offsets.is_sorted_by(|a, b| a.relative_offset < b.relative_offset)
        && times.is_sorted_by(|a, b| a.timestamp_ms < b.timestamp_ms)
        && offsets
            .last()
            .is_none_or(|last| u64::from(last.position) < mark.len);
    Ok(sorted.then(|| Indexes::from_entries(offsets, times)))
}

/// The first `count` entries of an index file, which is cut behind them; `None` if it is not there or
/// does not have them.
fn load_index<const LEN: usize>(
    context: &Context,
    path: &Path,
    count: u32,
) -> Result<Option<Vec<[u8; LEN]>>, OpenError> {
    let file = match context.open(path, Open::Write) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|error| OpenError::io(path, error))?,
    };
    let mut bytes = vec![0; count as usize * LEN];
    let Ok(have) = file.len() else {
        return Ok(None);
    };
    if have > bytes.len() as u64 {
        file.set_len(bytes.len() as u64)
            .map_err(|error| OpenError::io(path, error))?;
    }
    // What cannot be read is made again from the records.
    let whole = read_full_at(&*file, &mut bytes, 0).is_ok_and(|filled| filled == bytes.len());
    Ok(whole.then(|| bytes.as_chunks().0.to_vec()))
}

/// Counts the batches behind the last entry in, so that the next entry falls where it would have.
fn resume_indexes(
    file: &dyn File,
    path: &Path,
    mark: SegmentMark,
    mut indexes: Indexes,
) -> Result<Indexes, OpenError> {
    let from = indexes
        .offsets
        .last()
        .map_or(0, |entry| u64::from(entry.position));
    let mut first = !indexes.offsets.is_empty();
    scan(file, path, mark.len, from, |position, header| {
        // The entry's own batch is counted but makes no entry.
        if std::mem::take(&mut first) {
            indexes.resume(len_of(header));
        } else {
            let len = len_of(header);
            indexes.add(
                position_of(position),
                len,
                relative(mark, header),
                header.max_timestamp_ms,
            );
        }
    })?;
    Ok(indexes)
}

fn rebuild_indexes(file: &dyn File, path: &Path, mark: SegmentMark) -> Result<Indexes, OpenError> {
    let mut indexes = Indexes::default();
    scan(file, path, mark.len, 0, |position, header| {
        let len = len_of(header);
        indexes.add(
            position_of(position),
            len,
            relative(mark, header),
            header.max_timestamp_ms,
        );
    })?;
    Ok(indexes)
}

fn len_of(header: &BatchHeader) -> u32 {
    u32::try_from(header.len).unwrap_or(u32::MAX)
}

fn position_of(position: u64) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

fn relative(mark: SegmentMark, header: &BatchHeader) -> u32 {
    u32::try_from(header.last_offset().saturating_sub(mark.base_offset)).unwrap_or(u32::MAX)
}

/// Writes the indexes of a closed segment anew.
fn write_indexes(
    context: &Context,
    segment: &Segment,
    indexes: &Indexes,
    mark: &mut SegmentMark,
) -> Result<(), OpenError> {
    let mut indexes = indexes.clone();
    indexes.add_time();
    let offsets: Vec<u8> = indexes
        .offsets
        .iter()
        .flat_map(|entry| entry.to_bytes())
        .collect();
    let times: Vec<u8> = indexes
        .times
        .iter()
        .flat_map(|entry| entry.to_bytes())
        .collect();
    for (path, bytes) in [
        (segment.index_path(), offsets),
        (segment.time_index_path(), times),
    ] {
        let write = || {
            let file = context.open(&path, Open::Create)?;
            write_all_at(&*file, &bytes, 0)?;
            context.sync(&*file)?;
            path.parent().map_or(Ok(()), |dir| context.sync_dir(dir))
        };
        write().map_err(|error| OpenError::io(&path, error))?;
    }
    mark.offset_entries = u32::try_from(indexes.offsets.len()).unwrap_or(u32::MAX);
    mark.time_entries = u32::try_from(indexes.times.len()).unwrap_or(u32::MAX);
    Ok(())
}

/// Calls `see` with each batch's position and header, from byte `from` to `len`.
fn scan(
    file: &dyn File,
    path: &Path,
    len: u64,
    from: u64,
    mut see: impl FnMut(u64, &BatchHeader),
) -> Result<(), OpenError> {
    let mut at = from;
    while at < len {
        let mut bytes = [0; HEADER_LEN];
        let filled =
            read_full_at(file, &mut bytes, at).map_err(|error| OpenError::io(path, error))?;
        let header = bytes
            .get(..filled)
            .and_then(|bytes| BatchHeader::parse(bytes).ok());
        let Some(header) = header.filter(|header| at + header.len as u64 <= len) else {
            return Err(OpenError::damaged(
                path,
                at,
                "no batch begins where one must",
            ));
        };
        see(at, &header);
        at += header.len as u64;
    }
    Ok(())
}

/// Applies one frame again.
fn apply(state: &mut State, mut payload: Bytes) -> Result<(), OpenError> {
    let context = Arc::clone(&state.context);
    let damaged = || OpenError::damaged(&context.wal_dir(), 0, "a frame says what cannot be");
    let log_dir = context.log_dir();
    let now_ms = Reader::new(&payload).i64().ok_or_else(damaged)?;
    let _now = payload.split_to(8);
    let producers_max = context.options.producers_max;
    while !payload.is_empty() {
        match entry::take(&mut payload).ok_or_else(damaged)? {
            Entry::Batch { partition, bytes } => {
                let header = BatchHeader::parse(&bytes).map_err(|_| damaged())?;
                let expected = state
                    .writers
                    .get(&partition)
                    .map(|writer| writer.next_offset);
                if expected.is_some_and(|expected| expected != header.base_offset) {
                    return Err(damaged());
                }
                state
                    .append(partition, &bytes, &header, now_ms)
                    .map_err(|error| OpenError::io(&log_dir, error))?;
                state
                    .producers
                    .replay(partition, &header, now_ms, producers_max);
                state.advance(partition);
            }
            Entry::Change { table, key, value } => state.change(table, key, value),
            Entry::Step(step) => {
                state
                    .step(&step, now_ms)
                    .map_err(|error| OpenError::io(&log_dir, error))?;
            }
        }
    }
    Ok(())
}
