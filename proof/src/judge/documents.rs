//! The document set is a function of the log: one document a record of the sink's topic, the same message, nothing else.

use std::collections::HashMap;

use super::log::LogContents;
use super::{Kind, Rules, Verdict};
use crate::evidence::{Document, Identity};

pub(super) fn check(
    documents: &[Document],
    log: &LogContents<'_>,
    rules: &Rules,
    verdict: &mut Verdict,
) {
    verdict.figures.documents = documents.len() as u64;
    let mut by_position: HashMap<(&str, u32, u64), &Document> = HashMap::new();
    for document in documents {
        let position = (document.topic.as_str(), document.partition, document.offset);
        if by_position.insert(position, document).is_some() {
            verdict.add(Kind::DocumentPhantom, || {
                format!("{}: a second document of {position:?}", document.id)
            });
        }
        match log.records.get(&position) {
            None => verdict.add(Kind::DocumentPhantom, || {
                format!("{}: the log has no {position:?}", document.id)
            }),
            Some(identity) if **identity != document.identity => {
                verdict.add(Kind::DocumentDiffers, || {
                    format!(
                        "{}: {:?}, the log has {identity:?}",
                        document.id, document.identity
                    )
                })
            }
            Some(_) => {}
        }
    }
    for (position, identity) in &log.records {
        if rules.routed_to.as_deref() != Some(position.0) || by_position.contains_key(position) {
            continue;
        }
        let example = || format!("{position:?}: {identity:?}");
        match identity {
            Identity::Message { producer, seq } => {
                verdict.lose(Kind::LostFromDocuments, producer, *seq, example)
            }
            Identity::Foreign { .. } => verdict.add(Kind::LostFromDocuments, example),
        }
    }
}
