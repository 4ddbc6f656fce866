//! `headwater doc find|count`: documents of the running system.

use std::io::Write;

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};

use super::http::{Remote, segment};
use crate::cli::{Doc, Target};

const DEFAULT_COLLECTION: &str = "headwater.messages";

/// Runs the verb; documents go to `out`, one JSON document a line, a count as the bare number.
pub(crate) fn run(target: &Target, verb: &Doc, out: &mut dyn Write) -> anyhow::Result<()> {
    let remote = Remote::new(target)?;
    match verb {
        Doc::Find {
            what,
            sort,
            limit,
            skip,
        } => {
            let (collection, filter) = split(what)?;
            let mut body = Map::from_iter([("filter".to_owned(), filter)]);
            if let Some(sort) = sort {
                // As text: the order of its keys counts, and a JSON object here has none.
                parse("--sort", sort)?;
                body.insert("sort".to_owned(), json!(sort));
            }
            for (name, number) in [("limit", limit), ("skip", skip)] {
                if let Some(number) = number {
                    body.insert(name.to_owned(), json!(number));
                }
            }
            let path = format!("/store/{}/find", segment(&collection));
            remote.post_lines(&path, &Value::Object(body), |line| {
                Ok(writeln!(out, "{line}")?)
            })
        }
        Doc::Count { what } => {
            let (collection, filter) = split(what)?;
            let path = format!("/store/{}/count", segment(&collection));
            let answer = remote.post(&path, &json!({ "filter": filter }))?;
            let count = answer
                .get("count")
                .and_then(Value::as_u64)
                .context("no count in the answer")?;
            Ok(writeln!(out, "{count}")?)
        }
    }
}

/// Collection and filter, either of which may be left out: a filter begins with a brace.
fn split(what: &[String]) -> anyhow::Result<(String, Value)> {
    let collection = || DEFAULT_COLLECTION.to_owned();
    match what {
        [] => Ok((collection(), json!({}))),
        [filter] if filter.trim_start().starts_with('{') => {
            Ok((collection(), parse("FILTER", filter)?))
        }
        [name] => Ok((name.clone(), json!({}))),
        [name, filter] => Ok((name.clone(), parse("FILTER", filter)?)),
        _ => bail!("at most a collection and a filter"),
    }
}

fn parse(what: &str, text: &str) -> anyhow::Result<Value> {
    serde_json::from_str(text).with_context(|| format!("{what} is not JSON: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collection_and_filter_may_be_left_out() {
        let own = |words: &[&str]| {
            words
                .iter()
                .map(|&word| word.to_owned())
                .collect::<Vec<_>>()
        };
        let default = DEFAULT_COLLECTION.to_owned();
        assert_eq!(split(&own(&[])).unwrap(), (default.clone(), json!({})));
        assert_eq!(
            split(&own(&["{\"qos\": 1}"])).unwrap(),
            (default, json!({"qos": 1}))
        );
        assert_eq!(
            split(&own(&["a.b"])).unwrap(),
            ("a.b".to_owned(), json!({}))
        );
        assert_eq!(
            split(&own(&["a.b", "{}"])).unwrap(),
            ("a.b".to_owned(), json!({}))
        );
        assert!(split(&own(&["a.b", "qos=1"])).is_err());
    }
}
