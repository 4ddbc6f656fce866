//! One life of a data directory: a program, a load on it, faults, and all that is read back.
//!
//! For: what every fault run does in the same way: start, hurt, start again, bring to rest, read, judge.
//! Not for: choosing the fault; `fault` does.
//! Calls: `program`, `load`, `tail`, `kafka`, `documents`, `judge`. Called by: `fault`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::evidence::Evidence;
use crate::history::{Event, Op, Proto, Recorder};
use crate::judge::{Rules, Verdict, judge};
use crate::load::{Cast, Load, Phase, read_retained};
use crate::program::{Program, Setup};
use crate::tail::Tail;
use crate::{documents, kafka};

/// Where the default route puts every MQTT message.
pub const ROUTED_TO: &str = "mqtt";
/// How far back each pass over a partition begins before the end of the last: where a crash would change something.
const OVERLAP: u64 = 500;
/// Documents follow the log; after this they are late enough to be called missing.
const DOCUMENTS_WAIT: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub struct Trial {
    pub setup: Setup,
    pub recorder: Arc<Recorder>,
    pub program: Program,
    pub load: Load,
    folder: PathBuf,
    run: String,
    cast: Cast,
    tail: Option<Tail>,
    evidence: Evidence,
}

impl Trial {
    /// Starts the program in an empty folder and the load on it.
    pub fn begin(setup: Setup, folder: &Path, cast: Cast) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let recorder = Arc::new(Recorder::create(&folder.join("history.ndjson"))?);
        let run = format!("{:08x}", rand::random::<u32>());
        let program = setup.start()?;
        let load = Load::start(setup.mqtt, &run, Arc::clone(&recorder), &cast)?;
        let tail = setup
            .has_log()
            .then(|| Tail::start(setup.kafka, &run, Arc::clone(&recorder)));
        let evidence = Evidence::default();
        Ok(Self {
            setup,
            recorder,
            program,
            load,
            folder: folder.to_owned(),
            run,
            cast,
            tail,
            evidence,
        })
    }

    /// Records that the fault fired. For a kill this comes first: what is acknowledged after it was sent before it.
    pub fn record_fault(&self, name: &str) -> anyhow::Result<()> {
        self.recorder.record(Event {
            client: "server".to_owned(),
            op: Op::Crash,
            proto: Proto::Harness,
            detail: name.to_owned(),
            ..Event::default()
        })
    }

    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.record_fault("kill -9")?;
        self.program.kill()
    }

    /// Starts the program again over what the fault left.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        let mut program = self.setup.spawn()?;
        let took = program.wait_until_ready()?;
        self.program = program;
        self.recorder.record(Event {
            client: "server".to_owned(),
            op: Op::Ready,
            proto: Proto::Harness,
            millis: u64::try_from(took.as_millis())?,
            ..Event::default()
        })
    }

    /// Starts the program again and kills it somewhere in its recovery.
    pub fn kill_while_recovering(&mut self, after: Duration) -> anyhow::Result<()> {
        let mut program = self.setup.spawn()?;
        std::thread::sleep(after);
        self.record_fault("kill -9 while recovering")?;
        program.kill()
    }

    /// Publishes until this many more messages are acknowledged.
    pub fn publish(&self, acks: u64) -> anyhow::Result<()> {
        self.load.set(Phase::Publish);
        self.load.wait_for_acks(acks, Duration::from_secs(30))
    }

    /// Brings the load to rest and reads back what the program holds.
    pub fn rest_and_read(&mut self) -> anyhow::Result<()> {
        self.load.settle().context("bringing the load to rest")?;
        read_retained(
            self.setup.mqtt,
            &self.run,
            &self.recorder,
            &self.cast.retained_topics(),
        )?;
        let Some(tail) = &self.tail else {
            return Ok(());
        };
        tail.rest()?;
        self.read_log().context("reading the log")?;
        self.read_documents().context("reading the documents")
    }

    fn read_log(&mut self) -> anyhow::Result<()> {
        let mut connection = kafka::Connection::open(self.setup.kafka)?;
        for topic in [ROUTED_TO, crate::tail::PRODUCED_TOPIC] {
            for partition in connection.partitions(topic)? {
                let start = connection.start_offset(topic, partition)?;
                let read_before = self.evidence.readings.iter().rev();
                let last = read_before
                    .filter(|one| one.topic == topic && one.partition == partition)
                    .find_map(|one| one.records.last());
                let from = last.map_or(start, |record| {
                    record.offset.saturating_sub(OVERLAP).max(start)
                });
                let reading = connection.read(topic, partition, from, &self.run, &self.recorder)?;
                self.evidence.readings.push(reading);
            }
        }
        Ok(())
    }

    fn read_documents(&mut self) -> anyhow::Result<()> {
        let mut ends = std::collections::BTreeMap::new();
        for reading in self
            .evidence
            .readings
            .iter()
            .filter(|one| one.topic == ROUTED_TO)
        {
            ends.insert(reading.partition, reading.high_watermark);
        }
        let wanted: u64 = ends.values().sum();
        let deadline = Instant::now() + DOCUMENTS_WAIT;
        while documents::count(&self.setup)? < wanted && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.evidence.documents = Some(documents::read(&self.setup, &self.run)?);
        Ok(())
    }

    /// Judges all of this life so far.
    pub fn verdict(
        &mut self,
        faults_min: u64,
        acks_near_faults_min: u64,
    ) -> anyhow::Result<Verdict> {
        self.evidence.events = self.recorder.events()?;
        let mut evidence = self.evidence.clone();
        if let Some(tail) = &self.tail {
            evidence.readings.extend(tail.readings()?);
            evidence.readings.sort_by_key(|reading| reading.t_mono);
        }
        let routed_to = self.setup.has_log().then(|| ROUTED_TO.to_owned());
        let verdict = judge(
            &evidence,
            &Rules {
                routed_to,
                faults_min,
                acks_near_faults_min,
            },
        );
        if !verdict.is_clean() {
            evidence.save_readings(&self.folder)?;
        }
        Ok(verdict)
    }

    /// Ends the load, then the program, which must go in peace.
    pub fn end(mut self) -> anyhow::Result<()> {
        if let Some(tail) = self.tail.take() {
            tail.stop()?;
        }
        self.load.stop()?;
        self.program.stop()
    }
}
