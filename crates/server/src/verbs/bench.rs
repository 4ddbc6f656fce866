//! `headwater bench`: loads a running broker, and says what it took and whether every message came.
//!
//! For: the cases p2p, fan-in and fan-out, as fast as a window of undelivered messages lets them or
//! at a fixed rate, over TCP and TLS, for any broker.
//! Not for: starting brokers, comparing them (`tests/bench`).
//! Calls: `client`, `account`. Called by: the command line.
//! Holds: a run ends in its time, whatever the broker does. Its figures count only the seconds
//! measured; its account holds every message, those of the warm-up and the end included.

mod account;
mod client;

use std::io::Write;
use std::ops::Range;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use headwater_mqtt_codec::{Connect, ConnectProperties, QoS, Text};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::spawn_local;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_rustls::TlsConnector;

use super::mqtt_client::{host_and_port, new_client_id};
use crate::cli::{Bench, BenchCase, Target};
use crate::data_dir;
use account::{Account, STAMP_BYTES, cpu_time, resident_bytes};
use client::{Client, Role, Run, Stream};

/// For a connection and its subscription.
const ENTER_MAX: Duration = Duration::from_secs(10);
/// For what is still on its way when the time is over.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// Step of a fixed rate's clock: messages become due at its ticks.
const TICK: Duration = Duration::from_millis(1);

