//! `/api/v5/store/{database.collection}/find` and `/count`: documents.
//!
//! Both take `{"filter": {…}}` in MongoDB's notation; `find` also `sort`, `limit`, `skip`. `sort` is
//! an object whose keys keep their order, or the same as text. With `Accept:
//! application/x-ndjson` the answer is one document a line, however many there are, and a query
//! that fails half-way breaks the answer off. Else it is `{"data": […], "meta": {"limit", "skip",
//! "count", "hasnext"}}` with at most [`ENVELOPE_DOCUMENTS_MAX`] documents.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use http_body::Frame;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::timeout;

use crate::answer::{Problem, json_of, json_text, read_json};
use crate::door::{Door, broken};
use crate::system::{Find, Refusal};
use crate::{ANSWER_BYTES_MAX, ENVELOPE_DOCUMENTS_MAX, STALL_TIME_MAX};

const NDJSON: &str = "application/x-ndjson";

/// Documents are sent on in pieces of about this size.
const PIECE_BYTES: usize = 32 * 1024;

/// Pieces that wait for the client at most.
const PIECES_WAITING_MAX: usize = 4;

/// Longest `database.collection`, as MongoDB has it.
const NAMESPACE_BYTES_MAX: usize = 255;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    filter: Option<Value>,
    sort: Option<Box<RawValue>>,
    limit: Option<u64>,
    #[serde(default)]
    skip: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Counted {
    filter: Option<Value>,
}

impl Asked {
    fn find(self, namespace: String) -> Result<Find, Problem> {
        let sort = match self.sort.as_deref().map(RawValue::get) {
            None | Some("null") => None,
            Some(text) if text.starts_with('"') => Some(
                serde_json::from_str(text)
                    .map_err(|error| Problem::bad_request(format!("sort: {error}")))?,
            ),
            Some(text) => Some(text.to_owned()),
        };
        Ok(Find {
            namespace,
            filter: all_or(self.filter),
            sort,
            // As MongoDB: 0 is no limit.
            limit: self.limit.filter(|limit| *limit > 0),
            skip: self.skip,
        })
    }
}

fn all_or(filter: Option<Value>) -> Value {
    filter.unwrap_or_else(|| json!({}))
}

fn check_namespace(path: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    let Path(namespace) = path?;
    if namespace.len() > NAMESPACE_BYTES_MAX || namespace.contains(char::is_control) {
        return Err(Problem::bad_request(
            "the path names no database.collection",
        ));
    }
    Ok(namespace)
}

pub(crate) async fn count(
    State(door): State<Arc<Door>>,
    namespace: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let namespace = check_namespace(namespace)?;
    let filter = all_or(read_json::<Counted>(body)?.filter);
    let count = door
        .ask(move |system| system.count(&namespace, &filter))
        .await?;
    Ok(json_of(StatusCode::OK, &json!({ "count": count })))
}

pub(crate) async fn find(
    State(door): State<Arc<Door>>,
    headers: HeaderMap,
    namespace: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let namespace = check_namespace(namespace)?;
    let find = read_json::<Asked>(body)?.find(namespace)?;
    let accepted = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    if accepted.is_some_and(|kinds| kinds.contains(NDJSON)) {
        stream(&door, find).await
    } else {
        envelope(&door, find).await
    }
}

async fn envelope(door: &Door, mut find: Find) -> Result<Response, Problem> {
    let limit = find
        .limit
        .unwrap_or(ENVELOPE_DOCUMENTS_MAX)
        .min(ENVELOPE_DOCUMENTS_MAX);
    let skip = find.skip;
    // One more tells whether there is a next page.
    find.limit = Some(limit + 1);
    let found = door.ask(move |system| {
        let mut answer = Envelope {
            text: "{\"data\":[".to_owned(),
            count: 0,
            limit,
            full: false,
        };
        system.find(&find, &mut |document| answer.push(document))?;
        Ok(answer)
    });
    let Envelope {
        mut text,
        count,
        full,
        ..
    } = found.await?;
    if full {
        return Err(Problem::too_large(format!(
            "the documents have more than {ANSWER_BYTES_MAX} bytes; ask for fewer, or for a stream \
             with `Accept: {NDJSON}`"
        )));
    }
    let meta = json!({
        "limit": limit, "skip": skip, "count": count.min(limit), "hasnext": count > limit,
    });
    text.push_str("],\"meta\":");
    text.push_str(&meta.to_string());
    text.push('}');
    Ok(json_text(StatusCode::OK, text))
}

