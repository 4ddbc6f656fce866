//! `headwater serve`: puts the house together, keeps it, takes it down.
//!
//! For: the order of things. Up: configuration, data directory, ports bound, log recovered,
//! sessions restored, flows started, doors opened. Down: doors closed, clients told, what was
//! accepted committed and carried on, log closed.
//! Not for: anything those parts do themselves.
//! Calls: every module of this crate. Called by: the command line.
//! Holds: no door accepts before everything behind it stands.

pub(crate) mod descriptors;
mod housekeeping;
mod reload;

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, bail};
use headwater_commitlog::fs::RealFs;
use headwater_commitlog::{
    Admin, CommitError, INTERNAL_PREFIX, Log, Options, PartitionId, TopicConfig, Unit,
};
use headwater_dashboard::ListenerState;
use headwater_docstore::Store;
use headwater_kafka_server::KafkaServer;
use headwater_mqtt_broker::{Limits, Strategy, System};
use headwater_mqtt_codec::QoS;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal as UnixSignal, SignalKind, signal};
use tokio::sync::watch;
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use crate::cli::{Serve, Target};
use crate::config::{
    Config, Durability, Listener, Loaded, SharedStrategy, Sources, check_files, load,
};
use crate::data_dir;
use crate::failure;
use crate::flows::delivers::{DeliverCounters, Delivers, beginnings};
use crate::flows::sinks::{SinkCounters, Waiting};
use crate::flows::{Current, Signal};
use crate::http::Running;
use crate::kafka;
use crate::listen::{Door, bind};
use crate::mqtt::commits::TopicRules;
use crate::mqtt::guests::Guests;
use crate::mqtt::{Entrance, Internal, Mqtt, Origins, QuicDoor, Setup, Terms, accept, wall_ms};
use crate::permissions::Permissions;
use crate::start_block;
use crate::tls::{self, Certificates};
use descriptors::{Places, Protocol, Shares};
use housekeeping::Housekeeping;

/// Topics that are there from the first start.
const FIRST_TOPICS: [&str; 2] = ["mqtt", "mqtt.commands"];
/// Threads for everything but MQTT.
const OTHER_THREADS: usize = 2;

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run(target: &Target, options: &Serve) -> anyhow::Result<ExitCode> {
    // The allocator asks for pages of 2 MiB, of which each size class of each thread has its own: 12 MiB for an
    // idle program, and as much again for its first connections. They gained no speed that could be measured.
    let small_pages = rustix::thread::disable_transparent_huge_pages(true);
    let filter =
        EnvFilter::try_from_env("HEADWATER_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    if let Err(error) = small_pages {
        warn!(%error, "memory comes in large pages, which takes more of it");
    }
    let sources = Sources::of_process(options.config.as_deref(), &options.set);
    let loaded = load(&sources)?;
    check_files(&loaded.config, &sources)?;
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    let limit = descriptors::raise();
    info!(limit, "files that may be open");
    let dir = data_dir::locate(target.data_dir.as_deref())?;
    data_dir::make(&dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(OTHER_THREADS)
        .thread_name("other")
        .enable_all()
        .build()
        .context("cannot start threads")?;
    // From here on a signal is kept until it is asked for: one that comes while the log recovers, or
    // right after the start, ends the process in order.
    let wishes = {
        let _inside = runtime.enter();
        Wishes::listen().context("cannot wait for signals")?
    };
    let house = House::build(&runtime, &dir, loaded)?;
    let ended = house.open(&runtime, options.ready_file.as_deref(), &sources, wishes);
    // A long query must not hold up the end: it reads, and nobody waits for it any more.
    runtime.shutdown_background();
    ended
}

/// What the process is asked to do from outside.
struct Wishes {
    terminate: UnixSignal,
    interrupt: UnixSignal,
    hang_up: UnixSignal,
}

impl Wishes {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }
}

