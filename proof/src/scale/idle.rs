//! Connections that say nothing: how many fit, what each costs, and that the other doors still answer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::Scale;
use crate::kafka;
use crate::metrics::Metrics;
use crate::owed::{Running, at_rest, joined, mebibytes, until};
use crate::program::free_port;

/// The promise for TCP, in bytes of resident memory a connection, and from how many on it is held to that: what the first
/// few need once is most of theirs.
const BYTES_MAX: f64 = 3_072.0;
const FROM: u64 = 5_000;
/// The same for TLS.
const TLS_BYTES_MAX: f64 = 24.0 * 1_024.0;
/// Threads that shake hands at the same time.
const HANDS: u64 = 4;
const WAIT: Duration = Duration::from_secs(60);

/// Holds `connections` over TCP; the line of figures.
pub fn run(scale: &Scale, connections: u64) -> anyhow::Result<String> {
    let (setup, _) = scale.bench.setup("idle")?;
    let mut running = Running::start(setup)?;
    let before = at_rest(&running.program)?;
    let words = format!("conn --n {connections} --rate 5000 --keepalive 600 --settle 0 --hold 5");
    let load = scale.load(&running, &words)?;
    let said = || Metrics::read(&running.setup)?.value("headwater_connections");
    let came = until("all are connected", WAIT, || Ok(said()? == connections))?;
    let after = at_rest(&running.program)?;
    // Every other door still has places.
    let partitions = kafka::Connection::open(running.setup.kafka)?.partitions("mqtt")?;
    ensure!(!partitions.is_empty(), "Kafka's clients see no topic");
    ensure!(said()? == connections, "some went away");
    let figures = load.figures(WAIT)?;
    figures.none_of(&["refused"])?;
    ensure!(
        figures.number("alive_after_hold")? == connections as f64,
        "some were closed"
    );
    until("all have gone", WAIT, || Ok(said()? == 0))?;
    let left = at_rest(&running.program)?;
    running.program.stop().context("after many connections")?;
    let each = after.saturating_sub(before) as f64 / connections as f64;
    let line = format!(
        "{connections} idle connections: {each:.0} bytes of resident memory each ({:.1} MiB before, {:.1} MiB with them, {:.1} MiB \
         after them), connected in {:.1} s; Kafka and HTTP answered meanwhile",
        mebibytes(before),
        mebibytes(after),
        mebibytes(left),
        came.as_secs_f64(),
    );
    ensure!(
        connections < FROM || each <= BYTES_MAX,
        "more memory than promised: {line}"
    );
    Ok(line)
}

/// Holds `connections` over TLS, with the certificate that the program made at its start; the line of figures.
pub fn run_tls(scale: &Scale, connections: u64) -> anyhow::Result<String> {
    let (mut setup, _) = scale.bench.setup("idle-tls")?;
    let listener = free_port()?;
    let address = listener.local_addr()?;
    drop(listener);
    setup.settings = vec![
        "listeners.tls.enabled=true".to_owned(),
        format!("listeners.tls.bind=\"{address}\""),
    ];
    let mut running = Running::start(setup)?;
    let config = Arc::new(trusting(&running.setup.data_dir().join("tls/ca.pem"))?);
    // What the first handshakes need once is not one connection's.
    drop(shaken(address, &config, u64::MAX)?);
    let before = at_rest(&running.program)?;
    let begun = Instant::now();
    let held = std::thread::scope(|scope| {
        let some = |hand: u64| {
            let config = &config;
            let numbers = connections * hand / HANDS..connections * (hand + 1) / HANDS;
            let all = move || {
                numbers
                    .map(|number| shaken(address, config, number))
                    .collect()
            };
            scope.spawn(all)
        };
        let threads: Vec<_> = (0..HANDS).map(some).collect();
        let all: Result<Vec<Vec<Shaken>>, _> = threads.into_iter().map(joined).collect();
        all
    })?;
    let came = begun.elapsed();
    let after = at_rest(&running.program)?;
    let there = Metrics::read(&running.setup)?.value("headwater_connections")?;
    ensure!(there == connections, "{there} of {connections} are there");
    drop(held);
    running.program.stop()?;
    let each = after.saturating_sub(before) as f64 / connections as f64;
    let line = format!(
        "{connections} idle connections over TLS 1.3: {each:.0} bytes of resident memory each ({:.1} MiB before, {:.1} MiB with them), \
         connected in {:.1} s",
        mebibytes(before),
        mebibytes(after),
        came.as_secs_f64(),
    );
    ensure!(each <= TLS_BYTES_MAX, "more memory than promised: {line}");
    Ok(line)
}

type Shaken = StreamOwned<ClientConnection, TcpStream>;

fn trusting(authority: &Path) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority).map_err(anyhow::Error::msg)? {
        roots.add(certificate.map_err(anyhow::Error::msg)?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    Ok(config.with_no_client_auth())
}

/// A connection with its CONNACK.
fn shaken(address: SocketAddr, config: &Arc<ClientConfig>, number: u64) -> anyhow::Result<Shaken> {
    let socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(WAIT))?;
    let session = ClientConnection::new(Arc::clone(config), ServerName::try_from("localhost")?)?;
    let mut stream = StreamOwned::new(session, socket);
    // CONNECT of 3.1.1 with Clean Session and a Keep Alive of ten minutes.
    let id = format!("tls-{number:020}");
    let mut connect = b"\x10\x24\x00\x04MQTT\x04\x02\x02\x58\x00\x18".to_vec();
    connect.extend_from_slice(id.as_bytes());
    stream.write_all(&connect)?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    ensure!(
        answer == [0x20, 2, 0, 0],
        "instead of a CONNACK: {answer:?}"
    );
    Ok(stream)
}
