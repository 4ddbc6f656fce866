//! What a shard counts, as plain numbers; the driver reads and sums them.

/// Totals of one shard since its start, and two gauges.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Gauge: connections whose CONNECT was accepted.
    pub connections: u64,
    /// Gauge: Sessions held, connected or not.
    pub sessions: u64,
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
    /// Adds another shard's numbers.
    pub fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.sessions += other.sessions;
        self.received_qos0 += other.received_qos0;
        self.received_qos1 += other.received_qos1;
        self.received_qos2 += other.received_qos2;
        self.sent_qos0 += other.sent_qos0;
        self.sent_qos1 += other.sent_qos1;
        self.sent_qos2 += other.sent_qos2;
        self.unwanted += other.unwanted;
        self.dropped_qos0 += other.dropped_qos0;
        self.dropped_limit += other.dropped_limit;
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
