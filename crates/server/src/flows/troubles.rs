//! What stands still, until it goes on: shown by `/readyz`, logged once.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use headwater_commitlog::PartitionId;

/// Flows that cannot go on in a partition, each with a sentence. At most one for each flow and
/// partition.
#[derive(Default)]
pub(crate) struct Troubles(Mutex<BTreeMap<(String, PartitionId), String>>);

impl Troubles {
    /// Remembers that `flow` stands in `partition`. True when that is news.
    pub(crate) fn stands(&self, flow: &str, partition: PartitionId, sentence: &str) -> bool {
        let mut all = self.lock();
        let before = all.insert((flow.to_owned(), partition), sentence.to_owned());
        before.as_deref() != Some(sentence)
    }

    /// It goes on, or is no more. True when that is news.
    pub(crate) fn goes_on(&self, flow: &str, partition: PartitionId) -> bool {
        let mut all = self.lock();
        !all.is_empty() && all.remove(&(flow.to_owned(), partition)).is_some()
    }

    pub(crate) fn sentences(&self) -> Vec<String> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, PartitionId), String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_news_once_and_gone_when_it_goes_on() {
        let (troubles, partition) = (Troubles::default(), PartitionId(7));
        assert!(!troubles.goes_on("a", partition));
        assert!(troubles.stands("a", partition, "damaged"));
        assert!(!troubles.stands("a", partition, "damaged"));
        assert!(troubles.stands("a", partition, "deleted"));
        assert_eq!(troubles.sentences(), ["deleted"]);
        assert!(troubles.goes_on("a", partition));
        assert!(troubles.sentences().is_empty());
    }
}
