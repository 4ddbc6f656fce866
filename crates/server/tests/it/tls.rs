//! MQTT over TLS: certificates made, given, changed and refused.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::ExtendedKeyUsagePurpose;
use rustix::process::Signal;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, SupportedProtocolVersion};

use crate::program::{Home, Program, mode, until};
use crate::tls_client::{Authority, Client, Pair, enter, gets_in, replace, shown};
use crate::wire::{Hello, Wire, packet, publish};

const TLS_1_2: &[&SupportedProtocolVersion] = &[&TLS12];
const TLS_1_3: &[&SupportedProtocolVersion] = &[&TLS13];

#[test]
fn mqtt_goes_over_tls_with_the_certificate_made_at_start() {
    let home = Home::new();
    let mut program = home.start();
    let ca = home.data().join("tls/ca.pem");
    assert!(program.said().contains(&ca.display().to_string()));
    assert_eq!(mode(&home.data().join("tls")), 0o700);
    for key in ["ca.key", "server.key"] {
        assert_eq!(mode(&home.data().join("tls").join(key)), 0o600, "{key}");
    }
    let [mqtt, old, aws] = ["mqtt", "mqttv3.1.1", "x-amzn-mqtt-ca"].map(|one| [one.into()]);
    for (versions, protocols) in [
        (TLS_1_3, &[][..]),
        (TLS_1_2, &[]),
        (TLS_1_3, &mqtt),
        (TLS_1_2, &old),
        (TLS_1_3, &aws),
    ] {
        let client = Client {
            versions,
            protocols: protocols.to_vec(),
            ..Client::trusting(&ca)
        };
        let stream = client.connect(program.doors["tls"]).unwrap();
        let agreed = stream.conn.alpn_protocol().map(<[u8]>::to_vec);
        assert_eq!(agreed.as_ref(), protocols.first());
        let mut wire = Wire::over(stream, &Hello::v5("a"));
        wire.subscribe("t", 1);
        // Many TLS records, and more than a socket takes at once.
        let payload = vec![b'x'; 3 << 20];
        wire.send(&publish("t", &payload, 1, 7));
        let (mut acknowledged, mut delivered) = (false, false);
        while !(acknowledged && delivered) {
            let (first, body) = wire.packet();
            match first >> 4 {
                4 => acknowledged = true,
                3 => delivered = body.ends_with(&payload),
                other => panic!("packet type {other}"),
            }
        }
    }
    let http = Client {
        protocols: vec![b"http/1.1".to_vec()],
        ..Client::trusting(&ca)
    };
    assert!(
        http.connect(program.doors["tls"]).is_err(),
        "another protocol"
    );
    program.stop();
}

/// Bytes between two sockets of this machine: sent and not read, as the kernel counts them.
fn on_the_way(server: SocketAddr, client: SocketAddr) -> usize {
    let (server, client) = (
        format!(":{:04X}", server.port()),
        format!(":{:04X}", client.port()),
    );
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let queued = table.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, remote) = (fields.next()?, fields.next()?);
        let (sends, reads) = fields.nth(1)?.split_once(':')?;
        if local.ends_with(&server) && remote.ends_with(&client) {
            usize::from_str_radix(sends, 16).ok()
        } else if local.ends_with(&client) && remote.ends_with(&server) {
            usize::from_str_radix(reads, 16).ok()
        } else {
            None
        }
    });
    queued.sum()
}

#[test]
fn what_tls_holds_back_goes_out_when_the_socket_takes_it() {
    let home = Home::new();
    let program = home.start();
    let client = Client::trusting(&home.data().join("tls/ca.pem"));
    let stream = client.connect(program.doors["tls"]).unwrap();
    let address = stream.sock.local_addr().unwrap();
    let mut slow = Wire::over(stream, &Hello::v5("slow"));
    slow.subscribe("t", 0);
    let (mut publisher, _) = Wire::connect(program.mqtt(), &Hello::v5("p"));
    // Less than TLS keeps, and so much that few of them fill a socket.
    let payload = [b'x'; 12_000];
    let mut sent = 0;
    // Until a message is no longer in the socket and not in our output either: TLS has it.
    loop {
        sent += 1;
        publisher.send(&publish("t", &payload, 1, 1));
        assert_eq!(publisher.packet().0, 0x40, "PUBACK");
        let deadline = Instant::now() + Duration::from_millis(200);
        let all = || on_the_way(program.doors["tls"], address) > sent * payload.len();
        while !all() && Instant::now() < deadline {
            std::thread::yield_now();
        }
        if !all() {
            break;
        }
    }
    for _ in 0..sent {
        assert_eq!(slow.message().payload, payload);
    }
    program.stop();
}