/// Everything that runs, before the doors are open.
struct House {
    config: Config,
    /// For HTTP's connections.
    places: Places,
    dir: std::path::PathBuf,
    doors: Vec<Door>,
    log: Log,
    key: String,
    flows: Arc<Current>,
    permissions: Arc<Permissions>,
    mqtt: Mqtt,
    running: Arc<Running>,
    signals: Signals,
    threads: Vec<JoinHandle<()>>,
}

/// Wakes the threads that wait for records.
#[derive(Clone, Default)]
struct Signals {
    sinks: Arc<Signal>,
    delivers: Arc<Signal>,
    housekeeping: Arc<Signal>,
}

impl House {
    fn build(runtime: &Runtime, dir: &Path, loaded: Loaded) -> anyhow::Result<Self> {
        let Loaded { config, flows, .. } = loaded;
        let doors = bind_doors(&config)?;
        let shares = Shares::now(&config);
        let key = data_dir::make_key(dir)?;
        let log = Log::open(Arc::new(RealFs), log_options(&config, dir, shares.log))
            .with_context(|| format!("cannot open the log in {}", dir.display()))?;
        log.on_failure(Box::new(|reason| failure::end("THE LOG", reason)));
        // Behind the log's lock: DIR/tls has one writer.
        let certificates = Arc::new(Certificates::load(&config, dir, &start_block::BUILT)?);
        for name in FIRST_TOPICS {
            make_topic(&log, name, config.log.partitions)?;
        }
        let internal = Internal {
            owed: make_topic(&log, &format!("{INTERNAL_PREFIX}owed"), 1)?,
            kept: make_topic(&log, &format!("{INTERNAL_PREFIX}kept"), 1)?,
        };
        let store = Store::open(&dir.join("store"), store_options(&config))
            .context("cannot open the document store")?;
        let flows = Arc::new(Current::new(flows));
        let permissions = Arc::new(Permissions::new(config.permission.clone()));
        let places = shares.places(Protocol::Mqtt);
        let mqtt = Mqtt::start(Setup {
            log: log.clone(),
            flows: Arc::clone(&flows),
            permissions: Arc::clone(&permissions),
            limits: limits(&config, log.unit_bytes_max()),
            response_information: config.mqtt.response_information.clone(),
            system: System {
                node: config.mqtt.node.as_str().into(),
                announcements_per_second: config.mqtt.sys_clients_rate_max,
                is_open: config.mqtt.sys_open,
            },
            strategy: strategy(&config),
            shards: shards(&config),
            handshakes_max: config.mqtt.handshakes_max.min(places.most() / 2),
            places,
            internal,
            rules: TopicRules {
                auto_create: config.log.auto_create,
                partitions: config.log.partitions,
                routed_partitions_max: config.log.routed_partitions_max as usize,
            },
        })?;
        let _inside = runtime.enter();
        let kafka = KafkaServer::new(
            log.clone(),
            kafka::options(&config, dir)?,
            Arc::new(kafka::House {
                retirements: Arc::clone(&mqtt.common.retirements),
                places: shares.places(Protocol::Kafka),
            }),
        )?;
        let signals = Signals::default();
        let running = Arc::new(Running {
            log: log.clone(),
            kafka,
            runtime: runtime.handle().clone(),
            retirements: Arc::clone(&mqtt.common.retirements),
            counters: Arc::clone(&mqtt.common.counters),
            committer: Arc::clone(&mqtt.common.committer),
            sinks: Arc::new(SinkCounters::default()),
            delivers: Arc::new(DeliverCounters::default()),
            shared: Arc::clone(&mqtt.shared),
            certificates,
            durability: config.durability,
            partitions: config.log.partitions,
            auto_create: config.log.auto_create,
            listeners: RwLock::default(),
            stopping: AtomicBool::new(false),
            readers: Mutex::default(),
            reload_good: AtomicBool::new(true),
            store,
        });
        let mut house = Self {
            places: shares.places(Protocol::Http),
            config,
            dir: dir.to_owned(),
            doors,
            log,
            key,
            flows,
            permissions,
            mqtt,
            running,
            signals,
            threads: Vec::new(),
        };
        house.start_flows()?;
        Ok(house)
    }

