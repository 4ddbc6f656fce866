//! Drives the group coordinators: clock, disk and waiting requests.
//!
//! For: handing requests to the coordinator of their group's shard and waiting for its answers;
//! one task does what is due by time and passes on what the disk has answered.
//! Not for: any decision about a group (`group`).
//! Holds: rows of one shard are submitted in the order its coordinator handed them out.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hashbrown::HashMap;
use headwater_commitlog::{Log, PartitionId, TableChange, TableId, Unit};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use crate::connection::stopped;
use crate::error_code::ErrorCode;
use crate::group::row::RowError;
use crate::group::{
    Answer, Caller, Committed, Coordinator, Description, Effect, Join, Joined, Now, Sync, Synced,
    Ticket, WriteId,
};
use crate::options::GroupLimits;
use crate::view::{GroupView, MemberView, OffsetView};
use crate::wire::Text;

/// Groups are spread over so many locks; none is held across a wait.
const SHARDS: u8 = 16;

pub(crate) struct Groups {
    log: Log,
    shards: Vec<Mutex<Shard>>,
    hasher: foldhash::fast::FixedState,
    started: Instant,
    next_ticket: AtomicU64,
    /// When the driver wakes by itself; a request with an earlier deadline wakes it.
    next_wake_ms: AtomicU64,
    wake: Notify,
    /// Outcomes from the committer thread, at most one a submitted write.
    settled: Arc<Settled>,
}

struct Shard {
    coordinator: Coordinator,
    waiting: HashMap<Ticket, oneshot::Sender<Answer>, foldhash::fast::RandomState>,
}

#[derive(Default)]
struct Settled {
    outcomes: Mutex<Vec<(usize, WriteId, bool)>>,
    arrived: Notify,
}

impl Groups {
    /// Reads the groups back from the log's table.
    pub(crate) fn restore(log: Log, limits: &GroupLimits) -> Result<Self, RowError> {
        let started = Instant::now();
        let now = Now {
            mono_ms: 0,
            wall_ms: wall_ms(),
        };
        let mut share = limits.clone();
        share.groups_max = limits.groups_max.div_ceil(usize::from(SHARDS));
        let mut groups = Self {
            log: log.clone(),
            shards: (0..SHARDS)
                .map(|shard| {
                    let coordinator = Coordinator::new(shard, share.clone(), now);
                    Mutex::new(Shard {
                        coordinator,
                        waiting: HashMap::default(),
                    })
                })
                .collect(),
            hasher: foldhash::fast::FixedState::default(),
            started,
            next_ticket: AtomicU64::new(0),
            next_wake_ms: AtomicU64::new(0),
            wake: Notify::new(),
            settled: Arc::default(),
        };
        let mut outcome = Ok(());
        log.scan_table(TableId::GROUPS, &mut |key, value| {
            if outcome.is_ok() {
                outcome = groups.restore_row(now, key, value);
            }
        });
        outcome.map(|()| groups)
    }

    fn restore_row(
        &mut self,
        now: Now,
        key: &bytes::Bytes,
        value: &bytes::Bytes,
    ) -> Result<(), RowError> {
        let only = Coordinator::group_of_row(key, value)?.map(|group_id| self.index(&group_id));
        for (index, shard) in self.shards.iter_mut().enumerate() {
            if only.is_none_or(|only| only == index) {
                let shard = shard.get_mut().unwrap_or_else(PoisonError::into_inner);
                shard.coordinator.restore(now, key, value)?;
            }
        }
        Ok(())
    }

    // --- requests ---

    pub(crate) async fn join(&self, join: Join) -> Joined {
        let member_id = join.member_id.clone();
        let group_id = join.group_id.clone();
        let answer = self.ask(&group_id, |coordinator, now, ticket, effects| {
            coordinator.join(now, ticket, join, effects);
        });
        match answer.await {
            Some(Answer::Joined(joined)) => joined,
            Some(Answer::Synced(_) | Answer::Done(_)) | None => Joined {
                error: ErrorCode::CoordinatorNotAvailable,
                generation: -1,
                member_id,
                ..Joined::default()
            },
        }
    }

    pub(crate) async fn sync(&self, sync: Sync) -> Synced {
        let group_id = sync.caller.group_id.clone();
        let answer = self.ask(&group_id, |coordinator, now, ticket, effects| {
            coordinator.sync(now, ticket, sync, effects);
        });
        match answer.await {
            Some(Answer::Synced(synced)) => synced,
            Some(Answer::Joined(_) | Answer::Done(_)) | None => Synced {
                error: ErrorCode::CoordinatorNotAvailable,
                ..Synced::default()
            },
        }
    }

