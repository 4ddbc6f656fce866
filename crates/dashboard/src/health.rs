//! `/livez`, `/readyz`, `/metrics`: open, cheap, for machines that watch.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::answer::{Problem, json_of};
use crate::door::Door;

/// The format of Prometheus' client libraries, which ends with `# EOF`.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(crate) async fn live(State(door): State<Arc<Door>>) -> Response {
    let live = door.system().alive();
    json_of(status(live), &json!({ "live": live }))
}

pub(crate) async fn ready(State(door): State<Arc<Door>>) -> Response {
    let readiness = door.system().readiness();
    json_of(status(readiness.ready), &readiness)
}

pub(crate) async fn metrics(State(door): State<Arc<Door>>) -> Result<Response, Problem> {
    let text = door.scrape().await?;
    let kind = if text.ends_with("# EOF\n") {
        OPEN_METRICS
    } else {
        PROMETHEUS
    };
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

fn status(good: bool) -> StatusCode {
    if good {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}
