//! Seeded random schedules: publishers and subscribers of all kinds, takeovers, cuts at any byte,
//! crashes at any moment. The seed is printed on failure: `seed N` reproduces it.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_mqtt_codec::{QoS, Version};

use super::client::{Client, Event, LONG_BYTES_MIN, Mark, SHORT_BYTES_MAX};
use super::judge::Judge;
use super::{Disk, Random, World};
use crate::retained::Scan;
use crate::{Input, Limits, Message, Publisher, Refusal, Strategy, Table, Ticket};

const TOPICS: [&str; 5] = ["a", "b/c", "b/d", "routed/x", "routed/y"];
const FILTERS: [&str; 6] = ["#", "a", "b/+", "routed/#", "+/x", "b/c"];
const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

const GROUPS: [&str; 4] = [
    "$share/g/#",
    "$share/g/b/+",
    "$share/h/#",
    "$share/h/routed/x",
];

const STRATEGIES: [Strategy; 4] = [
    Strategy::RoundRobin,
    Strategy::Sticky,
    Strategy::HashClient,
    Strategy::HashTopic,
];

/// What a schedule is about.
#[derive(Clone, Copy, Eq, PartialEq)]
enum About {
    Sessions,
    /// As `Sessions`, with many groups of Shared Subscriptions.
    Groups,
    /// A broker that commits no Packet Identifiers.
    Forgetting,
    /// As `Groups`, of a broker that does not commit either what it hands to members for good.
    ForgettingGroups,
}

impl About {
    fn has_groups(self) -> bool {
        matches!(self, Self::Groups | Self::ForgettingGroups)
    }
}

struct Schedule {
    random: Random,
    world: World,
    clients: Vec<Client>,
    judge: Judge,
    crashes: u64,
    takeovers: u64,
    injections: u64,
    injected: BTreeMap<Ticket, Mark>,
    refused: u64,
    stops: u64,
    wills: u64,
    /// The disk is full at times.
    may_fill: bool,
    /// How seldom the process ends.
    calm: usize,
}

impl Schedule {
    fn new(seed: u64, about: About) -> Self {
        let forgets_packet_ids = !matches!(about, About::Sessions | About::Groups);
        let mut random = Random::new(seed);
        let limits = Limits {
            inflight_max: std::num::NonZeroU16::new([1, 2, 4, 7][random.below(4)]).unwrap(),
            cache_bytes_max: random.below(3_000),
            output_bytes_max: [20, 100, 1 << 20][random.below(3)],
            connection_commit_bytes_max: [30, 8 << 20][random.below(2)],
            shared_bytes_max: if seed.is_multiple_of(2) {
                256 << 20
            } else {
                500
            },
            ..Limits::default()
        };
        let takes_long = !random.chance(5);
        let shards = 1 + random.below(3);
        let (mut strategy, mut groups) = (Strategy::RoundRobin, 0);
        if about.has_groups() {
            strategy = STRATEGIES[random.below(4)];
            groups = 1 + random.below(GROUPS.len());
        }
        let mut world = World::with_strategy(shards, limits, strategy);
        world.forgets_packet_ids = forgets_packet_ids;
        world.log.payload_bytes_max = (!takes_long).then_some(LONG_BYTES_MIN - 1);
        if random.chance(3) {
            world.disk = Disk::FailsAtTimes(Random::new(seed));
        }
        world.fuses = random.chance(3).then(|| Random::new(seed));
        for shard in &mut world.shards {
            shard.forgets_packet_ids = forgets_packet_ids;
        }
        let clients = (0..2 + random.below(4)).map(|index| {
            let version = [Version::V31, Version::V311, Version::V5][random.below(3)];
            let filters: BTreeMap<String, QoS> = (0..random.below(3))
                .map(|_| {
                    (
                        FILTERS[random.below(FILTERS.len())].to_owned(),
                        QOS[random.below(3)],
                    )
                })
                .collect();
            let mut filters: Vec<(String, QoS)> = filters.into_iter().collect();
            if about.has_groups() && !random.chance(4) {
                let group = GROUPS[random.below(groups)].to_owned();
                filters = vec![(group, QOS[[0, 1, 1, 1, 1, 2, 2, 2, 2, 2][random.below(10)]])];
            }
            // In 3.1 a Client cannot know whether its session is still there.
            let may_persist = version != Version::V31;
            let persistent = may_persist && (random.chance(2) || forgets_packet_ids);
            let mut client = Client::new(index, version, persistent, filters);
            let takes_short = version == Version::V5 && random.chance(3);
            client.packet_bytes_max = takes_short.then_some(SHORT_BYTES_MAX);
            client
        });
        let clients: Vec<Client> = clients.collect();
        let may_fill = !forgets_packet_ids && random.chance(4);
        let calm = [3, 10, 40][random.below(3)];
        let mut judge = Judge::default();
        judge.loses_long = !takes_long;
        let short = clients.iter().filter(|one| one.packet_bytes_max.is_some());
        let short = short.filter_map(|one| Some(one.shared()?.0.clone()));
        judge.short_groups = short.collect();
        let lossy = clients.iter().filter_map(|one| one.shared());
        let lossy = lossy.filter(|(_, granted)| *granted == QoS::AtMostOnce);
        judge.lossy_groups = lossy.map(|(name, _)| name.clone()).collect();
        if may_fill || !takes_long {
            let v5 = clients.iter().filter(|one| one.version == Version::V5);
            judge.unordered = v5.map(|one| one.index).collect();
        }
        Self {
            random,
            world,
            clients,
            judge,
            crashes: 0,
            takeovers: 0,
            injections: 0,
            injected: BTreeMap::new(),
            refused: 0,
            stops: 0,
            wills: 0,
            may_fill,
            calm,
        }
    }

