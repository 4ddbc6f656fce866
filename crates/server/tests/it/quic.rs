//! MQTT over QUIC, by a client over quinn.

use std::io::{Error, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::channel;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    ClientConfig, Connecting, Connection, ConnectionError, Endpoint, RecvStream, SendStream,
};
use rustix::process::Signal;
use tokio::runtime::{Handle, Runtime};
use tokio::time::timeout;

use crate::program::{Home, PATIENCE, Program, until};
use crate::tls_client::{Authority, Client, replace};
use crate::wire::{Hello, Wire, publish};

/// A UDP socket and the tasks behind it.
struct Caller {
    runtime: Runtime,
    endpoint: Endpoint,
    config: ClientConfig,
}

/// A connection and its stream, which blocks.
struct Stream {
    runtime: Handle,
    connection: Connection,
    send: SendStream,
    recv: RecvStream,
}

impl Caller {
    fn new(mut client: Client, protocols: &[&str]) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        client.protocols = protocols
            .iter()
            .map(|one| one.as_bytes().to_vec())
            .collect();
        let crypto = QuicClientConfig::try_from(client.config()).unwrap();
        let _inside = runtime.enter();
        let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let config = ClientConfig::new(Arc::new(crypto));
        drop(_inside);
        Self {
            runtime,
            endpoint,
            config,
        }
    }

    /// Trusts the certificate that the program has made.
    fn of(home: &Home) -> Self {
        Self::new(Client::trusting(&home.data().join("tls/ca.pem")), &["mqtt"])
    }

    fn connecting(&self, address: SocketAddr) -> Connecting {
        let _inside = self.runtime.enter();
        let config = self.config.clone();
        (self.endpoint)
            .connect_with(config, address, "localhost")
            .unwrap()
    }

    fn connect(&self, address: SocketAddr) -> Result<Connection, ConnectionError> {
        wait(self.runtime.handle(), self.connecting(address))
    }

    fn stream(&self, address: SocketAddr) -> Result<Stream, ConnectionError> {
        let connection = self.connect(address)?;
        let (send, recv) = wait(self.runtime.handle(), connection.open_bi())?;
        Ok(Stream {
            runtime: self.runtime.handle().clone(),
            connection,
            send,
            recv,
        })
    }

    fn wire(&self, program: &Program, id: &str) -> Wire<Stream> {
        Wire::over(self.stream(program.doors["quic"]).unwrap(), &Hello::v5(id))
    }

    /// Whether the program lets this client speak MQTT.
    fn gets_in(&self, program: &Program) -> bool {
        let Ok(mut stream) = self.stream(program.doors["quic"]) else {
            return false;
        };
        let mut answer = [0; 4];
        let answered = stream.write_all(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c");
        answered
            .and_then(|()| stream.read_exact(&mut answer))
            .is_ok()
    }
}

impl Stream {
    fn closed(&self) -> ConnectionError {
        wait(&self.runtime, self.connection.closed())
    }
}

