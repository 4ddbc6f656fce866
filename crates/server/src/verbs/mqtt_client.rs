//! A small blocking MQTT client: what `pub` and `sub` need, over TCP.
//!
//! For: connecting, sending a packet, waiting for the next one until a moment.
//! Not for: sessions or reconnecting. Calls: `headwater_mqtt_codec`. Called by: `publish`, `subscribe`.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::{Bytes, BytesMut};
use headwater_mqtt_codec::{
    Binary, ConnAckReason, Connect, ConnectProperties, Decoder, Disconnect, DisconnectReason,
    Packet, Text, Version,
};

use crate::cli::{Login, MqttClient, Target};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const PACKET_BYTES_MAX: u32 = 256 << 20;

/// A connected client.
pub(crate) struct Connection {
    stream: TcpStream,
    decoder: Decoder,
    unread: Bytes,
    version: Version,
    keep_alive: Duration,
    last_sent: Instant,
}

/// How the Session is asked for.
pub(crate) struct SessionWish {
    pub(crate) clean_start: bool,
    pub(crate) expiry_interval: u32,
}

/// Host and port of what follows a URL's scheme, HOST, HOST:PORT or with an address of IPv6 in [].
pub(super) fn host_and_port(rest: &str, port: u16) -> anyhow::Result<(String, u16)> {
    let rest = rest.trim_end_matches('/');
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, number)) if !number.contains(']') => {
            let port = number.parse();
            (host, port.with_context(|| format!("{number} is no port"))?)
        }
        _ => (rest, port),
    };
    Ok((host.trim_matches(['[', ']']).to_owned(), port))
}

fn address(target: &Target, client: &MqttClient) -> anyhow::Result<(String, u16)> {
    let url = target.url.as_deref().unwrap_or("mqtt://127.0.0.1");
    let Some(rest) = url.strip_prefix("mqtt://") else {
        bail!("--url {url}: pub and sub want mqtt://HOST[:PORT]");
    };
    let (host, port) = host_and_port(rest, 1883).with_context(|| format!("--url {url}"))?;
    Ok((
        client.host.clone().unwrap_or(host),
        client.port.unwrap_or(port),
    ))
}

fn text(what: &str, value: &str) -> anyhow::Result<Text> {
    Text::try_from(value).with_context(|| format!("{what} is no MQTT text"))
}

/// A client identifier that nobody else has.
pub(super) fn new_client_id(prefix: &str) -> anyhow::Result<Text> {
    let number = uuid::Uuid::new_v4().simple().to_string();
    // 3.1 wants a name of at most 23 characters.
    let id = format!("{prefix}-{}", number.get(..12).unwrap_or_default());
    text("the client identifier", &id)
}

impl Login {
    pub(super) fn user_name(&self) -> anyhow::Result<Option<Text>> {
        let name = self.username.as_deref();
        name.map(|name| text("the user name", name)).transpose()
    }

    /// As given, or a line of standard input for `-`: to be asked once.
    pub(super) fn password(&self) -> anyhow::Result<Option<Binary>> {
        let Some(given) = &self.password else {
            return Ok(None);
        };
        let mut value = given.clone();
        if value == "-" {
            value.clear();
            io::stdin().read_line(&mut value)?;
            value.truncate(value.trim_end_matches(['\r', '\n']).len());
        }
        Ok(Some(
            Binary::try_from(Bytes::from(value)).context("the password is too long")?,
        ))
    }
}

