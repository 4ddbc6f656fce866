//! What the log is at one commit, and how a commit changes it.
//!
//! For: the one place where batches, table changes and admin steps are applied, by the committer
//! after a sync and by recovery from the write-ahead file.
//! Holds: applying the same entries to the same state gives the same bytes, so recovery can be
//! killed and repeated.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};
use uuid::Uuid;

use crate::context::Context;
use crate::entry::Step;
use crate::fs::Open;
use crate::partition::{self, Partition};
use crate::producers::Producers;
use crate::record::BatchHeader;
use crate::segment::{Segment, log_path};
use crate::tables::Tables;
use crate::topics::{Topic, TopicConfig, Topics};
use crate::unit::{PartitionId, TableId};
use crate::writer::{Dirty, Rolling, Writer};

pub(crate) struct State {
    pub(crate) context: Arc<Context>,
    pub(crate) topics: Topics,
    pub(crate) writers: HashMap<PartitionId, Writer, foldhash::fast::RandomState>,
    pub(crate) tables: Arc<Tables>,
    pub(crate) producers: Producers,
    pub(crate) next_partition: u32,
    pub(crate) next_producer_id: i64,
    pub(crate) dirty: Dirty,
    /// Files and then folders that may go once a snapshot no longer names them.
    pub(crate) doomed: Doomed,
    /// Folders that the checkpoint under way removes.
    pub(crate) removing: HashSet<PathBuf>,
}

#[derive(Default)]
pub(crate) struct Doomed {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) dirs: HashSet<PathBuf>,
}

impl Doomed {
    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty() && self.dirs.is_empty()
    }
}