    pub(crate) fn heartbeat(&self, caller: &Caller) -> ErrorCode {
        let now = self.now();
        self.lock(self.index(&caller.group_id))
            .coordinator
            .heartbeat(now, caller)
    }

    pub(crate) fn leave(
        &self,
        group_id: &Text,
        member_id: &Text,
        instance_id: Option<&Text>,
    ) -> ErrorCode {
        let mut outcome = ErrorCode::None;
        self.turn(self.index(group_id), |shard, now, effects| {
            let coordinator = &mut shard.coordinator;
            outcome = coordinator.leave(now, group_id, member_id, instance_id, effects);
        });
        outcome
    }

    pub(crate) async fn commit(
        &self,
        caller: &Caller,
        offsets: Vec<(PartitionId, Committed)>,
    ) -> ErrorCode {
        self.done(&caller.group_id, |coordinator, now, ticket, effects| {
            coordinator.commit(now, ticket, caller, offsets, effects);
        })
        .await
    }

    pub(crate) async fn delete_offsets(
        &self,
        group_id: &Text,
        partitions: Vec<PartitionId>,
    ) -> ErrorCode {
        self.done(group_id, |coordinator, now, ticket, effects| {
            coordinator.delete_offsets(now, ticket, group_id, partitions, effects);
        })
        .await
    }

    pub(crate) async fn delete(&self, group_id: &Text) -> ErrorCode {
        self.done(group_id, |coordinator, now, ticket, effects| {
            coordinator.delete(now, ticket, group_id, effects);
        })
        .await
    }

    async fn done(
        &self,
        group_id: &Text,
        input: impl FnOnce(&mut Coordinator, Now, Ticket, &mut Vec<Effect>),
    ) -> ErrorCode {
        match self.ask(group_id, input).await {
            Some(Answer::Done(error)) => error,
            Some(Answer::Joined(_) | Answer::Synced(_)) | None => {
                ErrorCode::CoordinatorNotAvailable
            }
        }
    }

    // --- reading ---

    pub(crate) fn describe(&self, group_id: &Text) -> Option<Description> {
        self.lock(self.index(group_id))
            .coordinator
            .describe(group_id)
    }

