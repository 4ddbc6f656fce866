//! What the tests share: a log in a temporary folder, and short ways to say things.

use std::path::Path;
use std::sync::Arc;

use headwater_commitlog::fs::RealFs;
use headwater_commitlog::record::{RecordBody, ValidBatch, validate};
use headwater_commitlog::{
    Admin, Append, AppendData, CommitError, Log, Options, PartitionId, Receipt, TableChange,
    TableId, TopicConfig, Unit,
};

pub(crate) const NOW_MS: i64 = 1_700_000_000_000;

pub(crate) fn options(dir: &Path) -> Options {
    let mut options = Options::new(dir.join("data"));
    options.wal_bytes_max = Some(4 << 20);
    options.clock = Arc::new(|| NOW_MS);
    options
}

pub(crate) fn open(dir: &Path) -> Log {
    Log::open(Arc::new(RealFs), options(dir)).unwrap()
}

pub(crate) fn admin(log: &Log, admin: Admin) -> Result<Receipt, CommitError> {
    log.commit(Unit {
        admin: vec![admin],
        ..Unit::default()
    })
}

pub(crate) fn create(log: &Log, name: &str, partitions: u32) -> Vec<PartitionId> {
    create_with(log, name, partitions, &[])
}

pub(crate) fn create_with(
    log: &Log,
    name: &str,
    partitions: u32,
    settings: &[(&str, &str)],
) -> Vec<PartitionId> {
    let mut config = TopicConfig::default();
    settings
        .iter()
        .for_each(|(key, value)| config.set(key, value).unwrap());
    admin(
        log,
        Admin::CreateTopic {
            name: name.into(),
            partitions,
            config,
        },
    )
    .unwrap();
    log.topic(name).unwrap().partitions.clone()
}

pub(crate) fn body(value: &[u8]) -> RecordBody {
    RecordBody::new(None, Some(value), [])
}

pub(crate) fn record(partition: PartitionId, value: &[u8]) -> Append {
    record_at(partition, value, NOW_MS)
}

pub(crate) fn record_at(partition: PartitionId, value: &[u8], timestamp_ms: i64) -> Append {
    Append {
        partition,
        data: AppendData::Record {
            timestamp_ms,
            body: body(value),
        },
    }
}

pub(crate) fn unit(appends: impl IntoIterator<Item = Append>) -> Unit {
    Unit {
        appends: appends.into_iter().collect(),
        ..Unit::default()
    }
}

pub(crate) fn put(table: u8, key: &'static str, value: &'static str) -> TableChange {
    TableChange {
        table: TableId(table),
        key: key.into(),
        value: Some(value.into()),
    }
}

/// Values of all records from `offset` on.
pub(crate) fn values(log: &Log, partition: PartitionId, offset: u64) -> Vec<Vec<u8>> {
    let partition = log.partition(partition).unwrap();
    let (mut at, mut values) = (offset, Vec::new());
    while at < partition.high_watermark() {
        for record in partition.records(at, 1000).unwrap() {
            let record = record.unwrap();
            assert_eq!(record.offset, at, "offsets are dense");
            at += 1;
            values.push(record.value.unwrap().to_vec());
        }
    }
    values
}

/// A batch as a producer sends it, written by hand from Kafka's description of the format.
pub(crate) fn batch(producer: (i64, i16, i32), values: &[&[u8]]) -> ValidBatch {
    let mut records = Vec::new();
    for (delta, value) in values.iter().enumerate() {
        assert!(delta < 64 && value.len() < 50, "one-byte varints");
        let mut record = vec![0, 0, delta as u8 * 2, 1, value.len() as u8 * 2];
        record.extend_from_slice(value);
        record.push(0);
        records.push(record.len() as u8 * 2);
        records.extend(record);
    }
    let mut covered = 0i16.to_be_bytes().to_vec();
    covered.extend((values.len() as i32 - 1).to_be_bytes());
    covered.extend(NOW_MS.to_be_bytes());
    covered.extend(NOW_MS.to_be_bytes());
    covered.extend(producer.0.to_be_bytes());
    covered.extend(producer.1.to_be_bytes());
    covered.extend(producer.2.to_be_bytes());
    covered.extend((values.len() as i32).to_be_bytes());
    covered.extend(records);
    let mut batch = 0i64.to_be_bytes().to_vec();
    batch.extend((covered.len() as i32 + 9).to_be_bytes());
    batch.extend((-1i32).to_be_bytes());
    batch.push(2);
    batch.extend(crc32c::crc32c(&covered).to_be_bytes());
    batch.extend(covered);
    validate(batch.into(), &Default::default()).unwrap()
}

pub(crate) fn produce(
    log: &Log,
    partition: PartitionId,
    producer: (i64, i16, i32),
    values: &[&[u8]],
) -> Result<u64, CommitError> {
    let data = AppendData::Batch(batch(producer, values));
    let receipt = log.commit(unit([Append { partition, data }]))?;
    Ok(receipt.positions[0].offset)
}

/// A copy of the directory of a running log is what kill -9 leaves.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
