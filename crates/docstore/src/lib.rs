//! Documents kept in SQLite and found by MongoDB's filter notation.
//!
//! For: writing a record's document once, however often it is sent, together with how far the sink
//! has come; finding, counting and sorting documents.
//! Not for: which records become documents (`bridge`), HTTP, threads: all calls block.
//! The way in: [`Store`] gives out one [`Writer`] and many [`Reader`]s. [`Facts`] make a document
//! in a [`Batch`]; a [`Filter`] and a [`Sort`] make a [`Query`].
//! Holds: a batch is written whole or not at all; an answer is what MongoDB's rules say of each
//! document, whatever SQL was asked on the way; every query is bounded in memory and time.

mod arrivals;
mod date;
mod document;
mod evaluate;
mod filter;
mod namespace;
mod path;
mod payload;
mod pushdown;
mod reader;
mod schema;
mod sort;
mod store;
mod top;
mod value;
mod writer;

pub use document::{Batch, Facts, Position};
pub use filter::{FILTER_BYTES_MAX, FILTER_DEPTH_MAX, FILTER_TERMS_MAX, Filter, FilterError};
pub use namespace::{Namespace, NamespaceError};
pub use payload::PAYLOAD_DEPTH_MAX;
pub use reader::{Bounds, FindError, Found, Query, Reader};
pub use sort::{SORT_KEYS_MAX, Sort, SortError};
pub use store::{OpenError, Options, Store};
pub use writer::{
    Cursor, DocumentError, INDEXES_MAX, IndexError, InsertError, Inserted, SyncError, Writer,
};
