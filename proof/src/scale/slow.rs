//! One subscriber that never reads, or never acknowledges: the others go on, and memory stays bounded.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::BytesMut;
use headwater_mqtt_codec::{
    Connect, ConnectProperties, Packet, QoS, Subscribe, Subscription, SubscriptionOptions, Text,
    Version,
};
use rustix::net::{AddressFamily, SocketType, connect, socket, sockopt};

use super::{Scale, median};
use crate::client::packet_id;
use crate::owed::{Running, mebibytes};

const WAIT: Duration = Duration::from_secs(60);
/// The promise: the others' throughput with it, of theirs without it.
const SHARE_MIN: f64 = 0.95;
/// What its socket takes before the server is the one that waits.
const RECEIVE_BYTES: usize = 4 << 10;
/// For a Session's queue here, so that its limit is met within a run.
const QUEUE_BYTES: u64 = 32 << 20;
/// Beyond what the same load needs without it: the queue, and for the output, what the allocator keeps in pieces, and what is
/// on its way from one thread of the server to another (8 MiB and a batch for each) 32 MiB.
const MEMORY_MAX: u64 = QUEUE_BYTES + (32 << 20);

/// How it is slow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    /// It wants what one of the ten others wants, and reads nothing.
    One,
    /// It wants everything, which is as much as all others together, and reads nothing.
    Everything,
    /// It reads, and acknowledges nothing; its Session lasts. Beside the same Session while it is away: what is owed to it
    /// is committed either way.
    Unacknowledged,
}

impl Way {
    fn filter(self) -> &'static str {
        match self {
            Self::One | Self::Unacknowledged => "load/+/p/0",
            Self::Everything => "load/#",
        }
    }

    fn says(self) -> &'static str {
        match self {
            Self::One => "a subscriber of one of ten topics that never reads",
            Self::Everything => "a subscriber of all ten topics that never reads",
            Self::Unacknowledged => {
                "a subscriber of one of ten topics whose session lasts and that never acknowledges, beside one that is away"
            }
        }
    }
}

/// What is asked of one run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seconds: u32,
    /// Runs with and without it, in turn; the medians count.
    pub rounds: u32,
    /// Only the heaviest kind, where memory has to prove itself.
    pub brief: bool,
}

pub fn run(scale: &Scale, plan: Plan) -> impl Iterator<Item = anyhow::Result<String>> {
    let all = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
    let ways = match plan.brief {
        true => vec![(Way::Everything, QoS::AtLeastOnce)],
        false => {
            let unread = [Way::One, Way::Everything].into_iter();
            let unread = unread.flat_map(|way| all.map(|qos| (way, qos)));
            let lasting = [QoS::AtLeastOnce, QoS::ExactlyOnce];
            unread
                .chain(lasting.map(|qos| (Way::Unacknowledged, qos)))
                .collect()
        }
    };
    let ways = ways.into_iter();
    ways.map(move |(way, qos)| beside(scale, plan, qos, way))
}

