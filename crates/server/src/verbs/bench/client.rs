//! One connection of a run of `bench`: a publisher or a subscriber.
//!
//! For: CONNECT and SUBSCRIBE; then sending what the account lets it send, answering what comes.
//! Not for: what the figures mean. Calls: `account`, `headwater_mqtt_codec`. Called by: `bench`.
//! Holds: one read and one write carry all packets there are; a connection that ends ends the run.

use std::cell::{Cell, RefCell};
use std::num::NonZeroU16;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use anyhow::{Context as _, bail};
use bytes::{Bytes, BytesMut};
use headwater_mqtt_codec::{
    ConnAckReason, Connect, Decoder, Delivery, Packet, PacketId, PubAck, PubAckReason, PubComp,
    PubCompReason, PubRec, PubRecReason, PubRel, PubRelReason, PublishRef, QoS, Subscribe,
    Subscription, SubscriptionOptions, Text, UserProperties, Version,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio_util::io::{poll_read_buf, poll_write_buf};

use super::account::{Account, Next, Stamp};

/// QoS 1 and 2 messages that a publisher has unacknowledged at once.
const INFLIGHT: u16 = 100;
/// Bytes put out beyond which a publisher waits for its socket.
const OUT_BYTES_MAX: usize = 64 << 10;
const READ_BYTES: usize = 64 << 10;
/// Reads of one connection before the others get their turn.
const READS_A_TURN: usize = 4;

/// A connection's bytes, whatever carries them.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// What all connections of a run share.
pub(super) struct Run {
    pub(super) version: Version,
    pub(super) qos: QoS,
    pub(super) size: usize,
    pub(super) begin: Instant,
    pub(super) account: RefCell<Account>,
    /// Publishers send.
    pub(super) open: Cell<bool>,
    /// Why the run cannot go on.
    pub(super) failure: RefCell<Option<anyhow::Error>>,
    pub(super) failed: Notify,
    /// The buffer that the next read fills.
    scratch: RefCell<BytesMut>,
    /// Of the next message, but for its stamp.
    payload: RefCell<Vec<u8>>,
}

impl Run {
    pub(super) fn new(version: Version, qos: QoS, size: usize, account: Account) -> Self {
        Self {
            version,
            qos,
            size,
            begin: Instant::now(),
            account: RefCell::new(account),
            open: Cell::new(false),
            failure: RefCell::new(None),
            failed: Notify::new(),
            scratch: RefCell::default(),
            payload: RefCell::new(vec![b'.'; size]),
        }
    }

    pub(super) fn now_ns(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// What a connection is for.
pub(super) enum Role {
    Publisher {
        index: usize,
        topic: Text,
        free: Vec<PacketId>,
        /// Of messages that are not acknowledged, oldest first as a rule.
        used: Vec<PacketId>,
    },
    Subscriber {
        index: usize,
        filter: Text,
    },
}

impl Role {
    pub(super) fn publisher(index: usize, topic: Text) -> Self {
        Self::Publisher {
            index,
            topic,
            free: (1..=INFLIGHT).filter_map(PacketId::new).collect(),
            used: Vec::new(),
        }
    }
}

pub(super) struct Client {
    run: Rc<Run>,
    role: Role,
    stream: Box<dyn Stream>,
    decoder: Decoder,
    out: BytesMut,
}

impl Client {
    /// Introduces itself and, as a subscriber, subscribes.
    pub(super) async fn enter(
        run: Rc<Run>,
        role: Role,
        stream: Box<dyn Stream>,
        connect: Connect,
    ) -> anyhow::Result<Self> {
        let mut client = Self {
            decoder: Decoder::for_client(run.version, u32::MAX),
            out: BytesMut::new(),
            run,
            role,
            stream,
        };
        client.put(&Packet::Connect(Box::new(connect)))?;
        match client.answer().await? {
            Packet::ConnAck(ack) if ack.reason == ConnAckReason::Success => {
                if let Role::Publisher { free, .. } = &mut client.role {
                    // Before MQTT 5.0 nothing says less than 65,535.
                    free.truncate(usize::from(ack.properties.receive_maximum.get()));
                }
            }
            Packet::ConnAck(ack) => bail!("the broker refused a connection: {:?}", ack.reason),
            _ => bail!("the broker answered with something else than CONNACK"),
        }
        if let Role::Subscriber { filter, .. } = &client.role {
            let options = SubscriptionOptions {
                qos: client.run.qos,
                ..SubscriptionOptions::default()
            };
            let subscription = Subscription {
                filter: filter.clone(),
                options,
            };
            client.put(&Packet::Subscribe(Box::new(Subscribe {
                packet_id: PacketId(NonZeroU16::MIN),
                subscription_id: None,
                user_properties: UserProperties::default(),
                subscriptions: vec![subscription],
            })))?;
            match client.answer().await? {
                Packet::SubAck(ack) if !ack.reasons.iter().any(|one| one.is_error()) => {}
                _ => bail!("the broker refused a subscription"),
            }
        }
        Ok(client)
    }

    fn put(&mut self, packet: &Packet) -> anyhow::Result<()> {
        let encoded = packet.encode(self.run.version, &mut self.out);
        encoded.context("this version of MQTT cannot say that")
    }

    /// Sends what is put out and waits for one packet.
    async fn answer(&mut self) -> anyhow::Result<Packet> {
        std::future::poll_fn(|cx| {
            self.write(cx)?;
            loop {
                let Poll::Ready(mut bytes) = self.read(cx)? else {
                    return Poll::Pending;
                };
                if let Some(packet) = self.decoder.decode_read(&mut bytes)? {
                    return Poll::Ready(Ok(packet));
                }
            }
        })
        .await
    }

    /// Does its part until the run is dropped or has failed.
    pub(super) async fn drive(mut self) {
        let error = std::future::poll_fn(|cx| match self.poll(cx) {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(error),
        })
        .await;
        self.run.failure.borrow_mut().get_or_insert(error);
        self.run.failed.notify_one();
    }

    /// As much as can be done now; whatever it then waits for wakes it.
    fn poll(&mut self, cx: &mut Context<'_>) -> anyhow::Result<()> {
        let mut reads = 0;
        while let Poll::Ready(bytes) = self.read(cx)? {
            self.take(bytes)?;
            reads += 1;
            if reads == READS_A_TURN {
                cx.waker().wake_by_ref();
                break;
            }
        }
        loop {
            let more = self.publish(cx)?;
            let written = self.write(cx)?;
            if !(more && written) {
                return Ok(());
            }
        }
    }

    fn read(&mut self, cx: &mut Context<'_>) -> anyhow::Result<Poll<Bytes>> {
        let mut scratch = self.run.scratch.borrow_mut();
        if scratch.capacity() < READ_BYTES / 4 {
            scratch.reserve(READ_BYTES);
        }
        match poll_read_buf(Pin::new(&mut *self.stream), cx, &mut *scratch) {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(Ok(0)) => bail!("the broker closed a connection"),
            Poll::Ready(Ok(read)) => Ok(Poll::Ready(scratch.split_to(read).freeze())),
            Poll::Ready(Err(error)) => Err(error).context("a connection broke"),
        }
    }

    /// Whether everything went out.
    fn write(&mut self, cx: &mut Context<'_>) -> anyhow::Result<bool> {
        while !self.out.is_empty() {
            match poll_write_buf(Pin::new(&mut *self.stream), cx, &mut self.out) {
                Poll::Pending => return Ok(false),
                Poll::Ready(written) => written.context("a connection broke")?,
            };
        }
        let flushed = Pin::new(&mut *self.stream).poll_flush(cx);
        if let Poll::Ready(flushed) = flushed {
            flushed.context("a connection broke")?;
        }
        Ok(true)
    }

    /// All packets of one read.
    fn take(&mut self, mut bytes: Bytes) -> anyhow::Result<()> {
        // When they had arrived, however long it takes to go through them.
        let now_ns = self.run.now_ns();
        while let Some(packet) = self.decoder.decode_read(&mut bytes)? {
            let answer = match packet {
                Packet::Publish(publish) => {
                    let Role::Subscriber { index, .. } = self.role else {
                        bail!("the broker sent a message to a publisher");
                    };
                    let stamp = Stamp::read(&publish.payload);
                    let stamp = stamp.filter(|_| publish.payload.len() == self.run.size);
                    self.run.account.borrow_mut().came(index, stamp, now_ns);
                    match publish.delivery {
                        Delivery::AtMostOnce => continue,
                        Delivery::AtLeastOnce { packet_id, .. } => {
                            Packet::PubAck(PubAck::new(packet_id, PubAckReason::Success))
                        }
                        Delivery::ExactlyOnce { packet_id, .. } => {
                            Packet::PubRec(PubRec::new(packet_id, PubRecReason::Success))
                        }
                    }
                }
                Packet::PubRel(release) => {
                    Packet::PubComp(PubComp::new(release.packet_id, PubCompReason::Success))
                }
                Packet::PubRec(ack) if ack.reason.is_error() => {
                    bail!("the broker refused a message: {:?}", ack.reason)
                }
                Packet::PubRec(ack) => {
                    Packet::PubRel(PubRel::new(ack.packet_id, PubRelReason::Success))
                }
                Packet::PubAck(ack) if ack.reason.is_error() => {
                    bail!("the broker refused a message: {:?}", ack.reason)
                }
                Packet::PubAck(ack) => {
                    self.acknowledged(ack.packet_id)?;
                    continue;
                }
                Packet::PubComp(ack) => {
                    self.acknowledged(ack.packet_id)?;
                    continue;
                }
                Packet::Disconnect(end) => bail!("the broker disconnected: {:?}", end.reason),
                _ => continue,
            };
            self.put(&answer)?;
        }
        Ok(())
    }

    fn acknowledged(&mut self, id: PacketId) -> anyhow::Result<()> {
        if let Role::Publisher { free, used, .. } = &mut self.role
            && let Some(at) = used.iter().position(|used| *used == id)
        {
            free.push(used.remove(at));
            self.run.account.borrow_mut().unacknowledged -= 1;
            return Ok(());
        }
        bail!(
            "the broker acknowledged packet identifier {}, which is not in use",
            id.0
        )
    }

    /// Puts out what may be sent; whether there may be more once that is written.
    fn publish(&mut self, cx: &Context<'_>) -> anyhow::Result<bool> {
        let Role::Publisher {
            index,
            topic,
            free,
            used,
        } = &mut self.role
        else {
            return Ok(false);
        };
        let mut account = self.run.account.borrow_mut();
        let mut payload = self.run.payload.borrow_mut();
        let now_ns = self.run.now_ns();
        while self.out.len() < OUT_BYTES_MAX {
            if self.run.qos > QoS::AtMostOnce && free.is_empty() {
                return Ok(false);
            }
            let next = if self.run.open.get() {
                account.next(*index)
            } else {
                Next::Nothing
            };
            let due_ns = match next {
                Next::Now => now_ns,
                Next::Since(due_ns) => due_ns,
                Next::Nothing => {
                    if let Some(way) = account.ways.get_mut(*index) {
                        way.waker = Some(cx.waker().clone());
                    }
                    return Ok(false);
                }
            };
            let Some(way) = account.ways.get_mut(*index) else {
                return Ok(false);
            };
            let stamp = Stamp {
                due_ns,
                publisher: u32::try_from(*index)?,
                number: u32::try_from(way.sent).context("too many messages for one run")?,
            };
            way.sent += 1;
            let packet_id = (self.run.qos > QoS::AtMostOnce)
                .then(|| free.pop())
                .flatten();
            used.extend(packet_id);
            let delivery = match (self.run.qos, packet_id) {
                (QoS::AtLeastOnce, Some(packet_id)) => Delivery::AtLeastOnce {
                    packet_id,
                    dup: false,
                },
                (QoS::ExactlyOnce, Some(packet_id)) => Delivery::ExactlyOnce {
                    packet_id,
                    dup: false,
                },
                _ => Delivery::AtMostOnce,
            };
            account.unacknowledged += u64::from(self.run.qos > QoS::AtMostOnce);
            if let Some(front) = payload.first_chunk_mut() {
                *front = stamp.bytes();
            }
            let packet = PublishRef {
                delivery,
                retain: false,
                topic,
                topic_alias: None,
                subscription_ids: &[],
                message_expiry_interval: None,
                properties: None,
                payload: &payload,
            };
            packet.encode(self.run.version, &mut self.out)?;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgement_of_nothing_is_a_failure() {
        let account = Account::new(1, Vec::new(), None);
        let run = Run::new(Version::V5, QoS::AtLeastOnce, 20, account);
        let mut client = Client {
            run: Rc::new(run),
            role: Role::publisher(0, "t".try_into().unwrap()),
            stream: Box::new(tokio::io::duplex(1).0),
            decoder: Decoder::for_client(Version::V5, u32::MAX),
            out: BytesMut::new(),
        };
        client.run.open.set(true);
        client.run.account.borrow_mut().release(0, 1);
        client
            .publish(&Context::from_waker(std::task::Waker::noop()))
            .unwrap();
        // The last of those that were free.
        let puback = Bytes::from_static(b"\x40\x02\x00\x64");
        client.take(puback.clone()).unwrap();
        assert_eq!(client.run.account.borrow().unacknowledged, 0);
        let error = client.take(puback).unwrap_err().to_string();
        assert!(
            error.contains("identifier 100, which is not in use"),
            "{error}"
        );
    }
}
