//! Documents out of the store.
//!
//! For: [`Reader`]: find, count, the names of the collections, a sink's positions.
//! Not for: writing.
//! Calls: `pushdown`, `evaluate`, `sort`, `top`, `document`. Called by: any thread, one at a time.
//! Holds: what `find` gives is what the evaluator says of each document, whatever SQL was asked;
//! memory, documents looked at and time are bounded.

use crate::document::{Head, Position};
use crate::pushdown::{self, Indexes, Sql};
use crate::schema;
use crate::store::{OpenError, is_corrupt};
use crate::top::Top;
use crate::value::{Reading, Value};
use crate::writer::{collection_number, indexed_paths, read_cursor};
use crate::{Filter, Namespace, Sort};
use rusqlite::{Connection, ErrorCode, Row, Transaction, params_from_iter};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use uuid::Uuid;

/// Steps of SQLite's machine between two looks at the clock: about 50 microseconds.
const STEPS_BETWEEN_LOOKS: i32 = 2_000;

/// A connection that reads; any number of them, each used by one thread at a time.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    /// Streams by number; they never change once they are committed.
    streams: HashMap<i64, Stream>,
}

#[derive(Clone, Debug)]
struct Stream {
    topic: Uuid,
    partition: u32,
    high: i64,
    kafka_topic: Arc<str>,
}

/// What is asked of a collection.
#[derive(Clone, Debug, Default)]
pub struct Query {
    pub filter: Filter,
    pub sort: Sort,
    pub skip: u64,
    /// `None`: all.
    pub limit: Option<u64>,
}

/// What one query may cost.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Documents taken into hand; those that an index or SQL left out are not counted, their time
    /// is.
    pub scanned_max: u64,
    /// Bytes held for sorting.
    pub sort_bytes_max: usize,
    pub deadline: Option<Instant>,
    /// Set to true from anywhere, it ends the query.
    pub cancel: Option<Arc<AtomicBool>>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            scanned_max: 10_000_000,
            sort_bytes_max: 32 << 20,
            deadline: None,
            cancel: None,
        }
    }
}

/// What a query came to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Found {
    /// Documents given.
    pub documents: u64,
    /// Documents taken into hand for it.
    pub scanned: u64,
}

