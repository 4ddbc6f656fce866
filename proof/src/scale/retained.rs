//! Many Retained Messages: a start with them, one subscriber that streams them all while others go on, and many subscribers
//! at once whose memory comes back.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use headwater_mqtt_codec::{Packet, QoS, Version};

use super::Scale;
use crate::client::{Connection, Identity, publish};
use crate::metrics::Metrics;
use crate::owed::{Running, at_rest, joined, mebibytes};

/// The promises: from start to ready, and the longest that others wait while one streams them all.
const READY: Duration = Duration::from_secs(10);
const PAUSE_MS: f64 = 50.0;
const WAIT: Duration = Duration::from_secs(60);
const PUBLISHERS: u64 = 4;
/// Unanswered messages of a publisher.
const WINDOW: u16 = 1_000;
/// Messages a second of the others, ten pairs at QoS 1.
const TRAFFIC: u32 = 5_000;
/// Before what is measured beside them.
const WARMUP: Duration = Duration::from_millis(500);
/// That come one after the other, so that each of the server's threads has some.
const PINGERS: usize = 4;
const PINGS_APART: Duration = Duration::from_millis(2);
/// So that a Retained Message is a row and no record, and what waits does not wait for the disk.
const NO_FLOWS: &str = "default_flows=false";

/// Messages of 64 bytes, set with the default flows: a start with them. Then, without flows, one subscriber that streams them
/// all beside others.
pub fn run(scale: &Scale, messages: u64) -> anyhow::Result<String> {
    let mut running = Running::start(scale.bench.setup("retained")?.0)?;
    let empty = at_rest(&running.program)?;
    let begun = Instant::now();
    set(&running, messages, 64)?;
    let published = begun.elapsed();
    let killed = running.kill_and_start()?;
    ensure!(kept(&running)? == messages, "some are lost after a kill");
    let stopped = running.stop_and_start()?;
    ensure!(kept(&running)? == messages, "some are lost after a stop");
    running.setup.settings = vec![NO_FLOWS.to_owned()];
    running.stop_and_start()?;
    let resident = at_rest(&running.program)?;
    let seconds = 3 + messages / 200_000;
    let alone = beside(scale, &running, seconds, || Ok(()))?;
    let address = running.setup.mqtt;
    let mut took = Duration::ZERO;
    let streaming = beside(scale, &running, seconds, || {
        let begun = Instant::now();
        take_all(address, "stream", messages)?;
        took = begun.elapsed();
        Ok(())
    })?;
    running.program.stop()?;
    let line = format!(
        "{messages} retained messages of 64 bytes: set in {:.1} s with the default flows, ready {} ms after kill -9, {} ms after a stop; {:.0} bytes of resident \
         memory each ({:.1} MiB); `r/#` streamed all of them in {:.1} s, while others' longest waits were {:.1} ms for a message and \
         {:.1} ms for a PINGRESP ({:.1} and {:.1} without it)",
        published.as_secs_f64(),
        killed.as_millis(),
        stopped.as_millis(),
        resident.saturating_sub(empty) as f64 / messages as f64,
        mebibytes(resident),
        took.as_secs_f64(),
        streaming.message_ms,
        streaming.ping_ms,
        alone.message_ms,
        alone.ping_ms,
    );
    let longest = streaming.message_ms.max(streaming.ping_ms);
    scale.promise(killed.max(stopped) < READY && longest <= PAUSE_MS, line)
}

/// Messages of 1,000 bytes to many subscribers at once; then they are cleared.
pub fn crowd(scale: &Scale, messages: u64, subscribers: u64) -> anyhow::Result<String> {
    let (mut setup, _) = scale.bench.setup("crowd")?;
    setup.settings = vec![NO_FLOWS.to_owned()];
    let mut running = Running::start(setup)?;
    // What a first message costs once is not what is to come back.
    set(&running, messages.min(1_000), 1_000)?;
    set(&running, messages.min(1_000), 0)?;
    let empty = at_rest(&running.program)?;
    set(&running, messages, 1_000)?;
    let full = at_rest(&running.program)?;
    let address = running.setup.mqtt;
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let one = |number| scope.spawn(move || take_all(address, &format!("c{number}"), messages));
        let threads: Vec<_> = (0..subscribers).map(one).collect();
        threads.into_iter().try_for_each(joined)
    })?;
    let took = begun.elapsed();
    let peak = running.program.peak_bytes()?;
    let served = at_rest(&running.program)?;
    set(&running, messages, 0)?;
    ensure!(kept(&running)? == 0, "some are not cleared");
    // The allocator gives pages back while it works.
    let words = "storm --rate 500 --secs 2";
    scale.load(&running, words)?.figures(WAIT)?;
    let cleared = at_rest(&running.program)?;
    running.program.stop()?;
    let line = format!(
        "{messages} retained messages of 1,000 bytes to {subscribers} subscribers at once in {:.1} s: resident {:.1} MiB without them, \
         {:.1} MiB with them, at most {:.1} MiB, {:.1} MiB when all had theirs, {:.1} MiB when they were cleared",
        took.as_secs_f64(),
        mebibytes(empty),
        mebibytes(full),
        mebibytes(peak),
        mebibytes(served),
        mebibytes(cleared),
    );
    // Each subscriber's output is bounded; what was read from is shared by all.
    let bound = full + subscribers * (4 << 20);
    ensure!(peak <= bound, "more memory than its limits: {line}");
    let freed = empty + full.saturating_sub(empty) / 4 + (8 << 20);
    ensure!(cleared <= freed, "memory did not come back: {line}");
    Ok(line)
}