struct Envelope {
    text: String,
    count: u64,
    limit: u64,
    full: bool,
}

impl Envelope {
    fn push(&mut self, document: &str) -> ControlFlow<()> {
        self.count += 1;
        if self.count > self.limit {
            return ControlFlow::Break(());
        }
        if self.text.len() + document.len() > ANSWER_BYTES_MAX {
            self.full = true;
            return ControlFlow::Break(());
        }
        if self.count > 1 {
            self.text.push(',');
        }
        self.text.push_str(document);
        ControlFlow::Continue(())
    }
}

/// What the query's thread sends to the answer. A channel that closes without `End` broke off.
enum Piece {
    Documents(Bytes),
    Failed(Refusal),
    End,
}

async fn stream(door: &Door, find: Find) -> Result<Response, Problem> {
    let (system, turn) = door.call_turn().await?;
    let (to_client, mut pieces) = channel(PIECES_WAITING_MAX);
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let mut writer = Writer {
            waiting: BytesMut::new(),
            to_client,
            runtime,
        };
        let outcome = system.find(&find, &mut |document| writer.push(document));
        writer.finish(outcome);
    });
    // The head waits for the first piece, so that a refusal still has its status.
    let first = match pieces.recv().await {
        Some(Piece::Failed(refusal)) => return Err(refusal.into()),
        Some(piece) => piece,
        None => return Err(broken()),
    };
    let body = Body::new(Stream {
        first: Some(first),
        pieces,
        over: false,
    });
    Ok(([(header::CONTENT_TYPE, NDJSON)], body).into_response())
}

/// On the query's thread.
struct Writer {
    waiting: BytesMut,
    to_client: Sender<Piece>,
    runtime: Handle,
}

impl Writer {
    fn push(&mut self, document: &str) -> ControlFlow<()> {
        self.waiting.extend_from_slice(document.as_bytes());
        self.waiting.extend_from_slice(b"\n");
        if self.waiting.len() < PIECE_BYTES {
            return ControlFlow::Continue(());
        }
        let piece = self.waiting.split().freeze();
        self.send(Piece::Documents(piece))
    }

    fn finish(mut self, outcome: Result<(), Refusal>) {
        let last = match outcome {
            Ok(()) => {
                let rest = self.waiting.split().freeze();
                if !rest.is_empty() && self.send(Piece::Documents(rest)).is_break() {
                    return;
                }
                Piece::End
            }
            Err(refusal) => Piece::Failed(refusal),
        };
        // Nobody reads it: the client is gone, and with it the reason to tell.
        let _gone = self.send(last);
    }

    /// Breaks when the client is gone or does not read.
    fn send(&self, piece: Piece) -> ControlFlow<()> {
        match self
            .runtime
            .block_on(timeout(STALL_TIME_MAX, self.to_client.send(piece)))
        {
            Ok(Ok(())) => ControlFlow::Continue(()),
            Ok(Err(_)) | Err(_) => ControlFlow::Break(()),
        }
    }
}

/// Why an answer ends before its end; the connection is then cut, which a client sees.
#[derive(Debug, thiserror::Error)]
enum BrokenOff {
    #[error("the query failed half-way")]
    Refused(#[source] Refusal),
    #[error("the query's thread is gone")]
    Gone,
}

/// The body of the answer.
struct Stream {
    first: Option<Piece>,
    pieces: Receiver<Piece>,
    over: bool,
}

impl http_body::Body for Stream {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let piece = match self.first.take() {
            Some(piece) => Some(piece),
            None => match self.pieces.poll_recv(context) {
                Poll::Ready(piece) => piece,
                Poll::Pending => return Poll::Pending,
            },
        };
        let broken = match piece {
            Some(Piece::Documents(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Some(Piece::End) => None,
            Some(Piece::Failed(refusal)) => {
                tracing::warn!(%refusal, "a query failed half-way, its answer is cut");
                Some(BrokenOff::Refused(refusal))
            }
            None => Some(BrokenOff::Gone),
        };
        self.over = true;
        Poll::Ready(broken.map(Err))
    }
}
