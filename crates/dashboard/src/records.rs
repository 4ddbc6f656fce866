//! `/api/v5/log/topics/{topic}/records`: reading and appending Kafka records.
//!
//! `GET ?partition=0&offset=earliest|latest|N&limit=100` or `&from=MILLISECONDS` (since 1970)
//! answers `{"data": [RECORD], "meta": {"partition", "next_offset", "log_start_offset",
//! "high_watermark"}}`; go on with `offset=next_offset`. `POST` takes one RECORD or
//! `{"records": [RECORD]}` and answers `{"data": [{"partition", "offset"}]}`, one a record, when
//! they are on disk.
//!
//! A RECORD: `key` and `value` are text or null; what is no UTF-8 stands in `key_base64` and
//! `value_base64` instead. `headers` is a list of `{"name", "value" | "value_base64"}`, in order.
//! `timestamp_ms` is in milliseconds since 1970. When appending, all but the value may be left out; `partition` may
//! be given. No value, or null, is a tombstone.

use std::sync::Arc;

use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::answer::{Problem, json_of, read_json};
use crate::door::Door;
use crate::system::{Fetch, FetchStart, Fetched, HeaderValue, NewRecord, StoredRecord};
use crate::{ANSWER_BYTES_MAX, RECORDS_MAX};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Where {
    partition: u32,
    offset: Option<String>,
    from: Option<i64>,
    limit: Option<usize>,
}

impl Where {
    fn fetch(self, topic: String) -> Result<Fetch, Problem> {
        let start = match (self.offset.as_deref(), self.from) {
            (Some(_), Some(_)) => {
                return Err(Problem::bad_request("give offset or from, not both"));
            }
            (None, Some(timestamp_ms)) => FetchStart::Timestamp(timestamp_ms),
            (None | Some("earliest"), None) => FetchStart::Earliest,
            (Some("latest"), None) => FetchStart::Latest,
            (Some(number), None) => match number.parse() {
                Ok(offset) => FetchStart::Offset(offset),
                Err(_) => {
                    let message = "offset is `earliest`, `latest` or a number from 0";
                    return Err(Problem::bad_request(message));
                }
            },
        };
        let limit = self.limit.unwrap_or(100);
        if limit == 0 || limit > RECORDS_MAX {
            return Err(Problem::bad_request(format!("limit is 1 to {RECORDS_MAX}")));
        }
        // JSON and base64 take up to six times the room of the bytes.
        let bytes_max = ANSWER_BYTES_MAX / 8;
        Ok(Fetch {
            topic,
            partition: self.partition,
            start,
            limit,
            bytes_max,
        })
    }
}

/// A record on its way out.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    offset: u64,
    timestamp_ms: i64,
    #[serde(flatten)]
    key: Key<'a>,
    #[serde(flatten)]
    value: Value<'a>,
    headers: Vec<ShownHeader<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Key<'a> {
    Text { key: Option<&'a str> },
    Bytes { key_base64: String },
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Value<'a> {
    Text { value: Option<&'a str> },
    Bytes { value_base64: String },
}

#[derive(Debug, Serialize)]
struct ShownHeader<'a> {
    name: &'a str,
    #[serde(flatten)]
    value: Value<'a>,
}

impl<'a> From<Option<&'a [u8]>> for Key<'a> {
    fn from(bytes: Option<&'a [u8]>) -> Self {
        match bytes.map(str::from_utf8).transpose() {
            Ok(key) => Self::Text { key },
            Err(_) => Self::Bytes {
                key_base64: BASE64.encode(bytes.unwrap_or_default()),
            },
        }
    }
}

impl<'a> From<Option<&'a [u8]>> for Value<'a> {
    fn from(bytes: Option<&'a [u8]>) -> Self {
        match bytes.map(str::from_utf8).transpose() {
            Ok(value) => Self::Text { value },
            Err(_) => Self::Bytes {
                value_base64: BASE64.encode(bytes.unwrap_or_default()),
            },
        }
    }
}

