//! Where a message goes, with configurations as people write them.

use headwater_bridge::{
    CommitPoint, DEAD_LETTERS, DeliverConfig, FlowConfig, FlowKind, Flows, Incoming, Properties,
    RouteConfig, SinkConfig,
};
use headwater_commitlog::record::{BatchBuilder, Limits, Record, RecordBody, records};
use serde::Deserialize;

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    route: Vec<RouteConfig>,
    sink: Vec<SinkConfig>,
}

fn flows(text: &str) -> Flows {
    let File { route, sink } = toml::from_str(text).unwrap();
    Flows::compile(&FlowConfig {
        route,
        sink,
        ..FlowConfig::default()
    })
    .unwrap()
}

fn message<'a>(topic: &'a str, payload: &'a str) -> Incoming<'a> {
    Incoming {
        topic,
        payload: payload.as_bytes(),
        client: "c1",
        ..Incoming::default()
    }
}

fn record(body: &RecordBody) -> Record {
    let mut batch = BatchBuilder::new(0);
    batch.push(1, body);
    records(batch.finish(), &Limits::default())
        .next()
        .unwrap()
        .unwrap()
}

/// Topic and key of each record that a message becomes.
fn ways(flows: &Flows, incoming: &Incoming<'_>) -> Vec<(String, String)> {
    assert_eq!(flows.takes(incoming), !flows.route(incoming).is_empty());
    flows
        .route(incoming)
        .iter()
        .map(|routed| {
            (
                routed.topic.to_string(),
                String::from_utf8(routed.key.to_vec()).unwrap(),
            )
        })
        .collect()
}

fn way(topic: &str, key: &str) -> (String, String) {
    (topic.to_owned(), key.to_owned())
}

#[test]
fn without_configuration_everything_meets_in_one_topic() {
    let flows = Flows::compile(&FlowConfig::default()).unwrap();
    assert_eq!(ways(&flows, &message("a/b", "x")), [way("mqtt", "c1")]);
    assert_eq!(ways(&flows, &message("$SYS/x", "x")), []);
    assert_eq!(flows.routes()[0].fixed_topic(), Some("mqtt"));

    let commands = &flows.delivers()[0];
    assert_eq!(
        (commands.name(), commands.from()),
        ("deliver/mqtt.commands/{key}", "mqtt.commands")
    );
    let command = record(&RecordBody::new(Some(b"python/mqtt"), Some(b"hi"), []));
    let sent = commands.render(&command).unwrap();
    assert_eq!(
        (&*sent.topic, &sent.payload[..], sent.qos),
        ("python/mqtt", &b"hi"[..], 1)
    );

    let sink = &flows.sinks()[0];
    assert_eq!(
        (sink.from(), sink.into_namespace()),
        ("mqtt", "headwater.messages")
    );
}

#[test]
fn default_flows_can_be_declined() {
    let none = FlowConfig {
        default_flows: false,
        ..FlowConfig::default()
    };
    let flows = Flows::compile(&none).unwrap();
    assert!(!flows.takes(&message("a", "x")));
    assert!(flows.delivers().is_empty() && flows.sinks().is_empty());
}

#[test]
fn the_first_route_that_matches_wins() {
    let flows = flows(
        r##"
        [[route]]
        from = "sensors/{site}/{device}/telemetry"
        to = "telemetry.{site}"
        key = "{device}"
        [[route]]
        from = "sensors/{rest...}"
        to = "sensors"
        key = "{rest}"
        "##,
    );
    let telemetry = message("sensors/a_b/7/telemetry", "{}");
    assert_eq!(ways(&flows, &telemetry), [way("telemetry.a_5Fb", "7")]);
    assert_eq!(
        ways(&flows, &message("sensors/x/y", "{}")),
        [way("sensors", "x/y")]
    );
    assert_eq!(ways(&flows, &message("else", "{}")), []);
}

#[test]
fn copy_lets_the_message_go_on_and_where_lets_it_pass_by() {
    let flows = flows(
        r##"
        [[route]]
        from = "t/#"
        to = "alarms"
        where = "value.temp > 30"
        copy = true
        [[route]]
        from = "t/{d}"
        to = "lab"
        where = 'd == "lab" or exists header.lab'
        [[route]]
        from = "#"
        to = "rest"
        key = "{payload.id}"
        "##,
    );
    let hot = message("t/7", r#"{"temp": 31, "id": "x"}"#);
    assert_eq!(ways(&flows, &hot), [way("alarms", "c1"), way("rest", "x")]);
    assert_eq!(ways(&flows, &message("t/lab", "31")), [way("lab", "c1")]);
    let properties = Properties {
        user: [("lab", "1")].into_iter().collect(),
        ..Properties::default()
    };
    let tagged = Incoming {
        properties,
        ..message("t/9", r#"{"temp": 40}"#)
    };
    assert_eq!(
        ways(&flows, &tagged),
        [way("alarms", "c1"), way("lab", "c1")]
    );
    // No `id` in it: the default key keeps the device's order.
    assert_eq!(
        ways(&flows, &message("t/8", "no json")),
        [way("rest", "c1")]
    );
}

#[test]
fn a_route_that_cannot_be_carried_out_gives_a_dead_letter_with_the_reason() {
    let flows = flows("[[route]]\nfrom = 't/{d}'\nto = '{d}.{payload.kind}'");
    let odd = message("t/7", "{}");
    let routed = flows.route(&odd);
    assert_eq!(routed[0].topic, DEAD_LETTERS);
    let letter = record(&routed[0].encode(&odd));
    assert_eq!(letter.value.as_deref(), Some(&b"{}"[..]));
    assert_eq!(letter.key.as_deref(), Some(&b"c1"[..]));
    for (header, expected) in [
        ("mqtt-topic", "t/7"),
        ("headwater-dead-reason", "missing-value"),
        (
            "headwater-dead-message",
            "the placeholder {payload.kind} finds nothing here",
        ),
        ("headwater-dead-flow", "route/t/{d}"),
    ] {
        let value = letter.headers.last(header).flatten();
        assert_eq!(value, Some(expected.as_bytes()), "{header}");
    }
    let good = message("t/7", r#"{"kind": "a.b"}"#);
    let routed = flows.route(&good);
    assert_eq!(routed[0].topic, "7.a_2Eb");
    assert_eq!(record(&routed[0].encode(&good)).headers.len(), 4);
}

#[test]
fn one_error_refuses_all_of_it_and_all_are_told() {
    let mut config = FlowConfig {
        route: vec![RouteConfig::new("a/#/b", "t"), RouteConfig::new("a", "t/t")],
        sink: vec![SinkConfig::new("t", "nodot"), SinkConfig::new("t", "a.b")],
        ..FlowConfig::default()
    };
    config.sink.push(SinkConfig::new("t", "a.b"));
    let mut acked = DeliverConfig::new("c");
    acked.commit = CommitPoint::Acked;
    config.deliver.push(acked);
    let errors = Flows::compile(&config).unwrap_err();
    let places: Vec<_> = errors.iter().map(|e| (e.kind, e.index, e.key)).collect();
    assert_eq!(
        places,
        [
            (FlowKind::Route, 0, "from"),
            (FlowKind::Route, 1, "to"),
            (FlowKind::Deliver, 0, "commit"),
            (FlowKind::Sink, 0, "into"),
            (FlowKind::Sink, 2, "from"),
        ]
    );
}
