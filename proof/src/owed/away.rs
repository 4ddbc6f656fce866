//! Many messages to one Session that is away, with a kill and a stop in between; it comes back and takes them all.
//!
//! With the default flows: each message is also a record and a document.

use std::time::{Duration, Instant};

use anyhow::ensure;
use headwater_mqtt_codec::QoS;

use super::{Running, mebibytes, run_name};
use crate::fault::Bench;
use crate::stream::{Stream, Taker};

const PUBLISHERS: u64 = 4;

/// Publishes `messages` in all; the line of figures.
pub fn run(bench: &Bench, messages: u64) -> anyhow::Result<String> {
    let (setup, _) = bench.setup("away")?;
    let mut running = Running::start(setup)?;
    let address = running.setup.mqtt;
    let run = run_name();
    let streams: Vec<Stream> = (0..PUBLISHERS)
        .map(|number| Stream {
            producer: format!("away-p{number}"),
            topic: format!("away/{number}"),
            qos: QoS::AtLeastOnce,
            pad_bytes: 32,
        })
        .collect();
    let each = messages / PUBLISHERS;
    let mut taker = Taker::new(&run, "away");
    taker.subscribe_and_leave(address, "away/#", QoS::AtLeastOnce, None)?;

    let begun = Instant::now();
    running.publish(&run, &streams, 0..each / 2)?;
    let first_half = begun.elapsed();
    let killed = running.kill_and_start()?;
    let begun = Instant::now();
    running.publish(&run, &streams, each / 2..each)?;
    let published = first_half + begun.elapsed();
    let stopped = running.stop_and_start()?;
    let at_rest = running.program.resident_bytes()?;

    let begun = Instant::now();
    let total = each * PUBLISHERS;
    let mut connection = taker.connect(address)?;
    taker.take(&mut connection, total)?;
    let took = begun.elapsed();
    let after = running.program.resident_bytes()?;
    // What comes next is new, and nothing comes before it.
    running.publish(&run, &streams, each..each + 1)?;
    taker.take(&mut connection, total + PUBLISHERS)?;
    // It was connected to a program that nobody hurt.
    ensure!(taker.repeated == 0, "{} came again", taker.repeated);
    connection.leave()?;
    running.program.stop()?;
    Ok(format!(
        "{total} messages to a session that is away: published in {:.1} s, ready {} ms after kill -9 and {} ms after a stop, \
         delivered in order and complete in {:.1} s ({:.0} a second); resident {:.1} MiB before it came back, {:.1} MiB after",
        published.as_secs_f64(),
        killed.as_millis(),
        stopped.as_millis(),
        took.as_secs_f64(),
        rate(total, took),
        mebibytes(at_rest),
        mebibytes(after),
    ))
}

fn rate(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64().max(f64::EPSILON)
}
