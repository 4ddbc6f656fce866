//! The router: which path is answered by whom, who may pass, and how the system is asked.
//!
//! Holds: [`OPEN_PATHS`] are all that is answered without the key, whatever else is added here.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::answer::Problem;
use crate::secret::Secret;
use crate::system::{Refusal, System};
use crate::{BODY_BYTES_MAX, CALL_TIME_MAX, CALLS_MAX, documents, groups, health, records, topics};

/// Answered without a key.
const OPEN_PATHS: [&str; 3] = ["/livez", "/readyz", "/metrics"];

/// Scrapes at work at a time: an open path must not use up the threads.
const SCRAPES_MAX: usize = 2;

/// The HTTP door before `system`. All but the open paths want `Authorization: Bearer` with `key`.
pub fn router(system: Arc<dyn System>, key: Secret) -> Router {
    router_within(system, key, CALL_TIME_MAX)
}

/// As [`router`], with another bound on the time until an answer begins.
pub fn router_within(system: Arc<dyn System>, key: Secret, call_time_max: Duration) -> Router {
    let door = Arc::new(Door {
        system,
        key,
        calls: Arc::new(Semaphore::new(CALLS_MAX)),
        scrapes: Arc::new(Semaphore::new(SCRAPES_MAX)),
        call_time_max,
    });
    let api = Router::new()
        .route("/store/{namespace}/find", post(documents::find))
        .route("/store/{namespace}/count", post(documents::count))
        .route("/log/topics", get(topics::list).post(topics::create))
        .route(
            "/log/topics/{topic}",
            get(topics::one).delete(topics::delete),
        )
        .route(
            "/log/topics/{topic}/records",
            get(records::read).post(records::produce),
        )
        .route("/log/groups", get(groups::list))
        .route(
            "/log/groups/{group}",
            get(groups::one).delete(groups::delete),
        );
    Router::new()
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .nest("/api/v5", api)
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(Arc::clone(&door), let_pass))
        .with_state(door)
}

/// What every handler needs.
#[derive(Debug)]
pub(crate) struct Door {
    system: Arc<dyn System>,
    key: Secret,
    calls: Arc<Semaphore>,
    scrapes: Arc<Semaphore>,
    call_time_max: Duration,
}

impl std::fmt::Debug for dyn System {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("System")
    }
}

impl Door {
    /// For what must not block.
    pub(crate) fn system(&self) -> &dyn System {
        &*self.system
    }

    /// Asks the system on a thread that may block.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn System) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Problem> {
        let (system, turn) = self.turn(&self.calls).await?;
        let task = tokio::task::spawn_blocking(move || {
            // Held until the work ends, also when nobody waits for it any more.
            let _turn = turn;
            work(&*system)
        });
        Ok(task.await.map_err(|_| broken())??)
    }

    pub(crate) async fn scrape(&self) -> Result<String, Problem> {
        let (system, turn) = self.turn(&self.scrapes).await?;
        let task = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            system.metrics()
        });
        task.await.map_err(|_| broken())
    }

    /// The system and a call's turn, for a handler that runs its work itself.
    pub(crate) async fn call_turn(
        &self,
    ) -> Result<(Arc<dyn System>, OwnedSemaphorePermit), Problem> {
        self.turn(&self.calls).await
    }

    async fn turn(
        &self,
        turns: &Arc<Semaphore>,
    ) -> Result<(Arc<dyn System>, OwnedSemaphorePermit), Problem> {
        let turn = Arc::clone(turns).acquire_owned().await;
        let turn = turn.map_err(|_| Problem::not_now("the system is stopping"))?;
        Ok((Arc::clone(&self.system), turn))
    }
}

/// The work panicked; the panic itself is in the log of the process.
pub(crate) fn broken() -> Problem {
    Problem::internal("this call broke off inside; the server's log says where")
}

/// Checks the key and bounds the time until the answer begins.
async fn let_pass(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    let open = OPEN_PATHS.contains(&request.uri().path());
    if !open && let Err(problem) = check_key(&door.key, request.headers()) {
        return problem.into_response();
    }
    match tokio::time::timeout(door.call_time_max, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let message = format!(
                "no answer within {} s: too much is asked at once; try again, with less",
                door.call_time_max.as_secs_f32()
            );
            Problem::not_now(message).into_response()
        }
    }
}

fn check_key(key: &Secret, headers: &HeaderMap) -> Result<(), Problem> {
    let refuse = |message: &str| {
        Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "UNAUTHORIZED",
            message,
        ))
    };
    let Some(given) = headers.get(header::AUTHORIZATION) else {
        return refuse(
            "this call needs the key: send `Authorization: Bearer KEY` with the text of cli.key \
             in the data directory",
        );
    };
    let (scheme, given) = given.as_bytes().split_at(given.len().min(7));
    if !scheme.eq_ignore_ascii_case(b"bearer ") {
        return refuse(
            "user names and passwords open nothing here; send `Authorization: Bearer KEY` with \
             the text of cli.key in the data directory",
        );
    }
    if !key.is(given.trim_ascii()) {
        return refuse(
            "this is not the key of this data directory; take the text of its cli.key, which is \
             made anew with the directory",
        );
    }
    Ok(())
}

async fn not_found() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "NOT_FOUND",
        "there is nothing at this path",
    )
}

async fn wrong_method() -> Problem {
    let message = "this path does not know this method";
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "METHOD_NOT_ALLOWED",
        message,
    )
}