/// What comes in time, as it must.
fn wait<T>(runtime: &Handle, coming: impl Future<Output = T>) -> T {
    runtime.block_on(async { timeout(PATIENCE, coming).await.expect("in time") })
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> Result<usize, Error> {
        Ok(wait(&self.runtime.clone(), self.recv.read(into))?.unwrap_or(0))
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        Ok(wait(&self.runtime.clone(), self.send.write(bytes))?)
    }

    fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

/// One message from one client to another, with all that each says to the program about it.
fn carry<A: Read + Write, B: Read + Write>(
    from: &mut Wire<A>,
    to: &mut Wire<B>,
    topic: &str,
    qos: u8,
) {
    from.send(&publish(topic, b"hello", qos, 7));
    if qos == 1 {
        assert_eq!(from.packet(), (0x40, vec![0, 7]), "PUBACK");
    } else if qos == 2 {
        assert_eq!(from.packet(), (0x50, vec![0, 7]), "PUBREC");
        from.acknowledge(0x62, 7);
        assert_eq!(from.packet(), (0x70, vec![0, 7]), "PUBCOMP");
    }
    let message = to.message();
    assert_eq!(
        (&message.topic[..], &message.payload[..]),
        (topic, &b"hello"[..])
    );
    if qos == 1 {
        to.acknowledge(0x40, message.id);
    } else if qos == 2 {
        to.acknowledge(0x50, message.id);
        assert_eq!(to.packet().0, 0x62, "PUBREL");
        to.acknowledge(0x70, message.id);
    }
}

#[test]
fn messages_go_between_quic_and_tcp_at_each_qos() {
    let home = Home::new();
    let program = home.start();
    let caller = Caller::of(&home);
    let mut quic = caller.wire(&program, "quic");
    let (mut tcp, _) = Wire::connect(program.mqtt(), &Hello::v5("tcp"));
    quic.subscribe("to/quic", 2);
    tcp.subscribe("to/tcp", 2);
    for qos in 0..=2 {
        carry(&mut quic, &mut tcp, "to/tcp", qos);
        carry(&mut tcp, &mut quic, "to/quic", qos);
    }
    // DISCONNECT: the program ends the connection.
    quic.send(&[0xE0, 0]);
    assert_eq!(quic.next(), None);
    until("the place is given back", || {
        program.metric("headwater_sockets") == 1
    });
}

#[test]
fn large_packets_go_through_small_windows() {
    let home = Home::new();
    let program = home.start();
    let caller = Caller::of(&home);
    let mut wire = caller.wire(&program, "a");
    wire.subscribe("t", 0);
    let payload: Vec<u8> = (0..=250).cycle().take(3 << 20).collect();
    wire.send(&publish("t", &payload, 0, 0));
    let (first, body) = wire.packet();
    assert!(first == 0x30 && body.ends_with(&payload));
}

#[test]
fn client_that_changes_its_address_goes_on() {
    let home = Home::new();
    let program = home.start();
    let caller = Caller::of(&home);
    let mut quic = caller.wire(&program, "roams");
    quic.subscribe("to/quic", 1);
    let (mut tcp, _) = Wire::connect(program.mqtt(), &Hello::v5("tcp"));
    tcp.subscribe("to/tcp", 1);
    for _ in 0..3 {
        let before = caller.endpoint.local_addr().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        caller
            .runtime
            .block_on(async { caller.endpoint.rebind(socket) })
            .unwrap();
        assert_ne!(caller.endpoint.local_addr().unwrap(), before);
        carry(&mut quic, &mut tcp, "to/tcp", 1);
        carry(&mut tcp, &mut quic, "to/quic", 1);
    }
}

#[test]
fn only_one_stream_has_credit() {
    let home = Home::new();
    let program = home.start();
    let caller = Caller::of(&home);
    let stream = caller.stream(program.doors["quic"]).unwrap();
    let connection = stream.connection.clone();
    let mut wire = Wire::over(stream, &Hello::v5("a"));
    let (handle, other) = (caller.runtime.handle(), connection.clone());
    let second = handle.spawn(async move { other.open_bi().await.is_ok() });
    let other = connection.clone();
    let one_way = handle.spawn(async move { other.open_uni().await.is_ok() });
    let datagram = connection.send_datagram("no".into());
    assert!(datagram.is_err(), "{datagram:?}");
    for _ in 0..10 {
        wire.send(&[0xC0, 0]);
        assert_eq!(wire.packet().0, 0xD0, "PINGRESP");
    }
    assert!(!second.is_finished() && !one_way.is_finished(), "no credit");
    assert_eq!(connection.close_reason(), None);
}

#[test]
fn another_protocol_gets_no_connection() {
    let home = Home::new();
    let program = home.start();
    for protocols in [&["h3"][..], &[]] {
        let caller = Caller::new(Client::trusting(&home.data().join("tls/ca.pem")), protocols);
        let Err(ConnectionError::ConnectionClosed(closed)) = caller.connect(program.doors["quic"])
        else {
            panic!("{protocols:?} is let in");
        };
        // RFC 9001, 8.1: no_application_protocol as a crypto error.
        assert_eq!(u64::from(closed.error_code), 0x178, "{protocols:?}");
    }
    assert!(Caller::of(&home).gets_in(&program));
}

#[test]
fn certificates_are_those_of_tls_and_change_under_new_connections() {
    let (servers, devices) = (Authority::new("s"), Authority::new("d"));
    let home = Home::new();
    let (certificate, key) = servers.issue(1).write(&home.path(""));
    let (ca, crl) = (home.path("ca.pem"), home.path("crl.pem"));
    replace(&ca, &devices.pem());
    replace(&crl, &devices.revoke(&[11], 2099));
    home.configure(&format!(
        "[listeners.quic]\ncertificate_file = {certificate:?}\nkey_file = {key:?}\n\
         client_ca_file = {ca:?}\nclient_certificates = \"required\"\ncrl_files = [{crl:?}]\n"
    ));
    let roots = home.path("roots.pem");
    replace(&roots, &servers.pem());
    let mut program = home.start();
    let caller = |pair| {
        let client = Client::trusting(&roots);
        let client = match pair {
            Some(serial) => client.showing(&devices.issue(serial)),
            None => client,
        };
        Caller::new(client, &["mqtt"])
    };
    for (pair, expected, why) in [
        (None, false, "no certificate"),
        (Some(10), true, "a good one"),
        (Some(11), false, "a revoked one"),
    ] {
        assert_eq!(caller(pair).gets_in(&program), expected, "{why}");
    }
    let before = caller(Some(10));
    let mut wire = before.wire(&program, "before");
    // A certificate of a CA that nobody here trusts: who comes now notices.
    Authority::new("n").issue(2).write(&home.path(""));
    program.signal(Signal::HUP);
    program.wait_for_line("certificates were read again listener=\"quic\"");
    until("new handshakes see the new certificate", || {
        !caller(Some(10)).gets_in(&program)
    });
    wire.send(&[0xC0, 0]);
    assert_eq!(wire.packet().0, 0xD0, "PINGRESP: what stands goes on");
}

#[test]
fn who_says_nothing_is_closed_in_time() {
    let home = Home::new();
    let program = home.start_with(&["--set", "mqtt.connect_timeout=500ms"]);
    let caller = Caller::of(&home);
    let address = program.doors["quic"];
    let no_stream = caller.connect(address).unwrap();
    let mut no_connect = caller.stream(address).unwrap();
    no_connect.write_all(&[0x10]).unwrap();
    let mut half = caller.stream(address).unwrap();
    half.write_all(b"\x10\x0d\x00\x04MQ").unwrap();
    wait(caller.runtime.handle(), no_stream.closed());
    no_connect.closed();
    half.closed();
    until("all places are given back", || {
        program.metric("headwater_sockets") == 0
    });
    assert!(caller.gets_in(&program));
}

#[test]
fn stop_is_said_before_the_connection_ends() {
    let home = Home::new();
    let program = home.start();
    let caller = Caller::of(&home);
    let stream = caller.stream(program.doors["quic"]).unwrap();
    let connection = stream.connection.clone();
    let mut wire = Wire::over(stream, &Hello::v5("a"));
    let silent = caller.connect(program.doors["quic"]).unwrap();
    let stopping = std::thread::spawn(move || program.stop());
    let (first, body) = wire.packet();
    assert_eq!((first, body[0]), (0xE0, 0x8B), "Server shutting down");
    assert_eq!(wire.next(), None);
    for connection in [connection, silent] {
        let reason = wait(caller.runtime.handle(), connection.closed());
        assert!(
            matches!(reason, ConnectionError::ApplicationClosed(_)),
            "{reason}"
        );
    }
    stopping.join().unwrap();
}

/// Carries datagrams to the program; back only if `answers`, and tells the first byte of the first.
fn relay(program: SocketAddr, answers: bool) -> (SocketAddr, std::sync::mpsc::Receiver<u8>) {
    let near = UdpSocket::bind("127.0.0.1:0").unwrap();
    let far = UdpSocket::bind("127.0.0.1:0").unwrap();
    far.connect(program).unwrap();
    let address = near.local_addr().unwrap();
    let (sender, first) = channel();
    let (client, known) = channel();
    let (near_too, far_too) = (near.try_clone().unwrap(), far.try_clone().unwrap());
    std::thread::spawn(move || {
        let mut bytes = [0; 2048];
        while let Ok((count, from)) = near.recv_from(&mut bytes) {
            client.send(from).ok();
            if far.send(&bytes[..count]).is_err() {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        let Ok(client) = known.recv() else { return };
        let mut bytes = [0; 2048];
        while let Ok(count) = far_too.recv(&mut bytes) {
            sender.send(bytes[0]).ok();
            if answers {
                near_too.send_to(&bytes[..count], client).unwrap();
            }
        }
    });
    (address, first)
}

/// The first byte of a Retry packet (RFC 9000, 17.2.5).
fn is_retry(byte: u8) -> bool {
    byte & 0xF0 == 0xF0
}

#[test]
fn where_clients_are_paced_addresses_that_nobody_has_shown_cost_nothing() {
    let home = Home::new();
    let program = home.start_with(&["--set", "listeners.quic.connect_rate=1"]);
    let address = program.doors["quic"];
    let caller = Caller::of(&home);
    let (deaf, first) = relay(address, false);
    let half: Vec<_> = (0..100)
        .map(|_| caller.runtime.spawn(caller.connecting(deaf)))
        .collect();
    for _ in 0..half.len() {
        assert!(is_retry(first.recv_timeout(PATIENCE).unwrap()));
    }
    assert_eq!(program.metric("headwater_sockets"), 0);
    let (honest, first) = relay(address, true);
    let stands = caller.connect(honest).unwrap();
    assert!(is_retry(first.recv_timeout(PATIENCE).unwrap()));
    assert_eq!(program.metric("headwater_sockets"), 1);
    drop((stands, half));
}

#[test]
fn many_half_handshakes_make_a_client_show_its_address() {
    let home = Home::new();
    let program = home.start();
    let address = program.doors["quic"];
    let caller = Caller::of(&home);
    let (quiet, first) = relay(address, true);
    assert!(caller.stream(quiet).is_ok());
    assert!(
        !is_retry(first.recv_timeout(PATIENCE).unwrap()),
        "no load, no retry"
    );
    // Handshakes whose answers nobody gets.
    let (deaf, _first) = relay(address, false);
    let half: Vec<_> = (0..100)
        .map(|_| caller.runtime.spawn(caller.connecting(deaf)))
        .collect();
    until("they are under way", || {
        program.metric("headwater_sockets") >= 64
    });
    let (busy, first) = relay(address, true);
    assert!(caller.stream(busy).is_ok());
    assert!(
        is_retry(first.recv_timeout(PATIENCE).unwrap()),
        "RFC 9000, 8.1.2"
    );
    let held = program.metric("headwater_sockets");
    assert!(held <= 70, "{held}: none of the others got further");
    drop(half);
}
