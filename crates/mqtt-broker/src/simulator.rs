//! A whole broker in one thread: several shards, a log that orders, delays and crashes, and time
//! that stands still until it is told to move. For tests only.
//!
//! For: running schedules chosen by a seed, and exchanges written by hand.
//! Holds: the driver's duties as SEAMS between broker and server have them: inboxes in order,
//!   ToShard before the commits of its round, `distribute` in commit order.

mod aliases;
mod authentication;
mod client;
mod connects;
mod exchanges;
mod expiry;
mod feeds;
mod filters;
mod flow;
mod full_disk;
mod groups;
mod judge;
mod keeper;
mod messages;
mod offers;
mod paces;
mod pressure;
mod reasons;
mod refused;
mod rest;
mod restart;
mod retained;
mod schedules;
mod sessions;
mod shares;
mod subscriptions;
mod system;
mod wills;
mod wrong_answers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, Bytes};
use headwater_mqtt_codec::{DisconnectReason, Text};

use crate::{
    AllowAll, Change, ClientLimits, Commit, Config, ConnectionId, Effect, Input, Limits, Loaded,
    Message, Now, Peer, Policy, Position, Publisher, Receipt, Refusal, Routes, Shard, Shared,
    Strategy, System, Table, Ticket, Verdict, distribute,
};
use keeper::{Keeper, Wish};

/// SplitMix64: small, seeded, and the same everywhere.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap()
    }

    pub(crate) fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }
}

/// Routes that take topics under `routed/`.
struct SomeRoutes;

impl Routes for SomeRoutes {
    fn takes(&self, message: &Message) -> bool {
        message.topic.starts_with("routed/")
    }
}

/// Keeps `secret` from the Client `d`, by rules of an even generation.
struct Secrets(Arc<AtomicU64>);

impl Policy for Secrets {
    fn connect(
        &self,
        peer: &Peer,
        client: &str,
        user: Option<&str>,
        password: Option<&[u8]>,
    ) -> Result<Box<str>, Verdict> {
        AllowAll.connect(peer, client, user, password)
    }

    fn publish(&self, _publisher: &Publisher, _topic: &str) -> Verdict {
        Verdict::Allow
    }

    fn subscribe(&self, _subscriber: &Publisher, _filter: &str) -> Verdict {
        Verdict::Allow
    }

    fn receive(&self, subscriber: &Publisher, topic: &str) -> Verdict {
        match (&*subscriber.client, topic) {
            ("d", "secret") if self.generation().is_multiple_of(2) => Verdict::Deny,
            _ => Verdict::Allow,
        }
    }

    fn generation(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether records can be read back.
pub(crate) enum Disk {
    Works,
    /// One read in three fails.
    FailsAtTimes(Random),
    Fails,
}

impl Disk {
    pub(crate) fn fails(&mut self) -> bool {
        match self {
            Self::Works => false,
            Self::FailsAtTimes(random) => random.chance(3),
            Self::Fails => true,
        }
    }
}

/// What waits for its turn in the log.
pub(crate) enum Asked {
    Commit(Box<Commit>),
    Wish(Wish),
}

/// What is synced, and what is only asked for.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) tables: BTreeMap<(Table, Bytes), Bytes>,
    /// Partition -> records; `None` where retention has passed.
    pub(crate) records: BTreeMap<u32, Vec<Option<Arc<Message>>>>,
    /// `None` where trimmed.
    pub(crate) owed: Vec<Option<(Position, Bytes)>>,
    pub(crate) asked: VecDeque<Asked>,
    /// Payloads of all records there ever were.
    stored: BTreeSet<Bytes>,
    pub(crate) full: bool,
    /// It takes rows, and refuses what it would append; so does the log when the disk is full.
    pub(crate) refuses_appends: Option<Refusal>,
    /// Longest payload it takes.
    pub(crate) payload_bytes_max: Option<usize>,
    pub(crate) syncs: u64,
}

/// The topic that routes write to, and the internal one for what is owed and not routed.
const ROUTED: u32 = 1;
const KEPT: u32 = 2;

impl Log {
    /// Makes one commit true, unless its lane is broken; whatever is refused breaks its lane.
    fn apply(&mut self, commit: &Commit) -> Result<Receipt, Refusal> {
        let lane = commit.lane.as_ref().map(|lane| &lane.0);
        if lane.is_some_and(|broken| broken.load(Ordering::Relaxed)) {
            return Err(Refusal::Failed);
        }
        let outcome = self.take(commit);
        if let (Some(lane), Err(_)) = (lane, &outcome) {
            lane.store(true, Ordering::Relaxed);
        }
        outcome
    }

