//! A log directory, damaged in any way, then opened.
//!
//! For: it is recovered or refused, never a panic; whatever is read is what was written at that
//! offset. Each five bytes of input are one damage: file, place, what.

#![no_main]

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use headwater_commitlog::fs::{Fs, Open, PowerCutFs};
use headwater_commitlog::record::RecordBody;
use headwater_commitlog::{
    Admin, Append, AppendData, Log, Options, PartitionId, TableChange, TableId, TopicConfig, Unit,
};
use libfuzzer_sys::fuzz_target;

const RECORDS: u64 = 60;

fn options() -> Options {
    let mut options = Options::new("/data");
    options.wal_bytes_max = Some(64 << 10);
    options.clock = Arc::new(|| 1_700_000_000_000);
    options
}

fn value(offset: u64) -> Vec<u8> {
    let mut value = offset.to_be_bytes().to_vec();
    value.resize(8 + (offset as usize * 37) % 900, offset as u8);
    value
}

/// A log that was killed: a snapshot, several segments, frames behind the last checkpoint.
fn prepared() -> &'static PowerCutFs {
    static PREPARED: OnceLock<PowerCutFs> = OnceLock::new();
    PREPARED.get_or_init(|| {
        let fs = PowerCutFs::default();
        let log = Log::open(Arc::new(fs.clone()), options()).expect("a new log");
        let config = TopicConfig::default().with("segment.bytes", "8192").expect("a setting");
        let create = Admin::CreateTopic { name: "t".into(), partitions: 1, config };
        log.commit(Unit { admin: vec![create], ..Unit::default() }).expect("a topic");
        for offset in 0..RECORDS {
            let body = RecordBody::new(None, Some(&value(offset)), []);
            let data = AppendData::Record { timestamp_ms: offset as i64, body };
            let append = Append { partition: PartitionId(1), data };
            let row = TableChange {
                table: TableId(16),
                key: vec![offset as u8 % 8].into(),
                value: Some(vec![offset as u8; 4].into()),
            };
            let unit = Unit {
                appends: [append].into_iter().collect(),
                tables: vec![row],
                ..Unit::default()
            };
            log.commit(unit).expect("a record");
        }
        fs.killed()
    })
}

fn damage(fs: &PowerCutFs, files: &[PathBuf], step: &[u8; 5]) {
    let [file, high, low, kind, byte] = *step;
    let path = &files[usize::from(file) % files.len()];
    let Ok(open) = fs.open(path, Open::Write) else { return };
    let len = open.len().unwrap_or(0);
    let at = u64::from(u16::from_be_bytes([high, low])) % len.max(1);
    let _ = match kind % 5 {
        0 | 1 => open.write_at(&[byte], at).map(drop),
        2 => open.write_at(&vec![byte; 512], at).map(drop),
        3 => open.set_len(at),
        _ => fs.remove_file(path),
    };
}

fuzz_target!(|data: &[u8]| {
    let fs = prepared().killed();
    let files: Vec<PathBuf> = fs.files().into_keys().collect();
    data.as_chunks::<5>().0.iter().take(8).for_each(|step| damage(&fs, &files, step));
    let Ok(log) = Log::open(Arc::new(fs), options()) else { return };
    let Some(partition) = log.partition(PartitionId(1)) else { return };
    let mut at = partition.log_start_offset();
    while at < partition.high_watermark() {
        let Ok(found) = partition.records(at, 4096) else { return };
        let before = at;
        for record in found {
            let record = record.expect("what is served is whole");
            assert_eq!(record.offset, at);
            assert_eq!(record.value.as_deref(), Some(&value(at)[..]), "offset {at}");
            at += 1;
        }
        assert!(at > before, "no end at offset {at}");
    }
    let _ = partition.offset_for_time(30);
});