    fn run(&mut self, steps: usize) -> Result<(), String> {
        for _ in 0..steps {
            self.step()?;
        }
        self.world.run();
        self.world.agrees_with_its_log(false)?;
        self.come_to_rest()?;
        self.world.agrees_with_its_log(true)?;
        let stuck = self.world.stuck();
        if !stuck.is_empty() {
            return Err(format!("at rest: {stuck:#?}"));
        }
        let retained = &self.world.shared.retained;
        let mut all = Scan::new(retained.stands());
        let retained = retained.slice("#", &mut all, usize::MAX, usize::MAX);
        self.judge.verdict(&retained.found)
    }

    fn step(&mut self) -> Result<(), String> {
        self.note_injected();
        match self.random.below(100) {
            0..30 => {
                let shard = self.random.below(self.world.shards.len());
                let count = 1 + self.random.below(3);
                self.world.run_shard(shard, count);
            }
            30..45 => {
                let count = 1 + self.random.below(3);
                self.world.run_log(count);
            }
            45..46 => self.pass(),
            46 if self.random.chance(self.calm) => self.crash(),
            47 => self.world.keep(&mut self.random),
            48 => self.inject(),
            49 if self.random.chance(self.calm) => self.stop(),
            50 if self.may_fill => {
                self.world.log.full = self.random.chance(3);
                let refuses = self.random.chance(3);
                self.world.log.refuses_appends = refuses.then_some(Refusal::Full);
            }
            _ => {
                let client = self.random.below(self.clients.len());
                self.act(client)?;
            }
        }
        Ok(())
    }

    /// A message from elsewhere, wanted or not.
    fn inject(&mut self) {
        let shard = self.random.below(self.world.shards.len());
        self.injections += 1;
        let mark = Mark {
            publisher: 100 + shard,
            sequence: self.injections,
        };
        let qos = QOS[1 + self.random.below(2)];
        let topic = TOPICS[self.random.below(TOPICS.len())];
        let retain = self.random.chance(8);
        self.judge.sent(mark, topic, qos, retain, true);
        let ticket = Ticket(self.injections);
        self.injected.insert(ticket, mark);
        let message = Message {
            topic: topic.parse().unwrap(),
            payload: mark.payload().into(),
            qos,
            retain,
            properties: None,
            publisher: Arc::new(Publisher {
                client: "elsewhere".into(),
                principal: "anonymous".into(),
            }),
            at_ms: self.world.now.wall_ms,
            expires_at: None,
            stored: None,
            from_log: false,
        };
        let message = Box::new(message);
        self.world.inboxes[shard].push_back(Input::Inject { ticket, message });
    }

