//! Records go while a Session that is away is owed them: by age, by size, by DeleteRecords, with their topic. It gets all of
//! them, QoS 2 once, and what was kept for it goes when it has them, or when the Session's time is over; and what another
//! Session is still owed of it does not hold back the rest.
//!
//! Holds: that records did go is seen from outside, in the log start offset; that space came back, in the files.

use std::time::Duration;

use anyhow::ensure;
use headwater_mqtt_codec::QoS;

use super::{Running, mebibytes, run_name, until};
use crate::fault::Bench;
use crate::kafka::{Connection, UNKNOWN_TOPIC_OR_PARTITION};
use crate::stream::{Stream, Taker};

/// Retention by age takes everything in it.
const AGED: &str = "aged";
/// Retention by size leaves its last segment.
const SIZED: &str = "sized";
/// DeleteRecords.
const CUT: &str = "cut";
/// DeleteTopics.
const GONE: &str = "gone";
/// No route takes it: nobody but the Session ever has it.
const NOWHERE: &str = "nowhere";

const SEGMENT: (&str, &str) = ("segment.bytes", "65536");
const PAD_BYTES: usize = 4 << 10;
/// Where the program keeps what only Sessions are owed, and to whom that is.
const KEPT: &str = "__headwater_kept";
const OWED: &str = "__headwater_owed";
/// Retention is looked at every few seconds, on a disk that others use too.
const RETENTION_WAIT: Duration = Duration::from_secs(60);
/// Space comes back within this time.
const SPACE_WAIT: Duration = Duration::from_secs(120);
/// What may stay behind in each of the internal topics: what is not worth a trim.
const REST_BYTES: u64 = 8 << 20;
/// From this size on, what little is still owed is moved forward, so that the rest may go.
const MOVE_BYTES: u64 = 64 << 20;
const BULK: u64 = 3_000;
const BULK_PAD_BYTES: usize = 16 << 10;
/// The Session that never comes back lasts this long: past the first look, so that it takes another to see it gone.
const EXPIRY_SECONDS: u32 = 15;

/// `each`: messages of each publisher; there are ten. The line of figures.
pub fn run(bench: &Bench, each: u64) -> anyhow::Result<String> {
    let (mut setup, _) = bench.setup("retention")?;
    setup.settings = vec![format!("route={}", routes())];
    let mut running = Running::start(setup)?;
    make_topics(&running)?;
    let run = run_name();
    let mut taker = Taker::new(&run, "returns");
    taker.subscribe_and_leave(running.setup.mqtt, "#", QoS::ExactlyOnce, None)?;

    let streams = streams("");
    running.publish(&run, &streams, 0..each / 2)?;
    running.kill_and_start()?;
    running.publish(&run, &streams, each / 2..each)?;
    let sized = pass_over(&mut running, each)?;
    let kept = running.partition_bytes(KEPT)?;
    // Four topics lost all their records, or never had them; each had two publishers.
    let least = each * 4 * 2 * PAD_BYTES as u64;
    ensure!(kept >= least, "{kept} bytes are kept, less than {least}");

    let total = each * streams.len() as u64;
    let mut connection = taker.connect(running.setup.mqtt)?;
    taker.take(&mut connection, total / 2)?;
    drop(connection);
    running.kill_and_start()?;
    let mut connection = taker.connect(running.setup.mqtt)?;
    taker.take(&mut connection, total)?;
    // What comes next is new, and nothing comes before it.
    running.publish(&run, &streams, each..each + 1)?;
    taker.take(&mut connection, total + streams.len() as u64)?;
    let returned = space_returns(&running)?;
    connection.leave()?;
    let repeated = taker.repeated;
    taker.end(running.setup.mqtt)?;

    let expired = expire(&mut running, &run, each)?;
    let compacted = hold_back(&mut running, &run)?;
    running.program.stop()?;
    Ok(format!(
        "{total} messages whose records went (by age, {sized} of {} by size, DeleteRecords, DeleteTopics, never routed), {} kills: \
         all delivered in order, 0 of QoS 2 doubled, {} of QoS 1 again; {:.1} MiB kept for the session came back {:.1} s after it \
         had them, {:.1} s after a session's expiry, and {:.1} s after one message held back what others had taken",
        each * 2,
        KILLS,
        repeated,
        mebibytes(kept),
        returned.as_secs_f64(),
        expired.as_secs_f64(),
        compacted.as_secs_f64(),
    ))
}

/// After each half of the messages, each kind of removal, in the middle of the delivery, before the expiry, after a move.
const KILLS: u32 = 7;

fn routes() -> String {
    let route = |topic: &str| format!("{{from=\"{topic}/#\",to=\"{topic}\"}}");
    let all: Vec<String> = [AGED, SIZED, CUT, GONE].map(route).into();
    format!("[{}]", all.join(","))
}

fn make_topics(running: &Running) -> anyhow::Result<()> {
    let mut kafka = Connection::open(running.setup.kafka)?;
    kafka.create_topic(AGED, &[SEGMENT, ("retention.ms", "1000")])?;
    kafka.create_topic(SIZED, &[SEGMENT, ("retention.bytes", "131072")])?;
    kafka.create_topic(CUT, &[SEGMENT])?;
    kafka.create_topic(GONE, &[SEGMENT])
}