    fn take(&mut self, commit: &Commit) -> Result<Receipt, Refusal> {
        if self.full && !commit.is_empty() {
            return Err(Refusal::Full);
        }
        let appends = commit.stores_message() || commit.owed.is_some();
        if let Some(refusal) = self.refuses_appends.filter(|_| appends) {
            return Err(refusal);
        }
        let is_so = |expected: &Change| {
            let key = (expected.table, expected.key.clone());
            self.tables.get(&key) == expected.value.as_ref()
        };
        if !commit.expects.iter().all(is_so) {
            return Err(Refusal::Failed);
        }
        let mut receipt = Receipt::default();
        if let Some(message) = &commit.message {
            let bytes_max = self.payload_bytes_max.unwrap_or(usize::MAX);
            if message.payload.len() > bytes_max {
                return Err(Refusal::TooLarge);
            }
            receipt.stored = message.stored;
            if commit.stores_message() {
                let partition = if commit.routed { ROUTED } else { KEPT };
                receipt.stored = Some(self.append(partition, message.clone()));
            }
        }
        if let Some(entry) = &commit.owed {
            receipt.owed = Some(self.owed.len() as u64);
            let stored = receipt.stored.expect("what is owed is stored");
            self.owed.push(Some((stored, entry.clone())));
        }
        for change in &commit.changes {
            let key = (change.table, change.key.clone());
            match &change.value {
                Some(value) => drop(self.tables.insert(key, value.clone())),
                None => drop(self.tables.remove(&key)),
            }
        }
        self.syncs += u64::from(!commit.is_empty());
        Ok(receipt)
    }

    fn append(&mut self, partition: u32, message: Arc<Message>) -> Position {
        self.stored.insert(message.payload.clone());
        let records = self.records.entry(partition).or_default();
        records.push(Some(message));
        Position {
            partition,
            offset: records.len() as u64 - 1,
        }
    }

    fn read(&self, position: Position) -> Option<Arc<Message>> {
        self.records
            .get(&position.partition)?
            .get(usize::try_from(position.offset).unwrap())?
            .clone()
    }

    /// As `read`, when the disk can be read.
    fn load(&self, position: Position, disk: &mut Disk) -> Loaded {
        if disk.fails() {
            return Loaded::Failed;
        }
        self.read(position).map_or(Loaded::Gone, Loaded::Found)
    }

    /// Whether it ever held a record of this payload.
    pub(crate) fn held(&self, payload: &[u8]) -> bool {
        self.stored.contains(payload)
    }

    pub(crate) fn ask(&mut self, wish: Wish) {
        self.asked.push_back(Asked::Wish(wish));
    }

    pub(crate) fn rows(&self, table: Table) -> usize {
        self.tables.keys().filter(|(of, _)| *of == table).count()
    }
}

/// A broker, its log, and the other ends of its sockets.
pub(crate) struct World {
    pub(crate) now: Now,
    pub(crate) shared: Arc<Shared>,
    pub(crate) shards: Vec<Shard>,
    pub(crate) inboxes: Vec<VecDeque<Input>>,
    pub(crate) log: Log,
    /// Connection -> its shard.
    pub(crate) open: BTreeMap<ConnectionId, usize>,
    /// What the broker wrote to each socket, until somebody reads it.
    pub(crate) wires: BTreeMap<ConnectionId, Vec<u8>>,
    pub(crate) injected: Vec<(Ticket, Result<(), Refusal>)>,
    pub(crate) keeper: Keeper,
    /// Bytes that a socket still takes, where that is not everything.
    pub(crate) room: BTreeMap<ConnectionId, usize>,
    /// Sockets that have not taken all.
    blocked: BTreeSet<ConnectionId>,
    /// Sockets that are not to be read.
    pub(crate) paused: BTreeSet<ConnectionId>,
    /// What came on those meanwhile.
    unread: BTreeMap<ConnectionId, Vec<u8>>,
    pub(crate) pauses: u64,
    pub(crate) disk: Disk,
    pub(crate) loads_failed: u64,
    /// Some packets end in a panic.
    pub(crate) fuses: Option<Random>,
    pub(crate) panics: u64,
    next_connection: u64,
    pub(crate) forgets_packet_ids: bool,
    /// From the next start on.
    pub(crate) response_information: Option<Text>,
    limits: Limits,
    system: System,
    /// Of connections from now on.
    pub(crate) client_limits: Arc<ClientLimits>,
    strategy: Strategy,
    /// The generation of what Clients may do.
    pub(crate) rules: Arc<AtomicU64>,
    epoch: u64,
}

impl World {
    /// Refusals without Reason Strings, so that their bytes are few.
    pub(crate) fn new(shards: usize, limits: Limits) -> Self {
        let limits = Limits {
            reason_strings: false,
            ..limits
        };
        Self::explaining(shards, limits)
    }

