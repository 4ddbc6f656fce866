//! Documents, topics, records and groups.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use headwater_dashboard::{FetchStart, Find, HeaderValue};
use serde_json::{Value, json};

use crate::fake::{Fake, KEY, call, json, send, text};

const FIND: &str = "/api/v5/store/a.b/find";
const RECORDS: &str = "/api/v5/log/topics/t/records";

fn with_documents(count: usize) -> Fake {
    let documents = (0..count).map(|n| format!("{{\"n\":{n}}}")).collect();
    Fake {
        documents,
        ..Fake::default()
    }
}

async fn stream(system: &Arc<Fake>, body: &str) -> Response {
    let request = Request::post(FIND)
        .header("Authorization", format!("Bearer {KEY}"))
        .header("Accept", "application/x-ndjson")
        .body(Body::from(body.to_owned()))
        .unwrap();
    send(system, request).await
}

#[tokio::test]
async fn a_query_reaches_the_store_as_it_was_asked() {
    let system = Arc::new(Fake::default());
    let body = r#"{"filter": {"payload.temp": {"$gt": 3}}, "sort": {"z": 1, "a": -1},
        "limit": 7, "skip": 2}"#;
    assert_eq!(stream(&system, body).await.status(), StatusCode::OK);
    for plain in [r#"{"sort": "{\"z\": 1}", "limit": 0}"#, ""] {
        assert_eq!(stream(&system, plain).await.status(), StatusCode::OK);
    }
    let asked = Find {
        namespace: "a.b".to_owned(),
        filter: json!({ "payload.temp": { "$gt": 3 } }),
        sort: Some(r#"{"z": 1, "a": -1}"#.to_owned()),
        limit: Some(7),
        skip: 2,
    };
    let all = Find {
        filter: json!({}),
        sort: None,
        limit: None,
        skip: 0,
        ..asked.clone()
    };
    let text = Find {
        sort: Some(r#"{"z": 1}"#.to_owned()),
        ..all.clone()
    };
    assert_eq!(*system.finds.lock().unwrap(), [asked, text, all]);
}

#[tokio::test]
async fn documents_come_one_a_line() {
    for count in [0, 1, 20_000] {
        let system = Arc::new(with_documents(count));
        let response = stream(&system, "").await;
        assert_eq!(response.headers()["content-type"], "application/x-ndjson");
        let text = text(response).await;
        assert_eq!(text.lines().count(), count);
        assert_eq!(
            text.lines().last(),
            system.documents.last().map(String::as_str)
        );
    }
}

#[tokio::test]
async fn a_query_that_is_refused_at_once_has_its_status() {
    let system = Arc::new(Fake {
        fails_after: Some(3),
        ..with_documents(10)
    });
    let (status, body) = json(stream(&system, "").await).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let expected = json!({ "code": "SERVICE_UNAVAILABLE", "message": "it scans too much" });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn a_query_that_fails_half_way_breaks_the_answer_off() {
    for panics_half_way in [false, true] {
        let fails_after = Some(9_000);
        let system = Arc::new(Fake {
            fails_after,
            panics_half_way,
            ..with_documents(10_000)
        });
        let response = stream(&system, "").await;
        assert_eq!(response.status(), StatusCode::OK);
        assert!(to_bytes(response.into_body(), usize::MAX).await.is_err());
    }
}

#[tokio::test]
async fn a_client_that_goes_away_stops_the_query() {
    let system = Arc::new(with_documents(200_000));
    drop(stream(&system, "").await);
    // The query's thread holds the system until it has stopped.
    while Arc::strong_count(&system) > 1 {
        tokio::task::yield_now().await;
    }
    assert!(system.handed_over.load(Ordering::Relaxed) < 200_000);
}

#[tokio::test]
async fn without_streaming_documents_come_in_an_envelope_of_bounded_size() {
    let system = Arc::new(with_documents(3));
    let (status, body) = json(call(&system, "POST", FIND, r#"{"limit": 2}"#).await).await;
    assert_eq!(status, StatusCode::OK);
    let meta = json!({ "limit": 2, "skip": 0, "count": 2, "hasnext": true });
    assert_eq!(
        body,
        json!({ "data": [{ "n": 0 }, { "n": 1 }], "meta": meta })
    );

    let (_, body) = json(call(&system, "POST", FIND, "").await).await;
    assert_eq!(
        body["meta"],
        json!({ "limit": 1000, "skip": 0, "count": 3, "hasnext": false })
    );

    let system = Arc::new(with_documents(2_000));
    let (_, body) = json(call(&system, "POST", FIND, r#"{"limit": 5000}"#).await).await;
    assert_eq!(body["data"].as_array().unwrap().len(), 1000);
    assert_eq!(body["meta"]["hasnext"], true);

    let large = format!("\"{}\"", "x".repeat(9 << 20));
    let system = Arc::new(Fake {
        documents: vec![large.clone(), large],
        ..Fake::default()
    });
    let (status, body) = json(call(&system, "POST", FIND, "").await).await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::PAYLOAD_TOO_LARGE, &json!("TOO_LARGE"))
    );
}

#[tokio::test]
async fn count_is_a_number() {
    let system = Arc::new(with_documents(3));
    let (status, body) = json(call(&system, "POST", "/api/v5/store/a.b/count", "").await).await;
    assert_eq!((status, body), (StatusCode::OK, json!({ "count": 3 })));
}

fn shown_topic(name: &str) -> Value {
    json!({
        "name": name,
        "id": "00000000-0000-0000-0000-000000000001",
        "partitions": [
            { "partition": 0, "log_start_offset": 0, "high_watermark": 2, "size_bytes": 100 }
        ],
        "config": { "retention.ms": "1000" },
    })
}

#[tokio::test]
async fn topics_are_listed_made_shown_and_deleted() {
    let system = Arc::new(Fake::default());
    let topics = "/api/v5/log/topics";
    let (_, body) = json(call(&system, "GET", topics, "").await).await;
    let meta = json!({ "page": 1, "limit": 10_000, "count": 2, "hasnext": false });
    assert_eq!(
        body,
        json!({ "data": [shown_topic("t"), shown_topic("u")], "meta": meta })
    );
    let (_, body) = json(call(&system, "GET", &format!("{topics}?limit=1"), "").await).await;
    assert_eq!(body["data"], json!([shown_topic("t")]));
    assert_eq!(body["meta"]["hasnext"], true);
    let (_, body) = json(call(&system, "GET", &format!("{topics}?page=3&limit=1"), "").await).await;
    assert_eq!(
        (&body["data"], &body["meta"]["hasnext"]),
        (&json!([]), &json!(false))
    );

    let (_, body) = json(call(&system, "GET", &format!("{topics}/t"), "").await).await;
    assert_eq!(body, shown_topic("t"));

    let wish = r#"{"name": "v", "partitions": 2, "config": {"retention.ms": "5"}}"#;
    let (status, body) = json(call(&system, "POST", topics, wish).await).await;
    assert_eq!((status, body), (StatusCode::CREATED, shown_topic("v")));
    let created = system.created.lock().unwrap()[0].clone();
    assert_eq!((created.partitions, created.config.len()), (Some(2), 1));

    let response = call(&system, "DELETE", &format!("{topics}/t"), "").await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    assert_eq!(text(response).await, "");
}

#[tokio::test]
async fn records_come_back_as_they_were_produced() {
    let system = Arc::new(Fake::default());
    let body = r#"{"records": [
        {"key": "k", "value": "ä", "partition": 1, "timestamp_ms": 5,
         "headers": [{"name": "a", "value": "1"}, {"name": "a", "value_base64": "/w=="},
                     {"name": "null"}]},
        {"key_base64": "/w==", "value_base64": "YQ=="}
    ]}"#;
    let (status, answer) = json(call(&system, "POST", RECORDS, body).await).await;
    let positions = json!([{ "partition": 1, "offset": 0 }, { "partition": 3, "offset": 1 }]);
    assert_eq!(
        (status, answer),
        (StatusCode::OK, json!({ "data": positions }))
    );
    let (_, answer) = json(call(&system, "POST", RECORDS, r#"{"key": "gone"}"#).await).await;
    assert_eq!(answer, json!({ "data": [{ "partition": 3, "offset": 2 }] }));

    let stored = system.records.lock().unwrap().clone();
    let byte = Bytes::from_static(b"\xFF");
    assert_eq!(
        stored[0].headers[1],
        ("a".to_owned(), HeaderValue(Some(byte.clone())))
    );
    assert_eq!(stored[0].headers[2], ("null".to_owned(), HeaderValue(None)));
    assert_eq!(
        (&stored[1].key, &stored[1].value),
        (&Some(byte), &Some(Bytes::from("a")))
    );
    assert_eq!(stored[2].value, None);

    let (_, answer) = json(call(&system, "GET", RECORDS, "").await).await;
    let headers = json!([
        { "name": "a", "value": "1" },
        { "name": "a", "value_base64": "/w==" },
        { "name": "null", "value": null },
    ]);
    let expected = json!({
        "data": [
            { "offset": 0, "timestamp_ms": 5, "key": "k", "value": "ä", "headers": headers },
            { "offset": 1, "timestamp_ms": 7, "key_base64": "/w==", "value": "a", "headers": [] },
            { "offset": 2, "timestamp_ms": 7, "key": "gone", "value": null, "headers": [] },
        ],
        "meta": { "partition": 0, "next_offset": 3, "log_start_offset": 0, "high_watermark": 3 },
    });
    assert_eq!(answer, expected);
}

#[tokio::test]
async fn reading_begins_where_it_was_asked() {
    let system = Arc::new(Fake::default());
    for (query, start, limit) in [
        ("", FetchStart::Earliest, 100),
        ("?offset=earliest", FetchStart::Earliest, 100),
        ("?offset=latest&limit=1", FetchStart::Latest, 1),
        ("?partition=3&offset=42", FetchStart::Offset(42), 100),
        (
            "?from=1700000000000&limit=10000",
            FetchStart::Timestamp(1_700_000_000_000),
            10_000,
        ),
    ] {
        call(&system, "GET", &format!("{RECORDS}{query}"), "").await;
        let fetch = system.fetches.lock().unwrap().pop().unwrap();
        assert_eq!((fetch.start, fetch.limit), (start, limit), "{query}");
        assert_eq!(
            fetch.partition,
            if query.contains("partition") { 3 } else { 0 }
        );
    }
}

#[tokio::test]
async fn groups_are_listed_and_told_with_their_lag() {
    let system = Arc::new(Fake::default());
    let (_, body) = json(call(&system, "GET", "/api/v5/log/groups", "").await).await;
    let summary = json!({ "group": "g/1", "state": "Stable", "members": 1 });
    assert_eq!(body["data"], json!([summary]));
    let (_, body) = json(call(&system, "GET", "/api/v5/log/groups/g%2F1", "").await).await;
    let offsets = json!([{
        "topic": "t", "partition": 0, "committed": 1, "high_watermark": 2, "lag": 1, "client": null,
    }]);
    let expected = json!({
        "group": "g/1", "state": "Stable", "members": 1, "generation": 4, "offsets": offsets,
    });
    assert_eq!(body, expected);
}