    /// Starts what carries records on.
    fn start_flows(&mut self) -> anyhow::Result<()> {
        let (running, signals) = (&self.running, self.signals.clone());
        let mut sinks = Waiting::new(
            self.log.clone(),
            Arc::clone(&self.flows),
            running.store.clone(),
            Arc::clone(&signals.sinks),
            Arc::clone(&running.sinks),
            self.config.store.retention,
        );
        let first = sinks.open()?;
        let tables = beginnings(&self.log, &self.flows.load());
        let unit = Unit {
            tables,
            ..Unit::default()
        };
        self.log
            .commit(unit)
            .context("cannot write down where delivers begin")?;
        let delivers = Delivers::new(
            self.log.clone(),
            Arc::clone(&self.flows),
            Arc::clone(&self.mqtt.common.injections),
            Arc::clone(&self.mqtt.common.inboxes),
            Arc::clone(&signals.delivers),
            Arc::clone(&running.delivers),
            Arc::clone(&self.mqtt.common.timeline),
        );
        let housekeeping = Housekeeping::new(
            self.log.clone(),
            Arc::clone(&self.mqtt.common.retirements),
            Arc::clone(&signals.housekeeping),
        );
        let kafka = Arc::clone(&running.kafka);
        self.log
            .on_advance(Box::new(move |partitions: &[PartitionId]| {
                kafka.advanced(partitions);
                signals.sinks.raise();
                signals.delivers.raise();
            }));
        let mut start = |name: &str, work: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(work);
            thread
                .map(|thread| self.threads.push(thread))
                .context("cannot start a thread")
        };
        start("sinks", Box::new(move || sinks.run(first)))?;
        start("delivers", Box::new(move || delivers.run()))?;
        start("housekeeping", Box::new(move || housekeeping.run()))
    }

    /// Opens the doors, says so, and waits for the end.
    fn open(
        mut self,
        runtime: &Runtime,
        ready_file: Option<&Path>,
        sources: &Sources,
        wishes: Wishes,
    ) -> anyhow::Result<ExitCode> {
        let (stop, stopping) = watch::channel(false);
        let bound: Vec<(&'static str, SocketAddr)> = self
            .doors
            .iter()
            .map(|door| (door.name(), door.address()))
            .collect();
        let mut serving = Vec::new();
        for door in std::mem::take(&mut self.doors) {
            let name = door.name();
            let _inside = runtime.enter();
            let task = match self.running.certificates.of(name) {
                Some(certificate) if name == "quic" => {
                    let door = QuicDoor::open(door.open_udp(), certificate)?;
                    let common = Arc::clone(&self.mqtt.common);
                    runtime.spawn(door.accept(self.entrance(name), common, stopping.clone()))
                }
                _ => {
                    let listener = TcpListener::from_std(door.open()?)?;
                    self.serve_door(runtime, name, listener, stopping.clone())
                }
            };
            serving.push((name, task));
        }
        let every = self.config.mqtt.sys_interval.0;
        if every > 0 {
            runtime.spawn(crate::mqtt::system::run(
                Arc::clone(&self.mqtt.common),
                Arc::clone(&self.mqtt.shared),
                self.config.mqtt.node.clone(),
                Duration::from_millis(every),
                stopping.clone(),
            ));
        }
        let states = bound.iter().map(|(name, address)| ListenerState {
            name: (*name).to_owned(),
            address: address.to_string(),
            accepting: true,
        });
        *self
            .running
            .listeners
            .write()
            .unwrap_or_else(PoisonError::into_inner) = states.collect();
        // Written at once, so that it does not mix with the lines of other threads.
        let ca = self.running.certificates.development_ca();
        let block = start_block::text(&self.config, &self.dir, &bound, ca.as_deref());
        std::io::stderr().write_all(block.as_bytes())?;
        if let Some(path) = ready_file {
            write_ready_file(path, &bound)?;
        }
        info!("every door is open");
        runtime.block_on(self.wait(sources, wishes));
        info!("stopping");
        self.running.stopping.store(true, Ordering::Relaxed);
        stop.send_replace(true);
        self.close(runtime, serving)
    }

    fn serve_door(
        &self,
        runtime: &Runtime,
        name: &'static str,
        listener: TcpListener,
        stopping: watch::Receiver<bool>,
    ) -> tokio::task::JoinHandle<()> {
        match name {
            "kafka" => runtime.spawn(Arc::clone(&self.running.kafka).serve(listener, stopping)),
            "http" => {
                let key = headwater_dashboard::Secret::new(&self.key);
                let router = headwater_dashboard::router(self.running.clone(), key);
                runtime.spawn(crate::http::door::serve(
                    listener,
                    router,
                    self.places.clone(),
                    stopping,
                ))
            }
            _ => {
                let common = Arc::clone(&self.mqtt.common);
                runtime.spawn(accept(listener, self.entrance(name), common, stopping))
            }
        }
    }

    /// What the door `name` does with a connection before MQTT.
    fn entrance(&self, name: &str) -> Entrance {
        let mut listeners = self.config.listeners.all().into_iter();
        let listener = listeners.find(|(one, _, _)| *one == name);
        let house = listener.map(|(_, _, one)| self.config.mqtt.house(one));
        Entrance {
            guests: Arc::new(Guests::new(house.unwrap_or_default())),
            proxies: listener.map_or(Vec::new(), |(_, _, one)| one.proxy_protocol.clone()),
            tls: self.running.certificates.of(name),
            ws: listener
                .filter(|_| matches!(name, "ws" | "wss"))
                .map(|(_, _, one)| terms(one)),
        }
    }

    /// Until SIGTERM or SIGINT; SIGHUP reads flows, permissions and certificates again.
    async fn wait(&self, sources: &Sources, mut wishes: Wishes) {
        let mut look = tokio::time::interval(tls::LOOK_EVERY);
        loop {
            tokio::select! {
                _ = wishes.terminate.recv() => return,
                _ = wishes.interrupt.recv() => return,
                _ = wishes.hang_up.recv() => {
                    let mut good = reload::reload(
                        &self.config,
                        sources,
                        &self.log,
                        &self.flows,
                        &self.permissions,
                    );
                    good &= self.running.certificates.reload(wall_ms() / 1_000);
                    self.running.reload_good.store(good, Ordering::Relaxed);
                    self.signals.sinks.raise();
                    self.signals.delivers.raise();
                }
                _ = look.tick() => self.running.certificates.look(wall_ms() / 1_000),
            }
        }
    }

    fn close(
        self,
        runtime: &Runtime,
        serving: Vec<(&'static str, tokio::task::JoinHandle<()>)>,
    ) -> anyhow::Result<ExitCode> {
        self.signals.delivers.stop();
        self.signals.housekeeping.stop();
        self.mqtt.common.retirements.stop();
        self.mqtt.stop();
        runtime.block_on(async {
            for (name, door) in serving {
                if door.await.is_err() {
                    warn!(door = name, "a door did not close in order");
                }
            }
        });
        self.signals.sinks.stop();
        for thread in self.threads {
            if thread.join().is_err() {
                warn!("a thread ended in a panic");
            }
        }
        self.log.close()?;
        info!("stopped: every record is in its segment");
        Ok(ExitCode::SUCCESS)
    }
}

/// What a WebSocket's listener asks of a request.
fn terms(listener: &Listener) -> Terms {
    let is_local = listener.bind.is_none_or(|bind| bind.ip().is_loopback());
    let origins = match &listener.origins {
        Some(origins) if origins.iter().any(|origin| origin == "*") => Origins::Any,
        Some(origins) => Origins::Listed(origins.clone()),
        None if is_local && !listener.allow_anonymous => Origins::Local,
        None => Origins::Any,
    };
    Terms {
        path: listener.path().to_owned(),
        origins,
    }
}

fn bind_doors(config: &Config) -> anyhow::Result<Vec<Door>> {
    let mut doors = Vec::new();
    for (name, port, listener) in config.listeners.all() {
        if listener.enabled && start_block::BUILT.contains(&name) {
            let address = listener
                .bind
                .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], port)));
            doors.push(bind(name, address)?);
        }
    }
    Ok(doors)
}

