//! The one thread that commits.
//!
//! For: taking what waits, writing it as one frame, syncing once, applying, answering everyone in
//! order. No timer: the sync in progress is the window in which the next group gathers.
//! Whoever reads is woken from here as well (`announce`, `Log::on_advance`).
//! Not for: what a unit means (`group`), or syncing segments (`checkpoint`, on its own thread).
//! Calls: `group`, `frame`, `wal`, `state` and by it `writer`. Called by: `log`, which queues in
//! `shared` and starts the thread.
//! Holds: frame n+1 is written only after n's sync returned; nobody is answered before that; after
//! a failed sync nothing is written and nothing is acknowledged any more.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::checkpoint::Checkpoint;
use crate::frame;
use crate::group::{Group, Terms};
use crate::options::Durability;
use crate::record::BatchHeader;
use crate::recovery::Recovered;
use crate::shared::{CheckpointState, Done, Shared, Submission, wait};
use crate::state::State;
use crate::trouble::Trouble;
use crate::unit::{Admin, CommitError, Lane, PartitionId, Receipt, Unit};
use crate::wal::{self, ChainEnd, WalFile};

/// A frame is not made longer than this by taking more units in.
const GROUP_BYTES_MAX: u64 = 8 << 20;
/// How often a full disk is looked at again.
const FULL_RECHECK: Duration = Duration::from_millis(200);
/// How long the committer waits before it tries again to finish what is committed.
const APPLY_RETRY: Duration = Duration::from_millis(50);
/// For so long a checkpoint that lacks descriptors is waited for; then what needs it is refused.
const STARVED_AFTER: Duration = Duration::from_secs(1);

struct Answer {
    results: Vec<Result<Receipt, CommitError>>,
    bytes: u64,
    /// Taken when all units have their result.
    done: Option<Done>,
    complete: bool,
}

pub(crate) struct Committer {
    shared: Arc<Shared>,
    state: State,
    wal: WalFile,
    end: ChainEnd,
    group: Group,
    answers: VecDeque<Answer>,
    /// Answers given so far: what the first of `answers` is numbered.
    answered: usize,
    /// Units of the group: the answer's number and the unit's place in it.
    members: Vec<(usize, usize)>,
    /// The lanes that have units in the group.
    lanes: Vec<Lane>,
    /// Everything written was synced. A new file begins behind a synced one.
    synced: bool,
    synced_at: Instant,
    full_checked_at: Instant,
    /// The frame that the disk had no room for, in bytes: there is space again when it fits.
    refused_len: usize,
    checkpoint_wanted: bool,
    checkpoint_waits: Warned,
}

/// Whether it was said that a checkpoint waits for descriptors: once is enough.
#[derive(Default)]
struct Warned(bool);

impl Warned {
    fn warn(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.0, true) {
            tracing::warn!(%error, "a checkpoint waits: raise the limit of open files");
        }
    }
}

impl Committer {
    pub(crate) fn new(shared: Arc<Shared>, recovered: Recovered) -> Self {
        let now = Instant::now();
        Self {
            shared,
            state: recovered.state,
            wal: recovered.wal,
            end: recovered.end,
            group: Group::default(),
            answers: VecDeque::new(),
            answered: 0,
            members: Vec::new(),
            lanes: Vec::new(),
            synced: true,
            synced_at: now,
            full_checked_at: now,
            refused_len: frame::HEADER_LEN,
            checkpoint_wanted: false,
            checkpoint_waits: Warned::default(),
        }
    }

    /// Until the log is closed. Answers everything that was submitted before.
    pub(crate) fn run(mut self) {
        while let Some(submissions) = self.next() {
            self.recheck_full();
            for submission in submissions {
                self.take(submission);
            }
            self.flush();
            self.sync_when_due();
            if self.wal.len() >= self.shared.context.wal_bytes_max / 2 || self.checkpoint_wanted {
                self.begin_checkpoint();
            }
        }
        self.close();
    }

