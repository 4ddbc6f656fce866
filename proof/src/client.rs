//! One Network Connection of an MQTT Client, blocking, as plain as a test client can be.
//!
//! For: CONNECT, and packets out and in with a deadline. Not for: sessions; `load` keeps those across connections.
//! Calls: `headwater_mqtt_codec`, the client's side. Called by: `load`, `fault`.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::{Bytes, BytesMut};
use headwater_mqtt_codec::{
    Connect, ConnectProperties, Decoder, Delivery, Disconnect, DisconnectReason, Packet, PacketId,
    Publish, QoS, Subscribe, Subscription, SubscriptionOptions, Text, Version,
};

/// The longest this harness waits for an answer it is owed.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
const PACKET_BYTES_MAX: u32 = 1 << 20;
/// Longer than any run, so that no Session of a run expires unasked.
const SESSION_EXPIRY_SECONDS: u32 = 7 * 24 * 3_600;

/// Who connects, and for how long its Session lasts.
#[derive(Clone, Debug)]
pub struct Identity {
    pub client_id: String,
    pub version: Version,
    /// The Session outlives the connection; nothing is cleared when it comes back.
    pub lasting: bool,
}

#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    decoder: Decoder,
    version: Version,
    /// What the last read brought and nobody took yet.
    input: Bytes,
    output: BytesMut,
    buffer: Vec<u8>,
    pub session_present: bool,
    /// Unacknowledged PUBLISHes with QoS above 0 that the server takes at once.
    pub receive_maximum: u16,
}

impl Connection {
    /// Connects and waits for CONNACK; a refusal is an error.
    pub fn open(address: SocketAddr, identity: &Identity) -> anyhow::Result<Self> {
        let expiry = if identity.lasting {
            SESSION_EXPIRY_SECONDS
        } else {
            0
        };
        Self::open_for(address, identity, expiry)
    }

    /// The same with a Session Expiry Interval of its own, in seconds; MQTT 5.0 only.
    pub fn open_for(address: SocketAddr, identity: &Identity, expiry: u32) -> anyhow::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(ANSWER_WAIT))?;
        let mut connection = Self {
            stream,
            decoder: Decoder::for_client(identity.version, PACKET_BYTES_MAX),
            version: identity.version,
            input: Bytes::new(),
            output: BytesMut::new(),
            buffer: vec![0; 64 * 1024],
            session_present: false,
            receive_maximum: u16::MAX,
        };
        connection.send(&Packet::Connect(Box::new(Connect {
            version: identity.version,
            bridge: false,
            clean_start: !identity.lasting,
            keep_alive: 0,
            client_id: Text::try_from(identity.client_id.as_str())?,
            will: None,
            user_name: None,
            password: None,
            properties: ConnectProperties {
                session_expiry_interval: expiry,
                ..ConnectProperties::default()
            },
        })))?;
        match connection.receive(ANSWER_WAIT)? {
            Some(Packet::ConnAck(answer)) if !answer.reason.is_error() => {
                connection.session_present = answer.session_present;
                connection.receive_maximum = answer.properties.receive_maximum.get();
                Ok(connection)
            }
            Some(other) => bail!("instead of a CONNACK with success: {other:?}"),
            None => bail!("no CONNACK in {ANSWER_WAIT:?}"),
        }
    }

    /// Adds a packet to the output; [`Self::flush`] sends it.
    pub fn put(&mut self, packet: &Packet) -> anyhow::Result<()> {
        Ok(packet.encode(self.version, &mut self.output)?)
    }

    pub fn flush(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(&self.output)?;
        self.output.clear();
        Ok(())
    }

    pub fn send(&mut self, packet: &Packet) -> anyhow::Result<()> {
        self.put(packet)?;
        self.flush()
    }

    /// The next packet, or `None` when none came in this time. A closed connection is an error.
    pub fn receive(&mut self, wait: Duration) -> anyhow::Result<Option<Packet>> {
        if let Some(packet) = self.decoder.decode_read(&mut self.input)? {
            return Ok(Some(packet));
        }
        self.stream
            .set_read_timeout(Some(wait.max(Duration::from_millis(1))))?;
        loop {
            let count = match self.stream.read(&mut self.buffer) {
                Ok(0) => bail!("the server closed the connection"),
                Ok(count) => count,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return Ok(None);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let read = self
                .buffer
                .get(..count)
                .context("a read longer than its buffer")?;
            self.input = Bytes::copy_from_slice(read);
            if let Some(packet) = self.decoder.decode_read(&mut self.input)? {
                return Ok(Some(packet));
            }
        }
    }

    /// Whether the last read brought more than was taken from it; [`Self::receive`] then does not wait.
    pub fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// Subscribes to one Topic Filter and waits for SUBACK. What arrives before it is returned with it.
    pub fn subscribe(&mut self, filter: &str, qos: QoS) -> anyhow::Result<Vec<Packet>> {
        let options = SubscriptionOptions {
            qos,
            ..SubscriptionOptions::default()
        };
        self.send(&Packet::Subscribe(Box::new(Subscribe {
            packet_id: packet_id(1)?,
            subscription_id: None,
            user_properties: Default::default(),
            subscriptions: vec![Subscription {
                filter: Text::try_from(filter)?,
                options,
            }],
        })))?;
        let mut early = Vec::new();
        loop {
            match self.receive(ANSWER_WAIT)? {
                Some(Packet::SubAck(answer)) => {
                    if answer.reasons.iter().any(|reason| reason.is_error()) {
                        bail!("{filter} was refused: {:?}", answer.reasons);
                    }
                    return Ok(early);
                }
                Some(packet) => early.push(packet),
                None => bail!("no SUBACK in {ANSWER_WAIT:?}"),
            }
        }
    }

    /// Ends the connection as a well-behaved Client does; a lasting Session stays.
    pub fn disconnect(mut self) {
        // The server may be gone already: then there is nobody to say goodbye to.
        if self.say_goodbye().is_ok() {
            drop(self.stream.shutdown(std::net::Shutdown::Write));
        }
    }

    /// The same, and waits until the server has closed the connection: the Session is away then.
    pub fn leave(mut self) -> anyhow::Result<()> {
        self.say_goodbye()?;
        self.stream.set_read_timeout(Some(ANSWER_WAIT))?;
        // What is still on its way to a Client that leaves is not for it.
        while self.stream.read(&mut self.buffer)? > 0 {}
        Ok(())
    }

    fn say_goodbye(&mut self) -> anyhow::Result<()> {
        let goodbye = Disconnect::new(DisconnectReason::NormalDisconnection);
        self.send(&Packet::Disconnect(Box::new(goodbye)))
    }
}

pub fn packet_id(id: u16) -> anyhow::Result<PacketId> {
    PacketId::new(id).context("packet identifier 0")
}

/// A PUBLISH with QoS 1 or 2.
pub fn publish(
    topic: &str,
    qos: QoS,
    id: u16,
    dup: bool,
    retain: bool,
    payload: Vec<u8>,
) -> anyhow::Result<Packet> {
    let packet_id = packet_id(id)?;
    let delivery = match qos {
        QoS::AtMostOnce => Delivery::AtMostOnce,
        QoS::AtLeastOnce => Delivery::AtLeastOnce { packet_id, dup },
        QoS::ExactlyOnce => Delivery::ExactlyOnce { packet_id, dup },
    };
    Ok(Packet::Publish(Publish {
        delivery,
        retain,
        topic: Text::try_from(topic)?,
        topic_alias: None,
        subscription_ids: Vec::new(),
        properties: None,
        payload: payload.into(),
    }))
}
