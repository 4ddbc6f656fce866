//! When documents came, and which have been here long enough.
//!
//! For: [`Arrivals`], the marks of the table `arrivals`: from row `first` of a stream on, up to the next
//! mark, all rows came before `until_ms`.
//! Not for: the time a record tells of itself, which is data.
//! Calls: `schema`. Called by: `writer`, within its transactions.
//! Holds: no document goes before its time, in whatever order rows come and however the clock moves;
//! a row costs nothing of its own, a stream about a hundred marks.

use crate::schema::{end_of_stream, split_row_id};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use std::collections::HashMap;

/// A mark stands for what comes within this part of the retention.
const MARKS: i64 = 100;
/// Stands for a retention that is not said: it may be said later.
const UNSAID_MS: i64 = 30 * 24 * 60 * 60 * 1000;
/// Marks that one removal looks at.
const REMOVE_MARKS_MAX: u32 = 64;

/// A collection's number and a stream's.
type Place = (i64, i64);

#[derive(Debug)]
pub(crate) struct Arrivals {
    retention_ms: Option<i64>,
    /// The newest mark of each place.
    newest: HashMap<Place, Mark>,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    first: i64,
    until_ms: i64,
}

impl Arrivals {
    pub(crate) fn new(retention_ms: Option<i64>) -> Self {
        Self {
            retention_ms,
            newest: HashMap::new(),
        }
    }

    /// What is remembered may not be in the file.
    pub(crate) fn forget(&mut self) {
        self.newest.clear();
    }

    /// Takes note that row `row` of `collection` came at `now_ms`.
    pub(crate) fn came(
        &mut self,
        transaction: &Transaction<'_>,
        collection: i64,
        row: i64,
        now_ms: i64,
    ) -> rusqlite::Result<()> {
        let (stream, _) = split_row_id(row);
        let covers = |mark: &Mark| mark.first <= row && now_ms < mark.until_ms;
        if self.newest.get(&(collection, stream)).is_some_and(covers) {
            return Ok(());
        }
        let newest = transaction
            .prepare_cached(
                "SELECT first, until_ms FROM arrivals WHERE collection = ? AND stream = ?
                 ORDER BY first DESC LIMIT 1",
            )?
            .query_row([collection, stream], |row| {
                Ok(Mark {
                    first: row.get(0)?,
                    until_ms: row.get(1)?,
                })
            })
            .optional()?;
        let mark = match newest.filter(covers) {
            Some(mark) => mark,
            None => {
                let span_ms = self.retention_ms.unwrap_or(UNSAID_MS) / MARKS;
                let mark = Mark {
                    first: row,
                    until_ms: now_ms.saturating_add(span_ms.max(1)),
                };
                // A row below rows that are there: those behind it may be joined by later ones.
                transaction
                    .prepare_cached(
                        "UPDATE arrivals SET until_ms = max(until_ms, ?)
                         WHERE collection = ? AND stream = ? AND first >= ?",
                    )?
                    .execute([mark.until_ms, collection, stream, row])?;
                transaction
                    .prepare_cached("INSERT OR IGNORE INTO arrivals VALUES (?, ?, ?, ?)")?
                    .execute([collection, stream, mark.first, mark.until_ms])?;
                mark
            }
        };
        self.newest.insert((collection, stream), mark);
        Ok(())
    }

    /// Removes at most `limit` documents whose time is over, and the marks that stand for none.
    pub(crate) fn remove_old(
        &mut self,
        connection: &mut Connection,
        now_ms: i64,
        limit: u32,
    ) -> rusqlite::Result<u64> {
        let Some(retention_ms) = self.retention_ms else {
            return Ok(0);
        };
        let before = now_ms.saturating_sub(retention_ms);
        let limit = u64::from(limit);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut removed = 0;
        while removed < limit {
            let marks = due(&transaction, before)?;
            let is_last = marks.len() < usize::try_from(REMOVE_MARKS_MAX).unwrap_or(usize::MAX);
            for Due { place, first, end } in marks {
                let (collection, stream) = place;
                let left = limit - removed;
                let gone = transaction
                    .prepare_cached(&format!(
                        "DELETE FROM documents_{collection} WHERE id IN
                         (SELECT id FROM documents_{collection} WHERE id >= ? AND id < ? LIMIT ?)"
                    ))?
                    .execute(params![first, end, i64::try_from(left).unwrap_or(i64::MAX)])?;
                removed += gone as u64;
                if removed >= limit {
                    break;
                }
                transaction
                    .prepare_cached(
                        "DELETE FROM arrivals WHERE collection = ? AND stream = ? AND first = ?",
                    )?
                    .execute([collection, stream, first])?;
            }
            if is_last {
                break;
            }
        }
        transaction.commit()?;
        // Among the marks that went may be the newest of a stream.
        self.forget();
        Ok(removed)
    }
}

/// Rows of one place that came together.
struct Due {
    place: Place,
    first: i64,
    /// The first row that is none of them.
    end: i64,
}

/// What came before `before_ms`, the oldest first, about [`REMOVE_MARKS_MAX`] marks of it.
fn due(transaction: &Transaction<'_>, before_ms: i64) -> rusqlite::Result<Vec<Due>> {
    transaction
        .prepare_cached(
            "SELECT collection, stream, first, (SELECT min(n.first) FROM arrivals AS n WHERE
                n.collection = a.collection AND n.stream = a.stream AND n.first > a.first)
             FROM arrivals AS a WHERE until_ms <= ? ORDER BY until_ms, first LIMIT ?",
        )?
        .query_map(params![before_ms, REMOVE_MARKS_MAX], |row| {
            let place: Place = (row.get(0)?, row.get(1)?);
            let next: Option<i64> = row.get(3)?;
            Ok(Due {
                place,
                first: row.get(2)?,
                end: next.unwrap_or_else(|| end_of_stream(place.1)),
            })
        })?
        .collect()
}
