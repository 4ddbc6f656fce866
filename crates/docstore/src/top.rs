//! Documents kept in order within bounds.
//!
//! For: [`Top`], the first so many of a sort, or all of them while they fit.
//! Not for: what the order is (`sort`).
//! Calls: `sort`, `value`. Called by: `reader`.
//! Holds: never more bytes than it was given; documents that sort alike keep the order they came.

use crate::sort::Sort;
use crate::value::Value;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A sort in progress.
pub(crate) struct Top<'s> {
    sort: &'s Sort,
    /// The greatest on top, the first to go.
    heap: BinaryHeap<Kept<'s>>,
    documents_max: Option<usize>,
    bytes: usize,
    bytes_max: usize,
    arrived: u64,
}

struct Kept<'s> {
    sort: &'s Sort,
    keys: Vec<Value<'static>>,
    arrival: u64,
    document: String,
}

/// The documents do not fit.
#[derive(Debug)]
pub(crate) struct TooLarge;

impl<'s> Top<'s> {
    pub(crate) fn new(sort: &'s Sort, documents_max: Option<usize>, bytes_max: usize) -> Self {
        let heap = BinaryHeap::new();
        Self {
            sort,
            heap,
            documents_max,
            bytes: 0,
            bytes_max,
            arrived: 0,
        }
    }

    /// Offers a document; `text` is called only if it is kept.
    pub(crate) fn offer(
        &mut self,
        document: &Value<'_>,
        text: impl FnOnce() -> String,
    ) -> Result<(), TooLarge> {
        let keys = self.sort.keys_of(document);
        let full = self.documents_max.is_some_and(|max| self.heap.len() >= max);
        let arrival = self.arrived;
        self.arrived += 1;
        if full {
            // Alike is not before: what came first stays.
            let before = |greatest: &Kept<'_>| self.sort.compare(&keys, &greatest.keys).is_lt();
            if !self.heap.peek().is_some_and(before) {
                return Ok(());
            }
            if let Some(gone) = self.heap.pop() {
                self.bytes -= gone.weight();
            }
        }
        let kept = Kept {
            sort: self.sort,
            keys,
            arrival,
            document: text(),
        };
        self.bytes += kept.weight();
        if self.bytes > self.bytes_max {
            return Err(TooLarge);
        }
        self.heap.push(kept);
        Ok(())
    }

    /// The documents in order.
    pub(crate) fn into_documents(self) -> impl Iterator<Item = String> {
        self.heap
            .into_sorted_vec()
            .into_iter()
            .map(|kept| kept.document)
    }
}

impl Kept<'_> {
    fn weight(&self) -> usize {
        size_of::<Self>()
            + self.document.capacity()
            + self.keys.iter().map(Value::weight).sum::<usize>()
    }
}

impl Ord for Kept<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let order = self.sort.compare(&self.keys, &other.keys);
        order.then(self.arrival.cmp(&other.arrival))
    }
}

impl PartialOrd for Kept<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Kept<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Kept<'_> {}