fn kept(running: &Running) -> anyhow::Result<u64> {
    Metrics::read(&running.setup)?.value("headwater_retained")
}

/// Sets that many Retained Messages, at QoS 1; no payload clears them.
fn set(running: &Running, messages: u64, payload_bytes: usize) -> anyhow::Result<()> {
    let address = running.setup.mqtt;
    std::thread::scope(|scope| {
        let some = |number: u64| {
            let range = messages * number / PUBLISHERS..messages * (number + 1) / PUBLISHERS;
            scope.spawn(move || set_some(address, number, range, payload_bytes))
        };
        let threads: Vec<_> = (0..PUBLISHERS).map(some).collect();
        threads.into_iter().try_for_each(joined)
    })
}

fn set_some(
    address: SocketAddr,
    publisher: u64,
    numbers: Range<u64>,
    payload_bytes: usize,
) -> anyhow::Result<()> {
    let mut connection = Connection::open(address, &identity(&format!("setter-{publisher}")))?;
    let window = WINDOW.min(connection.receive_maximum);
    let mut open = 0;
    for number in numbers {
        // Never again while it is open: the window is far smaller than the cycle.
        let id = u16::try_from(number % u64::from(u16::MAX))? + 1;
        let payload = vec![b'r'; payload_bytes];
        let topic = format!("r/{number}");
        connection.put(&publish(
            &topic,
            QoS::AtLeastOnce,
            id,
            false,
            true,
            payload,
        )?)?;
        open += 1;
        if open == window {
            connection.flush()?;
            // Half of them, so that there is always something on the way.
            while open > window / 2 || connection.has_input() {
                acknowledged(&mut connection)?;
                open -= 1;
            }
        }
    }
    connection.flush()?;
    for _ in 0..open {
        acknowledged(&mut connection)?;
    }
    connection.disconnect();
    Ok(())
}

fn acknowledged(connection: &mut Connection) -> anyhow::Result<()> {
    match connection.receive(WAIT)?.context("no acknowledgement")? {
        Packet::PubAck(answer) if !answer.reason.is_error() => Ok(()),
        other => bail!("instead of an acknowledgement: {other:?}"),
    }
}

fn identity(client_id: &str) -> Identity {
    Identity {
        client_id: client_id.to_owned(),
        version: Version::V5,
        lasting: false,
    }
}

/// Subscribes to all of them at QoS 0 and takes each.
fn take_all(address: SocketAddr, client_id: &str, messages: u64) -> anyhow::Result<()> {
    let mut connection = Connection::open(address, &identity(client_id))?;
    let early = connection.subscribe("r/#", QoS::AtMostOnce)?;
    let mut taken = u64::try_from(early.len())?;
    while taken < messages {
        match connection.receive(WAIT)? {
            Some(Packet::Publish(message)) => {
                ensure!(message.retain, "a message that was not retained");
                taken += 1;
            }
            other => bail!("{taken} of {messages}, then {other:?}"),
        }
    }
    connection.disconnect();
    Ok(())
}

/// The longest that others waited.
struct Waits {
    message_ms: f64,
    ping_ms: f64,
}

/// Others' traffic and PINGREQs for so long, with `work` within.
fn beside(
    scale: &Scale,
    running: &Running,
    seconds: u64,
    mut work: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Waits> {
    let words = format!(
        "p2p --pairs 10 --qos 1 --rate {TRAFFIC} --warmup {} --secs {seconds}",
        WARMUP.as_secs_f64()
    );
    let begun = Instant::now();
    let traffic = scale.load(running, &words)?;
    let over = AtomicBool::new(false);
    let address = running.setup.mqtt;
    let longest = std::thread::scope(|scope| {
        let ping = || longest_ping(address, &over);
        let pinging: Vec<_> = (0..PINGERS).map(|_| scope.spawn(ping)).collect();
        std::thread::sleep(WARMUP + Duration::from_millis(200));
        let worked = work();
        let within = begun.elapsed() < WARMUP + Duration::from_secs(seconds);
        over.store(true, Ordering::Relaxed);
        let mut longest = Duration::ZERO;
        for pinger in pinging {
            longest = longest.max(joined(pinger)?);
        }
        worked?;
        ensure!(within, "others were not measured for all of the time");
        Ok(longest)
    })?;
    let figures = traffic.figures(WAIT)?;
    figures.none_of(&["unacked", "gaps", "closed"])?;
    Ok(Waits {
        message_ms: figures.milliseconds("lat_max_us")?,
        ping_ms: longest.as_secs_f64() * 1_000.0,
    })
}

fn longest_ping(address: SocketAddr, over: &AtomicBool) -> anyhow::Result<Duration> {
    let mut connection = Connection::open(address, &identity(""))?;
    let mut longest = Duration::ZERO;
    while !over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        connection.send(&Packet::PingReq)?;
        match connection.receive(WAIT)? {
            Some(Packet::PingResp) => longest = longest.max(begun.elapsed()),
            other => bail!("instead of a PINGRESP: {other:?}"),
        }
        std::thread::sleep(PINGS_APART);
    }
    connection.disconnect();
    Ok(longest)
}
