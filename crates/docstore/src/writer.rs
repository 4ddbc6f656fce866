//! Documents into the store.
//!
//! For: [`Writer`]: a batch and the sink's positions in one transaction, indexes, syncing.
//! Not for: making documents (`document`), reading them (`reader`).
//! Calls: `schema`. Called by: the one thread that writes.
//! Holds: a transaction is there whole or not at all; after a failed sync, its own or one of SQLite's,
//! nothing more is written, and the process has to end; a full disk and other failed writes change
//! nothing and may be tried again.

use crate::arrivals::Arrivals;
use crate::document::{Batch, Entry};
use crate::path::Path as FieldPath;
use crate::reader::unsigned;
use crate::schema::{self, STREAMS_MAX, StreamKey};
use crate::store::{OpenError, Options, Taken, is_corrupt};
use crate::{Namespace, Position};
use rusqlite::{
    Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params,
};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Text written between two checkpoints: enough that a page written many times is copied once,
/// little enough that the write-ahead file stays small.
const CHECKPOINT_BYTES: usize = 16 << 20;
/// The same for documents so small that their index entries weigh more.
const CHECKPOINT_DOCUMENTS: usize = 40_000;
/// MQTT topic names whose numbers are remembered; then they are forgotten and read again.
const TOPICS_MAX: usize = 65_536;
/// Indexes on demand a collection may have: each costs every insert.
pub const INDEXES_MAX: usize = 16;

/// The one connection that writes. `Send`, not `Sync`: it lives on a thread of its own.
#[derive(Debug)]
pub struct Writer {
    connection: Connection,
    directory: PathBuf,
    numbers: Numbers,
    arrivals: Arrivals,
    /// Open from the first sync on, so that no error of an earlier write-back is missed.
    wal: Option<File>,
    bytes_unchecked: usize,
    documents_unchecked: usize,
    failed: bool,
    _taken: Taken,
}

/// How far a sink has come in one partition, stored with the documents it wrote.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cursor<'a> {
    pub name: &'a str,
    pub topic: Uuid,
    pub partition: u32,
    /// The first offset that is not done. It never goes back: a lesser one changes nothing.
    pub next_offset: u64,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Inserted {
    /// Documents that are new.
    pub written: u64,
    /// Documents whose position was there already; nothing was changed.
    pub already_there: u64,
}

