//! Tables: key/value maps in memory, changed by commits, copied without stopping them.
//!
//! Holds: a [`TableView`] never changes. A change to a bucket that a view still shares copies that
//! bucket first, so taking a view costs one pointer a bucket, whatever the rows weigh.

use std::hash::BuildHasher;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::unit::TableId;

/// Rows a bucket holds before the table grows by one bucket.
const BUCKET_ROWS: usize = 64;

type Row = (Bytes, Bytes);
type Bucket = HashTable<Row>;

/// All tables, by id.
pub(crate) struct Tables {
    tables: Vec<RwLock<Table>>,
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            tables: (0..=u8::MAX).map(|_| RwLock::default()).collect(),
        }
    }
}

impl Tables {
    fn table(&self, id: TableId) -> Option<&RwLock<Table>> {
        self.tables.get(usize::from(id.0))
    }

    pub(crate) fn set(&self, id: TableId, key: Bytes, value: Option<Bytes>) {
        if let Some(table) = self.table(id) {
            table
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .set(key, value);
        }
    }

    pub(crate) fn row(&self, id: TableId, key: &[u8]) -> Option<Bytes> {
        self.table(id)?
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .view
            .row(key)
    }

    pub(crate) fn view(&self, id: TableId) -> TableView {
        self.table(id).map_or_else(TableView::default, |table| {
            table
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .view
                .clone()
        })
    }

    /// Views of the tables that have rows.
    pub(crate) fn views(&self) -> Vec<(TableId, TableView)> {
        let ids = (0..=u8::MAX).map(TableId);
        ids.map(|id| (id, self.view(id)))
            .filter(|(_, view)| view.rows > 0)
            .collect()
    }
}

#[derive(Default)]
struct Table {
    view: TableView,
}

/// One table at one commit.
#[derive(Clone, Default)]
pub(crate) struct TableView {
    /// Linear hashing: a key lives in the bucket of its hash modulo the next power of two, or of
    /// the one below where that bucket is not there yet.
    buckets: Vec<Arc<Bucket>>,
    rows: usize,
    hasher: RandomState,
}

impl TableView {
    pub(crate) fn row(&self, key: &[u8]) -> Option<Bytes> {
        let hash = self.hasher.hash_one(key);
        let bucket = self.buckets.get(bucket_of(hash, self.buckets.len()))?;
        bucket
            .find(hash, |(have, _)| have == key)
            .map(|(_, value)| value.clone())
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.buckets.iter().flat_map(|bucket| bucket.iter())
    }
}

fn bucket_of(hash: u64, buckets: usize) -> usize {
    // hashbrown uses the hash's low and top bits; the middle is left for this.
    let hash = usize::try_from(hash >> 20 & 0xffff_ffff).unwrap_or(0);
    let whole = buckets.next_power_of_two();
    let index = hash & whole.wrapping_sub(1);
    if index < buckets {
        index
    } else {
        index & (whole / 2).wrapping_sub(1)
    }
}

impl Table {
    fn set(&mut self, key: Bytes, value: Option<Bytes>) {
        let view = &mut self.view;
        if view.buckets.is_empty() {
            view.buckets.push(Arc::default());
        }
        let hasher = view.hasher.clone();
        let hash = hasher.hash_one(&key[..]);
        let index = bucket_of(hash, view.buckets.len());
        let Some(bucket) = view.buckets.get_mut(index).map(Arc::make_mut) else {
            return;
        };
        let entry = bucket.entry(
            hash,
            |(have, _)| *have == key,
            |row| hasher.hash_one(&row.0[..]),
        );
        match (entry, value) {
            (hashbrown::hash_table::Entry::Occupied(mut entry), Some(value)) => {
                *entry.get_mut() = (key, value);
            }
            (hashbrown::hash_table::Entry::Occupied(entry), None) => {
                entry.remove();
                view.rows -= 1;
                // What many rows needed goes with them. Not by the bucket's capacity: what was removed counts there too.
                if bucket.len() * size_of::<Row>() * 8 < bucket.allocation_size() {
                    bucket.shrink_to(bucket.len() * 2, |row| hasher.hash_one(&row.0[..]));
                }
            }
            (hashbrown::hash_table::Entry::Vacant(entry), Some(value)) => {
                entry.insert((key, value));
                view.rows += 1;
                self.grow();
            }
            (hashbrown::hash_table::Entry::Vacant(_), None) => {}
        }
    }

