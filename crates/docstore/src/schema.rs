//! How documents lie in a SQLite file.
//!
//! For: opening and checking a file, its tables, the packing of a position into a row id.
//! Not for: what is written when (`writer`) or asked (`reader`).
//! Calls: rusqlite.
//! Holds: a file of another program, a newer version or a damaged one is never written to.
//!
//! One table a collection, `documents_N`, with the row id as the only key. It is the position: the
//! number of a *stream* (a Kafka topic's id, a partition, and the offset's high bits) in the upper
//! bits, the offset's lower 40 below. So the same position twice is the same row, without an index
//! of its own, and records in order are rows in order. MQTT topics are numbered too (`topics`),
//! because an index over text costs most of an insert. `doc` holds the part of the document that
//! stands in no column, as text that every JSON tool reads; the view named after the collection
//! shows both together.
//!
//! Retention removes documents by the time they came, batch by batch
//! ([`Writer::remove_old`](crate::Writer::remove_old)). That time stands in no document's row: rows of
//! a stream come in the order of their ids, so `arrivals` says from which row on all came before when.
//! The file's name leaves room for a row of volumes (`documents-000001.sqlite`), each with
//! dictionaries and cursors of its own, of which whole ones could be dropped instead.

use crate::Position;
use crate::store::OpenError;
use rusqlite::{Connection, OpenFlags};
use std::path::{Path, PathBuf};

/// "HWds", in the file's header.
const APPLICATION_ID: i32 = 0x4857_6473;
/// Newer files are refused, older ones brought up to this when opened.
const VERSION: i32 = 2;

/// Lower bits of a row id that hold the offset.
const OFFSET_BITS: u32 = 40;
const OFFSET_MASK: i64 = (1 << OFFSET_BITS) - 1;
/// Streams a file can number: what is left of a positive 64-bit row id.
pub(crate) const STREAMS_MAX: i64 = (1 << (63 - OFFSET_BITS)) - 1;

/// A topic partition and the high bits of its offsets.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct StreamKey {
    pub(crate) topic: [u8; 16],
    pub(crate) partition: u32,
    pub(crate) high: i64,
}

impl StreamKey {
    /// The stream of a position and its offset within. `None`: an offset beyond `i64::MAX`.
    pub(crate) fn of(position: &Position) -> Option<(Self, i64)> {
        let offset = i64::try_from(position.offset).ok()?;
        let key = Self {
            topic: position.topic.into_bytes(),
            partition: position.partition,
            high: offset >> OFFSET_BITS,
        };
        Some((key, offset & OFFSET_MASK))
    }
}

pub(crate) fn row_id(stream: i64, low: i64) -> i64 {
    stream << OFFSET_BITS | low
}

/// The stream of a row id and the low bits of its offset.
pub(crate) fn split_row_id(id: i64) -> (i64, i64) {
    (id >> OFFSET_BITS, id & OFFSET_MASK)
}

/// The first row id that is not the stream's.
pub(crate) fn end_of_stream(stream: i64) -> i64 {
    // The highest stream ends with the last row id there is.
    (stream + 1).saturating_mul(1 << OFFSET_BITS)
}

pub(crate) fn offset(high: i64, low: i64) -> u64 {
    u64::try_from(high << OFFSET_BITS | low).unwrap_or(0)
}

/// SQL for the stream's number of row `d`, and for its whole offset.
pub(crate) const STREAM_SQL: &str = "(d.id >> 40)";
pub(crate) const OFFSET_SQL: &str =
    "(((SELECT high FROM streams WHERE id = (d.id >> 40)) << 40) | (d.id & 1099511627775))";

pub(crate) fn volume(directory: &Path) -> PathBuf {
    directory.join("documents-000001.sqlite")
}

pub(crate) fn wal(directory: &Path) -> PathBuf {
    directory.join("documents-000001.sqlite-wal")
}

/// Opens the file, making it if `create`, and makes sure that it is one of ours.
pub(crate) fn open(path: &Path, create: bool) -> Result<Connection, OpenError> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if create {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let refused = |source| OpenError::from_sqlite(path, source);
    let connection = Connection::open_with_flags(path, flags).map_err(refused)?;
    connection
        .busy_timeout(std::time::Duration::from_secs(10))
        .map_err(refused)?;
    let pragma = |name: &str| {
        connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i32>(0))
    };
    let (application, version) = (
        pragma("application_id").map_err(refused)?,
        pragma("user_version").map_err(refused)?,
    );
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(refused)?;
    if application != APPLICATION_ID && tables > 0 {
        return Err(OpenError::Foreign {
            path: path.to_owned(),
        });
    }
    if version > VERSION {
        return Err(OpenError::Newer {
            path: path.to_owned(),
            version,
            version_max: VERSION,
        });
    }
    if version < VERSION {
        if !create {
            return Err(OpenError::Foreign {
                path: path.to_owned(),
            });
        }
        match version {
            0 => connection.execute_batch(&tables_sql()).map_err(refused)?,
            _ => add_arrivals(&connection).map_err(refused)?,
        }
    }
    connection
        .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")
        .map_err(refused)?;
    Ok(connection)
}