impl<'a> From<&'a StoredRecord> for Shown<'a> {
    fn from(record: &'a StoredRecord) -> Self {
        let header = |(name, HeaderValue(value)): &'a (String, HeaderValue)| ShownHeader {
            name,
            value: value.as_deref().into(),
        };
        Self {
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            key: record.key.as_deref().into(),
            value: record.value.as_deref().into(),
            headers: record.headers.iter().map(header).collect(),
        }
    }
}

pub(crate) async fn read(
    State(door): State<Arc<Door>>,
    topic: Result<Path<String>, PathRejection>,
    query: Result<Query<Where>, QueryRejection>,
) -> Result<Response, Problem> {
    let (Path(topic), Query(query)) = (topic?, query?);
    let partition = query.partition;
    let fetch = query.fetch(topic)?;
    let Fetched {
        records,
        next_offset,
        log_start_offset,
        high_watermark,
    } = door.ask(move |system| system.records(&fetch)).await?;
    let data: Vec<Shown<'_>> = records.iter().map(Shown::from).collect();
    let meta = json!({
        "partition": partition,
        "next_offset": next_offset,
        "log_start_offset": log_start_offset,
        "high_watermark": high_watermark,
    });
    #[derive(Serialize)]
    struct Answer<'a> {
        data: Vec<Shown<'a>>,
        meta: serde_json::Value,
    }
    Ok(json_of(StatusCode::OK, &Answer { data, meta }))
}

/// A record on its way in.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
struct Given {
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
    headers: Vec<GivenHeader>,
    partition: Option<u32>,
    timestamp_ms: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenHeader {
    name: String,
    value: Option<String>,
    value_base64: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Several {
    records: Vec<Given>,
}

impl TryFrom<Given> for NewRecord {
    type Error = Problem;

    fn try_from(given: Given) -> Result<Self, Problem> {
        let header = |GivenHeader {
                          name,
                          value,
                          value_base64,
                      }| {
            let value = bytes_of("headers.value", value, value_base64)?;
            Ok((name, HeaderValue(value)))
        };
        Ok(Self {
            key: bytes_of("key", given.key, given.key_base64)?,
            value: bytes_of("value", given.value, given.value_base64)?,
            headers: given
                .headers
                .into_iter()
                .map(header)
                .collect::<Result<_, Problem>>()?,
            partition: given.partition,
            timestamp_ms: given.timestamp_ms,
        })
    }
}

fn bytes_of(
    name: &str,
    text: Option<String>,
    base64: Option<String>,
) -> Result<Option<Bytes>, Problem> {
    match (text, base64) {
        (Some(_), Some(_)) => Err(Problem::bad_request(format!(
            "give {name} or {name}_base64, not both"
        ))),
        (Some(text), None) => Ok(Some(Bytes::from(text))),
        (None, Some(text)) => match BASE64.decode(text) {
            Ok(bytes) => Ok(Some(Bytes::from(bytes))),
            Err(error) => Err(Problem::bad_request(format!(
                "{name}_base64 is no base64: {error}"
            ))),
        },
        (None, None) => Ok(None),
    }
}

pub(crate) async fn produce(
    State(door): State<Arc<Door>>,
    topic: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let (Path(topic), body) = (topic?, body?);
    let given = read_records(body)?;
    if given.is_empty() || given.len() > RECORDS_MAX {
        return Err(Problem::bad_request(format!(
            "records are 1 to {RECORDS_MAX}"
        )));
    }
    let records: Vec<NewRecord> = given
        .into_iter()
        .map(NewRecord::try_from)
        .collect::<Result<_, _>>()?;
    let positions = door
        .ask(move |system| system.produce(&topic, records))
        .await?;
    Ok(json_of(StatusCode::OK, &json!({ "data": positions })))
}

/// One record, or several in `records`.
fn read_records(body: Bytes) -> Result<Vec<Given>, Problem> {
    #[derive(Deserialize)]
    struct Shape {
        records: Option<serde::de::IgnoredAny>,
    }
    let shape: Shape = read_json(Ok(body.clone()))?;
    if shape.records.is_some() {
        return read_json(Ok(body)).map(|Several { records }| records);
    }
    read_json(Ok(body)).map(|one| vec![one])
}