    /// Splits the next bucket in turn when the table is full on average.
    fn grow(&mut self) {
        let view = &mut self.view;
        let count = view.buckets.len();
        if view.rows <= count * BUCKET_ROWS {
            return;
        }
        let hasher = view.hasher.clone();
        let split = count - (count + 1).next_power_of_two() / 2;
        let mut fresh = Bucket::new();
        if let Some(bucket) = view.buckets.get_mut(split).map(Arc::make_mut) {
            let moves = |row: &mut Row| bucket_of(hasher.hash_one(&row.0[..]), count + 1) == count;
            for row in bucket.extract_if(moves) {
                fresh.insert_unique(hasher.hash_one(&row.0[..]), row, |row| {
                    hasher.hash_one(&row.0[..])
                });
            }
        }
        view.buckets.push(Arc::new(fresh));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn table_is_a_map_and_a_view_does_not_change(
            changes: Vec<(u8, Option<u8>)>, later: Vec<(u8, Option<u8>)>
        ) {
            let tables = Tables::default();
            let mut model = BTreeMap::new();
            let apply = |model: &mut BTreeMap<Bytes, Bytes>, (key, value): (u8, Option<u8>)| {
                let key = Bytes::from(vec![key; 3]);
                let value = value.map(|value| Bytes::from(vec![value]));
                tables.set(TableId(16), key.clone(), value.clone());
                match value {
                    Some(value) => model.insert(key, value),
                    None => model.remove(&key),
                };
            };
            changes.into_iter().for_each(|change| apply(&mut model, change));
            let view = tables.view(TableId(16));
            let mut later_model = model.clone();
            later.into_iter().for_each(|change| apply(&mut later_model, change));
            prop_assert_eq!(view.rows, model.len());
            prop_assert_eq!(view.rows().cloned().collect::<BTreeMap<_, _>>(), model);
            let now = tables.view(TableId(16));
            prop_assert_eq!(now.rows().cloned().collect::<BTreeMap<_, _>>(), later_model);
        }
    }

    #[test]
    fn table_of_many_rows_finds_each() {
        let tables = Tables::default();
        for number in 0..10_000u32 {
            let key = Bytes::copy_from_slice(&number.to_be_bytes());
            tables.set(TableId(3), key.clone(), Some(key));
        }
        for number in 0..10_000u32 {
            assert!(
                tables.row(TableId(3), &number.to_be_bytes()).is_some(),
                "{number}"
            );
        }
        assert_eq!(tables.row(TableId(3), b"none"), None);
    }

    #[test]
    fn table_gives_back_what_its_rows_took() {
        let tables = Tables::default();
        let keys = (0..10_000u32).map(|number| Bytes::copy_from_slice(&number.to_be_bytes()));
        let keys: Vec<Bytes> = keys.collect();
        for key in &keys {
            tables.set(TableId(3), key.clone(), Some(key.clone()));
        }
        let room = || -> usize {
            let view = tables.view(TableId(3));
            let bytes = view.buckets.iter().map(|bucket| bucket.allocation_size());
            bytes.sum::<usize>() / size_of::<Row>()
        };
        assert!(room() >= keys.len());
        let (some, rest) = keys.split_at(1_000);
        rest.iter()
            .for_each(|key| tables.set(TableId(3), key.clone(), None));
        assert!(room() <= 10 * some.len(), "{} for {}", room(), some.len());
        let found = some
            .iter()
            .filter(|key| tables.row(TableId(3), key).is_some());
        assert_eq!(found.count(), some.len());
        some.iter()
            .for_each(|key| tables.set(TableId(3), key.clone(), None));
        assert_eq!(room(), 0);
    }
}
