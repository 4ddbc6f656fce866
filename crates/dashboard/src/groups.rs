//! `/api/v5/log/groups`: Kafka consumer groups.
//!
//! `GET` lists as topics do; `GET …/{group}` tells state, members, and per partition the committed
//! offset, the high watermark and the lag; `DELETE …/{group}` answers 204, or 409 while it has members.

use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::answer::{Problem, json_of};
use crate::door::Door;
use crate::topics::Page;

pub(crate) async fn list(
    State(door): State<Arc<Door>>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(page) = page?;
    page.of(&door.ask(|system| system.groups()).await?)
}

pub(crate) async fn one(
    State(door): State<Arc<Door>>,
    group: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(group) = group?;
    let group = door.ask(move |system| system.group(&group)).await?;
    Ok(json_of(StatusCode::OK, &group))
}

pub(crate) async fn delete(
    State(door): State<Arc<Door>>,
    group: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(group) = group?;
    door.ask(move |system| system.delete_group(&group)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
