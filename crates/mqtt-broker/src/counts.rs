//! What a shard counts, as plain numbers; the driver reads and sums them.

use crate::{Output, groups};

/// Totals of one shard since its start, and two gauges.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Gauge: connections whose CONNECT was accepted.
    pub connections: u64,
    /// Gauge: Sessions held, connected or not.
    pub sessions: u64,
    /// Gauge: subscriptions of those Sessions, Shared Subscriptions not among them.
    pub subscriptions: u64,
    /// Gauge: their Shared Subscriptions.
    pub shared_subscriptions: u64,
    /// Gauge: packets and bytes that wait for sockets, as of the last sweep.
    pub waiting_packets: u64,
    pub waiting_bytes: u64,
    /// Network Connections, CONNECT or not.
    pub opened: u64,
    /// CONNECTs accepted.
    pub connected: u64,
    /// Sessions that ended because their expiry interval had passed.
    pub sessions_expired: u64,
    /// Packets of every kind.
    pub packets_received: u64,
    pub packets_sent: u64,
    /// Bytes of them.
    pub bytes_received: u64,
    pub bytes_sent: u64,
    /// Bytes of payload in PUBLISHes.
    pub payload_received: u64,
    pub payload_sent: u64,
    /// How often a Client's packets waited for its rates.
    pub slowed: u64,
    /// Clients that came or went and were not announced below `$SYS`: too many at once.
    pub unannounced: u64,
    pub received_qos0: u64,
    pub received_qos1: u64,
    pub received_qos2: u64,
    pub sent_qos0: u64,
    pub sent_qos1: u64,
    pub sent_qos2: u64,
    /// PUBLISHes that no subscription, route or retain wanted.
    pub unwanted: u64,
    /// QoS 0 messages not sent because their subscriber was away or did not read.
    pub dropped_qos0: u64,
    /// Owed messages that left a Session because its queue was full.
    pub dropped_limit: u64,
    /// Messages that a group of Shared Subscriptions was owed when its last subscriber went.
    pub dropped_group: u64,
    /// Messages whose Message Expiry Interval passed before they were sent.
    pub dropped_expired: u64,
    /// Messages longer than the subscriber's Maximum Packet Size [MQTT-3.1.2-25].
    pub dropped_too_large: u64,
    /// Messages that the policy kept from a subscriber whose filter selects them.
    pub dropped_denied: u64,
    /// Connections closed because their Client took nothing of what waited for it.
    pub unread: u64,
    /// Owed messages whose record the log had let go.
    pub dropped_gone: u64,
    /// Retained Messages let go because their Message Expiry Interval had passed.
    pub retained_expired: u64,
    /// Reads of owed records that failed; each is tried again.
    pub loads_failed: u64,
    /// Messages not retained, because the Retained Messages were at their limit.
    pub not_retained: u64,
    /// PUBLISHes refused by policy, limit or the log.
    pub refused: u64,
}

impl Counts {
    /// Subscriptions of these Topic Filters are held here from now on.
    pub(crate) fn add_subscriptions<'a>(&mut self, filters: impl Iterator<Item = &'a str>) {
        let (own, shared) = count(filters);
        self.subscriptions += own;
        self.shared_subscriptions += shared;
    }

    /// And no more.
    pub(crate) fn drop_subscriptions<'a>(&mut self, filters: impl Iterator<Item = &'a str>) {
        let (own, shared) = count(filters);
        self.subscriptions -= own;
        self.shared_subscriptions -= shared;
    }

    /// What was put out for a socket since this was asked last.
    pub(crate) fn sent(&mut self, output: &mut Output) {
        let (answers, bytes) = output.take_counts();
        self.packets_sent += answers;
        self.bytes_sent += bytes;
    }

    /// Adds another shard's numbers.
    pub fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.sessions += other.sessions;
        self.subscriptions += other.subscriptions;
        self.shared_subscriptions += other.shared_subscriptions;
        self.waiting_packets += other.waiting_packets;
        self.waiting_bytes += other.waiting_bytes;
        self.opened += other.opened;
        self.connected += other.connected;
        self.sessions_expired += other.sessions_expired;
        self.packets_received += other.packets_received;
        self.packets_sent += other.packets_sent;
        self.bytes_received += other.bytes_received;
        self.bytes_sent += other.bytes_sent;
        self.payload_received += other.payload_received;
        self.payload_sent += other.payload_sent;
        self.slowed += other.slowed;
        self.unannounced += other.unannounced;
        self.received_qos0 += other.received_qos0;
        self.received_qos1 += other.received_qos1;
        self.received_qos2 += other.received_qos2;
        self.sent_qos0 += other.sent_qos0;
        self.sent_qos1 += other.sent_qos1;
        self.sent_qos2 += other.sent_qos2;
        self.unwanted += other.unwanted;
        self.dropped_qos0 += other.dropped_qos0;
        self.dropped_limit += other.dropped_limit;
        self.dropped_group += other.dropped_group;
        self.dropped_expired += other.dropped_expired;
        self.dropped_too_large += other.dropped_too_large;
        self.dropped_denied += other.dropped_denied;
        self.unread += other.unread;
        self.dropped_gone += other.dropped_gone;
        self.loads_failed += other.loads_failed;
        self.retained_expired += other.retained_expired;
        self.not_retained += other.not_retained;
        self.refused += other.refused;
    }
}

fn count<'a>(filters: impl Iterator<Item = &'a str>) -> (u64, u64) {
    filters.fold((0, 0), |(own, shared), filter| {
        let is_shared = filter.starts_with(groups::PREFIX);
        (own + u64::from(!is_shared), shared + u64::from(is_shared))
    })
}
