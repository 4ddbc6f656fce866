//! The log's verbs, and what a damaged partition stops.

use std::io::Write;
use std::os::unix::fs::FileExt;

use crate::documents::wait_for_documents;
use crate::program::{Home, until};

#[test]
fn topics_records_and_places_by_verb() {
    let program = Home::new().start();
    program.done("topic create t -p 2 -c retention.ms=60000");
    let described = program.done("topic describe t");
    assert!(
        described.contains("\"retention.ms\": \"60000\""),
        "{described}"
    );
    assert_eq!(program.verb("topic create t").code, 1, "it is there");
    let lines = b"a:1\nb:2\nc:3\n";
    let sent = program.verb_with(&["produce", "t", "-K", ":", "-p", "1"], lines);
    assert_eq!(sent.code, 0, "{sent:?}");
    assert_eq!(
        program.done("consume t -f %p/%o/%k=%v;"),
        "1/0/a=1;1/1/b=2;1/2/c=3;"
    );
    assert_eq!(program.done("consume t -p 1 -o -1"), "3\n");
    assert_eq!(program.done("consume t -p 1 -o 1 -n 1"), "2\n");
    assert_eq!(program.done("consume t -o end"), "");
    let json = program.done("consume t -p 1 -n 1 -J");
    let record: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&record["key"], &record["value"]),
        (&"a".into(), &"1".into())
    );
    program.done("topic delete t");
    assert_eq!(program.verb("consume t").code, 1);
}

#[test]
fn a_thousand_partitions_work_with_256_open_files_and_survive_kill_9() {
    // A small write-ahead file, so that checkpoints fall into it.
    let options = ["--set", "log.wal_bytes_max=1MiB"];
    let home = Home::with_files(256);
    let program = home.start_with(&options);
    program.done("topic create many -p 1000");
    let lines: String = (0..1_500).fold(String::new(), |lines, number| {
        lines + &format!("key-{number}:{number}{}\n", "x".repeat(600))
    });
    let produce = ["produce", "many", "-K", ":"];
    let sent = program.verb_with(&produce, lines.as_bytes());
    assert_eq!(sent.code, 0, "{sent:?}");
    let doors = program.kill();
    let program = home.start_on(&doors, &options);
    let sent = program.verb_with(&produce, b"after:all\n");
    assert_eq!(sent.code, 0, "{sent:?}");
    let mut keys: Vec<_> = program
        .done("consume many -f %k;")
        .split(';')
        .map(str::to_owned)
        .collect();
    keys.sort();
    let mut expected: Vec<_> = (0..1_500).map(|number| format!("key-{number}")).collect();
    expected.extend([String::new(), "after".to_owned()]);
    expected.sort();
    assert_eq!(keys, expected);
    program.stop();
}

#[test]
fn clients_cannot_take_the_files_that_the_log_needs() {
    let home = Home::with_files(256);
    let program = home.start();
    // More than there are files, through both doors that anybody reaches; those beyond a door's
    // share are closed.
    let connect = |door: &str| std::net::TcpStream::connect(program.doors[door]).unwrap();
    let held: Vec<_> = (0..300)
        .flat_map(|_| [connect("tcp"), connect("kafka")])
        .collect();
    program.done("topic create many -p 100");
    let lines: String = (0..300).fold(String::new(), |lines, number| {
        lines + &format!("key-{number}:{number}\n")
    });
    let sent = program.verb_with(&["produce", "many", "-K", ":"], lines.as_bytes());
    assert_eq!(sent.code, 0, "{sent:?}");
    assert_eq!(program.done("consume many").lines().count(), 300);
    drop(held);
    program.stop();
}

#[test]
fn data_directory_and_url_are_taken_before_the_verb_too() {
    let home = Home::new();
    let program = home.start();
    let url = format!("http://{}", program.doors["http"]);
    let dir = home.data();
    let dir = dir.to_str().unwrap();
    let words = ["--url", &url, "--data-dir", dir, "topic", "list"];
    let mut command = home.command();
    command.args(words);
    let output = crate::program::finish(command, b"");
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("mqtt.commands"));
}

#[test]
fn topics_are_not_made_on_first_use_when_that_is_off() {
    let program = Home::new().start_with(&["--set", "log.auto_create=false"]);
    let refused = program.verb("produce new -m x");
    assert_eq!(refused.code, 1);
    assert!(
        refused.error.contains("there is no topic new"),
        "{refused:?}"
    );
    assert_eq!(program.verb("topic describe new").code, 1);
}

#[test]
fn group_is_deleted_by_verb() {
    let program = Home::new().start();
    let mut stream = std::net::TcpStream::connect(program.doors["kafka"]).unwrap();
    stream
        .set_read_timeout(Some(crate::program::PATIENCE))
        .unwrap();
    // OffsetCommit 2 of a client without membership: group g, generation -1, no member, retention
    // -1, topic mqtt, partition 0, offset 0, metadata null.
    let mut body = vec![0, 8, 0, 2, 0, 0, 0, 1, 0xFF, 0xFF, 0, 1, b'g'];
    body.extend([0xFF, 0xFF, 0xFF, 0xFF, 0, 0]);
    body.extend([0xFF; 8]);
    body.extend([
        0, 0, 0, 1, 0, 4, b'm', b'q', b't', b't', 0, 0, 0, 1, 0, 0, 0, 0,
    ]);
    body.extend([0; 8]);
    body.extend([0xFF, 0xFF]);
    let length = u32::try_from(body.len()).unwrap();
    stream.write_all(&length.to_be_bytes()).unwrap();
    stream.write_all(&body).unwrap();
    until("the group", || {
        program.done("group list").starts_with("g\tEmpty")
    });
    // The group is there before its first offset is committed.
    until("the offset", || {
        program
            .done("group describe g")
            .contains("\"committed\": 0")
    });
    program.done("group delete g");
    assert_eq!(program.done("group list"), "");
    let again = program.verb("group delete g");
    assert_eq!(again.code, 1);
    assert!(again.error.contains("there is no group g"), "{again:?}");
}

#[test]
fn documents_go_when_they_are_old() {
    let program = Home::new().start_with(&["--set", "store.retention=1s"]);
    program.done("pub -t a -m x -q 1");
    until("the end of a document's time", || {
        program.metric("headwater_documents_expired_total") == 1
    });
    assert_eq!(program.done("doc count"), "0\n");
    assert_eq!(
        program.done("consume mqtt"),
        "x\n",
        "the record has its own time"
    );
}

#[test]
fn damaged_partition_stops_nobody_else() {
    let home = Home::new();
    home.configure("[[route]]\nfrom = \"#\"\nto = \"t\"\n");
    let program = home.start_with(&["--set", "log.partitions=2"]);
    for partition in ["0", "1"] {
        program.done(&format!("produce mqtt -p {partition} -m healthy"));
    }
    program.stop();
    let segment = std::fs::read_dir(home.data().join("log/mqtt-0")).unwrap();
    let segment = segment
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|kind| kind == "log"))
        .unwrap();
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(segment)
        .unwrap();
    // Behind the batch's header of 61 bytes: its CRC does not hold any more.
    file.write_all_at(&[0xAA; 4], 64).unwrap();
    home.configure("");
    let program = home.start();
    wait_for_documents(&program, "headwater.messages", 1);
    until("a word about the damage", || {
        let (status, ready) = program.http("GET", "/readyz", None);
        assert_eq!(status, 200, "degraded, and ready");
        ready.contains("mqtt-0 wait")
    });
    program.done("produce mqtt -p 1 -m more");
    wait_for_documents(&program, "headwater.messages", 2);
}
