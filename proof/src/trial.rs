//! One life of a data directory: a program, a load on it, faults, and all that is read back.
//!
//! For: what every fault run does in the same way: start, hurt, start again, bring to rest, read, judge.
//! Not for: choosing the fault; `fault` does.
//! Calls: `program`, `load`, `tail`, `kafka`, `documents`, `judge`. Called by: `fault`.
//! Holds: a program that ends without having been hurt is a finding, not a fault.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::evidence::Evidence;
use crate::history::{Event, Op, Proto, Recorder};
use crate::judge::{Rules, Verdict, judge};
use crate::load::{Cast, Load, Phase, read_retained};
use crate::program::{Program, Setup};
use crate::tail::{PRODUCED_TOPIC, Tail};
use crate::{documents, kafka};

/// Where the default route puts every MQTT message.
pub const ROUTED_TO: &str = "mqtt";
/// How far back each pass over a partition begins before the end of the last: where a crash would change something.
const OVERLAP: u64 = 500;
/// Documents follow the log; after this they are late enough to be called missing.
const DOCUMENTS_WAIT: Duration = Duration::from_secs(20);

/// The program of a trial and who watches it.
#[derive(Debug)]
pub struct Watch {
    pub setup: Setup,
    pub program: Program,
    recorder: Arc<Recorder>,
    /// The fault that a wrapper will do to the program at a moment of its own, by name.
    armed: Option<String>,
    /// How the program ended when that fault fired.
    pub fired: Option<ExitStatus>,
}

impl Watch {
    /// Starts the program under a wrapper that will hurt it, perhaps before it is ready.
    fn arm(&mut self, wrapped: &Setup, fault: &str) -> anyhow::Result<()> {
        self.armed = Some(fault.to_owned());
        self.program = wrapped.spawn()?;
        self.program.wait_until_ready_or_ended()?;
        self.tend()
    }

    /// Starts the program again if the armed fault has fired. That it ended by itself is an error.
    fn tend(&mut self) -> anyhow::Result<()> {
        let Some(status) = self.program.ended()? else {
            return Ok(());
        };
        match self.armed.take() {
            Some(fault) => {
                self.fired = Some(status);
                self.record_fault(&fault)?;
                self.restart()
            }
            None => bail!(
                "the program ended by itself with {status}; {}",
                self.program.last_words()
            ),
        }
    }

    fn record_fault(&self, name: &str) -> anyhow::Result<()> {
        self.recorder.record(Event {
            client: "server".to_owned(),
            op: Op::Crash,
            proto: Proto::Harness,
            detail: name.to_owned(),
            ..Event::default()
        })
    }

    fn restart(&mut self) -> anyhow::Result<()> {
        self.program = self.setup.spawn()?;
        let took = self
            .program
            .wait_until_ready()
            .context("starting again over what the fault left")?;
        self.recorder.record(Event {
            client: "server".to_owned(),
            op: Op::Ready,
            proto: Proto::Harness,
            millis: u64::try_from(took.as_millis())?,
            ..Event::default()
        })
    }
}

#[derive(Debug)]
pub struct Trial {
    pub watch: Watch,
    pub recorder: Arc<Recorder>,
    load: Load,
    folder: PathBuf,
    run: String,
    cast: Cast,
    tail: Option<Tail>,
    evidence: Evidence,
}

impl Trial {
    /// Starts the program in an empty folder and the load on it.
    pub fn begin(setup: Setup, folder: &Path, cast: Cast) -> anyhow::Result<Self> {
        Self::begin_hurt(setup, None, folder, cast)
    }

