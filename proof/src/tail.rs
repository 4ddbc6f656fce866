//! Kafka clients that run beside the load: one produces, one reads what is new and commits where it stands.
//!
//! Holds: what this reader saw before a crash must be there after it, byte for byte: nobody is shown what a crash
//! could take back.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::bail;

use crate::evidence::LogReading;
use crate::history::{Event, Op, Proto, Recorder};
use crate::kafka::Connection;
use crate::payload::Payload;
use crate::trial::ROUTED_TO;

/// The topic that the Kafka producer of a trial writes to.
pub const PRODUCED_TOPIC: &str = "proof-kafka";
const PRODUCER: &str = "k1";
const GROUP: &str = "proof-group";
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    run: String,
    recorder: Arc<Recorder>,
    readings: Mutex<Vec<LogReading>>,
    resting: AtomicBool,
    /// Threads that have seen `resting` and do nothing.
    at_rest: AtomicU8,
    stop: AtomicBool,
}

#[derive(Debug)]
pub struct Tail {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<anyhow::Result<()>>>,
}

impl Tail {
    pub fn start(address: SocketAddr, run: &str, recorder: Arc<Recorder>) -> Self {
        let shared = Arc::new(Shared {
            address,
            run: run.to_owned(),
            recorder,
            readings: Mutex::new(Vec::new()),
            resting: AtomicBool::new(false),
            at_rest: AtomicU8::new(0),
            stop: AtomicBool::new(false),
        });
        let bodies: [fn(&Shared) -> anyhow::Result<()>; 2] = [read, produce];
        let threads = bodies
            .into_iter()
            .map(|body| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || body(&shared))
            })
            .collect();
        Self { shared, threads }
    }

    /// Waits until neither client has anything under way; [`Self::readings`] wakes them again.
    pub fn rest(&self) -> anyhow::Result<()> {
        self.shared.resting.store(true, Ordering::Release);
        let deadline = Instant::now() + Duration::from_secs(30);
        while usize::from(self.shared.at_rest.load(Ordering::Acquire)) < self.threads.len() {
            if Instant::now() > deadline || self.threads.iter().any(JoinHandle::is_finished) {
                bail!("a Kafka client of the trial does not come to rest");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// What the reader saw so far.
    pub fn readings(&self) -> anyhow::Result<Vec<LogReading>> {
        self.shared.resting.store(false, Ordering::Release);
        let readings = self.shared.readings.lock();
        Ok(readings
            .map_err(|_| anyhow::anyhow!("the tail's reader died"))?
            .clone())
    }

    pub fn stop(mut self) -> anyhow::Result<()> {
        self.shared.end();
        for thread in std::mem::take(&mut self.threads) {
            match thread.join() {
                Ok(ended) => ended?,
                Err(_) => bail!("a Kafka client of the trial panicked"),
            }
        }
        Ok(())
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.shared.end();
        for thread in std::mem::take(&mut self.threads) {
            drop(thread.join());
        }
    }
}

impl Shared {
    fn end(&self) {
        self.stop.store(true, Ordering::Release);
        self.resting.store(false, Ordering::Release);
    }

    /// False: stop. Stays here while the trial rests.
    fn goes_on(&self) -> bool {
        if self.resting.load(Ordering::Acquire) {
            self.at_rest.fetch_add(1, Ordering::AcqRel);
            while self.resting.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(2));
            }
            self.at_rest.fetch_sub(1, Ordering::AcqRel);
        }
        std::thread::sleep(PAUSE);
        !self.stop.load(Ordering::Acquire)
    }
}

/// Reads what is new, commits, and after each reconnect asks where the group stands. Errors end a connection only.
fn read(shared: &Shared) -> anyhow::Result<()> {
    let mut next: HashMap<u32, u64> = HashMap::new();
    let mut connection: Option<Connection> = None;
    while shared.goes_on() {
        let result = match connection.as_mut() {
            Some(connection) => read_new(shared, connection, &mut next)?,
            None => Connection::open(shared.address).and_then(|mut opened| {
                ask(shared, &mut opened, &next)?;
                connection = Some(opened);
                Ok(())
            }),
        };
        if result.is_err() {
            connection = None;
        }
    }
    Ok(())
}

/// The outer error makes the run worthless, the inner one ends the connection.
fn read_new(
    shared: &Shared,
    connection: &mut Connection,
    next: &mut HashMap<u32, u64>,
) -> anyhow::Result<anyhow::Result<()>> {
    let partitions = match connection.partitions(ROUTED_TO) {
        Ok(partitions) => partitions,
        Err(error) => return Ok(Err(error)),
    };
    for partition in partitions {
        let from = next.get(&partition).copied().unwrap_or(0);
        let reading =
            match connection.read(ROUTED_TO, partition, from, &shared.run, &shared.recorder) {
                Ok(reading) => reading,
                Err(error) => return Ok(Err(error)),
            };
        let Some(last) = reading.records.last() else {
            continue;
        };
        let position = last.offset + 1;
        next.insert(partition, position);
        let mut readings = shared
            .readings
            .lock()
            .map_err(|_| anyhow::anyhow!("a reader died"))?;
        readings.push(reading);
        drop(readings);
        if let Err(error) = connection.commit(GROUP, ROUTED_TO, partition, position) {
            return Ok(Err(error));
        }
        shared
            .recorder
            .record(group_event(Op::Commit, partition, position))?;
    }
    Ok(Ok(()))
}

fn ask(
    shared: &Shared,
    connection: &mut Connection,
    next: &HashMap<u32, u64>,
) -> anyhow::Result<()> {
    for partition in next.keys() {
        let position = connection
            .committed(GROUP, ROUTED_TO, *partition)?
            .unwrap_or(0);
        shared
            .recorder
            .record(group_event(Op::Committed, *partition, position))?;
    }
    Ok(())
}

fn group_event(op: Op, partition: u32, offset: u64) -> Event {
    Event {
        client: GROUP.to_owned(),
        op,
        proto: Proto::Kafka,
        topic: ROUTED_TO.to_owned(),
        partition,
        offset,
        ..Event::default()
    }
}

/// One record after another with acks=all; what got no answer is not sent again, its fate stays open.
fn produce(shared: &Shared) -> anyhow::Result<()> {
    let mut connection: Option<Connection> = None;
    let mut seq = 0;
    while shared.goes_on() {
        let Some(open) = connection.as_mut() else {
            connection = Connection::open(shared.address)
                .and_then(|mut opened| opened.partitions(PRODUCED_TOPIC).map(|_| opened))
                .ok();
            continue;
        };
        seq += 1;
        let payload = Payload::new(&shared.run, PRODUCER, seq, 64).to_bytes();
        let event = Event {
            client: PRODUCER.to_owned(),
            op: Op::Send,
            proto: Proto::Kafka,
            topic: PRODUCED_TOPIC.to_owned(),
            key: PRODUCER.to_owned(),
            seq,
            ..Event::default()
        };
        shared.recorder.record(event.clone())?;
        match open.produce(PRODUCED_TOPIC, 0, PRODUCER.as_bytes(), &payload) {
            Ok(Ok(offset)) => shared.recorder.record(Event {
                op: Op::Ack,
                offset,
                ..event
            })?,
            Ok(Err(code)) => {
                let detail = format!("error {code}");
                shared.recorder.record(Event {
                    op: Op::Fail,
                    detail,
                    ..event
                })?;
            }
            Err(_) => connection = None,
        }
    }
    Ok(())
}