    pub(crate) fn descriptions(&self) -> Vec<Description> {
        (0..self.shards.len())
            .flat_map(|index| {
                self.lock(index)
                    .coordinator
                    .descriptions()
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    pub(crate) fn offset(&self, group_id: &Text, partition: PartitionId) -> Option<Committed> {
        self.lock(self.index(group_id))
            .coordinator
            .offset(group_id, partition)
            .cloned()
    }

    pub(crate) fn offsets(&self, group_id: &Text) -> Vec<(PartitionId, Committed)> {
        self.lock(self.index(group_id))
            .coordinator
            .offsets(group_id)
            .map(|(partition, committed)| (partition, committed.clone()))
            .collect()
    }

    /// For people and metrics.
    pub(crate) fn views(&self) -> Vec<GroupView> {
        let topics = self.log.topics();
        let mut views: Vec<GroupView> = self
            .descriptions()
            .into_iter()
            .map(|group| {
                let mut offsets: Vec<OffsetView> = self
                    .offsets(&group.group_id)
                    .into_iter()
                    .filter_map(|(id, committed)| {
                        let partition = topics.partition(id)?;
                        Some(OffsetView {
                            topic: partition.topic().to_string(),
                            partition: partition.index(),
                            committed: u64::try_from(committed.offset).unwrap_or(0),
                            high_watermark: partition.high_watermark(),
                        })
                    })
                    .collect();
                offsets.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
                view(&group, offsets)
            })
            .collect();
        views.sort_by(|a, b| a.group_id.cmp(&b.group_id));
        views
    }

    // --- driving ---

    /// Does what is due by time and passes on what the disk has answered, until `shutdown`.
    pub(crate) async fn drive(&self, mut shutdown: watch::Receiver<bool>) {
        loop {
            // From here to the end of the round every request that schedules something wakes us.
            self.next_wake_ms.store(u64::MAX, Ordering::SeqCst);
            self.settle();
            let next = self.tick();
            self.next_wake_ms.store(next, Ordering::SeqCst);
            let at = self.started + Duration::from_millis(next);
            tokio::select! {
                () = self.wake.notified() => {}
                () = self.settled.arrived.notified() => {}
                () = tokio::time::sleep_until(at) => {}
                () = stopped(&mut shutdown) => return,
            }
        }
    }

    fn settle(&self) {
        let outcomes = {
            let mut waiting = self
                .settled
                .outcomes
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *waiting)
        };
        for (index, write, ok) in outcomes {
            self.quiet_turn(index, |shard, now, effects| {
                shard.coordinator.persisted(now, write, ok, effects);
            });
        }
    }

    /// The time of the next one, in milliseconds since the start.
    fn tick(&self) -> u64 {
        let topics = self.log.topics();
        let exists = |id| topics.partition(id).is_some();
        let deadlines = (0..self.shards.len()).map(|index| {
            self.quiet_turn(index, |shard, now, effects| {
                if shard.coordinator.deadline() <= now.mono_ms {
                    shard.coordinator.tick(now, &exists, effects);
                }
            })
        });
        deadlines.min().unwrap_or(u64::MAX)
    }

    /// Hands one request over; the future waits for its answer, `None` if there will be none.
    async fn ask(
        &self,
        group_id: &Text,
        input: impl FnOnce(&mut Coordinator, Now, Ticket, &mut Vec<Effect>),
    ) -> Option<Answer> {
        let ticket = Ticket(self.next_ticket.fetch_add(1, Ordering::Relaxed));
        let (sender, receiver) = oneshot::channel();
        self.turn(self.index(group_id), |shard, now, effects| {
            shard.waiting.insert(ticket, sender);
            input(&mut shard.coordinator, now, ticket, effects);
        });
        receiver.await.ok()
    }

    fn turn(&self, index: usize, input: impl FnOnce(&mut Shard, Now, &mut Vec<Effect>)) {
        let deadline = self.quiet_turn(index, input);
        if deadline < self.next_wake_ms.load(Ordering::SeqCst) {
            self.wake.notify_one();
        }
    }

    /// As `turn`, for the driver, which need not be woken; the shard's next deadline.
    fn quiet_turn(
        &self,
        index: usize,
        input: impl FnOnce(&mut Shard, Now, &mut Vec<Effect>),
    ) -> u64 {
        let mut effects = Vec::new();
        let mut shard = self.lock(index);
        input(&mut shard, self.now(), &mut effects);
        for effect in effects {
            self.carry_out(index, &mut shard, effect);
        }
        shard.coordinator.deadline()
    }

    fn carry_out(&self, index: usize, shard: &mut Shard, effect: Effect) {
        match effect {
            Effect::Answer { ticket, answer } => {
                if let Some(waiting) = shard.waiting.remove(&ticket) {
                    // Whoever hung up in the meantime needs no answer.
                    drop(waiting.send(answer));
                }
            }
            Effect::Persist { write, rows } => {
                let tables = rows
                    .into_iter()
                    .map(|row| TableChange {
                        table: TableId::GROUPS,
                        key: row.key,
                        value: row.value,
                    })
                    .collect();
                let settled = Arc::clone(&self.settled);
                // Under the shard's lock, for the order. `submit` may answer at once, so that the
                // answer must not need the lock: the driver takes it from here.
                self.log.submit(
                    vec![Unit {
                        tables,
                        ..Unit::default()
                    }],
                    Box::new(move |outcomes| {
                        let ok = outcomes.iter().all(Result::is_ok);
                        let mut waiting = settled
                            .outcomes
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner);
                        waiting.push((index, write, ok));
                        drop(waiting);
                        settled.arrived.notify_one();
                    }),
                );
            }
        }
    }

    fn now(&self) -> Now {
        let mono_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now {
            mono_ms,
            wall_ms: wall_ms(),
        }
    }

    fn index(&self, group_id: &Text) -> usize {
        let hash = self.hasher.hash_one(group_id.as_bytes());
        usize::try_from(hash % u64::from(SHARDS)).unwrap_or(0)
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "an index comes from `index` or a range over all"
    )]
    fn lock(&self, index: usize) -> MutexGuard<'_, Shard> {
        // A panic under the lock leaves a group half changed at worst, and its members join again.
        self.shards[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn view(group: &Description, offsets: Vec<OffsetView>) -> GroupView {
    GroupView {
        group_id: group.group_id.to_string(),
        state: group.state,
        generation: group.generation,
        protocol: group.protocol.to_string(),
        members: group
            .members
            .iter()
            .map(|member| MemberView {
                member_id: member.member_id.to_string(),
                instance_id: member.instance_id.as_ref().map(Text::to_string),
                client_id: member.client_id.to_string(),
                client_host: member.client_host.to_string(),
            })
            .collect(),
        offsets,
    }
}

pub(crate) fn wall_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