/// Two publishers a topic, one at each QoS.
fn streams(suffix: &str) -> Vec<Stream> {
    let stream = |topic: &str, qos: QoS| Stream {
        producer: format!("{topic}-{}{suffix}", qos as u8),
        topic: format!("{topic}/{}{suffix}", qos as u8),
        qos,
        pad_bytes: PAD_BYTES,
    };
    [AGED, SIZED, CUT, GONE, NOWHERE]
        .iter()
        .flat_map(|topic| [QoS::AtLeastOnce, QoS::ExactlyOnce].map(|qos| stream(topic, qos)))
        .collect()
}

/// Lets the records of every topic go, with a kill after each kind; how many went by size.
fn pass_over(running: &mut Running, each: u64) -> anyhow::Result<u64> {
    let mut kafka = Connection::open(running.setup.kafka)?;
    until("everything past its age gone", RETENTION_WAIT, || {
        Ok(kafka.start_offset(AGED, 0)? == each * 2)
    })?;
    let sized = || Connection::open(running.setup.kafka)?.start_offset(SIZED, 0);
    until("the oldest gone by size", RETENTION_WAIT, || {
        Ok(sized()? > each)
    })?;
    let went = sized()?;
    running.kill_and_start()?;

    let mut kafka = Connection::open(running.setup.kafka)?;
    let (aged, sized) = (kafka.start_offset(AGED, 0)?, kafka.start_offset(SIZED, 0)?);
    ensure!(aged == each * 2, "after a kill {AGED} begins at {aged}");
    ensure!(sized >= went, "{SIZED} went back from {went} to {sized}");
    let end = kafka.end_offset(CUT, 0)?;
    ensure!(end == each * 2, "{end} records in {CUT}");
    let low = kafka.delete_records(CUT, end)?;
    ensure!(low == end, "DeleteRecords up to {end} gave {low}");
    running.kill_and_start()?;

    let mut kafka = Connection::open(running.setup.kafka)?;
    let start = kafka.start_offset(CUT, 0)?;
    ensure!(start == end, "after a kill {CUT} begins at {start}");
    let error = kafka.delete_topic(GONE)?;
    ensure!(error == 0, "DeleteTopics of {GONE}: error {error}");
    running.kill_and_start()?;

    let error = Connection::open(running.setup.kafka)?.delete_topic(GONE)?;
    ensure!(
        error == UNKNOWN_TOPIC_OR_PARTITION,
        "after a kill {GONE} is there again: error {error}"
    );
    Ok(sized)
}

/// Until the internal topics are small again.
fn space_returns(running: &Running) -> anyhow::Result<Duration> {
    until("as small as what is owed", SPACE_WAIT, || {
        let all = running.partition_bytes(KEPT)? + running.partition_bytes(OWED)?;
        Ok(all <= 2 * REST_BYTES)
    })
}

/// A Session that never comes back: what is kept for it goes when its time is over.
fn expire(running: &mut Running, run: &str, each: u64) -> anyhow::Result<Duration> {
    let address = running.setup.mqtt;
    let never = Taker::new(run, "never");
    let filter = format!("{NOWHERE}/#");
    never.subscribe_and_leave(address, &filter, QoS::AtLeastOnce, Some(EXPIRY_SECONDS))?;
    let streams: Vec<Stream> = streams("-late")
        .into_iter()
        .filter(|stream| stream.producer.starts_with(NOWHERE))
        .collect();
    running.publish(run, &streams, 0..each * 4)?;
    let kept = running.partition_bytes(KEPT)?;
    ensure!(kept > 3 * REST_BYTES, "only {kept} bytes are kept");
    running.kill_and_start()?;
    space_returns(running)
}

/// A single message, which an old Session is owed, lies before many that another Session has taken: it moves, they go.
fn hold_back(running: &mut Running, run: &str) -> anyhow::Result<Duration> {
    let address = running.setup.mqtt;
    let stream = |name: &str, qos, pad_bytes| Stream {
        producer: name.to_owned(),
        topic: format!("{NOWHERE}/{name}"),
        qos,
        pad_bytes,
    };
    let mut old = Taker::new(run, "old");
    let first = [stream("first", QoS::AtLeastOnce, 0)];
    old.subscribe_and_leave(address, &first[0].topic, QoS::AtLeastOnce, None)?;
    running.publish(run, &first, 0..1)?;
    let mut other = Taker::new(run, "other");
    let bulk = [
        stream("bulk/1", QoS::AtLeastOnce, BULK_PAD_BYTES),
        stream("bulk/2", QoS::ExactlyOnce, BULK_PAD_BYTES),
    ];
    let filter = format!("{NOWHERE}/bulk/#");
    other.subscribe_and_leave(address, &filter, QoS::ExactlyOnce, None)?;
    running.publish(run, &bulk, 0..BULK)?;
    let kept = running.partition_bytes(KEPT)?;
    ensure!(kept > MOVE_BYTES, "only {kept} bytes are kept");
    let mut connection = other.connect(address)?;
    other.take(&mut connection, BULK * 2)?;
    connection.leave()?;
    let took = until("moved out of the way", SPACE_WAIT, || {
        Ok(running.partition_bytes(KEPT)? < MOVE_BYTES)
    })?;
    running.kill_and_start()?;
    let mut connection = old.connect(address)?;
    old.take(&mut connection, 1)?;
    connection.leave()?;
    Ok(took)
}