impl State {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self {
            context,
            topics: Topics::default(),
            writers: HashMap::default(),
            tables: Arc::default(),
            producers: Producers::default(),
            // 0 is never a partition, so that a zeroed position is not one by chance.
            next_partition: 1,
            next_producer_id: 1,
            dirty: Dirty::default(),
            doomed: Doomed::default(),
            removing: HashSet::new(),
        }
    }

    pub(crate) fn rolling(&self, config: &TopicConfig) -> Rolling {
        let options = &self.context.options;
        let message_bytes_max = config
            .max_message_bytes()
            .unwrap_or(options.message_bytes_max);
        Rolling {
            segment_bytes: u64::from(config.segment_bytes().unwrap_or(options.segment_bytes)),
            segment_ms: config.segment_ms().unwrap_or(options.segment_ms),
            message_bytes_max: message_bytes_max as usize,
        }
    }

    /// Appends a batch that has its offsets. Not visible before [`advance`](Self::advance).
    pub(crate) fn append(
        &mut self,
        partition: PartitionId,
        batch: &[u8],
        header: &BatchHeader,
        now_ms: i64,
    ) -> io::Result<()> {
        let opens = |writer: &Writer| writer.opens_file(batch.len() as u64, header, now_ms);
        if self.writers.get(&partition).is_some_and(opens) {
            self.make_file_room()?;
        }
        match self.writers.get_mut(&partition) {
            Some(writer) => writer.append(&self.context, &mut self.dirty, batch, header, now_ms),
            // Its topic was deleted by an earlier step of the same commit.
            None => Ok(()),
        }
    }

    /// Shows readers what was appended.
    pub(crate) fn advance(&mut self, partition: PartitionId) {
        if let Some(writer) = self.writers.get_mut(&partition) {
            writer.partition.advance(writer.next_offset);
            writer.unstage();
        }
    }

    /// Before a file is opened: there may only be so many.
    fn make_file_room(&mut self) -> io::Result<()> {
        if self.dirty.files.len() < self.context.written_files_max() {
            return Ok(());
        }
        self.close_files()
    }

    /// Syncs and closes all segment files.
    pub(crate) fn close_files(&mut self) -> io::Result<()> {
        for writer in self.writers.values_mut() {
            writer.close_file();
        }
        for (_, file) in self.dirty.files.drain() {
            self.context.sync(&*file)?;
        }
        Ok(())
    }

    pub(crate) fn change(&self, table: TableId, key: Bytes, value: Option<Bytes>) {
        self.tables.set(table, key, value);
    }

    /// Whether old folders of that topic wait to be removed, or are being removed.
    pub(crate) fn has_doomed_folders(&self, topic: &str) -> bool {
        let is_its = |dir: &PathBuf| {
            let name = dir
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            name.rsplit_once('-').is_some_and(|(name, _)| name == topic)
        };
        self.doomed.dirs.iter().chain(&self.removing).any(is_its)
    }

    pub(crate) fn step(&mut self, step: &Step, now_ms: i64) -> io::Result<()> {
        match step {
            Step::CreateTopic {
                id,
                name,
                config,
                first,
                count,
            } => {
                let topic = Topic {
                    id: *id,
                    name: Arc::clone(name),
                    config: config.clone(),
                    partitions: Vec::new(),
                };
                self.add_partitions(topic, *first, *count, now_ms)?;
            }
            Step::AddPartitions { name, first, count } => {
                if let Some(topic) = self.topics.by_name(name) {
                    let topic = Topic::clone(topic);
                    self.add_partitions(topic, *first, *count, now_ms)?;
                }
            }
            Step::SetConfig { name, config } => {
                if let Some(topic) = self.topics.by_name(name) {
                    let topic = Topic {
                        config: config.clone(),
                        ..Topic::clone(topic)
                    };
                    let rolling = self.rolling(config);
                    for id in &topic.partitions {
                        if let Some(writer) = self.writers.get_mut(id) {
                            writer.rolling = rolling;
                        }
                    }
                    self.topics.insert_topic(Arc::new(topic));
                }
            }
            Step::DeleteTopic { name } => self.delete_topic(name),
            Step::Trim { partition, offset } => {
                self.make_file_room()?;
                if let Some(writer) = self.writers.get_mut(partition) {
                    let gone = writer.trim(&self.context, &mut self.dirty, *offset, now_ms)?;
                    gone.iter().for_each(|segment| self.doom(segment));
                }
            }
            Step::ProducerId { next } => {
                self.next_producer_id = self.next_producer_id.max(*next);
            }
        }
        Ok(())
    }

    fn add_partitions(
        &mut self,
        mut topic: Topic,
        first: u32,
        count: u32,
        now_ms: i64,
    ) -> io::Result<()> {
        let log_dir = self.context.log_dir();
        let have = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
        let mut fresh = Vec::new();
        for (id, index) in (first..first + count).zip(have..) {
            let dir = partition::dir(&log_dir, &topic.name, index);
            match self.context.fs.create_dir(&dir) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            let segment = Arc::new(Segment::new(&dir, 0, now_ms, 0));
            // Empty: all there is to sync of it is its name.
            drop(self.context.open(&log_path(&dir, 0), Open::Create)?);
            self.dirty.dirs.insert(dir);
            topic.partitions.push(PartitionId(id));
            fresh.push((PartitionId(id), index, segment));
        }
        self.dirty.dirs.insert(log_dir);
        self.next_partition = self.next_partition.max(first + count);
        let topic = Arc::new(topic);
        for (id, index, segment) in fresh {
            self.add_partition(&topic, id, index, (0, 0), vec![segment]);
        }
        self.topics.insert_topic(topic);
        Ok(())
    }

    pub(crate) fn add_partition(
        &mut self,
        topic: &Topic,
        id: PartitionId,
        index: u32,
        offsets: (u64, u64),
        segments: Vec<Arc<Segment>>,
    ) {
        let named: (Arc<str>, Uuid) = (Arc::clone(&topic.name), topic.id);
        let context = Arc::clone(&self.context);
        let partition = Arc::new(Partition::new(context, id, named, index, offsets, segments));
        self.topics.insert_partition(Arc::clone(&partition));
        if let Some(writer) = Writer::new(partition, self.rolling(&topic.config)) {
            self.writers.insert(id, writer);
        }
    }

    fn delete_topic(&mut self, name: &str) {
        for partition in self.topics.remove_topic(name) {
            partition.delete();
            self.writers.remove(&partition.id());
            self.producers.remove_partition(partition.id());
            partition
                .segments()
                .iter()
                .for_each(|segment| self.doom(segment));
            self.doomed.dirs.insert(partition.dir());
            self.dirty.dirs.remove(&partition.dir());
        }
    }

    /// The segment's files go after the next checkpoint; there is no sense in syncing them.
    fn doom(&mut self, segment: &Segment) {
        self.dirty.sealed.remove(segment.path());
        for path in segment.paths() {
            self.dirty.files.remove(&path);
            self.context.files.forget(&path);
            self.doomed.files.push(path);
        }
    }
}
