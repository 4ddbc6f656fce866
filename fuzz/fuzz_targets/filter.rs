//! Any filter and sort over any document.
//!
//! For: no panic and no overflow, however deep or odd the text; a filter and its `$nor` part all
//! documents; a payload of any bytes makes a document that is one line of JSON.
//! The input is a filter, a sort and a payload, parted by line feeds.

#![no_main]

use headwater_docstore::{Batch, Facts, Filter, Namespace, Position, Sort};
use libfuzzer_sys::fuzz_target;
use uuid::Uuid;

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(3, |byte| *byte == b'\n');
    let filter = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let sort = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let payload = parts.next().unwrap_or_default();

    let mut batch = Batch::new();
    let namespace = Namespace::parse("a.b").expect("a name");
    let headers: [(&str, Option<&[u8]>); 3] =
        [("h", Some(payload)), ("h", None), ("$h", Some(b"x"))];
    batch.push(&namespace, &facts(payload, &headers));
    let document = batch.lines().next().expect("the document just pushed");
    assert!(!document.contains('\n'), "one line: {document}");

    let _any = Sort::parse(&sort);
    let Ok(parsed) = Filter::parse(&filter) else {
        return;
    };
    let matches = parsed.matches(&document).expect("a document is JSON");
    // At the limits of depth and size the negation may be one too many.
    if let Ok(negation) = Filter::parse(&format!("{{\"$nor\":[{filter}]}}")) {
        assert_eq!(
            negation.matches(&document),
            Some(!matches),
            "{filter} on {document}"
        );
    }
});

fn facts<'a>(payload: &'a [u8], headers: &'a [(&'a str, Option<&'a [u8]>)]) -> Facts<'a> {
    Facts {
        position: Position {
            topic: Uuid::nil(),
            partition: 0,
            offset: 0,
        },
        kafka_topic: "mqtt",
        ts_ms: 0,
        topic: Some("a/b"),
        client: None,
        qos: Some(0),
        retain: None,
        headers,
        payload: Some(payload),
    }
}
