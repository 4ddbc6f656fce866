//! Documents kept in SQLite and found by MongoDB's filter notation.

mod document;
mod filter;
mod namespace;
mod sort;
mod store;

pub use document::{Batch, Facts, Position};
pub use filter::{Filter, FilterError};
pub use namespace::{Namespace, NamespaceError};
pub use sort::{Sort, SortError};
pub use store::{
    Bounds, Cursor, FindError, Found, InsertError, Inserted, OpenError, Options, Query, Reader,
    Store, SyncError, Writer,
};