const ARRIVALS_SQL: &str = "
    CREATE TABLE arrivals (
        collection INTEGER NOT NULL,
        stream INTEGER NOT NULL,
        first INTEGER NOT NULL,
        until_ms INTEGER NOT NULL,
        PRIMARY KEY (collection, stream, first)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX arrivals_until ON arrivals (until_ms);";

/// From version 1 to 2: what is there counts as having come now.
fn add_arrivals(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(&format!("BEGIN EXCLUSIVE; {ARRIVALS_SQL}"))?;
    let collections: Vec<i64> = connection
        .prepare("SELECT id FROM collections")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for id in collections {
        connection.execute_batch(&format!(
            "INSERT INTO arrivals SELECT {id}, id >> {OFFSET_BITS}, min(id), unixepoch() * 1000
             FROM documents_{id} GROUP BY id >> {OFFSET_BITS}"
        ))?;
    }
    connection.execute_batch(&format!("PRAGMA user_version = {VERSION}; COMMIT;"))
}

fn tables_sql() -> String {
    format!(
        "PRAGMA page_size = 4096;
        BEGIN EXCLUSIVE;
        CREATE TABLE collections (
            id INTEGER PRIMARY KEY,
            name TEXT NOT NULL UNIQUE
        ) STRICT;
        CREATE TABLE streams (
            id INTEGER PRIMARY KEY,
            topic BLOB NOT NULL,
            partition INTEGER NOT NULL,
            high INTEGER NOT NULL,
            kafka_topic TEXT NOT NULL,
            UNIQUE (topic, partition, high)
        ) STRICT;
        CREATE TABLE topics (
            id INTEGER PRIMARY KEY,
            name TEXT NOT NULL UNIQUE
        ) STRICT;
        CREATE TABLE cursors (
            name TEXT NOT NULL,
            topic BLOB NOT NULL,
            partition INTEGER NOT NULL,
            next_offset INTEGER NOT NULL,
            PRIMARY KEY (name, topic, partition)
        ) STRICT, WITHOUT ROWID;
        {ARRIVALS_SQL}
        PRAGMA application_id = {APPLICATION_ID};
        PRAGMA user_version = {VERSION};
        COMMIT;"
    )
}

/// The SQL that makes collection number `id`.
pub(crate) fn collection_sql(id: i64, name: &str) -> String {
    let view = name.replace('"', "\"\"");
    format!(
        "CREATE TABLE documents_{id} (
            id INTEGER PRIMARY KEY,
            topic INTEGER,
            ts INTEGER NOT NULL,
            arrays INTEGER NOT NULL,
            doc TEXT NOT NULL
        ) STRICT;
        CREATE INDEX documents_{id}_topic_ts ON documents_{id} (topic, ts);
        CREATE INDEX documents_{id}_ts ON documents_{id} (ts);
        CREATE VIEW \"{view}\" AS
            SELECT t.name AS topic, d.ts AS ts, s.kafka_topic AS kafka_topic,
                s.partition AS partition, {OFFSET_SQL} AS offset, d.doc AS doc
            FROM documents_{id} AS d
            JOIN streams AS s ON s.id = {STREAM_SQL}
            LEFT JOIN topics AS t ON t.id = d.topic;"
    )
}

/// The name of the index over `path` in collection number `id`.
pub(crate) fn index_name(id: i64, path: &str) -> String {
    format!("documents_{id}_doc_{path}")
}

/// The expression such an index is over.
pub(crate) fn index_expression(table: &str, path: &crate::path::Path) -> Option<String> {
    // Names that are plain words in JSON and in SQL need no quoting rules.
    let plain = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
    };
    if path.has_index() || !path.names().all(plain) {
        return None;
    }
    let names: Vec<String> = path.names().map(|name| format!(".\"{name}\"")).collect();
    Some(format!("json_extract({table}doc, '${}')", names.concat()))
}