    pub(crate) fn with_strategy(shards: usize, limits: Limits, strategy: Strategy) -> Self {
        let limits = Limits {
            reason_strings: false,
            ..limits
        };
        Self::made(shards, limits, strategy)
    }

    pub(crate) fn explaining(shards: usize, limits: Limits) -> Self {
        Self::made(shards, limits, Strategy::default())
    }

    fn made(shards: usize, limits: Limits, strategy: Strategy) -> Self {
        let mut world = Self {
            strategy,
            now: Now {
                mono_ms: 1_000,
                wall_ms: 1_000_000,
            },
            shared: Arc::new(Shared::new(Config::default())),
            shards: Vec::new(),
            inboxes: Vec::new(),
            log: Log::default(),
            open: BTreeMap::new(),
            wires: BTreeMap::new(),
            injected: Vec::new(),
            keeper: Keeper::default(),
            room: BTreeMap::new(),
            blocked: BTreeSet::new(),
            paused: BTreeSet::new(),
            unread: BTreeMap::new(),
            pauses: 0,
            disk: Disk::Works,
            loads_failed: 0,
            fuses: None,
            panics: 0,
            next_connection: 0,
            forgets_packet_ids: false,
            response_information: None,
            limits,
            system: System::default(),
            client_limits: Arc::default(),
            rules: Arc::default(),
            epoch: 0,
        };
        world.inboxes.resize_with(shards, VecDeque::new);
        world.start();
        world
    }

    /// One that says this of itself.
    pub(crate) fn speaking(shards: usize, system: System) -> Self {
        let mut world = Self::new(shards, Limits::default());
        world.system = system;
        world.start();
        world
    }

    /// A new process over the same log.
    fn start(&mut self) {
        let shards = self.inboxes.len();
        self.epoch += 1;
        self.shared = Arc::new(Shared::new(self.config()));
        self.shards = (0..shards)
            .map(|index| Shard::new(self.shared.clone(), index))
            .collect();
        for shard in &mut self.shards {
            shard.forgets_packet_ids = self.forgets_packet_ids;
        }
        let inputs = self.restore(&self.shared);
        for (inbox, inputs) in self.inboxes.iter_mut().zip(inputs) {
            *inbox = inputs.into();
        }
    }

    fn config(&self) -> Config {
        Config {
            shards: self.inboxes.len(),
            limits: self.limits.clone(),
            routes: Box::new(SomeRoutes),
            policy: Box::new(Secrets(self.rules.clone())),
            response_information: self.response_information.clone(),
            methods: [("W".into(), Box::new(authentication::Word) as _)].into(),
            strategy: self.strategy,
            seed: self.epoch,
            system: self.system.clone(),
        }
    }

    /// Power is lost: of what was asked, only the first `synced` commits made it to the disk.
    pub(crate) fn crash(&mut self, synced: usize) {
        for _ in 0..synced.min(self.log.asked.len()) {
            match self.log.asked.pop_front().expect("counted") {
                Asked::Commit(commit) => drop(self.log.apply(&commit)),
                Asked::Wish(wish) => self.grant(wish),
            }
        }
        self.keeper.forget();
        self.paused.clear();
        self.unread.clear();
        self.log.asked.clear();
        self.open.clear();
        self.wires.clear();
        self.now.mono_ms += 10;
        self.start();
    }

    pub(crate) fn open(&mut self, shard: usize) -> ConnectionId {
        self.open_with(shard, 0, None)
    }

    /// As [`Self::open`], when the transport's handshake has taken so long.
    pub(crate) fn open_after(&mut self, shard: usize, handshake_ms: u64) -> ConnectionId {
        self.open_with(shard, handshake_ms, None)
    }

