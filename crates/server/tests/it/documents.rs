//! Messages as documents: `doc find` and `doc count`.

use serde_json::Value;

use crate::program::{Home, Program, until};

pub(crate) fn wait_for_documents(program: &Program, collection: &str, count: usize) {
    until("the documents", || {
        program.done(&format!("doc count {collection}")) == format!("{count}\n")
    });
}

#[test]
fn messages_are_found_as_documents() {
    let program = Home::new().start();
    for (temp, site) in [(3, "b"), (1, "a"), (2, "b"), (1, "b"), (40, "a")] {
        program.done(&format!(
            "pub -t t/{site} -q 1 -m {{\"temp\":{temp},\"site\":\"{site}\"}}"
        ));
    }
    wait_for_documents(&program, "headwater.messages", 5);
    let found = |line: &str| -> Vec<(i64, String)> {
        let documents = program.done(line);
        let one = |line: &str| {
            let document: Value = serde_json::from_str(line).unwrap();
            let payload = &document["payload"];
            (
                payload["temp"].as_i64().unwrap(),
                payload["site"].as_str().unwrap().to_owned(),
            )
        };
        documents.lines().map(one).collect()
    };
    let own = |all: &[(i64, &str)]| -> Vec<(i64, String)> {
        all.iter()
            .map(|(temp, site)| (*temp, (*site).to_owned()))
            .collect()
    };
    assert_eq!(
        found("doc find {\"payload.temp\":{\"$gt\":3}}"),
        own(&[(40, "a")])
    );
    assert_eq!(program.done("doc count {\"payload.temp\":1}"), "2\n");
    assert_eq!(
        program.done("doc count headwater.messages {\"topic\":\"t/a\"}"),
        "2\n"
    );
    assert_eq!(program.done("doc count other.empty"), "0\n");
    // The order of a sort's keys counts: site first, though temp is before it in the alphabet's end.
    let sort = "--sort {\"payload.temp\":1,\"payload.site\":-1}";
    let ordered = own(&[(1, "b"), (1, "a"), (2, "b"), (3, "b"), (40, "a")]);
    assert_eq!(found(&format!("doc find {sort}")), ordered);
    let sort = "--sort {\"payload.site\":1,\"payload.temp\":-1}";
    let ordered = own(&[(40, "a"), (1, "a"), (3, "b"), (2, "b"), (1, "b")]);
    assert_eq!(found(&format!("doc find {sort}")), ordered);
    assert_eq!(
        found(&format!("doc find {sort} --skip 1 --limit 2")),
        ordered[1..3]
    );
    let first = program.done(&format!("doc find {sort} --limit 1"));
    let document: Value = serde_json::from_str(&first).unwrap();
    for field in [
        "_id",
        "topic",
        "ts",
        "client",
        "qos",
        "retain",
        "kafka_topic",
        "partition",
        "offset",
        "headers",
        "payload",
        "payload_kind",
    ] {
        assert!(document.get(field).is_some(), "{field} in {first}");
    }
}

#[test]
fn program_that_reads_the_store_holds_up_documents_and_nothing_else() {
    let home = Home::new();
    let program = home.start();
    program.done("pub -t a -q 1 -m 1");
    wait_for_documents(&program, "headwater.messages", 1);
    program.kill();
    let file = home.data().join("store/documents-000001.sqlite");
    let other = rusqlite::Connection::open(file).unwrap();
    other
        .execute_batch("BEGIN; SELECT count(*) FROM documents_1")
        .unwrap();
    let program = home.start();
    program.done("pub -t a -q 1 -m 2");
    assert_eq!(program.done("doc count headwater.messages"), "1\n");
    let (status, ready) = program.http("GET", "/readyz", None);
    assert_eq!(status, 200, "{ready}");
    assert!(ready.contains("end that program"), "{ready}");
    other.execute_batch("COMMIT").unwrap();
    wait_for_documents(&program, "headwater.messages", 2);
    until("it is ready without a word", || {
        let (_, ready) = program.http("GET", "/readyz", None);
        !ready.contains("end that program")
    });
    program.stop();
}