/// The log's options; it may have `open_files_max` files of partitions open.
pub(crate) fn log_options(config: &Config, dir: &Path, open_files_max: usize) -> Options {
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let mut options = Options::new(dir);
    options.durability = match config.durability {
        Durability::Sync => headwater_commitlog::Durability::Sync,
        Durability::Interval => headwater_commitlog::Durability::Interval { interval_ms: 100 },
        Durability::Os => headwater_commitlog::Durability::Os,
    };
    options.wal_bytes_max = config.log.wal_bytes_max.map(|size| size.0);
    options.segment_bytes = u32::try_from(config.log.segment_bytes.0).unwrap_or(u32::MAX);
    options.retention_ms = signed(config.log.retention_ms.0);
    options.retention_bytes = config.log.retention_bytes.map_or(-1, |size| signed(size.0));
    options.backlog_bytes_max = config.log.backlog_bytes_max.0;
    options.open_files_max = open_files_max;
    // An MQTT packet of the largest size must fit, with its headers.
    let packet_max = u32::try_from(config.mqtt.packet_bytes_max.0).unwrap_or(u32::MAX);
    options.message_bytes_max = options
        .message_bytes_max
        .max(packet_max.saturating_add(256 << 10));
    options
}

/// What a record and a row add to the packet they were made of: the client id, a key, the topic
/// again, each up to 64 KiB.
const COPY_BYTES: u64 = 256 << 10;

