//! What a flow costs a message. The base of each verdict is `copy/64`: the payload and topic copied
//! into one fresh allocation, which no encoder can do without.

use divan::{Bencher, black_box};
use headwater_bridge::{
    FlowConfig, Flows, Incoming, Properties, RouteConfig, decode_record, encode_record,
};
use headwater_commitlog::record::{BatchBuilder, Limits, Record, records};

fn main() {
    divan::main();
}

const JSON: &[u8; 64] = br#"{"temp":31.5,"id":"device-7","unit":"C","seq":123456,"ok":true} "#;

fn message(payload: &[u8]) -> Incoming<'_> {
    Incoming {
        topic: "sensors/site-1/device-7/telemetry",
        payload,
        qos: 1,
        client: "device-7",
        at_ms: 1_700_000_000_000,
        ..Incoming::default()
    }
}

fn flows(key: Option<&str>, condition: Option<&str>) -> Flows {
    let mut route = RouteConfig::new("sensors/{site}/{device}/telemetry", "telemetry.{site}");
    route.key = key.map(str::to_owned);
    route.condition = condition.map(str::to_owned);
    let config = FlowConfig {
        route: vec![route],
        ..FlowConfig::default()
    };
    Flows::compile(&config).unwrap_or_default()
}

fn record(message: &Incoming<'_>) -> Option<Record> {
    let mut batch = BatchBuilder::new(0);
    batch.push(message.at_ms, &encode_record(message, Some(b"key")));
    records(batch.finish(), &Limits::default()).next()?.ok()
}

#[divan::bench(name = "copy/64")]
fn copy(bencher: Bencher<'_, '_>) {
    let message = message(JSON);
    bencher.bench(|| {
        let mut out = Vec::with_capacity(200);
        out.extend_from_slice(black_box(message.topic).as_bytes());
        out.extend_from_slice(black_box(message.payload));
        out
    });
}

#[divan::bench(name = "encode/64")]
fn encode(bencher: Bencher<'_, '_>) {
    let message = message(JSON);
    bencher.bench(|| encode_record(black_box(&message), Some(b"device-7")));
}

#[divan::bench(name = "encode/64-with-properties")]
fn encode_properties(bencher: Bencher<'_, '_>) {
    let properties = Properties {
        expiry_s: Some(60),
        content_type: Some("application/json"),
        user: vec![("trace", "abcdef"), ("mqtt-x", "y")],
        ..Properties::default()
    };
    let message = Incoming {
        properties,
        ..message(JSON)
    };
    bencher.bench(|| encode_record(black_box(&message), Some(b"device-7")));
}

#[divan::bench(name = "decode/64")]
fn decode(bencher: Bencher<'_, '_>) {
    let Some(record) = record(&message(JSON)) else {
        return;
    };
    bencher.bench(|| decode_record(black_box(&record)).is_ok());
}

#[divan::bench(name = "takes/default")]
fn takes(bencher: Bencher<'_, '_>) {
    let flows = Flows::compile(&FlowConfig::default()).unwrap_or_default();
    let message = message(JSON);
    bencher.bench(|| flows.takes(black_box(&message)));
}

#[divan::bench(name = "route/default")]
fn route(bencher: Bencher<'_, '_>) {
    let flows = Flows::compile(&FlowConfig::default()).unwrap_or_default();
    let message = message(JSON);
    bencher.bench(|| flows.route(black_box(&message)).len());
}

#[divan::bench(name = "route/captures")]
fn route_captures(bencher: Bencher<'_, '_>) {
    let flows = flows(Some("{device}"), None);
    let message = message(JSON);
    bencher.bench(|| flows.route(black_box(&message)).len());
}

#[divan::bench(name = "route/where-and-key-in-json")]
fn route_json(bencher: Bencher<'_, '_>) {
    let flows = flows(Some("{payload.id}"), Some("value.temp > 30 and value.ok"));
    let message = message(JSON);
    bencher.bench(|| flows.route(black_box(&message)).len());
}
