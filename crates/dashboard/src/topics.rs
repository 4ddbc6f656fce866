//! `/api/v5/log/topics`: Kafka topics of the log.
//!
//! `GET` lists (`page`, `limit` in, `{"data": [TopicInfo], "meta": {"page", "limit", "count",
//! "hasnext"}}` out); `POST {"name", "partitions"?, "config"?}` creates and answers 201 with the
//! topic; `GET …/{topic}` gives one; `DELETE …/{topic}` answers 204.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::answer::{Problem, json_of, read_json};
use crate::door::Door;
use crate::system::CreateTopic;

/// Most entries of a page, and how many there are if nobody says.
const PAGE_MAX: usize = 10_000;

/// `page` counts from 1.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Page {
    page: usize,
    limit: usize,
}

impl Default for Page {
    fn default() -> Self {
        Self {
            page: 1,
            limit: PAGE_MAX,
        }
    }
}

impl Page {
    /// The page's part of `all`, in the envelope of a list.
    pub(crate) fn of<T: Serialize>(&self, all: &[T]) -> Result<Response, Problem> {
        if self.page == 0 || self.limit == 0 || self.limit > PAGE_MAX {
            let message = format!("page counts from 1, limit is 1 to {PAGE_MAX}");
            return Err(Problem::bad_request(message));
        }
        let start = (self.page - 1).saturating_mul(self.limit).min(all.len());
        let end = start.saturating_add(self.limit).min(all.len());
        let meta = json!({
            "page": self.page,
            "limit": self.limit,
            "count": all.len(),
            "hasnext": end < all.len(),
        });
        let data = all.get(start..end).unwrap_or_default();
        Ok(json_of(
            StatusCode::OK,
            &json!({ "data": data, "meta": meta }),
        ))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    name: String,
    partitions: Option<u32>,
    #[serde(default)]
    config: BTreeMap<String, String>,
}

pub(crate) async fn list(
    State(door): State<Arc<Door>>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(page) = page?;
    page.of(&door.ask(|system| system.topics()).await?)
}

pub(crate) async fn create(
    State(door): State<Arc<Door>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let Wish {
        name,
        partitions,
        config,
    } = read_json(body)?;
    let wish = CreateTopic {
        name,
        partitions,
        config,
    };
    let topic = door.ask(move |system| system.create_topic(&wish)).await?;
    Ok(json_of(StatusCode::CREATED, &topic))
}

pub(crate) async fn one(
    State(door): State<Arc<Door>>,
    topic: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(topic) = topic?;
    let topic = door.ask(move |system| system.topic(&topic)).await?;
    Ok(json_of(StatusCode::OK, &topic))
}

pub(crate) async fn delete(
    State(door): State<Arc<Door>>,
    topic: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(topic) = topic?;
    door.ask(move |system| system.delete_topic(&topic)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