    fn note_injected(&mut self) {
        for (ticket, outcome) in std::mem::take(&mut self.world.injected) {
            let mark = self.injected.remove(&ticket).expect("answered once");
            match outcome {
                Ok(()) => self.judge.acknowledged(mark),
                Err(_) => self.refused += 1,
            }
        }
    }

    /// A graceful end: everything is committed, everybody is told.
    fn stop(&mut self) {
        self.stops += 1;
        for inbox in &mut self.world.inboxes {
            inbox.push_back(Input::Stop);
        }
        self.world.run();
        assert!(self.world.open.is_empty());
        self.note_injected();
        self.crash();
    }

    fn pass(&mut self) {
        let ms = self.random.below(1_500) as u64;
        self.world.pass(ms);
        for shard in 0..self.world.shards.len() {
            let due = self.world.shards[shard].deadline();
            if due.is_some_and(|at| at <= self.world.now.mono_ms) {
                self.world.inboxes[shard].push_back(Input::Tick);
            }
        }
    }

    fn crash(&mut self) {
        self.crashes += 1;
        self.judge.crashed();
        let synced = self.random.below(4);
        self.world.crash(synced);
        for client in &mut self.clients {
            if let Some(will) = client.lost() {
                self.judge.will_is_due(will);
            }
            if !client.persistent {
                self.judge.ended(client.index);
            }
        }
    }

    fn act(&mut self, index: usize) -> Result<(), String> {
        self.read(index)?;
        let client = &mut self.clients[index];
        let Some(connection) = client.connection else {
            self.connect(index);
            return Ok(());
        };
        if !self.world.is_open(connection) {
            self.lose(index);
            return Ok(());
        }
        match self.random.below(40) {
            0 => {
                self.world.cut(connection);
                self.lose(index);
            }
            1 => {
                // From a second socket, while the first is still open.
                self.takeovers += 1;
                self.lose(index);
                self.connect(index);
            }
            2..15 if client.live && client.unacknowledged.len() < 20 => {
                let topic = TOPICS[self.random.below(TOPICS.len())];
                let qos = QOS[self.random.below(3)];
                let retain = self.random.chance(6);
                let mark = client.publish(topic, qos, retain);
                self.judge.sent(mark, topic, qos, retain, client.persistent);
            }
            15 if client.live && !client.subscribing => {
                client.subscribe();
                self.judge.subscribes(index);
            }
            // Its socket takes some bytes, and then no more until it is read again.
            16 => {
                let bytes = self.random.below(60);
                self.world.make_room(connection, bytes);
            }
            17 if client.live && !client.subscribing && self.random.chance(4) => {
                client.unsubscribe();
                self.judge.unsubscribes(index);
            }
            18 if client.live && self.random.chance(4) => {
                let may_end = client.persistent && client.version == Version::V5;
                let ends = may_end && self.random.chance(2);
                client.disconnect(ends);
                if ends {
                    self.judge.ended(index);
                }
            }
            // Any number of bytes reaches the broker.
            _ => {
                let length = self.random.below(client.out.len() + 1);
                let bytes: Vec<u8> = client.out.drain(..length).collect();
                if !bytes.is_empty() {
                    self.world.send(connection, &bytes);
                }
            }
        }
        Ok(())
    }