    /// What waits; nothing when the log is closing and all is done.
    fn next(&mut self) -> Option<VecDeque<Submission>> {
        let shared = Arc::clone(&self.shared);
        let mut queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if matches!(queue.checkpoint, CheckpointState::Finished) {
                queue.checkpoint = CheckpointState::Idle;
                self.state.removing.clear();
                if self.checkpoint_wanted {
                    return Some(VecDeque::new());
                }
            }
            if !queue.submissions.is_empty() {
                return Some(std::mem::take(&mut queue.submissions));
            }
            if queue.closing {
                queue.ended = true;
                return None;
            }
            let timeout = self.timeout();
            queue = wait(&shared.for_committer, queue, timeout);
            if timeout.is_some() && queue.submissions.is_empty() && !queue.closing {
                return Some(VecDeque::new());
            }
        }
    }

    fn timeout(&self) -> Option<Duration> {
        if self.shared.failure.get().is_some() {
            return None;
        }
        if self.shared.is_full() {
            return Some(FULL_RECHECK);
        }
        match self.shared.context.options.durability {
            Durability::Interval { interval_ms } if !self.synced => {
                let interval = Duration::from_millis(interval_ms);
                Some(interval.saturating_sub(self.synced_at.elapsed()))
            }
            _ => None,
        }
    }

    fn terms(&self) -> Terms {
        Terms {
            sequence: self.end.sequence + 1,
            now_ms: self.shared.context.now_ms(),
            full: self.shared.is_full(),
            unit_bytes_max: self.shared.context.unit_bytes_max(),
        }
    }

    fn take(&mut self, submission: Submission) {
        let Submission { units, bytes, done } = submission;
        let results = Vec::with_capacity(units.len());
        self.answers.push_back(Answer {
            results,
            bytes,
            done: Some(done),
            complete: false,
        });
        let mut terms = self.terms();
        let group_bytes_max = GROUP_BYTES_MAX.min(self.shared.context.unit_bytes_max());
        for unit in units {
            let admin = !unit.admin.is_empty();
            // An admin step is decided on what is applied, so it gets a commit of its own.
            if (admin && !self.group.is_empty()) || self.group.bytes() > group_bytes_max {
                self.flush();
                terms = self.terms();
            }
            let result = self.plan(unit, terms);
            let number = self.answered + self.answers.len() - 1;
            if let Some(answer) = self.answers.back_mut() {
                // A duplicate is answered with its original: if that fails, so does this.
                let joins = matches!(result, Ok(_) | Err(CommitError::DuplicateSequence { .. }));
                if joins && !self.group.is_empty() {
                    self.members.push((number, answer.results.len()));
                }
                answer.results.push(result);
            }
            if admin {
                self.flush();
                terms = self.terms();
            }
        }
        if let Some(answer) = self.answers.back_mut() {
            answer.complete = true;
        }
    }

    fn plan(&mut self, unit: Unit, terms: Terms) -> Result<Receipt, CommitError> {
        if let Some(poisoned) = self.shared.poisoned() {
            return Err(poisoned);
        }
        if unit.admin.iter().any(|wish| self.needs_doomed_folder(wish)) {
            self.finish_deletion();
            if unit.admin.iter().any(|wish| self.needs_doomed_folder(wish)) {
                return Err(self.shared.no_checkpoint());
            }
        }
        let lane = unit.lane.clone();
        if lane.as_ref().is_some_and(|lane| lane.is_broken()) {
            return Err(CommitError::LaneBroken);
        }
        let result = self.group.add(&mut self.state, unit, terms);
        if let Some(lane) = lane {
            match result {
                Ok(_) => self.lanes.push(lane),
                Err(_) => lane.break_off(),
            }
        }
        result
    }

    fn needs_doomed_folder(&self, wish: &Admin) -> bool {
        match wish {
            Admin::CreateTopic { name, .. } | Admin::AddPartitions { name, .. } => {
                self.state.has_doomed_folders(name)
            }
            _ => false,
        }
    }

    /// A topic's folder may be made again only when the old one is gone and no snapshot needs it.
    /// On a full disk, or for want of descriptors, that may not be possible now.
    fn finish_deletion(&mut self) {
        self.wait_for_checkpoint(true);
        self.begin_checkpoint();
        self.wait_for_checkpoint(true);
    }

    /// Commits the group and answers whoever has all results.
    fn flush(&mut self) {
        if !self.group.is_empty() {
            self.group.seal_all(&mut self.state);
            #[cfg(any(test, faults))]
            if self
                .shared
                .context
                .has_fault(crate::options::Fault::AckBeforeSync)
            {
                self.answer();
            }
            match self.write() {
                Ok(()) => self.apply(),
                Err(error) => self.refuse(&error),
            }
            let touched = std::mem::take(&mut self.group.touched);
            for partition in &touched {
                if let Some(writer) = self.state.writers.get_mut(partition) {
                    writer.unstage();
                }
            }
            self.group.clear();
            self.members.clear();
            self.lanes.clear();
            self.answer();
            self.announce(&touched);
        } else {
            self.answer();
        }
    }

    /// Writes the frame and, as the mode wants it, syncs it.
    fn write(&mut self) -> Result<(), CommitError> {
        if let Some(poisoned) = self.shared.poisoned() {
            return Err(poisoned);
        }
        // This may begin a new file, and so a new epoch.
        self.make_room(self.group.frame.len())?;
        let link = wal::next_link(&self.wal, self.end, self.synced);
        let crc = frame::seal(&mut self.group.frame, link);
        let len = self.group.frame.len();
        let reserved = self.wal.reserve(len);
        if let Err(error) = reserved.and_then(|()| self.wal.write(&self.group.frame)) {
            self.refused_len = self.refused_len.max(len);
            return Err(self.write_failed(&error));
        }
        self.synced = false;
        if self.shared.context.options.durability == Durability::Sync {
            self.sync()?;
        }
        self.end = ChainEnd {
            sequence: self.end.sequence + 1,
            crc,
        };
        Ok(())
    }

    fn write_failed(&self, error: &io::Error) -> CommitError {
        if Trouble::of(error) == Trouble::Full {
            self.note_full();
            return CommitError::Full;
        }
        self.shared
            .fail("the write-ahead file cannot be written", error);
        self.shared.poisoned().unwrap_or(CommitError::Closed)
    }

    fn note_full(&self) {
        if !self.shared.full.swap(true, Ordering::AcqRel) {
            tracing::warn!("disk full: appends are refused until there is space");
        }
    }

    fn sync(&mut self) -> Result<(), CommitError> {
        let started = Instant::now();
        if let Err(error) = self.wal.sync(&self.shared.context) {
            self.shared
                .fail("the write-ahead file cannot be synced", &error);
            return Err(self.shared.poisoned().unwrap_or(CommitError::Closed));
        }
        let counters = &self.shared.counters;
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        counters.syncs.fetch_add(1, Ordering::Relaxed);
        counters.sync_micros.fetch_add(micros, Ordering::Relaxed);
        self.synced = true;
        self.synced_at = Instant::now();
        Ok(())
    }

    fn sync_when_due(&mut self) {
        if let Durability::Interval { interval_ms } = self.shared.context.options.durability
            && !self.synced
            && self.shared.failure.get().is_none()
            && self.synced_at.elapsed() >= Duration::from_millis(interval_ms)
        {
            // A failure is told by `fail`.
            drop(self.sync());
        }
    }

    /// Keeps the write-ahead files within their bound: a new one begins at half of it, and commits
    /// wait when the checkpoint of the other half is not done yet.
    fn make_room(&mut self, len: usize) -> Result<(), CommitError> {
        let half = self.shared.context.wal_bytes_max / 2;
        if self.wal.len() + len as u64 <= half {
            return Ok(());
        }
        self.wait_for_checkpoint(true);
        self.begin_checkpoint();
        if self.wal.len() + len as u64 <= half {
            return Ok(());
        }
        Err(self.shared.no_checkpoint())
    }

    /// The frame is on disk: makes it what readers see.
    fn apply(&mut self) {
        let now_ms = self.group_now_ms();
        let placed = std::mem::take(&mut self.group.placed);
        for placed in &placed {
            let frame = std::mem::take(&mut self.group.frame);
            if let Some(batch) = frame.get(placed.bytes.clone())
                && let Ok(header) = BatchHeader::parse(batch)
            {
                self.until_done(|state| state.append(placed.partition, batch, &header, now_ms));
            }
            self.group.frame = frame;
        }
        self.group.placed = placed;
        let producers_max = self.shared.context.options.producers_max;
        for ((partition, id), producer) in self.group.producers.drain() {
            self.state
                .producers
                .set(partition, id, producer, producers_max);
        }
        for change in self.group.changes.drain(..) {
            self.state.change(change.table, change.key, change.value);
        }
        for partition in &self.group.touched {
            self.state.advance(*partition);
        }
        let steps = std::mem::take(&mut self.group.steps);
        for step in &steps {
            self.until_done(|state| state.step(step, now_ms));
        }
        if !steps.is_empty() {
            self.shared.publish_topics(self.state.topics.clone());
            self.checkpoint_wanted |= !self.state.doomed.is_empty();
        }
        let counters = &self.shared.counters;
        counters.commits.fetch_add(1, Ordering::Relaxed);
        counters
            .records
            .fetch_add(self.group.records, Ordering::Relaxed);
        counters
            .bytes
            .fetch_add(self.group.frame.len() as u64, Ordering::Relaxed);
        counters.wal_bytes.store(self.wal.len(), Ordering::Relaxed);
    }

    fn group_now_ms(&self) -> i64 {
        let at = self.group.frame.get(frame::HEADER_LEN..);
        let now = at.and_then(|at| at.first_chunk::<8>());
        now.map_or(0, |now| i64::from_be_bytes(*now))
    }

    /// What is committed must be applied, however long that takes.
    fn until_done(&mut self, mut apply: impl FnMut(&mut State) -> io::Result<()>) {
        let mut again = false;
        while self.shared.failure.get().is_none() {
            let Err(error) = apply(&mut self.state) else {
                return;
            };
            if let Err(error) = self.help(error, again) {
                self.shared.fail("a segment cannot be written", &error);
            }
            again = true;
        }
    }

    /// A full disk gets the reserve, a want of descriptors those of the other segments; if that was not
    /// enough, both get time. But not past the end: the write-ahead file has it, and the next start
    /// applies it.
    fn help(&mut self, error: io::Error, again: bool) -> io::Result<()> {
        match Trouble::of(&error) {
            Trouble::Full => self.shared.give_up_reserve(),
            Trouble::Descriptors => self.state.close_files()?,
            Trouble::Broken => return Err(error),
        }
        if again {
            let shared = &self.shared;
            let queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
            if queue.closing {
                return Err(error);
            }
            drop(wait(&shared.for_committer, queue, Some(APPLY_RETRY)));
        }
        Ok(())
    }

    /// Nothing of the group happened.
    fn refuse(&mut self, error: &CommitError) {
        for lane in &self.lanes {
            lane.break_off();
        }
        for (number, place) in self.members.drain(..) {
            let answer = self.answers.get_mut(number.wrapping_sub(self.answered));
            if let Some(result) = answer.and_then(|answer| answer.results.get_mut(place)) {
                *result = Err(error.clone());
            }
        }
    }

    /// Answers those whose units all have their results, in order.
    fn answer(&mut self) {
        while self.answers.front().is_some_and(|answer| answer.complete) {
            let Some(mut answer) = self.answers.pop_front() else {
                break;
            };
            self.answered += 1;
            self.shared
                .counters
                .pending_bytes
                .fetch_sub(answer.bytes, Ordering::AcqRel);
            if let Some(done) = answer.done.take() {
                done(answer.results);
            }
        }
    }

    fn announce(&self, grown: &[PartitionId]) {
        if !grown.is_empty() {
            let hooks = self
                .shared
                .on_advance
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            hooks.iter().for_each(|hook| hook(grown));
        }
    }

    fn recheck_full(&mut self) {
        if !self.shared.is_full() || self.full_checked_at.elapsed() < FULL_RECHECK {
            return;
        }
        self.full_checked_at = Instant::now();
        if self.shared.take_reserve() && self.wal.reserve(self.refused_len).is_ok() {
            self.refused_len = frame::HEADER_LEN;
            self.shared.full.store(false, Ordering::Release);
            tracing::info!("there is space again: appends are taken");
        }
    }

    /// Switches to a new file and hands the cut over, unless a checkpoint is under way.
    fn begin_checkpoint(&mut self) {
        let shared = Arc::clone(&self.shared);
        {
            let queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
            let busy = !matches!(
                queue.checkpoint,
                CheckpointState::Idle | CheckpointState::Finished
            );
            if busy || shared.failure.get().is_some() {
                return;
            }
        }
        match self.switch() {
            Ok(checkpoint) => {
                self.checkpoint_wanted = false;
                self.checkpoint_waits = Warned::default();
                shared.set_starved(false);
                let mut queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
                queue.checkpoint = CheckpointState::Waiting(Box::new(checkpoint));
                shared.for_checkpoint.notify_one();
            }
            Err(error) => match Trouble::of(&error) {
                Trouble::Full => self.note_full(),
                // Nothing was written: it begins with a later commit.
                Trouble::Descriptors => {
                    self.checkpoint_waits.warn(&error);
                    shared.set_starved(true);
                }
                Trouble::Broken => shared.fail("a checkpoint cannot begin", &error),
            },
        }
    }

    fn switch(&mut self) -> io::Result<Checkpoint> {
        let context = Arc::clone(&self.shared.context);
        if !self.synced {
            // A later file proves that this one is whole.
            self.wal.sync(&context)?;
            self.synced = true;
        }
        let next = WalFile::create(&context, self.wal.number + 1, context.wal_bytes_max / 2)?;
        let checkpoint = Checkpoint::take(&mut self.state, next.number, self.end);
        self.wal = next;
        Ok(checkpoint)
    }

    /// Until no checkpoint is under way; if `unless_stuck`, not on a full disk nor for want of
    /// descriptors.
    fn wait_for_checkpoint(&mut self, unless_stuck: bool) {
        let shared = Arc::clone(&self.shared);
        let mut queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let stuck = || shared.is_full() || shared.is_starved();
        while shared.failure.get().is_none() && !(unless_stuck && stuck()) {
            match queue.checkpoint {
                CheckpointState::Waiting(_) | CheckpointState::Running => {
                    queue = wait(&shared.for_committer, queue, Some(FULL_RECHECK));
                }
                CheckpointState::Finished => {
                    queue.checkpoint = CheckpointState::Idle;
                    self.state.removing.clear();
                }
                CheckpointState::Idle | CheckpointState::End => return,
            }
        }
    }

    /// Each record in its segment, and next to nothing in the write-ahead file.
    fn close(mut self) {
        self.wait_for_checkpoint(false);
        self.begin_checkpoint();
        self.wait_for_checkpoint(false);
        let mut queue = self
            .shared
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        queue.checkpoint = CheckpointState::End;
        self.shared.for_checkpoint.notify_one();
    }
}