/// A home whose tls listener has these files, and what `more` says.
fn with_certificate(pair: &Pair, more: &str) -> Home {
    let home = Home::new();
    let (certificate, key) = pair.write(&home.path(""));
    home.configure(&format!(
        "[listeners.tls]\ncertificate_file = {certificate:?}\nkey_file = {key:?}\n{more}"
    ));
    home
}

#[test]
fn client_certificates_are_asked_for_as_configured() {
    let (servers, devices, others) = (
        Authority::new("s"),
        Authority::new("d"),
        Authority::new("o"),
    );
    let own = servers.issue(1);
    let server_auth = [ExtendedKeyUsagePurpose::ServerAuth];
    let shown = [
        ("none", None),
        ("good", Some(devices.issue(10))),
        ("revoked", Some(devices.issue(11))),
        ("another CA's", Some(others.issue(10))),
        (
            "for servers only",
            Some(devices.issue_for(12, &server_auth)),
        ),
    ];
    for (mode, until_year, let_in) in [
        (
            "none",
            2099,
            &[
                "none",
                "good",
                "revoked",
                "another CA's",
                "for servers only",
            ][..],
        ),
        ("optional", 2099, &["none", "good"]),
        ("required", 2099, &["good"]),
        ("optional", 2025, &["none"]),
    ] {
        let home = with_certificate(&own, "");
        let (ca, crl) = (home.path("devices.pem"), home.path("devices.crl"));
        replace(&ca, &devices.pem());
        replace(&crl, &devices.revoke(&[11], until_year));
        replace(&home.path("servers.pem"), &servers.pem());
        if mode != "none" {
            let text = std::fs::read_to_string(home.path("headwater.toml")).unwrap();
            home.configure(&format!(
                "{text}client_certificates = {mode:?}\nclient_ca_file = {ca:?}\ncrl_files = [{crl:?}]\n"
            ));
        }
        let program = home.start();
        for (what, pair) in &shown {
            for versions in [TLS_1_2, TLS_1_3] {
                let mut client = Client {
                    versions,
                    ..Client::trusting(&home.path("servers.pem"))
                };
                if let Some(pair) = pair {
                    client = client.showing(pair);
                }
                let got_in = client.gets_in(program.doors["tls"]);
                let why = format!("{mode}, list until {until_year}: {what}, {versions:?}");
                assert_eq!(got_in, let_in.contains(what), "{why}");
            }
        }
    }
}

/// The certificate that the tls door shows now.
fn shows(program: &Program, client: &Client, pair: &Pair) -> bool {
    let expected = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap();
    shown(&client.connect(program.doors["tls"]).unwrap()) == expected
}

fn ping<S: std::io::Read + std::io::Write>(wire: &mut Wire<S>) {
    wire.send(&packet(0xC0, &[]));
    assert_eq!(wire.packet(), (0xD0, vec![]), "PINGRESP");
}