/// The largest packet whose commit the log takes. At worst the message is in it once for the last
/// route, once for each that copies, and once as the Retained Message.
fn packet_bytes_max(config: &Config, unit_bytes_max: u64) -> u32 {
    let copies = config.route.iter().filter(|route| route.copy).count() as u64 + 2;
    let room = unit_bytes_max.saturating_sub(copies * COPY_BYTES);
    let fits = room.max(unit_bytes_max / 2) / copies;
    u32::try_from(config.mqtt.packet_bytes_max.0.min(fits)).unwrap_or(u32::MAX)
}

fn store_options(config: &Config) -> headwater_docstore::Options {
    headwater_docstore::Options {
        retention_ms: Some(i64::try_from(config.store.retention.0).unwrap_or(i64::MAX)),
        ..headwater_docstore::Options::default()
    }
}

fn limits(config: &Config, unit_bytes_max: u64) -> Limits {
    let mqtt = &config.mqtt;
    let seconds = mqtt.session_expiry_max.0 / 1_000;
    Limits {
        packet_bytes_max: packet_bytes_max(config, unit_bytes_max),
        output_bytes_max: usize::try_from(mqtt.output_bytes_max.0).unwrap_or(usize::MAX),
        send_ms_max: mqtt.send_timeout.0,
        connect_ms_max: mqtt.connect_timeout.0,
        keep_alive_seconds_max: mqtt.keep_alive_seconds_max,
        topic_alias_max: mqtt.topic_alias_max,
        inflight_max: mqtt
            .inflight_max
            .try_into()
            .unwrap_or(std::num::NonZeroU16::MIN),
        topic_levels_max: usize::from(mqtt.topic_levels_max),
        topic_bytes_max: usize::from(mqtt.topic_bytes_max),
        subscriptions_max: usize::try_from(mqtt.subscriptions_max).unwrap_or(usize::MAX),
        shared_subscriptions_max: usize::try_from(mqtt.shared_subscriptions_max)
            .unwrap_or(usize::MAX),
        shared_groups_max: usize::try_from(mqtt.shared_groups_max).unwrap_or(usize::MAX),
        shared_bytes_max: mqtt.shared_bytes_max.0,
        client_id_bytes_max: usize::from(mqtt.client_id_bytes_max),
        qos_max: QoS::from_bits(mqtt.qos_max).unwrap_or(QoS::ExactlyOnce),
        retain_available: mqtt.retain_available,
        wildcards_available: mqtt.wildcards_available,
        reason_strings: mqtt.reason_strings,
        receive_maximum: mqtt
            .receive_maximum
            .try_into()
            .unwrap_or(std::num::NonZeroU16::MIN),
        session_expiry_seconds_max: u32::try_from(seconds).unwrap_or(u32::MAX),
        sessions_max: mqtt.sessions_max,
        retained_messages_max: usize::try_from(mqtt.retained_messages_max).unwrap_or(usize::MAX),
        retained_bytes_max: usize::try_from(mqtt.retained_bytes_max.0).unwrap_or(usize::MAX),
        queue_messages_max: usize::try_from(mqtt.queue_messages_max).unwrap_or(usize::MAX),
        queue_bytes_max: mqtt.queue_bytes_max.0,
        ..Limits::default()
    }
}