impl Connection {
    /// Connects and waits for CONNACK.
    pub(crate) fn open(
        target: &Target,
        client: &MqttClient,
        wish: &SessionWish,
    ) -> anyhow::Result<Self> {
        let (host, port) = address(target, client)?;
        let stream = TcpStream::connect((host.as_str(), port))
            .with_context(|| format!("cannot connect to {host}:{port}; is the broker running?"))?;
        stream.set_nodelay(true)?;
        let version = client.login.version.into();
        let client_id = match &client.id {
            Some(id) => text("the client identifier", id)?,
            None => new_client_id("headwater")?,
        };
        let mut connection = Self {
            stream,
            decoder: Decoder::for_client(version, PACKET_BYTES_MAX),
            unread: Bytes::new(),
            version,
            keep_alive: Duration::from_secs(client.keepalive.into()),
            last_sent: Instant::now(),
        };
        connection.send(&Packet::Connect(Box::new(Connect {
            version,
            bridge: false,
            clean_start: wish.clean_start,
            keep_alive: client.keepalive,
            client_id,
            will: None,
            user_name: client.login.user_name()?,
            password: client.login.password()?,
            properties: ConnectProperties {
                session_expiry_interval: wish.expiry_interval,
                receive_maximum: NonZeroU16::MAX,
                ..ConnectProperties::default()
            },
        })))?;
        match connection.receive(Some(Instant::now() + CONNECT_TIMEOUT))? {
            Some(Packet::ConnAck(ack)) if ack.reason == ConnAckReason::Success => Ok(connection),
            Some(Packet::ConnAck(ack)) => bail!("the broker refused: {:?}", ack.reason),
            Some(_) => bail!("the broker answered with something else than CONNACK"),
            None => bail!("no CONNACK within {} s", CONNECT_TIMEOUT.as_secs()),
        }
    }

    pub(crate) fn send(&mut self, packet: &Packet) -> anyhow::Result<()> {
        let mut wire = BytesMut::new();
        packet
            .encode(self.version, &mut wire)
            .context("this version of MQTT cannot say that")?;
        self.stream
            .write_all(&wire)
            .context("the connection broke")?;
        self.last_sent = Instant::now();
        Ok(())
    }

    /// The next packet; `None` once `until` has passed. Keeps the connection alive meanwhile.
    pub(crate) fn receive(&mut self, until: Option<Instant>) -> anyhow::Result<Option<Packet>> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let packet = self.decoder.decode_read(&mut self.unread);
            match packet.context("the broker sent something malformed")? {
                Some(Packet::PingResp) => continue,
                Some(Packet::Disconnect(end)) => bail!("the broker disconnected: {:?}", end.reason),
                Some(packet) => return Ok(Some(packet)),
                None => {}
            }
            let now = Instant::now();
            if until.is_some_and(|until| now >= until) {
                return Ok(None);
            }
            let ping_at =
                (!self.keep_alive.is_zero()).then(|| self.last_sent + self.keep_alive / 2);
            if ping_at.is_some_and(|at| now >= at) {
                self.send(&Packet::PingReq)?;
                continue;
            }
            let wait = [until, ping_at]
                .into_iter()
                .flatten()
                .min()
                .map(|at| at - now);
            self.stream
                .set_read_timeout(wait.map(|wait| wait.max(Duration::from_millis(1))))?;
            match self.stream.read(&mut buffer) {
                Ok(0) => bail!("the broker closed the connection"),
                Ok(read) => {
                    self.unread = Bytes::copy_from_slice(buffer.get(..read).unwrap_or_default())
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock
                            | io::ErrorKind::TimedOut
                            | io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(error).context("the connection broke"),
            }
        }
    }

    /// Says goodbye.
    pub(crate) fn close(mut self) -> anyhow::Result<()> {
        self.send(&Packet::Disconnect(Box::new(Disconnect::new(
            DisconnectReason::NormalDisconnection,
        ))))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Verb};

    fn parsed(line: &[&str]) -> anyhow::Result<(String, u16)> {
        let cli = Cli::try_parse_from(line).unwrap();
        let Some(Verb::Pub(publish)) = cli.verb else {
            panic!("not pub")
        };
        address(&cli.target, &publish.client)
    }

    #[test]
    fn address_comes_from_flags_then_url_then_default() {
        let base = ["headwater", "pub", "-t", "a", "-n"];
        let with = |more: &[&'static str]| parsed(&[&base[..], more].concat());
        assert_eq!(with(&[]).unwrap(), ("127.0.0.1".to_owned(), 1883));
        assert_eq!(
            with(&["--url", "mqtt://h:99/"]).unwrap(),
            ("h".to_owned(), 99)
        );
        assert_eq!(
            with(&["--url", "mqtt://[::1]"]).unwrap(),
            ("::1".to_owned(), 1883)
        );
        assert_eq!(
            with(&["--url", "mqtt://[::1]:7"]).unwrap(),
            ("::1".to_owned(), 7)
        );
        assert_eq!(
            with(&["--url", "mqtt://h:9", "-h", "i", "-p", "1"]).unwrap(),
            ("i".to_owned(), 1)
        );
        assert!(with(&["--url", "http://h"]).is_err());
    }
}