#[test]
fn certificates_change_under_connections_that_stand() {
    let authority = Authority::new("s");
    let pairs: Vec<Pair> = (1..=3).map(|serial| authority.issue(serial)).collect();
    let home = with_certificate(&pairs[0], "");
    replace(&home.path("ca.pem"), &authority.pem());
    let mut program = home.start();
    let client = Client::trusting(&home.path("ca.pem"));
    assert!(shows(&program, &client, &pairs[0]));
    let expires = program.metric("headwater_cert_expiry_timestamp_seconds{listener=\"tls\"}");
    assert!(expires > 4_000_000_000, "rcgen's default: the year 4096");
    let stream = client.connect(program.doors["tls"]).unwrap();
    let mut stands = Wire::over(stream, &Hello::v5("stands"));
    // By their times alone.
    pairs[1].write(&home.path(""));
    until("the second certificate", || {
        shows(&program, &client, &pairs[1])
    });
    ping(&mut stands);
    // A key of another certificate, and one that is cut off.
    for broken in [pairs[0].key.clone(), pairs[1].key[..60].to_owned()] {
        replace(&home.path("k.pem"), &broken);
        program.signal(Signal::HUP);
        program.wait_for_line("NEW CERTIFICATES ARE REFUSED");
        assert!(shows(&program, &client, &pairs[1]), "what was there stays");
        assert_eq!(
            program.metric("headwater_cert_reload_good{listener=\"tls\"}"),
            0
        );
    }
    pairs[2].write(&home.path(""));
    program.signal(Signal::HUP);
    until("the third certificate", || {
        shows(&program, &client, &pairs[2])
    });
    assert_eq!(
        program.metric("headwater_cert_reload_good{listener=\"tls\"}"),
        1
    );
    ping(&mut stands);
    program.stop();
}

/// How a client that keeps what it learns shakes hands, the first time and the second.
fn twice(program: &Program, config: &Arc<ClientConfig>) -> [HandshakeKind; 2] {
    [(); 2].map(|()| {
        let stream = enter(program.doors["tls"], config).unwrap();
        stream.conn.handshake_kind().unwrap()
    })
}

#[test]
fn only_who_shows_no_certificate_comes_back_with_a_ticket() {
    let authority = Authority::new("a");
    let device = authority.issue(7);
    let home = with_certificate(&authority.issue(1), "");
    let (ca, crl) = (home.path("ca.pem"), home.path("ca.crl"));
    replace(&ca, &authority.pem());
    replace(&crl, &authority.revoke(&[], 2099));
    let client = |versions| Client {
        versions,
        ..Client::trusting(&ca)
    };
    let program = home.start();
    for versions in [TLS_1_2, TLS_1_3] {
        let kinds = twice(&program, &Arc::new(client(versions).config()));
        assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed]);
    }
    program.stop();
    let text = std::fs::read_to_string(home.path("headwater.toml")).unwrap();
    home.configure(&format!(
        "{text}client_certificates = \"required\"\nclient_ca_file = {ca:?}\ncrl_files = [{crl:?}]\n"
    ));
    let mut program = home.start();
    for versions in [TLS_1_2, TLS_1_3] {
        let config = Arc::new(client(versions).showing(&device).config());
        assert_eq!(twice(&program, &config), [HandshakeKind::Full; 2]);
        for (serials, expected) in [(&[7][..], false), (&[], true)] {
            replace(&crl, &authority.revoke(serials, 2099));
            program.signal(Signal::HUP);
            program.wait_for_line("certificates were read again listener=\"tls\"");
            let got_in = gets_in(program.doors["tls"], &config);
            assert_eq!(got_in, expected, "revoked {serials:?}, {versions:?}");
        }
    }
}

#[test]
fn file_that_does_not_load_is_named_with_its_key_and_line() {
    let (one, other) = (Authority::new("a").issue(1), Authority::new("a").issue(1));
    let home = with_certificate(&one, "");
    assert_eq!(home.check().code, 0);
    for (file, text, line, part) in [
        ("k.pem", other.key.as_str(), 3, "does not belong to"),
        ("k.pem", "no key", 3, "holds no private key"),
        ("c.pem", "no certificate", 2, "holds no certificate"),
        (
            "c.pem",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            2,
            "validity",
        ),
    ] {
        one.write(&home.path(""));
        replace(&home.path(file), text);
        let answer = home.check();
        assert_eq!(answer.code, 1);
        let place = format!("headwater.toml:{line}:");
        assert!(
            answer.out.contains(&place) && answer.out.contains(part),
            "{answer:?}"
        );
        let (code, said) = home.refused(&[]);
        assert_eq!(code, 1);
        assert!(said.contains(&place) && said.contains(part), "{said}");
    }
    std::fs::remove_file(home.path("c.pem")).unwrap();
    assert!(home.check().out.contains("cannot read"));
}
