//! Many Sessions that are away are owed the same messages: what that costs in memory and in the log, and that it is all there
//! after a kill.
//!
//! Memory: the program's resident bytes, at rest after the last broadcast less at rest before the first, for each message
//! owed to a Session. Three times, because what the allocator had free before hides some of it: over all broadcasts, over the
//! second half of them, and between a start with the Sessions alone and a start with all they are owed. Log: the bytes that
//! its files and its write-ahead file grew by, messages included, for each Session and broadcast.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use headwater_mqtt_codec::QoS;

use super::{Running, at_rest, bytes_of, joined, mebibytes, run_name};
use crate::fault::Bench;
use crate::metrics::Metrics;
use crate::stream::{Stream, Taker};

/// The promises.
const MEMORY_BYTES_MAX: f64 = 16.0;
const LOG_BYTES_MAX: f64 = 4.0;
/// Sessions that connect, subscribe and leave at the same time.
const AT_ONCE: u64 = 200;
/// Sessions that come back after the kill.
const SAMPLE: u64 = 100;
/// Broadcasts that nobody is owed, so that what the first few cost once is not counted.
const WARM_UP: u64 = 20;

const TOPIC: &str = "broadcast/all";

/// What is asked of one run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub sessions: u64,
    pub broadcasts: u64,
}

pub fn run(bench: &Bench, plan: Plan) -> anyhow::Result<String> {
    let (setup, _) = bench.setup("broadcast")?;
    let mut running = Running::start(setup)?;
    let run = run_name();
    let empty = at_rest(&running.program)?;
    let begun = Instant::now();
    subscribe(&running, &run, plan.sessions)?;
    let subscribed = begun.elapsed();
    // What the connections left behind is not counted.
    running.stop_and_start()?;
    running.publish(&run, &[stream("warm-up", "nobody/all")], 0..WARM_UP)?;

    let mut log = LogMeter::begin(&running)?;
    let before = at_rest(&running.program)?;
    let half = plan.broadcasts / 2;
    let first_half = broadcast(&running, &run, 0..half, &mut log)?;
    let between = at_rest(&running.program)?;
    let published = first_half + broadcast(&running, &run, half..plan.broadcasts, &mut log)?;
    let log_bytes = log.grown(&running)?;
    let after = at_rest(&running.program)?;
    let ready = running.kill_and_start()?;
    let restarted = at_rest(&running.program)?;

    let owed = plan.sessions * plan.broadcasts;
    let log = a_piece(log_bytes, owed);
    let memory = [
        a_piece(after.saturating_sub(before), owed),
        a_piece(
            after.saturating_sub(between),
            plan.sessions * (plan.broadcasts - half),
        ),
        a_piece(restarted.saturating_sub(before), owed),
    ];
    let took = come_back(&running, &run, plan)?;
    running.program.stop()?;
    let [all, second_half, read_back] = memory;
    let line = format!(
        "{} sessions owed {} messages each: {all:.2} bytes of memory an owed message, {second_half:.2} in the second half, \
         {read_back:.2} after a restart (resident {:.1} MiB empty, {:.1} MiB with the sessions, {:.1} MiB owed, {:.1} MiB after a \
         restart), {log:.2} bytes of log a session and broadcast; subscribed in {:.1} s, broadcast in {:.1} s, ready {} ms after \
         kill -9, {} of them took theirs in {:.1} s",
        plan.sessions,
        plan.broadcasts,
        mebibytes(empty),
        mebibytes(before),
        mebibytes(after),
        mebibytes(restarted),
        subscribed.as_secs_f64(),
        published.as_secs_f64(),
        ready.as_millis(),
        SAMPLE.min(plan.sessions),
        took.as_secs_f64(),
    );
    ensure!(
        memory.iter().all(|bytes| *bytes <= MEMORY_BYTES_MAX),
        "more memory than promised: {line}"
    );
    ensure!(log <= LOG_BYTES_MAX, "more log than promised: {line}");
    Ok(line)
}

/// Publishes these, one after the other; how long that took.
fn broadcast(
    running: &Running,
    run: &str,
    numbers: Range<u64>,
    log: &mut LogMeter,
) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let sender = [stream("broadcaster", TOPIC)];
    for number in numbers {
        running.publish(run, &sender, number..number + 1)?;
        log.look(running)?;
    }
    Ok(begun.elapsed())
}

fn a_piece(bytes: u64, pieces: u64) -> f64 {
    bytes as f64 / pieces as f64
}

fn stream(producer: &str, topic: &str) -> Stream {
    Stream {
        producer: producer.to_owned(),
        topic: topic.to_owned(),
        qos: QoS::AtLeastOnce,
        pad_bytes: 32,
    }
}

fn client_id(number: u64) -> String {
    format!("session-{number}")
}

/// All Sessions connect, subscribe and leave.
fn subscribe(running: &Running, run: &str, sessions: u64) -> anyhow::Result<()> {
    let address = running.setup.mqtt;
    let some = |first: u64| {
        let numbers = (first..sessions).step_by(usize::try_from(AT_ONCE)?);
        for number in numbers {
            Taker::new(run, &client_id(number))
                .subscribe_and_leave(address, TOPIC, QoS::AtLeastOnce, None)
                .with_context(|| format!("session {number}"))?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE)
            .map(|first| scope.spawn(move || some(first)))
            .collect();
        threads.into_iter().try_for_each(joined)
    })?;
    let there = Metrics::read(&running.setup)?.value("headwater_sessions{state=\"persistent\"}")?;
    ensure!(there == sessions, "{there} sessions of {sessions}");
    Ok(())
}

/// Bytes that the log grows by. The write-ahead file begins anew at a checkpoint, so it is looked at after each step.
struct LogMeter {
    segments_before: u64,
    wal: u64,
    wal_grown: u64,
}

impl LogMeter {
    fn begin(running: &Running) -> anyhow::Result<Self> {
        Ok(Self {
            segments_before: segment_bytes(running)?,
            wal: wal_bytes(running)?,
            wal_grown: 0,
        })
    }

    fn look(&mut self, running: &Running) -> anyhow::Result<()> {
        let now = wal_bytes(running)?;
        self.wal_grown += now.checked_sub(self.wal).unwrap_or(now);
        self.wal = now;
        Ok(())
    }

    fn grown(self, running: &Running) -> anyhow::Result<u64> {
        Ok(self.wal_grown + segment_bytes(running)? - self.segments_before)
    }
}

fn wal_bytes(running: &Running) -> anyhow::Result<u64> {
    Metrics::read(&running.setup)?.value("headwater_log_wal_bytes")
}

fn segment_bytes(running: &Running) -> anyhow::Result<u64> {
    bytes_of(&running.setup.data_dir().join("log"), "log")
}

/// Some of the Sessions, spread over all, come back and take what they are owed; how long that took.
fn come_back(running: &Running, run: &str, plan: Plan) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let there = Metrics::read(&running.setup)?.value("headwater_sessions{state=\"persistent\"}")?;
    ensure!(
        there == plan.sessions,
        "{there} sessions of {} after a kill",
        plan.sessions
    );
    let sample = SAMPLE.min(plan.sessions);
    for index in 0..sample {
        let number = index * plan.sessions / sample;
        let mut taker = Taker::new(run, &client_id(number));
        let mut connection = taker.connect(running.setup.mqtt)?;
        taker
            .take(&mut connection, plan.broadcasts)
            .with_context(|| format!("session {number}"))?;
        connection.leave()?;
    }
    Ok(begun.elapsed())
}