    /// The same, with the first start under a wrapper that will hurt the program: (setup with it, the fault's name).
    pub fn begin_hurt(
        setup: Setup,
        hurt: Option<(&Setup, &str)>,
        folder: &Path,
        cast: Cast,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let recorder = Arc::new(Recorder::create(&folder.join("history.ndjson"))?);
        let run = format!("{:08x}", rand::random::<u32>());
        let first = hurt.map_or(&setup, |(wrapped, _)| wrapped);
        let mut program = first.spawn()?;
        if hurt.is_none() {
            program.wait_until_ready()?;
        } else {
            program.wait_until_ready_or_ended()?;
        }
        let armed = hurt.map(|(_, fault)| fault.to_owned());
        let mut watch = Watch {
            setup,
            program,
            recorder: Arc::clone(&recorder),
            armed,
            fired: None,
        };
        watch.tend()?;
        let load = Load::start(
            watch.setup.mqtt,
            &run,
            Arc::clone(&recorder),
            &cast,
            &mut || watch.tend(),
        )?;
        let kafka = watch.setup.kafka;
        let tail = watch
            .setup
            .has_log()
            .then(|| Tail::start(kafka, &run, Arc::clone(&recorder)));
        let evidence = Evidence::default();
        Ok(Self {
            watch,
            recorder,
            load,
            folder: folder.to_owned(),
            run,
            cast,
            tail,
            evidence,
        })
    }

    /// kill -9. Recorded first: what is acknowledged after the record was sent before the kill.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.watch.record_fault("kill -9")?;
        self.watch.program.kill()
    }

    /// Starts the program again over what the fault left.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.watch.restart()
    }

    /// Starts the program again under a wrapper that will hurt it.
    pub fn restart_hurt(&mut self, wrapped: &Setup, fault: &str) -> anyhow::Result<()> {
        self.watch.arm(wrapped, fault)
    }

    /// Starts the program again and kills it somewhere in its recovery.
    pub fn kill_while_recovering(&mut self, after: Duration) -> anyhow::Result<()> {
        let mut program = self.watch.setup.spawn()?;
        std::thread::sleep(after);
        self.watch.record_fault("kill -9 while recovering")?;
        program.kill()
    }

    /// Publishes until this many more messages are acknowledged.
    pub fn publish(&mut self, acks: u64) -> anyhow::Result<()> {
        self.load.set(Phase::Publish);
        self.load
            .wait_for_acks(acks, Duration::from_secs(30), &mut || self.watch.tend())
    }

    /// Looks after the program, as every wait of this trial does.
    pub fn tend(&mut self) -> anyhow::Result<()> {
        self.watch.tend()
    }

    /// SIGTERM under a wrapper: if its fault fires now, the program is started again, else it has ended in peace.
    pub fn terminate_armed(&mut self, fault: &str) -> anyhow::Result<()> {
        let status = self.watch.program.terminate()?;
        if !status.success() {
            self.watch.fired = Some(status);
            self.watch.armed = None;
            self.watch.record_fault(fault)?;
            self.watch.restart()?;
        }
        Ok(())
    }

    /// A reader of its own, while the load goes on.
    pub fn read_beside(
        &mut self,
        reader: &mut kafka::Connection,
        partition: u32,
    ) -> anyhow::Result<()> {
        let reading = reader.read(ROUTED_TO, partition, 0, &self.run, &self.recorder)?;
        self.evidence.readings.push(reading);
        Ok(())
    }

    /// Brings the load to rest and reads back what the program holds.
    pub fn rest_and_read(&mut self) -> anyhow::Result<()> {
        self.load
            .settle(&mut || self.watch.tend())
            .context("bringing the load to rest")?;
        read_retained(
            self.watch.setup.mqtt,
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
        let mut connection = kafka::Connection::open(self.watch.setup.kafka)?;
        for topic in [ROUTED_TO, PRODUCED_TOPIC] {
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
        while documents::count(&self.watch.setup)? < wanted && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.evidence.documents = Some(documents::read(&self.watch.setup, &self.run)?);
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
        let routed_to = self.watch.setup.has_log().then(|| ROUTED_TO.to_owned());
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

    /// Ends the clients and leaves the program to the caller.
    pub fn stop_clients(mut self) -> anyhow::Result<Watch> {
        if let Some(tail) = self.tail.take() {
            tail.stop()?;
        }
        self.load.stop()?;
        Ok(self.watch)
    }

    /// Ends the load, then the program, which must go in peace.
    pub fn end(self) -> anyhow::Result<()> {
        self.stop_clients()?.program.stop()
    }
}