    /// As [`Self::open`], from this address and port.
    pub(crate) fn open_from(&mut self, shard: usize, address: &str) -> ConnectionId {
        self.open_with(shard, 0, Some(address))
    }

    fn open_with(
        &mut self,
        shard: usize,
        handshake_ms: u64,
        address: Option<&str>,
    ) -> ConnectionId {
        self.next_connection += 1;
        let connection = ConnectionId(self.next_connection);
        self.open.insert(connection, shard);
        self.wires.insert(connection, Vec::new());
        self.inboxes[shard].push_back(Input::Opened {
            connection,
            peer: Peer {
                address: address.map(|one| one.parse().expect("an address")),
            },
            limits: self.client_limits.clone(),
            handshake_ms,
        });
        connection
    }

    pub(crate) fn send(&mut self, connection: ConnectionId, bytes: &[u8]) {
        if let Some(shard) = self.open.get(&connection) {
            let bytes = Bytes::copy_from_slice(bytes);
            self.inboxes[*shard].push_back(Input::Received { connection, bytes });
        }
    }

    /// The client's end of the socket goes away.
    pub(crate) fn cut(&mut self, connection: ConnectionId) {
        if let Some(shard) = self.open.remove(&connection) {
            self.inboxes[shard].push_back(Input::Closed { connection });
        }
    }

    pub(crate) fn is_open(&self, connection: ConnectionId) -> bool {
        self.open.contains_key(&connection)
    }

    /// What the broker has written to it since last asked.
    pub(crate) fn read(&mut self, connection: ConnectionId) -> Vec<u8> {
        self.wires
            .get_mut(&connection)
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// One shard takes up to `count` Inputs as one round.
    pub(crate) fn run_shard(&mut self, shard: usize, count: usize) -> bool {
        let mut effects = Vec::new();
        let mut any = false;
        for _ in 0..count {
            let Some(input) = self.inboxes[shard].pop_front() else {
                break;
            };
            self.step(shard, input, &mut effects);
            any = true;
        }
        if any {
            self.shards[shard].settle(self.now, &mut effects);
            self.carry_out(shard, effects);
        }
        any
    }

    /// The client reads `bytes` more, where its socket takes not everything at once.
    pub(crate) fn make_room(&mut self, connection: ConnectionId, bytes: usize) {
        self.room.insert(connection, bytes);
        if let Some(shard) = self.open.get(&connection) {
            self.write(*shard, connection);
        }
    }

    /// Writes as much as the socket takes.
    pub(super) fn write(&mut self, shard: usize, connection: ConnectionId) {
        let Some(output) = self.shards[shard].output(connection) else {
            return; // It was not told of it yet.
        };
        let room = self.room.get_mut(&connection);
        let taken = room
            .as_ref()
            .map_or(usize::MAX, |room| **room)
            .min(output.remaining());
        if let Some(room) = room {
            *room -= taken;
        }
        let bytes = output.copy_to_bytes(taken);
        let (blocked, relieved) = (output.has_remaining(), output.is_relieved());
        self.wires
            .entry(connection)
            .or_default()
            .extend_from_slice(&bytes);
        let was_blocked = match blocked {
            true => !self.blocked.insert(connection),
            false => self.blocked.remove(&connection),
        };
        let inbox = &mut self.inboxes[shard];
        if blocked && (taken > 0 || !was_blocked) {
            inbox.push_back(Input::Blocked { connection });
        }
        if relieved || (was_blocked && !blocked) {
            inbox.push_back(Input::Drained { connection });
        }
    }

    /// Bytes on a socket that is not to be read stay there until it is.
    fn unless_paused(&mut self, shard: usize, input: Input) -> Option<Input> {
        if let Input::Closed { connection } = input {
            self.unread.remove(&connection);
        }
        let Input::Received { connection, bytes } = input else {
            return Some(input);
        };
        let mut all = self.unread.remove(&connection).unwrap_or_default();
        all.extend(bytes);
        let core = &self.shards[shard];
        let at = core.by_id.get(&connection).copied();
        if at.is_some_and(|at| core.connections[at].paused) {
            self.unread.insert(connection, all);
            return None;
        }
        let bytes = all.into();
        Some(Input::Received { connection, bytes })
    }

    /// What one connection's bytes break ends that connection, as in the server.
    fn step(&mut self, shard: usize, input: Input, effects: &mut Vec<Effect>) {
        let Some(input) = self.unless_paused(shard, input) else {
            return;
        };
        let (now, core) = (self.now, &mut self.shards[shard]);
        let (Input::Received { connection, .. } | Input::Drained { connection }) = input else {
            return core.step(now, input, effects);
        };
        if let Some(random) = &mut self.fuses
            && random.chance(50)
        {
            core.fuse = Some(u32::try_from(random.below(3)).unwrap());
        }
        let work = AssertUnwindSafe(|| core.step(now, input, effects));
        if catch_unwind(work).is_err() {
            self.panics += 1;
            let reason = DisconnectReason::UnspecifiedError;
            let input = Input::Disconnect { connection, reason };
            self.shards[shard].step(now, input, effects);
        }
        self.shards[shard].fuse = None;
    }

    fn carry_out(&mut self, shard: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Flush(connection) => self.write(shard, connection),
                Effect::Close(connection) => {
                    let mut output = self.shards[shard].take_output(connection).expect("kept");
                    let bytes = output.copy_to_bytes(output.remaining());
                    self.wires
                        .entry(connection)
                        .or_default()
                        .extend_from_slice(&bytes);
                    self.open.remove(&connection);
                    self.unread.remove(&connection);
                }
                Effect::Pause(connection) => {
                    assert!(self.paused.insert(connection));
                    self.pauses += 1;
                }
                Effect::Resume(connection) => {
                    assert!(self.paused.remove(&connection));
                    if let Some(bytes) = self.unread.remove(&connection) {
                        let bytes = bytes.into();
                        self.inboxes[shard].push_front(Input::Received { connection, bytes });
                    }
                }
                Effect::Commit(commit) => self.log.asked.push_back(Asked::Commit(commit)),
                Effect::Load {
                    request, positions, ..
                } => {
                    let count = positions.len().div_ceil(2);
                    let items: Vec<_> = positions
                        .iter()
                        .take(count)
                        .map(|at| self.log.load(*at, &mut self.disk))
                        .collect();
                    self.loads_failed += items
                        .iter()
                        .filter(|one| matches!(one, Loaded::Failed))
                        .count() as u64;
                    self.inboxes[shard].push_back(Input::Loaded { request, items });
                }
                Effect::ToShard(to, message) => {
                    self.inboxes[to].push_back(Input::FromShard(message));
                }
                Effect::Injected { ticket, outcome } => {
                    self.injected.push((ticket, outcome));
                }
                Effect::Owes {
                    going, references, ..
                } => self.owes(going, references),
                Effect::Needs { sequence, kept, .. } => self.needs(sequence, kept),
            }
        }
    }