/// Why nothing of a batch was written.
#[derive(Debug, thiserror::Error)]
pub enum InsertError {
    #[error("there is no room for more documents; nothing of the batch was written")]
    Full,
    /// Without this one document the batch may be taken.
    #[error("the document of offset {} is refused; nothing of the batch was written", .position.offset)]
    Refused {
        namespace: Namespace,
        position: Position,
        #[source]
        source: DocumentError,
    },
    #[error("offset {0} is beyond what a position can hold")]
    Offset(u64),
    #[error("the document store is damaged; nothing of the batch was written")]
    Corrupt(#[source] rusqlite::Error),
    /// The process has to end: what the disk holds is known only after a restart.
    #[error("the document store could not be synced")]
    Failed(#[source] rusqlite::Error),
    #[error("the document store takes nothing since a sync failed; restart")]
    Closed,
    #[error("the batch could not be written")]
    Sqlite(#[source] rusqlite::Error),
}

/// Why a document can never be stored.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    #[error("offset {0} is beyond what a document's position can hold")]
    Offset(u64),
    #[error("more than {STREAMS_MAX} topic partitions in one store")]
    Streams,
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
}

#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    #[error("the document store's files cannot be opened to be synced")]
    Open(#[source] io::Error),
    /// The process has to end: what the disk holds is known only after a restart.
    #[error("the document store could not be synced")]
    Failed(#[source] io::Error),
    #[error("the document store takes nothing since a sync failed; restart")]
    Closed,
}

#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    #[error("{0:?} cannot be indexed: a path is made of letters, digits, _ and -, with dots")]
    Path(String),
    #[error("{0} has {INDEXES_MAX} indexes already")]
    TooMany(Namespace),
    #[error("the index could not be made")]
    Insert(#[from] InsertError),
}

impl Writer {
    pub(crate) fn open(
        directory: &Path,
        options: &Options,
        taken: Taken,
    ) -> Result<Self, OpenError> {
        let path = schema::volume(directory);
        let connection = schema::open(&path, false)?;
        let refused = |source| OpenError::from_sqlite(&path, source);
        // SQLite would drop the error of a checkpoint it makes by itself, and with it the only
        // word of a failed fsync. So it makes none: `insert` does, and looks.
        connection
            .execute_batch(
                "PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -32768;
                 PRAGMA journal_size_limit = 67108864;",
            )
            .map_err(refused)?;
        if let Some(bytes_max) = options.bytes_max {
            let page: u64 = connection
                .query_row("PRAGMA page_size", [], |row| unsigned(row, 0))
                .map_err(refused)?;
            let pages = (bytes_max / page.max(1)).clamp(1, u64::from(u32::MAX) - 1);
            connection
                .query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
                .map_err(refused)?;
        }
        Ok(Self {
            connection,
            directory: directory.to_owned(),
            numbers: Numbers::default(),
            arrivals: Arrivals::new(options.retention_ms),
            wal: None,
            bytes_unchecked: 0,
            documents_unchecked: 0,
            failed: false,
            _taken: taken,
        })
    }

    /// Writes `batch` and moves `cursors` in one transaction: all of it or nothing. It survives
    /// the end of the process at once, a power cut only after [`Self::sync`]. `now_ms`, milliseconds
    /// since 1970, is when the documents came.
    pub fn insert(
        &mut self,
        batch: &Batch,
        cursors: &[Cursor<'_>],
        now_ms: i64,
    ) -> Result<Inserted, InsertError> {
        if self.failed {
            return Err(InsertError::Closed);
        }
        let (numbers, arrivals) = (&mut self.numbers, &mut self.arrivals);
        let result = insert(
            &mut self.connection,
            numbers,
            arrivals,
            batch,
            cursors,
            now_ms,
        );
        if let Err(error) = &result {
            // Numbers given out in what was undone are void.
            self.forget();
            self.failed = matches!(error, InsertError::Failed(_));
            if matches!(error, InsertError::Full) {
                // What the write-ahead file holds may still find its place, and leave room in it.
                self.checkpoint()?;
            }
            return result;
        }
        self.bytes_unchecked += batch.bytes();
        self.documents_unchecked += batch.len();
        if self.bytes_unchecked >= CHECKPOINT_BYTES
            || self.documents_unchecked >= CHECKPOINT_DOCUMENTS
        {
            self.checkpoint()?;
        }
        result
    }

    fn forget(&mut self) {
        self.numbers = Numbers::default();
        self.arrivals.forget();
    }

    /// Everything inserted so far is on disk when this returns.
    ///
    /// Syncing the write-ahead file is enough. Each commit is in it whole, and what was moved from
    /// it into the main file before it was begun anew had been synced there: SQLite's checkpoint
    /// syncs the one before and the other after it copies, also with synchronous=NORMAL. Opening
    /// the file after a power cut replays every commit whose checksums hold, so all of them. The
    /// folder is synced for the file's name. Readers are not waited for.
    pub fn sync(&mut self) -> Result<(), SyncError> {
        if self.failed {
            return Err(SyncError::Closed);
        }
        let synced = self.sync_files();
        self.failed = matches!(synced, Err(SyncError::Failed(_)));
        synced
    }

    fn sync_files(&mut self) -> Result<(), SyncError> {
        // Opened beside SQLite's own handle. Closing one would drop locks held on its file, but
        // SQLite holds none on this one: its locks lie in the main file and in -shm.
        if self.wal.is_none() {
            self.wal = match File::open(schema::wal(&self.directory)) {
                Ok(wal) => Some(wal),
                // Nothing was written yet through this connection.
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(SyncError::Open(error)),
            };
        }
        let folder = File::open(&self.directory).map_err(SyncError::Open)?;
        if let Some(wal) = &self.wal {
            wal.sync_data().map_err(SyncError::Failed)?;
        }
        folder.sync_all().map_err(SyncError::Failed)
    }

    /// Moves what is in the write-ahead file to its place, as far as no reader needs it there.
    fn checkpoint(&mut self) -> Result<(), InsertError> {
        self.bytes_unchecked = 0;
        self.documents_unchecked = 0;
        let moved = self
            .connection
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        match moved.map_err(insert_error) {
            // It goes on with the next one; the documents are in the write-ahead file.
            Ok(()) | Err(InsertError::Full) => Ok(()),
            Err(error) => {
                self.failed = matches!(error, InsertError::Failed(_));
                Err(error)
            }
        }
    }

    /// Indexes a path such as `payload.temp`, so that filters on it need not read every document.
    /// Reads the whole collection once. An index that is there already stays as it is.
    pub fn create_index(&mut self, namespace: &Namespace, path: &str) -> Result<(), IndexError> {
        if self.failed {
            return Err(InsertError::Closed.into());
        }
        let refused = || IndexError::Path(path.to_owned());
        let parsed = FieldPath::parse(path).ok_or_else(refused)?;
        if matches!(
            parsed.first(),
            "_id" | "topic" | "ts" | "kafka_topic" | "partition" | "offset"
        ) {
            return Err(refused());
        }
        let expression = schema::index_expression("", &parsed).ok_or_else(refused)?;
        let made = self.make_index(namespace, path, &expression);
        let made = made.map_err(insert_error);
        if let Err(error) = &made {
            self.forget();
            self.failed = matches!(error, InsertError::Failed(_));
        }
        match made? {
            true => Ok(()),
            false => Err(IndexError::TooMany(namespace.clone())),
        }
    }

    /// False where there are too many.
    fn make_index(
        &mut self,
        namespace: &Namespace,
        path: &str,
        expression: &str,
    ) -> rusqlite::Result<bool> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let id = self.numbers.collection(&transaction, namespace)?;
        let paths = indexed_paths(&transaction, id)?;
        if paths.len() >= INDEXES_MAX && !paths.iter().any(|p| p == path) {
            return Ok(false);
        }
        transaction.execute_batch(&format!(
            "CREATE INDEX IF NOT EXISTS \"{}\" ON documents_{id} ({expression}, arrays)",
            schema::index_name(id, path)
        ))?;
        transaction.commit()?;
        Ok(true)
    }

    /// Removes documents that have been here for longer than the retention, at most `limit` of all
    /// collections together, in one transaction; how many went. Fewer than `limit`: none is left that
    /// has to go now; a document may stay a hundredth of the retention longer. What is freed is used
    /// again; the file does not shrink.
    pub fn remove_old(&mut self, now_ms: i64, limit: u32) -> Result<u64, InsertError> {
        if self.failed {
            return Err(InsertError::Closed);
        }
        let removed = self
            .arrivals
            .remove_old(&mut self.connection, now_ms, limit);
        let removed = removed.map_err(insert_error);
        self.failed = matches!(removed, Err(InsertError::Failed(_)));
        let removed = removed?;
        self.documents_unchecked += usize::try_from(removed).unwrap_or(usize::MAX);
        if self.documents_unchecked >= CHECKPOINT_DOCUMENTS {
            self.checkpoint()?;
        }
        Ok(removed)
    }

    /// Where sink `name` has come to in a partition; `None` where it never was.
    pub fn cursor(
        &mut self,
        name: &str,
        topic: Uuid,
        partition: u32,
    ) -> Result<Option<u64>, InsertError> {
        read_cursor(&self.connection, name, topic, partition).map_err(insert_error)
    }
}

/// The paths that collection number `id` has indexes for.
pub(crate) fn indexed_paths(connection: &Connection, id: i64) -> rusqlite::Result<Vec<String>> {
    let prefix = schema::index_name(id, "");
    let mut statement = connection.prepare_cached(
        "SELECT substr(name, length(?1) + 1) FROM sqlite_schema
         WHERE type = 'index' AND tbl_name = ?2 AND substr(name, 1, length(?1)) = ?1",
    )?;
    statement
        .query_map(params![prefix, format!("documents_{id}")], |row| row.get(0))?
        .collect()
}

pub(crate) fn read_cursor(
    connection: &Connection,
    name: &str,
    topic: Uuid,
    partition: u32,
) -> rusqlite::Result<Option<u64>> {
    connection
        .prepare_cached(
            "SELECT next_offset FROM cursors WHERE name = ? AND topic = ? AND partition = ?",
        )?
        .query_row(
            params![name, topic.as_bytes().as_slice(), partition],
            |row| unsigned(row, 0),
        )
        .optional()
}

fn insert(
    connection: &mut Connection,
    numbers: &mut Numbers,
    arrivals: &mut Arrivals,
    batch: &Batch,
    cursors: &[Cursor<'_>],
    now_ms: i64,
) -> Result<Inserted, InsertError> {
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(insert_error)?;
    let mut inserted = Inserted::default();
    let mut entries = batch.entries().peekable();
    while let Some(namespace) = entries.peek().map(|entry| entry.namespace) {
        let id = numbers
            .collection(&transaction, namespace)
            .map_err(insert_error)?;
        let mut statement = transaction
            .prepare_cached(&format!(
                "INSERT INTO documents_{id} (id, topic, ts, arrays, doc) VALUES (?, ?, ?, ?, ?)
                 ON CONFLICT (id) DO NOTHING"
            ))
            .map_err(insert_error)?;
        while let Some(entry) = entries.next_if(|entry| entry.namespace == namespace) {
            let row = numbers.row(&transaction, &entry)?;
            let topic = match entry.topic {
                Some(name) => Some(numbers.topic(&transaction, name).map_err(insert_error)?),
                None => None,
            };
            let rows = statement
                .execute(params![row, topic, entry.ts_ms, entry.arrays, entry.body])
                .map_err(|error| document_error(&entry, error))?;
            if rows > 0 {
                arrivals
                    .came(&transaction, id, row, now_ms)
                    .map_err(insert_error)?;
            }
            inserted.written += rows as u64;
            inserted.already_there += 1 - rows as u64;
        }
    }
    move_cursors(&transaction, cursors)?;
    transaction.commit().map_err(insert_error)?;
    Ok(inserted)
}

fn move_cursors(transaction: &Transaction<'_>, cursors: &[Cursor<'_>]) -> Result<(), InsertError> {
    let mut statement = transaction
        .prepare_cached(
            "INSERT INTO cursors (name, topic, partition, next_offset) VALUES (?, ?, ?, ?)
             ON CONFLICT DO UPDATE SET next_offset = max(next_offset, excluded.next_offset)",
        )
        .map_err(insert_error)?;
    for cursor in cursors {
        let next_offset = i64::try_from(cursor.next_offset)
            .map_err(|_| InsertError::Offset(cursor.next_offset))?;
        let topic = cursor.topic.as_bytes().as_slice();
        statement
            .execute(params![cursor.name, topic, cursor.partition, next_offset])
            .map_err(insert_error)?;
    }
    Ok(())
}

fn insert_error(error: rusqlite::Error) -> InsertError {
    match error.sqlite_error_code() {
        // The write itself, not a sync: ENOSPC from those is SQLITE_IOERR_FSYNC.
        Some(ErrorCode::DiskFull) => InsertError::Full,
        _ if is_corrupt(&error) => InsertError::Corrupt(error),
        // Other I/O errors leave a transaction undone, and all that was committed as it was.
        Some(ErrorCode::SystemIoFailure) if is_failed_sync(&error) => InsertError::Failed(error),
        _ => InsertError::Sqlite(error),
    }
}

pub(crate) fn is_failed_sync(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{SQLITE_IOERR_DIR_FSYNC, SQLITE_IOERR_FSYNC};
    let code = error.sqlite_error().map(|error| error.extended_code);
    matches!(code, Some(SQLITE_IOERR_FSYNC | SQLITE_IOERR_DIR_FSYNC))
}

/// As [`insert_error`], but for what is the one document's own fault.
fn document_error(entry: &Entry<'_>, error: rusqlite::Error) -> InsertError {
    use ErrorCode::{ConstraintViolation, TooBig, TypeMismatch, Unknown};
    match error.sqlite_error_code() {
        // `Unknown` is SQLITE_ERROR: an expression, an index's for instance, that cannot be computed.
        Some(ConstraintViolation | TooBig | TypeMismatch | Unknown) => refused(entry, error.into()),
        _ => insert_error(error),
    }
}

fn refused(entry: &Entry<'_>, source: DocumentError) -> InsertError {
    InsertError::Refused {
        namespace: entry.namespace.clone(),
        position: entry.position,
        source,
    }
}

/// The numbers that stand for names in the file, as far as they are remembered.
#[derive(Debug, Default)]
struct Numbers {
    collections: HashMap<Namespace, i64>,
    streams: HashMap<StreamKey, i64>,
    topics: HashMap<Box<str>, i64>,
}

impl Numbers {
    /// The number of a collection, which is made where it is not there.
    fn collection(
        &mut self,
        transaction: &Transaction<'_>,
        namespace: &Namespace,
    ) -> rusqlite::Result<i64> {
        if let Some(id) = self.collections.get(namespace) {
            return Ok(*id);
        }
        let name = namespace.as_str();
        let id = match collection_number(transaction, namespace)? {
            Some(id) => id,
            None => {
                transaction.execute("INSERT INTO collections (name) VALUES (?)", [name])?;
                let id = transaction.last_insert_rowid();
                transaction.execute_batch(&schema::collection_sql(id, name))?;
                id
            }
        };
        self.collections.insert(namespace.clone(), id);
        Ok(id)
    }

    /// The row id of a document's position.
    fn row(
        &mut self,
        transaction: &Transaction<'_>,
        entry: &Entry<'_>,
    ) -> Result<i64, InsertError> {
        let position = entry.position;
        let (key, low) = StreamKey::of(&position)
            .ok_or_else(|| refused(entry, DocumentError::Offset(position.offset)))?;
        let stream = match self.streams.get(&key) {
            Some(stream) => *stream,
            None => {
                let stream =
                    stream_number(transaction, &key, entry.kafka_topic).map_err(insert_error)?;
                if stream > STREAMS_MAX {
                    return Err(refused(entry, DocumentError::Streams));
                }
                self.streams.insert(key, stream);
                stream
            }
        };
        Ok(schema::row_id(stream, low))
    }

    fn topic(&mut self, transaction: &Transaction<'_>, name: &str) -> rusqlite::Result<i64> {
        if let Some(id) = self.topics.get(name) {
            return Ok(*id);
        }
        let id = transaction
            .prepare_cached("SELECT id FROM topics WHERE name = ?")?
            .query_row([name], |row| row.get(0))
            .optional()?;
        let id = match id {
            Some(id) => id,
            None => transaction
                .prepare_cached("INSERT INTO topics (name) VALUES (?)")?
                .insert([name])?,
        };
        if self.topics.len() >= TOPICS_MAX {
            self.topics.clear();
        }
        self.topics.insert(name.into(), id);
        Ok(id)
    }
}

pub(crate) fn collection_number(
    connection: &Connection,
    namespace: &Namespace,
) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT id FROM collections WHERE name = ?")?
        .query_row([namespace.as_str()], |row| row.get(0))
        .optional()
}

fn stream_number(
    transaction: &Transaction<'_>,
    key: &StreamKey,
    kafka_topic: &str,
) -> rusqlite::Result<i64> {
    let topic = key.topic.as_slice();
    let found = transaction
        .prepare_cached("SELECT id FROM streams WHERE topic = ? AND partition = ? AND high = ?")?
        .query_row(params![topic, key.partition, key.high], |row| row.get(0))
        .optional()?;
    match found {
        Some(id) => Ok(id),
        None => transaction
            .prepare_cached(
                "INSERT INTO streams (topic, partition, high, kafka_topic) VALUES (?, ?, ?, ?)",
            )?
            .insert(params![topic, key.partition, key.high, kafka_topic]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::ffi;

    #[test]
    fn descriptor_of_the_write_ahead_file_outlives_a_sync_that_cannot_open_the_folder() {
        let above = tempfile::tempdir().unwrap();
        let (folder, away) = (above.path().join("store"), above.path().join("away"));
        let store = crate::Store::open(&folder, Options::default()).unwrap();
        let mut writer = store.writer().unwrap();
        let cursor = Cursor {
            name: "a",
            topic: Uuid::nil(),
            partition: 0,
            next_offset: 1,
        };
        writer.insert(&Batch::new(), &[cursor], 0).unwrap();
        writer.sync().unwrap();
        assert!(writer.wal.is_some());
        std::fs::rename(&folder, &away).unwrap();
        assert!(matches!(writer.sync(), Err(SyncError::Open(_))));
        assert!(
            writer.wal.is_some(),
            "it alone would tell of a failed write-back"
        );
        std::fs::rename(&away, &folder).unwrap();
        writer.sync().unwrap();
    }

    #[test]
    fn failed_sync_is_told_from_a_full_disk_and_from_a_failed_write() {
        let told = |code| insert_error(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
        for code in [ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_DIR_FSYNC] {
            assert!(matches!(told(code), InsertError::Failed(_)), "{code}");
        }
        assert!(matches!(told(ffi::SQLITE_FULL), InsertError::Full));
        for code in [
            ffi::SQLITE_IOERR_WRITE,
            ffi::SQLITE_IOERR_READ,
            ffi::SQLITE_BUSY,
        ] {
            assert!(matches!(told(code), InsertError::Sqlite(_)), "{code}");
        }
        assert!(matches!(told(ffi::SQLITE_CORRUPT), InsertError::Corrupt(_)));
    }
}
