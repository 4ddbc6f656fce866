//! Accepts HTTP connections: so many, each with a time for its request's head, until the end.
//!
//! Not for: what is answered (`dashboard`). Called by: `serve`.
//! Holds: who sends a head slowly, or nothing, does not keep a place; the end waits for calls at
//! work, and not for long.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::serve::descriptors::Places;

/// Connections held at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 1_000;
/// From the first moment, and from the last answer, to the end of a request's head.
const HEAD_TIME_MAX: Duration = Duration::from_secs(20);
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// What calls at work are given at the end.
const END_MAX: Duration = Duration::from_secs(3);
/// After a failed accept the next one waits for a connection of ours to end; another part of the process may
/// have given a descriptor back after this time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` until `stopping` says so, on as many connections as find places.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    held: Places,
    mut stopping: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let told = stopping.clone();
    let accepting = async {
        let mut is_failing = false;
        loop {
            // Never closed, so it cannot fail.
            let Ok(permit) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let place = place(&held, permit, &mut is_failing).await;
            match listener.accept().await {
                Ok((stream, _)) => {
                    is_failing = false;
                    connections.spawn(connection(stream, router.clone(), told.clone(), place));
                }
                Err(error) => {
                    complain(&mut is_failing, &error);
                    drop(place);
                    // Nothing says that a descriptor is free which some other part of the process had.
                    tokio::select! {
                        Some(_) = connections.join_next() => {}
                        () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                    }
                }
            }
            while connections.try_join_next().is_some() {}
        }
    };
    tokio::select! {
        () = accepting => {}
        () = stopped(&mut stopping) => {}
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(END_MAX, ended).await.is_err() {
        warn!("HTTP calls were still at work at the end");
    }
}

/// A place for the next connection, once there is one.
async fn place(held: &Places, permit: OwnedSemaphorePermit, is_failing: &mut bool) -> Place {
    while !held.take() {
        complain(is_failing, &"too many connections of all kinds");
        held.given_back().await;
    }
    Place {
        held: held.clone(),
        _permit: permit,
    }
}

/// Once, until a connection was accepted.
fn complain(is_failing: &mut bool, error: &dyn fmt::Display) {
    if !std::mem::replace(is_failing, true) {
        warn!(%error, "HTTP connections cannot be accepted");
    }
}

/// A connection's place among ours and among all.
struct Place {
    held: Places,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.held.give_back();
    }
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error says that the sender is gone, which is the end as well.
    stopping.wait_for(|stopping| *stopping).await.ok();
}

async fn connection(
    stream: TcpStream,
    router: Router,
    mut stopping: watch::Receiver<bool>,
    _place: Place,
) {
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut serving = std::pin::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => Some(ended),
        () = stopped(&mut stopping) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "an HTTP connection broke off");
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::Poll;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::*;
    use crate::config::Config;
    use crate::serve::descriptors::{Protocol, Shares};

    fn places() -> Places {
        Shares::now(&Config::default()).places(Protocol::Http)
    }

    /// No time is let pass: only the event lets it in.
    #[tokio::test]
    async fn who_found_no_place_gets_the_next_one_that_is_given_back() {
        let shares = Shares::now(&Config::default());
        let (ours, others) = (shares.places(Protocol::Http), shares.places(Protocol::Mqtt));
        let kafka = shares.places(Protocol::Kafka);
        while others.take() {}
        while ours.take() {}
        assert!(kafka.take());
        let places = Arc::new(Semaphore::new(1));
        let permit = Arc::clone(&places).acquire_owned().await.unwrap();
        let mut is_failing = false;
        let mut waiting = Box::pin(place(&ours, permit, &mut is_failing));
        assert!(at_once(waiting.as_mut()).await.is_none());
        kafka.give_back();
        assert!(
            at_once(waiting.as_mut()).await.is_none(),
            "what is kept for others is not ours"
        );
        others.give_back();
        let place = at_once(waiting.as_mut()).await;
        assert!(place.is_some(), "without a pause");
        assert!(!ours.take());
        drop((place, waiting));
        assert!(ours.take() && is_failing);
    }

    /// What it gives at once.
    async fn at_once<F: Future + Unpin>(mut one: F) -> Option<F::Output> {
        std::future::poll_fn(|cx| {
            Poll::Ready(match Pin::new(&mut one).poll(cx) {
                Poll::Ready(value) => Some(value),
                Poll::Pending => None,
            })
        })
        .await
    }

    /// Simulated time: the runtime moves its clock on when nothing else is left to do.
    #[tokio::test(start_paused = true)]
    async fn slow_head_loses_its_place() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(async || "yes"));
        let (stop, stopping) = watch::channel(false);
        let door = tokio::spawn(serve(listener, router, places(), stopping));
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
        let mut quick = TcpStream::connect(address).await.unwrap();
        quick
            .write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        quick.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let mut rest = Vec::new();
        let closed = timeout(HEAD_TIME_MAX * 2, slow.read_to_end(&mut rest)).await;
        closed.expect("the door closes it").ok();
        stop.send_replace(true);
        door.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn call_at_work_does_not_hold_up_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(std::future::pending::<&str>));
        let (stop, stopping) = watch::channel(false);
        let door = tokio::spawn(serve(listener, router, places(), stopping));
        let mut waiting = TcpStream::connect(address).await.unwrap();
        waiting
            .write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            .await
            .unwrap();
        stop.send_replace(true);
        timeout(END_MAX * 2, door).await.unwrap().unwrap();
    }
}