/// The checkpoint thread.
pub(crate) fn run_checkpoints(shared: &Shared) {
    loop {
        let mut queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let mut checkpoint = loop {
            match std::mem::replace(&mut queue.checkpoint, CheckpointState::Running) {
                CheckpointState::Waiting(checkpoint) => break checkpoint,
                CheckpointState::End => {
                    queue.checkpoint = CheckpointState::End;
                    return;
                }
                other => queue.checkpoint = other,
            }
            queue = wait(&shared.for_checkpoint, queue, None);
        };
        drop(queue);
        let finished = finish(shared, &mut checkpoint);
        let mut queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if !finished || matches!(queue.checkpoint, CheckpointState::End) {
            // A later one would not have what this one was to sync.
            queue.checkpoint = CheckpointState::End;
            shared.for_committer.notify_one();
            return;
        }
        queue.checkpoint = CheckpointState::Finished;
        shared.for_committer.notify_one();
    }
}

/// Carries a checkpoint out, however long it lacks space or descriptors. False when the log failed, or
/// is to end before: the write-ahead files have it all.
fn finish(shared: &Shared, checkpoint: &mut Checkpoint) -> bool {
    let mut waits = Warned::default();
    let mut starves_since = None;
    loop {
        let error = match checkpoint.run(&shared.context) {
            Ok(()) => {
                shared.set_starved(false);
                shared.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
                return true;
            }
            Err(error) => error,
        };
        match Trouble::of(&error) {
            Trouble::Full => shared.give_up_reserve(),
            Trouble::Descriptors => {
                waits.warn(&error);
                let since = starves_since.get_or_insert_with(Instant::now);
                shared.set_starved(since.elapsed() >= STARVED_AFTER);
            }
            Trouble::Broken => {
                shared.fail("a checkpoint failed", &error);
                return false;
            }
        }
        let queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.closing || shared.failure.get().is_some() {
            return false;
        }
        drop(wait(&shared.for_checkpoint, queue, Some(APPLY_RETRY)));
    }
}
