//! A segment's two indexes, in Kafka's own formats.
//!
//! For: finding the batch that holds an offset, or the first one not older than a time, without
//! reading the segment from its start.
//! Holds: `.index` is (relative offset i32 BE, position i32 BE) of a batch's last offset and the
//! byte it begins at; `.timeindex` is (largest timestamp so far i64 BE, relative offset i32 BE).
//! Both only ever grow; the newest segment's live in memory until it is closed.

use std::io;

use crate::fs::{File, read_full_at};

pub(crate) const OFFSET_ENTRY_LEN: usize = 8;
pub(crate) const TIME_ENTRY_LEN: usize = 12;

/// Log bytes between two entries: Kafka's `index.interval.bytes`.
pub(crate) const INTERVAL_BYTES: u32 = 4096;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct OffsetEntry {
    pub(crate) relative_offset: u32,
    pub(crate) position: u32,
}

impl OffsetEntry {
    pub(crate) fn to_bytes(self) -> [u8; OFFSET_ENTRY_LEN] {
        let both = u64::from(self.relative_offset) << 32 | u64::from(self.position);
        both.to_be_bytes()
    }

    pub(crate) fn from_bytes(bytes: [u8; OFFSET_ENTRY_LEN]) -> Self {
        let (offset, position) = bytes.split_at(4);
        Self {
            relative_offset: u32::from_be_bytes(offset.try_into().unwrap_or_default()),
            position: u32::from_be_bytes(position.try_into().unwrap_or_default()),
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct TimeEntry {
    pub(crate) timestamp_ms: i64,
    pub(crate) relative_offset: u32,
}

impl TimeEntry {
    pub(crate) fn to_bytes(self) -> [u8; TIME_ENTRY_LEN] {
        let mut bytes = [0; TIME_ENTRY_LEN];
        let (time, offset) = bytes.split_at_mut(8);
        time.copy_from_slice(&self.timestamp_ms.to_be_bytes());
        offset.copy_from_slice(&self.relative_offset.to_be_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: [u8; TIME_ENTRY_LEN]) -> Self {
        let (time, offset) = bytes.split_at(8);
        Self {
            timestamp_ms: i64::from_be_bytes(time.try_into().unwrap_or_default()),
            relative_offset: u32::from_be_bytes(offset.try_into().unwrap_or_default()),
        }
    }
}

/// The indexes of a segment that still grows.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Indexes {
    pub(crate) offsets: Vec<OffsetEntry>,
    pub(crate) times: Vec<TimeEntry>,
    bytes_since_entry: u32,
    max_time: Option<TimeEntry>,
}

impl Indexes {
    /// Takes note of a batch of `len` bytes that begins at `position`.
    pub(crate) fn add(&mut self, position: u32, len: u32, last_relative: u32, max_ms: i64) {
        if self.max_time.is_none_or(|max| max_ms > max.timestamp_ms) {
            self.max_time = Some(TimeEntry {
                timestamp_ms: max_ms,
                relative_offset: last_relative,
            });
        }
        if self.bytes_since_entry > INTERVAL_BYTES {
            self.offsets.push(OffsetEntry {
                relative_offset: last_relative,
                position,
            });
            self.add_time();
            self.bytes_since_entry = 0;
        }
        self.bytes_since_entry = self.bytes_since_entry.saturating_add(len);
    }

    /// Indexes as the files have them. [`resume`](Self::resume) and [`add`](Self::add) count in what
    /// came after the last entry.
    pub(crate) fn from_entries(offsets: Vec<OffsetEntry>, times: Vec<TimeEntry>) -> Self {
        let max_time = times.last().copied();
        Self {
            offsets,
            times,
            bytes_since_entry: 0,
            max_time,
        }
    }

    /// Counts the batch in that the last entry stands for.
    pub(crate) fn resume(&mut self, len: u32) {
        self.bytes_since_entry = len;
    }

    /// The last time entry, written when the segment is closed.
    pub(crate) fn add_time(&mut self) {
        let newer = |max: &TimeEntry| {
            self.times
                .last()
                .is_none_or(|last| max.timestamp_ms > last.timestamp_ms)
        };
        if let Some(max) = self.max_time.filter(newer) {
            self.times.push(max);
        }
    }

    /// Where to begin looking for `relative_offset`.
    pub(crate) fn position(&self, relative_offset: u32) -> u32 {
        let after = self
            .offsets
            .partition_point(|entry| entry.relative_offset <= relative_offset);
        let entry = after
            .checked_sub(1)
            .and_then(|index| self.offsets.get(index));
        entry.map_or(0, |entry| entry.position)
    }

    /// The relative offset up to which all records are older than `timestamp_ms`.
    pub(crate) fn older(&self, timestamp_ms: i64) -> u32 {
        let after = self
            .times
            .partition_point(|entry| entry.timestamp_ms < timestamp_ms);
        let entry = after.checked_sub(1).and_then(|index| self.times.get(index));
        entry.map_or(0, |entry| entry.relative_offset)
    }
}

/// As [`Indexes::position`], over a file of `entries` entries.
pub(crate) fn position_in(file: &dyn File, entries: u32, relative_offset: u32) -> io::Result<u32> {
    let found = search(entries, |index| {
        let entry = read(file, index).map(OffsetEntry::from_bytes)?;
        Ok((entry.relative_offset <= relative_offset).then_some(entry.position))
    })?;
    Ok(found.unwrap_or(0))
}

/// As [`Indexes::older`], over a file of `entries` entries.
pub(crate) fn older_in(file: &dyn File, entries: u32, timestamp_ms: i64) -> io::Result<u32> {
    let found = search(entries, |index| {
        let entry = read(file, index).map(TimeEntry::from_bytes)?;
        Ok((entry.timestamp_ms < timestamp_ms).then_some(entry.relative_offset))
    })?;
    Ok(found.unwrap_or(0))
}

/// The last entry for which `probe` gives something; those that do come first.
fn search<T>(
    entries: u32,
    mut probe: impl FnMut(u32) -> io::Result<Option<T>>,
) -> io::Result<Option<T>> {
    let (mut low, mut high, mut found) = (0, entries, None);
    while low < high {
        let middle = low + (high - low) / 2;
        match probe(middle)? {
            Some(value) => {
                found = Some(value);
                low = middle + 1;
            }
            None => high = middle,
        }
    }
    Ok(found)
}

fn read<const N: usize>(file: &dyn File, index: u32) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    if read_full_at(file, &mut bytes, u64::from(index) * N as u64)? < N {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_entries_have_kafkas_bytes() {
        let entry = OffsetEntry {
            relative_offset: 258,
            position: 4097,
        };
        assert_eq!(entry.to_bytes(), [0, 0, 1, 2, 0, 0, 0x10, 1]);
        assert_eq!(OffsetEntry::from_bytes(entry.to_bytes()), entry);
        let entry = TimeEntry {
            timestamp_ms: 1,
            relative_offset: 515,
        };
        assert_eq!(entry.to_bytes(), [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 2, 3]);
        assert_eq!(TimeEntry::from_bytes(entry.to_bytes()), entry);
    }

    #[test]
    fn an_entry_stands_at_most_one_interval_and_one_batch_before_any_offset() {
        let mut indexes = Indexes::default();
        for batch in 0..100u32 {
            indexes.add(batch * 1000, 1000, batch * 10 + 9, i64::from(batch % 7));
        }
        for offset in 0..1000 {
            let position = indexes.position(offset);
            let wanted = offset / 10 * 1000;
            assert!(
                position <= wanted && wanted - position <= 6000,
                "{offset}: {position}"
            );
        }
        assert!(
            indexes
                .times
                .is_sorted_by(|a, b| a.timestamp_ms < b.timestamp_ms)
        );
    }
}