fn beside(scale: &Scale, plan: Plan, qos: QoS, way: Way) -> anyhow::Result<String> {
    let (mut without, mut with) = (vec![], vec![]);
    let (mut memory, mut memory_without) = (0, 0);
    let (mut cpu_without, mut cpu_with) = (vec![], vec![]);
    for round in 0..2 * plan.rounds.max(1) {
        let (mut setup, _) = scale.bench.setup("slow")?;
        setup.settings = vec![
            "default_flows=false".to_owned(),
            format!("mqtt.queue_bytes_max={QUEUE_BYTES}"),
        ];
        let mut running = Running::start(setup)?;
        let is_slow = round % 2 == 1;
        let slow = match way {
            Way::One | Way::Everything if !is_slow => None,
            _ => Some(Slow::subscribe(running.setup.mqtt, qos, way)?),
        };
        let slow = slow.filter(|_| is_slow);
        let words = format!(
            "p2p --pairs 10 --qos {} --rate max --warmup 1 --secs {} --cpu-pid {}",
            qos as u8,
            plan.seconds,
            running.program.id()?
        );
        let figures = scale.load(&running, &words)?.figures(WAIT)?;
        figures.none_of(&["lost", "unacked", "gaps", "closed"])?;
        let rate = figures.number("recv_per_s")?;
        let peak = running.program.peak_bytes()?;
        let cpu = figures.number("cpu_s_per_million")?;
        if slow.is_some() {
            with.push(rate);
            cpu_with.push(cpu);
            memory = memory.max(peak);
        } else {
            without.push(rate);
            cpu_without.push(cpu);
            memory_without = memory_without.max(peak);
        }
        drop(slow);
        running.program.stop()?;
    }
    let (with, without) = (median(with), median(without));
    let share = with / without;
    let line = format!(
        "QoS {}, {}: {with:.0} messages a second, {without:.0} without it ({:.0} %); {:.2} CPU seconds \
         of the server a million, {:.2} without it; at most {:.1} MiB resident, {:.1} MiB without it; medians of {}",
        qos as u8,
        way.says(),
        share * 100.0,
        median(cpu_with),
        median(cpu_without),
        mebibytes(memory),
        mebibytes(memory_without),
        plan.rounds,
    );
    ensure!(
        memory <= memory_without + MEMORY_MAX,
        "more memory than its limits: {line}"
    );
    // Of everything at QoS 1 or 2: twice as many messages are queued as are delivered, and the oldest leave for them. That
    // is a load of its own until its Client is closed for taking nothing, and is only said.
    let is_said = way == Way::Everything && qos > QoS::AtMostOnce;
    scale.promise(is_said || share >= SHARE_MIN, line)
}

/// A connection that was subscribed to all the load and is not read since.
struct Slow {
    stream: TcpStream,
    /// Reads and forgets.
    reader: Option<JoinHandle<()>>,
}

impl Drop for Slow {
    fn drop(&mut self) {
        // The server may have closed it before.
        drop(self.stream.shutdown(Shutdown::Both));
        if let Some(reader) = self.reader.take() {
            drop(reader.join());
        }
    }
}

impl Slow {
    fn subscribe(address: SocketAddr, qos: QoS, way: Way) -> anyhow::Result<Self> {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        // Before it connects: the window is agreed on then.
        sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BYTES)?;
        ensure!(address.ip() == Ipv4Addr::LOCALHOST, "only on loopback");
        connect(&socket, &address)?;
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(WAIT))?;
        let mut out = BytesMut::new();
        let lasting = way == Way::Unacknowledged;
        let connect = Connect {
            version: Version::V5,
            bridge: false,
            clean_start: true,
            keep_alive: 0,
            client_id: Text::try_from("slow")?,
            will: None,
            user_name: None,
            password: None,
            properties: ConnectProperties {
                session_expiry_interval: if lasting { 600 } else { 0 },
                ..ConnectProperties::default()
            },
        };
        Packet::Connect(Box::new(connect)).encode(Version::V5, &mut out)?;
        let options = SubscriptionOptions {
            qos,
            ..SubscriptionOptions::default()
        };
        let subscribe = Subscribe {
            packet_id: packet_id(1)?,
            subscription_id: None,
            user_properties: Default::default(),
            subscriptions: vec![Subscription {
                filter: Text::try_from(way.filter())?,
                options,
            }],
        };
        Packet::Subscribe(Box::new(subscribe)).encode(Version::V5, &mut out)?;
        stream.write_all(&out)?;
        // CONNACK and SUBACK, and not a byte more.
        for wanted in [0x20, 0x90] {
            let mut head = [0; 2];
            stream.read_exact(&mut head)?;
            let [kind, len] = head;
            ensure!(
                kind == wanted && len < 128,
                "instead of an answer: {head:?}"
            );
            let mut body = vec![0; usize::from(len)];
            stream.read_exact(&mut body).context("an answer")?;
        }
        let reader = lasting.then(|| stream.try_clone()).transpose()?;
        let reader = reader.map(|mut reader| {
            std::thread::spawn(move || {
                // Until it is closed; a long quiet is no end.
                drop(reader.set_read_timeout(None));
                let mut buffer = vec![0; 64 << 10];
                while reader.read(&mut buffer).is_ok_and(|read| read > 0) {}
            })
        });
        Ok(Self { stream, reader })
    }
}