/// Why a query has no answer, or only part of one.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    #[error(
        "the query looked at {0} documents, which is its limit; narrow it by topic or ts, or index \
         the field it asks for"
    )]
    Scanned(u64),
    #[error(
        "the documents to sort are more than {0} bytes; give a limit, narrow the filter, or sort \
         by ts alone"
    )]
    SortTooLarge(usize),
    #[error("the query took longer than it may; narrow it by topic or ts")]
    Deadline,
    #[error("the query was cancelled")]
    Cancelled,
    #[error("the document store is damaged")]
    Corrupt(#[source] rusqlite::Error),
    #[error("a document is not JSON: the store is damaged")]
    Document(#[source] serde_json::Error),
    #[error("the query could not be answered")]
    Sqlite(#[source] rusqlite::Error),
}

impl Reader {
    pub(crate) fn open(directory: &Path) -> Result<Self, OpenError> {
        let path = schema::volume(directory);
        let connection = schema::open(&path, false)?;
        connection
            .execute_batch("PRAGMA query_only = 1; PRAGMA cache_size = -8192;")
            .map_err(|source| OpenError::from_sqlite(&path, source))?;
        Ok(Self {
            connection,
            streams: HashMap::new(),
        })
    }

    /// Gives each document that matches to `each`, as one line of JSON without the line's end,
    /// until it breaks. A collection that is not there has no documents. All of it is read from
    /// one state of the store.
    pub fn find(
        &mut self,
        namespace: &Namespace,
        query: &Query,
        bounds: &Bounds,
        each: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Found, FindError> {
        self.within(bounds, |transaction, streams| {
            let Some(plan) = Plan::of(transaction, namespace, query)? else {
                return Ok(Found::default());
            };
            let mut search = Search {
                plan,
                query,
                bounds,
                streams,
                found: Found::default(),
                line: String::new(),
            };
            search.run(transaction, each)?;
            Ok(search.found)
        })
    }

    /// How many documents match.
    pub fn count(
        &mut self,
        namespace: &Namespace,
        filter: &Filter,
        bounds: &Bounds,
    ) -> Result<u64, FindError> {
        let query = Query {
            filter: filter.clone(),
            ..Query::default()
        };
        self.within(bounds, |transaction, streams| {
            let Some(plan) = Plan::of(transaction, namespace, &query)? else {
                return Ok(0);
            };
            if plan.exact {
                let sql = format!("SELECT count(*) FROM {} AS d{}", plan.table, plan.filter);
                return transaction
                    .prepare_cached(&sql)
                    .and_then(|mut statement| {
                        statement
                            .query_row(params_from_iter(&plan.parameters), |row| unsigned(row, 0))
                    })
                    .map_err(find_error);
            }
            let query = &query;
            let mut search = Search {
                plan,
                query,
                bounds,
                streams,
                found: Found::default(),
                line: String::new(),
            };
            search.scan(transaction, &mut |search, _, _| {
                search.found.documents += 1;
                Ok(ControlFlow::Continue(()))
            })?;
            Ok(search.found.documents)
        })
    }

    /// The collections there are, by name.
    pub fn collections(&mut self) -> Result<Vec<Namespace>, FindError> {
        let names = || -> rusqlite::Result<Vec<String>> {
            let mut statement = self
                .connection
                .prepare_cached("SELECT name FROM collections ORDER BY name")?;
            statement.query_map([], |row| row.get(0))?.collect()
        };
        let names = names().map_err(find_error)?;
        Ok(names
            .iter()
            .filter_map(|name| Namespace::parse(name).ok())
            .collect())
    }

    /// The first offset that sink `name` has not done of a partition; `None` where it never was.
    pub fn cursor(
        &mut self,
        name: &str,
        topic: Uuid,
        partition: u32,
    ) -> Result<Option<u64>, FindError> {
        read_cursor(&self.connection, name, topic, partition).map_err(find_error)
    }

    /// Runs `work` on one state of the store, with the clock and the cancellation looked at.
    fn within<T>(
        &mut self,
        bounds: &Bounds,
        work: impl FnOnce(&Transaction<'_>, &mut HashMap<i64, Stream>) -> Result<T, FindError>,
    ) -> Result<T, FindError> {
        let watch = Watch {
            deadline: bounds.deadline,
            cancel: bounds.cancel.clone(),
        };
        watch.look()?;
        let (connection, streams) = (&mut self.connection, &mut self.streams);
        let handler = watch.clone();
        connection
            .progress_handler(STEPS_BETWEEN_LOOKS, Some(move || handler.look().is_err()))
            .map_err(find_error)?;
        let result = connection
            .transaction()
            .map_err(find_error)
            .and_then(|transaction| work(&transaction, streams));
        connection
            .progress_handler(0, None::<fn() -> bool>)
            .map_err(find_error)?;
        match result {
            // SQLite was stopped by the handler: say what the handler saw.
            Err(FindError::Cancelled) => Err(watch.look().err().unwrap_or(FindError::Cancelled)),
            other => other,
        }
    }
}

#[derive(Clone)]
struct Watch {
    deadline: Option<Instant>,
    cancel: Option<Arc<AtomicBool>>,
}

impl Watch {
    fn look(&self) -> Result<(), FindError> {
        if self
            .cancel
            .as_ref()
            .is_some_and(|cancel| cancel.load(Ordering::Relaxed))
        {
            return Err(FindError::Cancelled);
        }
        if self
            .deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
        {
            return Err(FindError::Deadline);
        }
        Ok(())
    }
}

fn find_error(error: rusqlite::Error) -> FindError {
    match error.sqlite_error_code() {
        Some(ErrorCode::OperationInterrupted) => FindError::Cancelled,
        _ if is_corrupt(&error) => FindError::Corrupt(error),
        _ => FindError::Sqlite(error),
    }
}

/// How a query is put to SQLite.
struct Plan {
    table: String,
    /// ` WHERE …`, or nothing.
    filter: String,
    parameters: Vec<rusqlite::types::Value>,
    /// SQL gives exactly the documents that match.
    exact: bool,
    /// ` ORDER BY …` where SQL gives the documents in order.
    order: &'static str,
    /// The order is still to be made.
    sorts: bool,
}

impl Plan {
    /// `None`: there is no such collection.
    fn of(
        transaction: &Transaction<'_>,
        namespace: &Namespace,
        query: &Query,
    ) -> Result<Option<Self>, FindError> {
        let Some(id) = collection_number(transaction, namespace).map_err(find_error)? else {
            return Ok(None);
        };
        let paths = indexed_paths(transaction, id).map_err(find_error)?;
        let sql = pushdown::push(&query.filter.condition, &Indexes { paths });
        let order = match query.sort.keys.as_slice() {
            [key] if key.path.single() == Some("ts") => {
                if key.descending {
                    " ORDER BY d.ts DESC"
                } else {
                    " ORDER BY d.ts"
                }
            }
            _ => "",
        };
        let (filter, parameters, exact) = match sql {
            Some(Sql {
                text,
                parameters,
                exact,
                ..
            }) => (format!(" WHERE {text}"), parameters, exact),
            None => (String::new(), Vec::new(), false),
        };
        let sorts = order.is_empty() && !query.sort.keys.is_empty();
        let table = format!("documents_{id}");
        Ok(Some(Self {
            table,
            filter,
            parameters,
            exact,
            order,
            sorts,
        }))
    }
}

/// A query under way.
struct Search<'q> {
    plan: Plan,
    query: &'q Query,
    bounds: &'q Bounds,
    streams: &'q mut HashMap<i64, Stream>,
    found: Found,
    line: String,
}

/// One document in hand: its columns, its body, and its value if that was needed.
struct Hit<'r> {
    head: Head<'r>,
    body: &'r str,
}

/// What to do with a document that matches.
type OnMatch<'f, 'q> = &'f mut dyn FnMut(
    &mut Search<'q>,
    &Hit<'_>,
    Option<&Value<'_>>,
) -> Result<ControlFlow<()>, FindError>;

impl<'q> Search<'q> {
    fn run(
        &mut self,
        transaction: &Transaction<'_>,
        each: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<(), FindError> {
        if self.query.limit == Some(0) {
            return Ok(());
        }
        if self.plan.sorts {
            return self.sorted(transaction, each);
        }
        let mut to_skip = self.query.skip;
        let limit = self.query.limit.unwrap_or(u64::MAX);
        self.scan(transaction, &mut |search, hit, _| {
            if to_skip > 0 {
                to_skip -= 1;
                return Ok(ControlFlow::Continue(()));
            }
            let mut line = std::mem::take(&mut search.line);
            line.clear();
            hit.head.push_document(&mut line, hit.body);
            search.found.documents += 1;
            let flow = each(&line);
            search.line = line;
            let done = flow.is_break() || search.found.documents >= limit;
            Ok(if done {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            })
        })
    }

    fn sorted(
        &mut self,
        transaction: &Transaction<'_>,
        each: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<(), FindError> {
        let skip = usize::try_from(self.query.skip).unwrap_or(usize::MAX);
        let keep = self.query.limit.map(|limit| {
            usize::try_from(limit)
                .unwrap_or(usize::MAX)
                .saturating_add(skip)
        });
        let bytes_max = self.bounds.sort_bytes_max;
        let query = self.query;
        let mut top = Top::new(&query.sort, keep, bytes_max);
        self.scan(transaction, &mut |_, hit, value| {
            let text = || {
                let mut text = String::with_capacity(hit.body.len() + 256);
                hit.head.push_document(&mut text, hit.body);
                text
            };
            let Some(value) = value else {
                return Ok(ControlFlow::Continue(()));
            };
            top.offer(value, text)
                .map_err(|_| FindError::SortTooLarge(bytes_max))?;
            Ok(ControlFlow::Continue(()))
        })?;
        for document in top.into_documents().skip(skip) {
            self.found.documents += 1;
            if each(&document).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Gives each document that matches to `on_match`.
    fn scan(
        &mut self,
        transaction: &Transaction<'_>,
        on_match: OnMatch<'_, 'q>,
    ) -> Result<(), FindError> {
        let Plan {
            table,
            filter,
            order,
            ..
        } = &self.plan;
        let sql = format!(
            "SELECT d.id, (SELECT name FROM topics WHERE id = d.topic), d.ts, d.doc \
             FROM {table} AS d{filter}{order}"
        );
        let parse = !self.plan.exact || self.plan.sorts;
        let mut statement = transaction.prepare_cached(&sql).map_err(find_error)?;
        let parameters = params_from_iter(std::mem::take(&mut self.plan.parameters));
        let mut rows = statement.query(parameters).map_err(find_error)?;
        while let Some(row) = rows.next().map_err(find_error)? {
            if self.found.scanned >= self.bounds.scanned_max {
                return Err(FindError::Scanned(self.bounds.scanned_max));
            }
            self.found.scanned += 1;
            let (id, stream) = self.stream(transaction, row)?;
            let hit = hit(row, id, &stream).map_err(find_error)?;
            let flow = if parse {
                let body =
                    Value::parse(hit.body, Reading::Extended).map_err(FindError::Document)?;
                let value = hit.head.value(body);
                if !self.plan.exact && !self.query.filter.condition.matches(&value) {
                    continue;
                }
                on_match(self, &hit, Some(&value))?
            } else {
                on_match(self, &hit, None)?
            };
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn stream(
        &mut self,
        transaction: &Transaction<'_>,
        row: &Row<'_>,
    ) -> Result<(i64, Stream), FindError> {
        let id: i64 = row.get(0).map_err(find_error)?;
        let (number, _) = schema::split_row_id(id);
        if let Some(stream) = self.streams.get(&number) {
            return Ok((id, stream.clone()));
        }
        let stream = read_stream(transaction, number).map_err(find_error)?;
        self.streams.insert(number, stream.clone());
        Ok((id, stream))
    }
}

fn hit<'r>(row: &'r Row<'_>, id: i64, stream: &'r Stream) -> rusqlite::Result<Hit<'r>> {
    let (_, low) = schema::split_row_id(id);
    let position = Position {
        topic: stream.topic,
        partition: stream.partition,
        offset: schema::offset(stream.high, low),
    };
    let head = Head {
        position,
        topic: row.get_ref(1)?.as_str_or_null()?,
        ts_ms: row.get(2)?,
        kafka_topic: &stream.kafka_topic,
    };
    Ok(Hit {
        head,
        body: row.get_ref(3)?.as_str()?,
    })
}

/// A count or an offset: never negative where we wrote it.
pub(crate) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
}

fn read_stream(transaction: &Transaction<'_>, number: i64) -> rusqlite::Result<Stream> {
    transaction
        .prepare_cached("SELECT topic, partition, high, kafka_topic FROM streams WHERE id = ?")?
        .query_row([number], |row| {
            Ok(Stream {
                topic: Uuid::from_bytes(row.get(0)?),
                partition: row.get(1)?,
                high: row.get(2)?,
                kafka_topic: row.get::<_, String>(3)?.into(),
            })
        })
}
