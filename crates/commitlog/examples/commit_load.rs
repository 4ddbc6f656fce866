//! Commits per second and CPU seconds per million records, for one kind of load at a time.
//!
//!     cargo run --release -p headwater-commitlog --example commit_load -- DIR 64 1000000 sync
//!     DIR, bytes a value, records, sync|os, [batch: records a producer's batch]

use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Instant;

use anyhow::Context;
use headwater_commitlog::fs::RealFs;
use headwater_commitlog::record::{BatchBuilder, RecordBody, ValidBatch, validate};
use headwater_commitlog::{
    Admin, Append, AppendData, Durability, Log, Options, PartitionId, TopicConfig, Unit,
};

const PARTITIONS: u32 = 4;
const UNITS_A_SUBMIT: u64 = 50;
const PENDING_BYTES_MAX: usize = 16 << 20;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |index: usize| arguments.get(index).map(String::as_str);
    let dir = argument(0).context("DIR is missing")?;
    let value_len: usize = argument(1).unwrap_or("64").parse()?;
    let records: u64 = argument(2).unwrap_or("1000000").parse()?;
    let mut options = Options::new(dir);
    if argument(3) == Some("os") {
        options.durability = Durability::Os;
    }
    let batch: Option<u64> = argument(4).map(str::parse).transpose()?;
    let log = Log::open(Arc::new(RealFs), options)?;
    let name = "load".to_owned();
    if log.topic(&name).is_none() {
        let config = TopicConfig::default();
        let admin = vec![Admin::CreateTopic {
            name: name.clone(),
            partitions: PARTITIONS,
            config,
        }];
        log.commit(Unit {
            admin,
            ..Unit::default()
        })?;
    }
    let partitions = log
        .topic(&name)
        .context("the topic is there")?
        .partitions
        .clone();
    let body = RecordBody::new(Some(b"device-0001"), Some(&vec![b'x'; value_len]), []);
    let produced = batch.map(|count| make_batch(&body, count)).transpose()?;
    let (wall, cpu) = (Instant::now(), cpu_seconds()?);
    let (sender, answers) = channel();
    let (mut sent, mut pending_bytes, mut answered) = (0, 0, 0);
    while sent < records || pending_bytes > 0 {
        if sent >= records || pending_bytes > PENDING_BYTES_MAX {
            let (bytes, good): (usize, usize) = answers.recv()?;
            pending_bytes -= bytes;
            answered += good as u64;
            continue;
        }
        let units: Vec<Unit> = (0..UNITS_A_SUBMIT)
            .map(|number| {
                let next = usize::try_from((sent + number) % u64::from(PARTITIONS)).unwrap_or(0);
                let partition = partitions.get(next).copied().unwrap_or(PartitionId(0));
                let data = match &produced {
                    Some(batch) => AppendData::Batch(batch.clone()),
                    None => AppendData::Record {
                        timestamp_ms: 1_700_000_000_000,
                        body: body.clone(),
                    },
                };
                Unit {
                    appends: [Append { partition, data }].into_iter().collect(),
                    ..Unit::default()
                }
            })
            .collect();
        let bytes = units.iter().map(Unit::size_bytes).sum();
        let sender = sender.clone();
        let done = move |results: Vec<Result<_, _>>| {
            let good = results.iter().filter(|result| result.is_ok()).count();
            // Received above until nothing is pending.
            sender.send((bytes, good)).unwrap_or_default();
        };
        sent += UNITS_A_SUBMIT * batch.unwrap_or(1);
        pending_bytes += bytes;
        log.submit(units, Box::new(done));
    }
    let (wall, cpu) = (wall.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
    let stats = log.stats();
    let acknowledged = answered * batch.unwrap_or(1);
    let million = acknowledged as f64 / 1e6;
    writeln!(
        std::io::stdout(),
        "{value_len} B, {acknowledged} records: {:.0} records/s, {:.0} commits/s, \
         {:.3} CPU s per million records, {:.2} ms a sync, {} checkpoints",
        acknowledged as f64 / wall,
        stats.commits as f64 / wall,
        cpu / million,
        stats.sync_micros as f64 / 1e3 / stats.syncs.max(1) as f64,
        stats.checkpoints,
    )?;
    log.close()?;
    Ok(())
}

fn make_batch(body: &RecordBody, count: u64) -> anyhow::Result<ValidBatch> {
    let mut builder = BatchBuilder::new(0);
    for _ in 0..count {
        builder.push(1_700_000_000_000, body);
    }
    Ok(validate(builder.finish(), &Default::default())?)
}

/// User and system time of this process so far.
fn cpu_seconds() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .context("a stat line")?
        .1
        .split_whitespace()
        .collect();
    let ticks = |index: usize| {
        fields
            .get(index)
            .and_then(|field| field.parse::<f64>().ok())
    };
    // Fields 14 and 15 of proc(5), in hundredths of a second.
    Ok((ticks(11).context("utime")? + ticks(12).context("stime")?) / 100.0)
}
