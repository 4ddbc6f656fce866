//! Documents kept in SQLite and found by MongoDB's filter notation.