    fn connect(&mut self, index: usize) {
        let shard = self.random.below(self.world.shards.len());
        let connection = self.world.open(shard);
        // Before 5.0 such a session ends with its connection, too.
        let clean = self.clients[index].version == Version::V5 && self.random.chance(12);
        if clean {
            self.judge.ended(index);
        }
        let topic = TOPICS[self.random.below(TOPICS.len())];
        let will = self.random.chance(4).then(|| {
            // Never a long one: CONNECT is shorter than what the log takes.
            self.wills += if self.wills % 6 == 5 { 2 } else { 1 };
            let mark = Mark {
                publisher: 200 + index,
                sequence: self.wills,
            };
            self.judge.sent_will(mark, topic);
            (mark, topic)
        });
        let client = &mut self.clients[index];
        client.connect(connection, clean, will);
        self.judge.connects(index);
        if self.random.chance(4) {
            client.subscribe(); // Without waiting for CONNACK.
            self.judge.subscribes(index);
        }
    }

    fn lose(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if let Some(will) = client.lost() {
            self.judge.will_is_due(will);
        }
        self.judge.lost(index);
        if !client.persistent {
            self.judge.ended(index);
        }
    }

    fn read(&mut self, index: usize) -> Result<(), String> {
        let client = &mut self.clients[index];
        let Some(connection) = client.connection else {
            return Ok(());
        };
        let bytes = self.world.read(connection);
        let mut events = Vec::new();
        client.receive(&bytes, &mut events);
        for event in &events {
            if let Event::Received(one) = event
                && one.qos > QoS::AtMostOnce
                && client.persistent
                && client.shared().is_none()
                && !self.world.log.held(&one.mark.payload())
            {
                return Err(format!("{one:?} was delivered before its commit"));
            }
            self.judge.heard(client, event)?;
        }
        Ok(())
    }

    /// Everybody connects and reads until nothing moves any more.
    fn come_to_rest(&mut self) -> Result<(), String> {
        self.world.disk = Disk::Works;
        self.world.fuses = None;
        let mut waited = false;
        for _ in 0..10_000 {
            self.world.log.full = false;
            self.world.log.refuses_appends = None;
            self.world.read_all();
            // What a full disk refused is tried again by the clock.
            self.world.pass(1_000);
            self.world.run();
            self.note_injected();
            let mut quiet = true;
            for index in 0..self.clients.len() {
                self.read(index)?;
                let client = &mut self.clients[index];
                match client.connection {
                    Some(connection) if self.world.is_open(connection) => {
                        let bytes = std::mem::take(&mut client.out);
                        if !bytes.is_empty() {
                            quiet = false;
                            self.world.send(connection, &bytes);
                        }
                    }
                    Some(_) => {
                        quiet = false;
                        self.lose(index);
                    }
                    None => {
                        quiet = false;
                        self.connect(index);
                    }
                }
            }
            if quiet && waited {
                return Ok(());
            }
            if quiet {
                // Longer than any pause after a failed read.
                self.world.pass(10_000);
                waited = true;
            }
        }
        let stuck = self.world.stuck();
        Err(format!("the clients do not come to rest: {stuck:#?}"))
    }
}

impl Schedule {
    /// Everybody unsubscribes: of the groups nothing stays.
    fn empty_groups(&mut self) -> Result<(), String> {
        for index in 0..self.clients.len() {
            self.clients[index].unsubscribe();
            self.judge.unsubscribes(index);
        }
        self.come_to_rest()?;
        let (world, log) = (&self.world, &self.world.log);
        let sessions = world.shards.iter().flat_map(|shard| &shard.sessions);
        let left = [
            world.shared.groups.len(),
            sessions.filter(|(_, one)| one.group.is_some()).count(),
            log.rows(Table::Groups),
            log.rows(Table::Handed),
        ];
        world.agrees_with_its_log(true)?;
        match left {
            [0, 0, 0, 0] => Ok(()),
            left => Err(format!("groups that everybody left: {left:?}")),
        }
    }
}