    /// The log syncs the first `count` of what was asked, and says so.
    pub(crate) fn run_log(&mut self, count: usize) -> bool {
        let mut done = Vec::new();
        let mut any = false;
        for _ in 0..count {
            let Some(asked) = self.log.asked.pop_front() else {
                break;
            };
            any = true;
            match asked {
                Asked::Commit(commit) => {
                    let outcome = self.log.apply(&commit);
                    done.push((commit, outcome));
                }
                Asked::Wish(wish) => {
                    self.distribute(std::mem::take(&mut done));
                    self.grant(wish);
                }
            }
        }
        self.distribute(done);
        any
    }

    fn distribute(&mut self, done: Vec<(Box<Commit>, Result<Receipt, Refusal>)>) {
        let mut into: Vec<Vec<Input>> = self.inboxes.iter().map(|_| Vec::new()).collect();
        distribute(&self.shared, done, &mut into);
        for (inbox, inputs) in self.inboxes.iter_mut().zip(into) {
            inbox.extend(inputs);
        }
    }

    /// Everything that can happen without time passing happens.
    pub(crate) fn run(&mut self) {
        for _ in 0..1_000_000 {
            let mut any = self.run_log(usize::MAX);
            for shard in 0..self.shards.len() {
                any |= self.run_shard(shard, 3);
                if self.shards[shard]
                    .deadline()
                    .is_some_and(|at| at <= self.now.mono_ms)
                {
                    self.inboxes[shard].push_back(Input::Tick);
                    any = true;
                }
            }
            if !any {
                return;
            }
        }
        panic!("the broker does not come to rest");
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.wall_ms += ms as i64;
    }
}
