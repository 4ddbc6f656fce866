//! Health, the key, and what is answered to calls that make no sense.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::json;

use headwater_dashboard::{CALLS_MAX, Secret, System, router_within};
use tower::ServiceExt as _;

use crate::fake::{Fake, KEY, call, json, send, text};

fn open(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn health_tells_how_it_is_without_a_key() {
    let system = Arc::new(Fake::default());
    let (status, body) = json(send(&system, open("/livez")).await).await;
    assert_eq!((status, body), (StatusCode::OK, json!({ "live": true })));
    let (status, body) = json(send(&system, open("/readyz")).await).await;
    let listener = json!({ "name": "tcp", "address": "127.0.0.1:1883", "accepting": true });
    let ready = json!({ "ready": true, "listeners": [listener], "degraded": [] });
    assert_eq!((status, body), (StatusCode::OK, ready));

    system.dead.store(true, Ordering::Relaxed);
    system.unready.store(true, Ordering::Relaxed);
    let (status, body) = json(send(&system, open("/livez")).await).await;
    assert_eq!(
        (status, body),
        (StatusCode::SERVICE_UNAVAILABLE, json!({ "live": false }))
    );
    let (status, body) = json(send(&system, open("/readyz")).await).await;
    assert_eq!(
        (status, &body["ready"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!(false))
    );
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let response = send(&Arc::new(Fake::default()), open("/metrics")).await;
    assert_eq!(
        response.headers()["content-type"],
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    assert_eq!(text(response).await, "headwater_connections 1\n# EOF\n");
}

#[tokio::test]
async fn nothing_else_is_answered_without_the_key() {
    let system = Arc::new(Fake::default());
    for (path, authorization, sentence) in [
        ("/api/v5/log/topics", None, "this call needs the key"),
        ("/api/v5/nothing", None, "this call needs the key"),
        ("/", None, "this call needs the key"),
        ("/livez/", None, "this call needs the key"),
        ("//metrics", None, "this call needs the key"),
        (
            "/api/v5/log/topics",
            Some("Basic YWRtaW46cHVibGlj"),
            "user names and passwords",
        ),
        (
            "/api/v5/log/topics",
            Some("Bearer"),
            "user names and passwords",
        ),
        (
            "/api/v5/log/topics",
            Some("Bearer k3"),
            "this is not the key",
        ),
        (
            "/api/v5/log/topics",
            Some("Bearer k3yy"),
            "this is not the key",
        ),
        ("/api/v5/log/topics", Some("Bearer "), "this is not the key"),
    ] {
        let mut request = open(path);
        if let Some(value) = authorization {
            request
                .headers_mut()
                .insert("authorization", value.parse().unwrap());
        }
        let response = send(&system, request).await;
        assert_eq!(response.headers()["www-authenticate"], "Bearer", "{path}");
        let (status, body) = json(response).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path} {authorization:?}");
        assert_eq!(body["code"], "UNAUTHORIZED");
        let message = body["message"].as_str().unwrap();
        assert!(
            message.starts_with(sentence),
            "{path} {authorization:?}: {message}"
        );
        assert!(message.contains("cli.key"), "the next step: {message}");
    }
    let mut request = open("/api/v5/log/topics");
    let value = format!("bearer  {KEY}").parse().unwrap();
    request.headers_mut().insert("authorization", value);
    assert_eq!(send(&system, request).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn calls_that_make_no_sense_are_answered_in_json() {
    let system = Arc::new(Fake::default());
    let records = "/api/v5/log/topics/t/records";
    for (method, path, body, status, code) in [
        ("GET", "/api/v5/nothing", "", 404, "NOT_FOUND"),
        ("PUT", "/api/v5/log/topics", "", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/api/v5/log/topics/none", "", 404, "NOT_FOUND"),
        ("GET", "/api/v5/log/topics?page=0", "", 400, "BAD_REQUEST"),
        ("GET", "/api/v5/log/topics?lmit=1", "", 400, "BAD_REQUEST"),
        ("POST", "/api/v5/log/topics", "{", 400, "BAD_REQUEST"),
        ("POST", "/api/v5/log/topics", "", 400, "BAD_REQUEST"),
        (
            "POST",
            "/api/v5/log/topics",
            r#"{"name": "t"}"#,
            409,
            "CONFLICT",
        ),
        ("DELETE", "/api/v5/log/topics/none", "", 404, "NOT_FOUND"),
        (
            "GET",
            &format!("{records}?offset=1&from=2"),
            "",
            400,
            "BAD_REQUEST",
        ),
        (
            "GET",
            &format!("{records}?offset=first"),
            "",
            400,
            "BAD_REQUEST",
        ),
        (
            "GET",
            &format!("{records}?limit=10001"),
            "",
            400,
            "BAD_REQUEST",
        ),
        (
            "POST",
            records,
            r#"{"value": "a", "value_base64": "YQ=="}"#,
            400,
            "BAD_REQUEST",
        ),
        (
            "POST",
            records,
            r#"{"key_base64": "*"}"#,
            400,
            "BAD_REQUEST",
        ),
        ("POST", records, r#"{"records": []}"#, 400, "BAD_REQUEST"),
        ("POST", records, r#"{"vlaue": "x"}"#, 400, "BAD_REQUEST"),
        ("GET", "/api/v5/log/groups/none", "", 404, "NOT_FOUND"),
        ("DELETE", "/api/v5/log/groups/g%2F1", "", 409, "CONFLICT"),
        (
            "POST",
            "/api/v5/store/a.b/count",
            r#"{"filter": {"$bad": 1}}"#,
            400,
            "BAD_REQUEST",
        ),
        (
            "POST",
            "/api/v5/store/a.b/count",
            r#"{"filtr": {}}"#,
            400,
            "BAD_REQUEST",
        ),
        ("POST", "/api/v5/store/a%00b/count", "", 400, "BAD_REQUEST"),
    ] {
        let (got, answer) = json(call(&system, method, path, body).await).await;
        assert_eq!(got.as_u16(), status, "{method} {path} {body}: {answer}");
        assert_eq!(answer["code"], code, "{method} {path} {body}: {answer}");
        assert!(!answer["message"].as_str().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_body_past_the_limit_is_refused() {
    let body = " ".repeat(headwater_dashboard::BODY_BYTES_MAX + 1);
    let system = Arc::new(Fake::default());
    let (status, answer) = json(call(&system, "POST", "/api/v5/log/topics", &body).await).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(answer["code"], "TOO_LARGE");
}

#[tokio::test]
async fn a_panic_inside_is_an_answer() {
    let system = Arc::new(Fake {
        panics: true,
        ..Fake::default()
    });
    let (status, answer) = json(call(&system, "POST", "/api/v5/store/a.b/find", "").await).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer["code"], "INTERNAL_ERROR");
}

#[tokio::test]
async fn calls_that_take_too_long_are_told_to_come_again_and_keep_their_turn() {
    let system = Arc::new(Fake::default());
    let shared = Arc::clone(&system) as Arc<dyn System>;
    let door = router_within(
        shared,
        Secret::new(KEY),
        std::time::Duration::from_millis(20),
    );
    let ask = |path: &'static str| {
        let request = Request::post(path).header("Authorization", format!("Bearer {KEY}"));
        door.clone().oneshot(request.body(Body::empty()).unwrap())
    };
    let (held, is_held) = std::sync::mpsc::channel();
    let (open_gate, gate_opens) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn({
        let system = Arc::clone(&system);
        move || {
            let _gate = system.gate.lock().unwrap();
            held.send(()).unwrap();
            // Ends when the test drops the sender.
            assert!(gate_opens.recv().is_err());
        }
    });
    is_held.recv().unwrap();
    for _ in 0..CALLS_MAX {
        let (status, body) = json(ask("/api/v5/store/a.b/count").await.unwrap()).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body["code"], "SERVICE_UNAVAILABLE");
    }
    // All turns are taken by threads that still wait: what would be quick does not start.
    let (status, _) = json(ask("/api/v5/store/a.b/find").await.unwrap()).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(system.finds.lock().unwrap().is_empty());
    // Health does not wait for turns.
    assert_eq!(send(&system, open("/livez")).await.status(), StatusCode::OK);
    drop(open_gate);
    thread.join().unwrap();
}