fn seeds(count: u64) -> std::ops::Range<u64> {
    match std::env::var("HEADWATER_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
    {
        Some(seed) => seed..seed + 1,
        None => {
            let more = std::env::var("HEADWATER_SEEDS").ok();
            0..more.and_then(|more| more.parse().ok()).unwrap_or(count)
        }
    }
}

#[test]
fn what_is_acknowledged_is_delivered_once_and_in_order() {
    let (mut deliveries, mut acknowledged, mut crashes, mut takeovers) = (0, 0, 0, 0);
    let (mut trimmed, mut rewritten, mut copied) = (0, 0, 0);
    let (mut injections, mut refused, mut stops) = (0, 0, 0);
    let (mut loads_failed, mut panics) = (0, 0);
    let (mut wills, mut retained) = (0, 0);
    for seed in seeds(1_500) {
        let mut schedule = Schedule::new(seed, About::Sessions);
        if let Err(finding) = schedule.run(1_500) {
            panic!("seed {seed}: {finding}");
        }
        deliveries += schedule.judge.deliveries;
        acknowledged += schedule.judge.acknowledged;
        crashes += schedule.crashes;
        takeovers += schedule.takeovers;
        injections += schedule.injections;
        refused += schedule.refused;
        stops += schedule.stops;
        wills += schedule.judge.wills_due;
        retained += schedule.judge.retained;
        loads_failed += schedule.world.loads_failed;
        panics += schedule.world.panics;
        trimmed += schedule.world.keeper.trimmed;
        rewritten += schedule.world.keeper.rewritten;
        copied += schedule.world.keeper.copied;
    }
    println!(
        "{deliveries} deliveries, {acknowledged} acknowledged, {crashes} crashes, \
         {takeovers} takeovers, {trimmed} trimmed, {rewritten} rewritten, {copied} copied, \
         {injections} injected, {refused} of them refused, {stops} stops, \
         {wills} wills due, {retained} retained, {loads_failed} failed reads, {panics} panics"
    );
    if std::env::var("HEADWATER_SEED").is_err() {
        assert!(deliveries > 10_000 && acknowledged > 10_000 && crashes > 500 && takeovers > 500);
        assert!(trimmed > 10_000 && rewritten > 1_000 && copied > 300);
        assert!(injections > 10_000 && refused > 100 && stops > 500);
        assert!(loads_failed > 300 && panics > 300);
        assert!(wills > 1_000 && retained > 1_000);
    }
}

#[test]
fn what_a_group_is_owed_reaches_a_member() {
    let (mut deliveries, mut crashes, mut takeovers, mut panics) = (0, 0, 0, 0);
    let (mut rewritten, mut copied) = (0, 0);
    for seed in seeds(1_000) {
        let mut schedule = Schedule::new(seed, About::Groups);
        let outcome = schedule.run(1_500).and_then(|()| schedule.empty_groups());
        if let Err(finding) = outcome {
            panic!("seed {seed}: {finding}");
        }
        deliveries += schedule.judge.deliveries;
        crashes += schedule.crashes;
        takeovers += schedule.takeovers;
        panics += schedule.world.panics;
        rewritten += schedule.world.keeper.rewritten;
        copied += schedule.world.keeper.copied;
    }
    println!(
        "{deliveries} deliveries, {crashes} crashes, {takeovers} takeovers, {panics} panics, \
         {rewritten} rewritten, {copied} copied"
    );
    if std::env::var("HEADWATER_SEED").is_err() {
        assert!(deliveries > 10_000 && crashes > 300 && takeovers > 300 && panics > 100);
        assert!(rewritten > 500 && copied > 100);
    }
}

/// The judge can fail: a broker that hands a message to a member and forgets it is found out.
#[test]
fn a_broker_that_forgets_what_members_have_is_caught() {
    let caught = (0..1_000).any(|seed| {
        let outcome = Schedule::new(seed, About::ForgettingGroups).run(1_500);
        outcome.is_err_and(|finding| finding.contains("4.8.2-5]"))
    });
    assert!(caught);
}

/// The judge can fail: a broker that does not commit Packet Identifiers is found out.
#[test]
fn a_broker_that_forgets_packet_ids_is_caught() {
    let caught = (0..1_500).any(|seed| {
        let outcome = Schedule::new(seed, About::Forgetting).run(1_500);
        outcome.is_err_and(|finding| finding.contains("at QoS 2"))
    });
    assert!(caught);
}