/// Runs the verb. Exit code 1 when a message was lost, repeated or out of order.
pub(crate) fn run(target: &Target, verb: &Bench, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    let report = runtime.block_on(measure(target, verb))?;
    if verb.json {
        writeln!(out, "{}", report.as_json(verb))?;
    } else {
        report.print(verb, out)?;
    }
    Ok(if report.account.is_clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Topics of a run and who hears which.
struct Cast {
    publishers: u32,
    hears: Vec<Range<u32>>,
    window: u64,
}

impl Cast {
    fn of(verb: &Bench) -> Self {
        let count = |default| verb.count.unwrap_or(default);
        match verb.case {
            BenchCase::P2p => Self {
                publishers: count(10),
                hears: (0..count(10)).map(|at| at..at + 1).collect(),
                window: (2_000 / u64::from(count(10))).clamp(8, 200),
            },
            BenchCase::FanIn => Self {
                publishers: count(100),
                hears: vec![0..count(100); 1],
                window: (2_000 / u64::from(count(100))).clamp(8, 200),
            },
            BenchCase::FanOut => Self {
                publishers: 1,
                hears: vec![0..1; count(1_000) as usize],
                window: 32,
            },
        }
    }
}

/// Where the broker is, and how it is spoken to.
struct Way {
    host: String,
    port: u16,
    tls: Option<TlsConnector>,
}

impl Way {
    fn to(target: &Target, verb: &Bench) -> anyhow::Result<Self> {
        let url = target.url.as_deref().unwrap_or("mqtt://127.0.0.1");
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let (tls, port) = match scheme {
            "mqtt" => (None, 1883),
            "mqtts" => (Some(connector(target, verb)?), 8883),
            _ => bail!("--url {url}: bench wants mqtt://HOST[:PORT] or mqtts://HOST[:PORT]"),
        };
        let (host, port) = host_and_port(rest, port).with_context(|| format!("--url {url}"))?;
        Ok(Self { host, port, tls })
    }

    async fn connect(&self) -> anyhow::Result<Box<dyn Stream>> {
        let Self { host, port, tls } = self;
        let stream = TcpStream::connect((host.as_str(), *port)).await;
        let stream = stream
            .with_context(|| format!("cannot connect to {host}:{port}; is the broker running?"))?;
        stream.set_nodelay(true)?;
        Ok(match tls {
            None => Box::new(stream),
            Some(tls) => {
                let name = ServerName::try_from(host.clone())?;
                Box::new(tls.connect(name, stream).await.context("no TLS")?)
            }
        })
    }
}

fn connector(target: &Target, verb: &Bench) -> anyhow::Result<TlsConnector> {
    let path = match &verb.ca {
        Some(path) => path.clone(),
        None => data_dir::locate(target.data_dir.as_deref())?.join("tls/ca.pem"),
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&path)
        .with_context(|| format!("cannot read {}", path.display()))?
    {
        roots.add(certificate?)?;
    }
    let config = ClientConfig::builder().with_root_certificates(roots);
    Ok(TlsConnector::from(Arc::new(config.with_no_client_auth())))
}

async fn measure(target: &Target, verb: &Bench) -> anyhow::Result<Report> {
    if verb.size < STAMP_BYTES {
        bail!(
            "--size {}: at least {STAMP_BYTES}, in which each message says which it is",
            verb.size
        );
    }
    let cast = Cast::of(verb);
    let way = Way::to(target, verb)?;
    let window = verb
        .rate
        .is_none()
        .then(|| verb.window.unwrap_or(cast.window));
    let subscribers = cast.hears.len();
    let account = Account::new(cast.publishers, cast.hears, window);
    let qos = QoS::from_bits(verb.qos).unwrap_or_default();
    let run = Rc::new(Run::new(verb.login.version.into(), qos, verb.size, account));
    let connect = Connect {
        version: run.version,
        bridge: false,
        clean_start: true,
        keep_alive: 0,
        client_id: Text::default(),
        will: None,
        user_name: verb.login.user_name()?,
        password: verb.login.password()?,
        properties: ConnectProperties::default(),
    };
    let name = uuid::Uuid::new_v4().simple().to_string();
    let name = name.get(..12).unwrap_or_default();
    for index in 0..subscribers {
        let filter = match verb.case {
            BenchCase::P2p => format!("bench/{name}/{index}"),
            BenchCase::FanIn => format!("bench/{name}/+"),
            BenchCase::FanOut => format!("bench/{name}/0"),
        };
        let filter = Text::try_from(filter)?;
        enter(&run, &way, &connect, Role::Subscriber { index, filter }).await?;
    }
    for index in 0..cast.publishers as usize {
        let topic = Text::try_from(format!("bench/{name}/{index}"))?;
        enter(&run, &way, &connect, Role::publisher(index, topic)).await?;
    }
    run.open.set(true);
    for at in 0..cast.publishers as usize {
        wake(&run, at);
    }
    let pace = verb
        .rate
        .map(|rate| spawn_local(pace(Rc::clone(&run), rate.into())));
    lasting(&run, Duration::from_secs(verb.warmup)).await?;
    run.account.borrow_mut().latency.clear();
    let before = Mark::now(&run, verb)?;
    lasting(&run, Duration::from_secs(verb.secs)).await?;
    let after = Mark::now(&run, verb)?;
    let latencies = std::mem::take(&mut run.account.borrow_mut().latency);
    run.open.set(false);
    if let Some(pace) = pace {
        pace.abort();
    }
    let end = Instant::now() + DRAIN_MAX;
    while !run.account.borrow().is_complete() && Instant::now() < end {
        lasting(&run, Duration::from_millis(10)).await?;
    }
    // What comes twice comes behind the rest.
    lasting(&run, Duration::from_millis(100)).await?;
    let empty = Account::new(0, Vec::new(), None);
    let mut account = run.account.replace(empty);
    account.latency = latencies;
    Ok(Report {
        before,
        after,
        account,
    })
}

fn wake(run: &Run, publisher: usize) {
    let way = |account: &mut Account| account.ways.get_mut(publisher)?.waker.take();
    let waker = way(&mut run.account.borrow_mut());
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Connects one client and lets it run.
async fn enter(run: &Rc<Run>, way: &Way, connect: &Connect, role: Role) -> anyhow::Result<()> {
    let connect = Connect {
        client_id: new_client_id("bench")?,
        ..connect.clone()
    };
    let entering = async {
        let stream = way.connect().await?;
        Client::enter(Rc::clone(run), role, stream, connect).await
    };
    let client = timeout(ENTER_MAX, entering).await;
    let client =
        client.with_context(|| format!("no answer within {} s", ENTER_MAX.as_secs()))??;
    spawn_local(client.drive());
    Ok(())
}

/// Lets the run go on for so long.
async fn lasting(run: &Run, time: Duration) -> anyhow::Result<()> {
    tokio::select! {
        () = sleep(time) => Ok(()),
        () = run.failed.notified() => {
            let failure = run.failure.borrow_mut().take();
            Err(failure.unwrap_or_else(|| anyhow::anyhow!("a connection failed")))
        }
    }
}

/// Makes messages due, `rate` a second over all publishers.
async fn pace(run: Rc<Run>, rate: u64) {
    let publishers = run.account.borrow().ways.len();
    let mut turns = (0..publishers).cycle();
    let (begin, mut released) = (Instant::now(), 0);
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let due = u128::from(rate) * begin.elapsed().as_micros() / 1_000_000;
        let due = u64::try_from(due).unwrap_or(u64::MAX);
        let now_ns = run.now_ns();
        let mut account = run.account.borrow_mut();
        for turn in turns
            .by_ref()
            .take(usize::try_from(due - released).unwrap_or(0))
        {
            account.release(turn, now_ns);
        }
        released = due;
    }
}

/// Where a run stood at one moment.
struct Mark {
    at: Instant,
    sent: u64,
    delivered: u64,
    own: Duration,
    /// Processor time and resident bytes of the broker.
    broker: Option<(Duration, u64)>,
}

impl Mark {
    fn now(run: &Run, verb: &Bench) -> anyhow::Result<Self> {
        let broker = verb
            .pid
            .map(|pid| anyhow::Ok((cpu_time(pid)?, resident_bytes(pid)?)));
        let account = run.account.borrow();
        Ok(Self {
            at: Instant::now(),
            sent: account.sent(),
            delivered: account.delivered,
            own: cpu_time(std::process::id())?,
            broker: broker.transpose()?,
        })
    }
}

/// What a run found.
struct Report {
    before: Mark,
    after: Mark,
    account: Account,
}

impl Report {
    fn seconds(&self) -> f64 {
        (self.after.at - self.before.at).as_secs_f64()
    }

    fn delivered_per_s(&self) -> f64 {
        (self.after.delivered - self.before.delivered) as f64 / self.seconds()
    }

    fn sent_per_s(&self) -> f64 {
        (self.after.sent - self.before.sent) as f64 / self.seconds()
    }

    /// Share of one core that this program took itself.
    fn own_share(&self) -> f64 {
        (self.after.own - self.before.own).as_secs_f64() / self.seconds()
    }

    /// Processor seconds of the broker for a million delivered messages, and its resident bytes.
    fn broker(&self) -> Option<(f64, u64)> {
        let ((before, _), (after, resident)) = (self.before.broker?, self.after.broker?);
        let delivered = (self.after.delivered - self.before.delivered).max(1) as f64;
        Some(((after - before).as_secs_f64() * 1e6 / delivered, resident))
    }

    fn latency_ms(&self, share: f64) -> f64 {
        self.account.latency.quantile(share).as_secs_f64() * 1e3
    }

    fn print(&self, verb: &Bench, out: &mut dyn Write) -> anyhow::Result<()> {
        writeln!(
            out,
            "delivered   {:.0} a second, {:.1} MB/s of payload; published {:.0} a second",
            self.delivered_per_s(),
            self.delivered_per_s() * verb.size as f64 / 1e6,
            self.sent_per_s()
        )?;
        if verb.rate.is_some() {
            writeln!(
                out,
                "latency     p50 {:.3} ms, p99 {:.3}, p99.9 {:.3}, longest {:.3}",
                self.latency_ms(0.5),
                self.latency_ms(0.99),
                self.latency_ms(0.999),
                self.latency_ms(1.0)
            )?;
        }
        if let Some((cpu, resident)) = self.broker() {
            let resident = resident as f64 / f64::from(1 << 20);
            writeln!(
                out,
                "broker      {cpu:.3} CPU seconds a million delivered, {resident:.1} MiB resident"
            )?;
        }
        let limit = if self.own_share() > 0.9 {
            ": it, not the broker, was the limit"
        } else {
            ""
        };
        writeln!(out, "bench       {:.2} of a core{limit}", self.own_share())?;
        let account = &self.account;
        writeln!(
            out,
            "messages    {} sent, {} delivered, {} lost, {} repeated or late, {} foreign, {} unacknowledged",
            account.sent(),
            account.delivered,
            account.lost(),
            account.late,
            account.foreign,
            account.unacknowledged
        )?;
        Ok(())
    }

    fn as_json(&self, verb: &Bench) -> serde_json::Value {
        let account = &self.account;
        let latency = verb.rate.map(|_| {
            json!({
                "p50": self.latency_ms(0.5), "p99": self.latency_ms(0.99),
                "p999": self.latency_ms(0.999), "max": self.latency_ms(1.0),
            })
        });
        json!({
            "seconds": self.seconds(),
            "delivered_per_s": self.delivered_per_s(), "sent_per_s": self.sent_per_s(),
            "latency_ms": latency,
            "cpu_s_per_million": self.broker().map(|(cpu, _)| cpu),
            "resident_bytes": self.broker().map(|(_, resident)| resident),
            "bench_cores": self.own_share(),
            "sent": account.sent(), "delivered": account.delivered, "lost": account.lost(),
            "repeated_or_late": account.late, "foreign": account.foreign,
            "unacknowledged": account.unacknowledged,
        })
    }
}
