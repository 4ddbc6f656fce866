//! A system in memory: one topic `t` with what is produced to it, one group, some documents.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use axum::response::Response;
use headwater_dashboard::{
    CreateTopic, Fetch, Fetched, Find, GroupDetail, GroupOffset, GroupSummary, ListenerState,
    NewRecord, PartitionInfo, Position, Readiness, Refusal, RefusalKind, Secret, StoredRecord,
    System, TopicInfo, router,
};
use serde_json::Value;
use tower::ServiceExt as _;

#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) dead: AtomicBool,
    pub(crate) unready: AtomicBool,
    /// What `find` gives, line by line.
    pub(crate) documents: Vec<String>,
    /// After so many documents `find` refuses.
    pub(crate) fails_after: Option<usize>,
    pub(crate) panics: bool,
    /// It panics where it would refuse.
    pub(crate) panics_half_way: bool,
    /// `count` waits while a test holds it.
    pub(crate) gate: Mutex<()>,
    pub(crate) handed_over: AtomicUsize,
    pub(crate) records: Mutex<Vec<StoredRecord>>,
    pub(crate) finds: Mutex<Vec<Find>>,
    pub(crate) fetches: Mutex<Vec<Fetch>>,
    pub(crate) created: Mutex<Vec<CreateTopic>>,
}

pub(crate) const KEY: &str = "k3y";

fn not_found(what: &str) -> Refusal {
    Refusal::new(RefusalKind::NotFound, format!("there is no {what}"))
}

fn topic() -> TopicInfo {
    TopicInfo {
        name: "t".to_owned(),
        id: "00000000-0000-0000-0000-000000000001".to_owned(),
        partitions: vec![PartitionInfo {
            partition: 0,
            log_start_offset: 0,
            high_watermark: 2,
            size_bytes: 100,
        }],
        config: BTreeMap::from([("retention.ms".to_owned(), "1000".to_owned())]),
    }
}

impl System for Fake {
    fn alive(&self) -> bool {
        !self.dead.load(Ordering::Relaxed)
    }

    fn readiness(&self) -> Readiness {
        let ready = !self.unready.load(Ordering::Relaxed);
        let address = "127.0.0.1:1883".to_owned();
        let listener = ListenerState {
            name: "tcp".to_owned(),
            address,
            accepting: ready,
        };
        Readiness {
            ready,
            listeners: vec![listener],
            degraded: Vec::new(),
        }
    }

    fn metrics(&self) -> String {
        "headwater_connections 1\n# EOF\n".to_owned()
    }

    fn find(
        &self,
        query: &Find,
        each: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<(), Refusal> {
        assert!(!self.panics, "as asked");
        self.finds.lock().unwrap().push(query.clone());
        let limit = query
            .limit
            .map_or(usize::MAX, |limit| usize::try_from(limit).unwrap());
        for (index, document) in self.documents.iter().take(limit).enumerate() {
            if self.fails_after == Some(index) {
                assert!(!self.panics_half_way, "as asked");
                return Err(Refusal::new(RefusalKind::Unavailable, "it scans too much"));
            }
            self.handed_over.fetch_add(1, Ordering::Relaxed);
            if each(document).is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn count(&self, namespace: &str, filter: &Value) -> Result<u64, Refusal> {
        drop(self.gate.lock().unwrap());
        match (namespace, filter.get("$bad")) {
            ("a.b", None) => Ok(self.documents.len() as u64),
            (_, Some(_)) => Err(Refusal::new(
                RefusalKind::BadRequest,
                "unknown operator $bad",
            )),
            _ => Ok(0),
        }
    }

    fn topics(&self) -> Result<Vec<TopicInfo>, Refusal> {
        Ok(vec![
            topic(),
            TopicInfo {
                name: "u".to_owned(),
                ..topic()
            },
        ])
    }

    fn topic(&self, name: &str) -> Result<TopicInfo, Refusal> {
        if name == "t" {
            Ok(topic())
        } else {
            Err(not_found("topic"))
        }
    }

    fn create_topic(&self, wish: &CreateTopic) -> Result<TopicInfo, Refusal> {
        if wish.name == "t" {
            return Err(Refusal::new(RefusalKind::Conflict, "topic t exists"));
        }
        self.created.lock().unwrap().push(wish.clone());
        Ok(TopicInfo {
            name: wish.name.clone(),
            ..topic()
        })
    }

    fn delete_topic(&self, name: &str) -> Result<(), Refusal> {
        self.topic(name).map(drop)
    }

    fn produce(&self, topic: &str, given: Vec<NewRecord>) -> Result<Vec<Position>, Refusal> {
        self.topic(topic)?;
        let mut records = self.records.lock().unwrap();
        let mut positions = Vec::new();
        for record in given {
            let offset = records.len() as u64;
            positions.push(Position {
                partition: record.partition.unwrap_or(3),
                offset,
            });
            records.push(StoredRecord {
                offset,
                timestamp_ms: record.timestamp_ms.unwrap_or(7),
                key: record.key,
                value: record.value,
                headers: record.headers,
            });
        }
        Ok(positions)
    }

    fn records(&self, fetch: &Fetch) -> Result<Fetched, Refusal> {
        self.topic(&fetch.topic)?;
        self.fetches.lock().unwrap().push(fetch.clone());
        let records = self.records.lock().unwrap().clone();
        let end = records.len() as u64;
        Ok(Fetched {
            records,
            next_offset: end,
            log_start_offset: 0,
            high_watermark: end,
        })
    }

    fn groups(&self) -> Result<Vec<GroupSummary>, Refusal> {
        Ok(vec![self.group("g/1")?.summary])
    }

    fn group(&self, group: &str) -> Result<GroupDetail, Refusal> {
        if group != "g/1" {
            return Err(not_found("group"));
        }
        Ok(GroupDetail {
            summary: GroupSummary {
                group: group.to_owned(),
                state: "Stable".to_owned(),
                members: 1,
            },
            generation: 4,
            offsets: vec![GroupOffset {
                topic: "t".to_owned(),
                partition: 0,
                committed: Some(1),
                high_watermark: 2,
                lag: Some(1),
                client: None,
            }],
        })
    }

    fn delete_group(&self, group: &str) -> Result<(), Refusal> {
        self.group(group)?;
        Err(Refusal::new(RefusalKind::Conflict, "group g/1 has members"))
    }
}

/// Sends one call, with the key.
pub(crate) async fn call(system: &Arc<Fake>, method: &str, path: &str, body: &str) -> Response {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("Authorization", format!("Bearer {KEY}"))
        .body(Body::from(body.to_owned()))
        .unwrap();
    send(system, request).await
}

pub(crate) async fn send(system: &Arc<Fake>, request: Request<Body>) -> Response {
    let door = router(Arc::clone(system) as Arc<dyn System>, Secret::new(KEY));
    door.oneshot(request).await.unwrap()
}

pub(crate) async fn text(response: Response) -> String {
    let bytes = to_bytes(response.into_body(), usize::MAX)
        .await
        .expect("the whole body");
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Status and JSON of an answer.
pub(crate) async fn json(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    assert_eq!(response.headers()["content-type"], "application/json");
    let text = text(response).await;
    (status, serde_json::from_str(&text).unwrap())
}