fn strategy(config: &Config) -> Strategy {
    match config.mqtt.shared_strategy {
        SharedStrategy::RoundRobin => Strategy::RoundRobin,
        SharedStrategy::Sticky => Strategy::Sticky,
        SharedStrategy::HashClient => Strategy::HashClient,
        SharedStrategy::HashTopic => Strategy::HashTopic,
    }
}

fn shards(config: &Config) -> usize {
    match config.mqtt.shards {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        wanted => wanted,
    }
}

/// Of the internal topics.
const INTERNAL_SEGMENT_BYTES: &str = "16777216";

/// Makes a topic that is not there, and gives its first partition.
fn make_topic(log: &Log, name: &str, partitions: u32) -> anyhow::Result<PartitionId> {
    if log.topic(name).is_none() {
        let mut config = TopicConfig::default();
        if name.starts_with(INTERNAL_PREFIX) {
            // What sessions are owed goes when nobody is owed it, not by age.
            config.set(TopicConfig::RETENTION_MS, "-1")?;
            // Whole segments go: small ones, so that little stays behind.
            config.set(TopicConfig::SEGMENT_BYTES, INTERNAL_SEGMENT_BYTES)?;
        }
        let create = Admin::CreateTopic {
            name: name.to_owned(),
            partitions,
            config,
        };
        match log.commit(Unit {
            admin: vec![create],
            ..Unit::default()
        }) {
            Ok(_) | Err(CommitError::TopicExists { .. }) => {}
            Err(error) => bail!("topic {name} cannot be made: {error}"),
        }
    }
    let topic = log
        .topic(name)
        .with_context(|| format!("topic {name} is not there"))?;
    topic
        .partitions
        .first()
        .copied()
        .with_context(|| format!("topic {name} has no partition"))
}

/// `{"tcp": "127.0.0.1:1883", …}`, whole or not at all.
fn write_ready_file(path: &Path, bound: &[(&'static str, SocketAddr)]) -> anyhow::Result<()> {
    let all: serde_json::Map<String, serde_json::Value> = bound
        .iter()
        .map(|(name, at)| ((*name).to_owned(), at.to_string().into()))
        .collect();
    let partial = path.with_extension("partial");
    std::fs::write(&partial, serde_json::Value::Object(all).to_string())
        .and_then(|()| std::fs::rename(&partial, path))
        .with_context(|| format!("--ready-file {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brokers_own_limits_are_the_configurations_defaults() {
        assert_eq!(limits(&Config::default(), 1 << 40), Limits::default());
    }
}
