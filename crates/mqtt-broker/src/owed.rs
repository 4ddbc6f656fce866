//! What Sessions are owed: as an entry in the log, and as a few bytes a message in memory.
//!
//! For: [`OwedEntry`], which says in one commit to whom a message is owed, and [`OwedQueue`], one
//!   Session's debt in order.
//! Not for: the messages; a queue knows only where they lie.
//! Holds: a broadcast adds one byte of entry a Session where numbers are dense; a queued message
//!   costs far less than 16 bytes.

use std::num::NonZeroU32;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use headwater_mqtt_codec::{QoS, SubscriptionId};
use smallvec::SmallVec;

use crate::Position;

/// Sessions that get a message in the same way.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct OwedGroup {
    /// `AtLeastOnce` or `ExactlyOnce`.
    pub(crate) qos: QoS,
    /// The RETAIN flag they see.
    pub(crate) retain: bool,
    pub(crate) ids: Vec<SubscriptionId>,
    /// Session numbers, ascending.
    pub(crate) sessions: Vec<u64>,
}

/// To whom one message is owed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct OwedEntry {
    /// Bytes the message is counted with.
    pub(crate) weight: u32,
    /// This entry stands for an earlier one with this sequence, whose message was copied here.
    pub(crate) original: Option<u64>,
    pub(crate) groups: Vec<OwedGroup>,
}

/// The first byte of every entry.
const ENTRY_VERSION: u8 = 1;
const HAS_ORIGINAL: u8 = 1;
const QOS_2: u8 = 1;
const RETAIN: u8 = 2;
const HAS_IDS: u8 = 4;
const NEW_PARTITION: u8 = 8;

impl OwedEntry {
    /// `None` when nobody is owed anything.
    pub(crate) fn new(mut groups: Vec<OwedGroup>) -> Option<Self> {
        for group in &mut groups {
            // Matching goes shard by shard, and numbers move between shards.
            group.sessions.sort_unstable();
        }
        (!groups.is_empty()).then_some(Self {
            weight: 0,
            original: None,
            groups,
        })
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(ENTRY_VERSION);
        out.put_u8(if self.original.is_some() {
            HAS_ORIGINAL
        } else {
            0
        });
        put_varint(&mut out, u64::from(self.weight));
        if let Some(original) = self.original {
            put_varint(&mut out, original);
        }
        put_varint(&mut out, self.groups.len() as u64);
        for group in &self.groups {
            out.put_u8(flags(group.qos, group.retain, &group.ids));
            put_ids(&mut out, &group.ids);
            put_varint(&mut out, group.sessions.len() as u64);
            let mut last = 0;
            for number in &group.sessions {
                put_varint(&mut out, number.wrapping_sub(last));
                last = *number;
            }
        }
        out.freeze()
    }

    /// `None` when these bytes are no entry of a version known here.
    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let bytes = &mut bytes;
        if take_u8(bytes)? != ENTRY_VERSION {
            return None;
        }
        let has_original = take_u8(bytes)? & HAS_ORIGINAL != 0;
        let weight = u32::try_from(take_varint(bytes)?).ok()?;
        let original = if has_original {
            Some(take_varint(bytes)?)
        } else {
            None
        };
        let mut groups = Vec::new();
        for _ in 0..take_count(bytes)? {
            let flags = take_u8(bytes)?;
            let ids = take_ids(bytes, flags)?.to_vec();
            let mut sessions = Vec::new();
            let mut last = 0_u64;
            for _ in 0..take_count(bytes)? {
                last = last.checked_add(take_varint(bytes)?)?;
                sessions.push(last);
            }
            groups.push(OwedGroup {
                qos: qos(flags),
                retain: flags & RETAIN != 0,
                ids,
                sessions,
            });
        }
        Some(Self {
            weight,
            original,
            groups,
        })
    }
}

fn qos(flags: u8) -> QoS {
    if flags & QOS_2 == 0 {
        QoS::AtLeastOnce
    } else {
        QoS::ExactlyOnce
    }
}

fn flags(qos: QoS, retain: bool, ids: &[SubscriptionId]) -> u8 {
    let mut flags = 0;
    if qos == QoS::ExactlyOnce {
        flags |= QOS_2;
    }
    if retain {
        flags |= RETAIN;
    }
    if !ids.is_empty() {
        flags |= HAS_IDS;
    }
    flags
}

pub(crate) fn put_varint(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    #[expect(clippy::cast_possible_truncation, reason = "below 0x80")]
    out.put_u8(value as u8);
}

pub(crate) fn take_u8(bytes: &mut &[u8]) -> Option<u8> {
    bytes.try_get_u8().ok()
}

pub(crate) fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = take_u8(bytes)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// A count of things that take at least a byte each.
fn take_count(bytes: &mut &[u8]) -> Option<usize> {
    let count = usize::try_from(take_varint(bytes)?).ok()?;
    (count <= bytes.len()).then_some(count)
}

fn put_ids(out: &mut impl BufMut, ids: &[SubscriptionId]) {
    if !ids.is_empty() {
        put_varint(out, ids.len() as u64);
        for id in ids {
            put_varint(out, u64::from(id.value()));
        }
    }
}

fn take_ids(bytes: &mut &[u8], flags: u8) -> Option<SmallVec<[SubscriptionId; 2]>> {
    let mut ids = SmallVec::new();
    if flags & HAS_IDS != 0 {
        for _ in 0..take_count(bytes)? {
            let id = u32::try_from(take_varint(bytes)?).ok()?;
            ids.push(SubscriptionId::new(NonZeroU32::new(id)?.get())?);
        }
    }
    Some(ids)
}

fn zigzag(delta: i64) -> u64 {
    #[expect(clippy::cast_sign_loss, reason = "the bits are what counts")]
    let bits = ((delta << 1) ^ (delta >> 63)) as u64;
    bits
}

fn unzigzag(bits: u64) -> i64 {
    (bits >> 1).cast_signed() ^ -(bits & 1).cast_signed()
}

/// One message a Session is owed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Owed {
    /// Offset of its owed entry: the order of everything that is owed.
    pub(crate) sequence: u64,
    pub(crate) position: Position,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) weight: u32,
    pub(crate) ids: SmallVec<[SubscriptionId; 2]>,
    /// The group whose sequence this is, where a member has a message of it for good; else 0.
    pub(crate) group: u64,
}

impl Owed {
    /// Whether the Session that has it is named by its owed entry, not a group it is a member of.
    pub(crate) fn is_own(&self) -> bool {
        self.group == 0
    }

    /// A QoS 2 message of which only PUBREL and PUBCOMP are left.
    pub(crate) fn released(sequence: u64) -> Self {
        Self {
            sequence,
            position: Position::default(),
            qos: QoS::ExactlyOnce,
            retain: false,
            weight: 0,
            ids: SmallVec::new(),
            group: 0,
        }
    }
}

/// What the next entry's deltas refer to.
#[derive(Clone, Copy, Debug, Default)]
struct Base {
    sequence: u64,
    position: Position,
}

/// What a Session is owed and was not yet sent, ascending by sequence.
#[derive(Debug, Default)]
pub(crate) struct OwedQueue {
    bytes: Vec<u8>,
    /// Where the front entry begins in `bytes`.
    head: usize,
    front: Base,
    back: Base,
    count: u32,
    weight: u64,
}

impl OwedQueue {
    pub(crate) fn len(&self) -> usize {
        self.count as usize
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn weight(&self) -> u64 {
        self.weight
    }

    /// The heap bytes it owns.
    #[cfg(test)]
    pub(crate) fn heap_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    pub(crate) fn push(&mut self, owed: &Owed) {
        let mut entry = SmallVec::<[u8; 48]>::new();
        encode(&mut entry, self.back, owed);
        self.make_room(entry.len());
        self.bytes.extend_from_slice(&entry);
        self.back = Base {
            sequence: owed.sequence,
            position: owed.position,
        };
        self.count += 1;
        self.weight += u64::from(owed.weight);
    }

    /// Grows by a quarter, so that what is allocated stays near what is used.
    fn make_room(&mut self, more: usize) {
        if self.bytes.capacity() - self.bytes.len() >= more {
            return;
        }
        if self.head > self.bytes.len() / 2 {
            self.bytes.drain(..self.head);
            self.head = 0;
        } else {
            self.bytes
                .reserve_exact(more.max(self.bytes.len() / 4).max(16));
        }
    }

    pub(crate) fn front(&self) -> Option<Owed> {
        self.iter().next()
    }

    /// The sequence of the front entry.
    pub(crate) fn front_sequence(&self) -> Option<u64> {
        self.front().map(|owed| owed.sequence)
    }

    /// The sequence that was pushed last, 0 before any.
    pub(crate) fn back_sequence(&self) -> u64 {
        self.back.sequence
    }

    pub(crate) fn pop(&mut self) -> Option<Owed> {
        let mut iter = self.iter();
        let owed = iter.next()?;
        let left = iter.bytes.len();
        self.head = self.bytes.len() - left;
        self.front = Base {
            sequence: owed.sequence,
            position: owed.position,
        };
        self.count -= 1;
        self.weight = self.weight.saturating_sub(u64::from(owed.weight));
        if self.count == 0 {
            *self = Self::default();
        }
        Some(owed)
    }

    pub(crate) fn iter(&self) -> OwedIter<'_> {
        OwedIter {
            bytes: self.bytes.get(self.head..).unwrap_or_default(),
            base: self.front,
        }
    }

    /// Gives the entries of these sequences (ascending) their new positions.
    pub(crate) fn rewrite(&mut self, moved: &[crate::Moved]) {
        let (Some(first), Some(last)) = (moved.first(), moved.last()) else {
            return;
        };
        // Most queues lie elsewhere; of the others the front is enough.
        if self.back_sequence() < first.sequence {
            return;
        }
        let mut front = self
            .iter()
            .take_while(|owed| owed.sequence <= last.sequence);
        if !front.any(|owed| find(moved, &owed).is_some()) {
            return;
        }
        let mut new = Self::default();
        for mut owed in self.iter() {
            if let Some(to) = find(moved, &owed) {
                owed.position = to;
            }
            new.push(&owed);
        }
        *self = new;
    }
}

/// Where the message of `owed` went, if it moved; `moved` ascends by sequence.
pub(crate) fn find(moved: &[crate::Moved], owed: &Owed) -> Option<Position> {
    let index = moved
        .binary_search_by_key(&owed.sequence, |one| one.sequence)
        .ok()?;
    moved
        .get(index)
        .filter(|one| one.from == owed.position)
        .map(|one| one.to)
}

fn encode(out: &mut SmallVec<[u8; 48]>, base: Base, owed: &Owed) {
    let mut flags = flags(owed.qos, owed.retain, &owed.ids);
    if owed.position.partition != base.position.partition {
        flags |= NEW_PARTITION;
    }
    out.push(flags);
    let mut put = |value: u64| {
        let mut value = value;
        while value >= 0x80 {
            out.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        #[expect(clippy::cast_possible_truncation, reason = "below 0x80")]
        out.push(value as u8);
    };
    put(owed.sequence.wrapping_sub(base.sequence));
    if flags & NEW_PARTITION != 0 {
        put(u64::from(owed.position.partition));
    }
    put(zigzag(
        owed.position
            .offset
            .wrapping_sub(base.position.offset)
            .cast_signed(),
    ));
    put(u64::from(owed.weight));
    if !owed.ids.is_empty() {
        put(owed.ids.len() as u64);
        for id in &owed.ids {
            put(u64::from(id.value()));
        }
    }
}

/// The entries of an [`OwedQueue`] from the front.
#[derive(Clone, Debug)]
pub(crate) struct OwedIter<'a> {
    bytes: &'a [u8],
    base: Base,
}

impl Iterator for OwedIter<'_> {
    type Item = Owed;

    fn next(&mut self) -> Option<Owed> {
        let bytes = &mut self.bytes;
        let flags = take_u8(bytes)?;
        let sequence = self.base.sequence.wrapping_add(take_varint(bytes)?);
        let partition = if flags & NEW_PARTITION != 0 {
            u32::try_from(take_varint(bytes)?).ok()?
        } else {
            self.base.position.partition
        };
        let delta = unzigzag(take_varint(bytes)?).cast_unsigned();
        let offset = self.base.position.offset.wrapping_add(delta);
        let weight = u32::try_from(take_varint(bytes)?).ok()?;
        let ids = take_ids(bytes, flags)?;
        let position = Position { partition, offset };
        self.base = Base { sequence, position };
        Some(Owed {
            sequence,
            position,
            qos: qos(flags),
            retain: flags & RETAIN != 0,
            weight,
            ids,
            group: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use crate::Moved;

    fn id(value: u32) -> SubscriptionId {
        SubscriptionId::new(value).unwrap()
    }

    fn owed() -> impl Strategy<Value = (u64, Owed)> {
        let ids = prop::collection::vec(1_u32..300, 0..3);
        (
            1_u64..5,
            0_u32..3,
            any::<u64>(),
            any::<bool>(),
            any::<bool>(),
            any::<u32>(),
            ids,
        )
            .prop_map(|(step, partition, offset, exactly, retain, weight, ids)| {
                let qos = if exactly {
                    QoS::ExactlyOnce
                } else {
                    QoS::AtLeastOnce
                };
                let position = Position { partition, offset };
                let ids = ids.into_iter().map(id).collect();
                (
                    step,
                    Owed {
                        sequence: 0,
                        position,
                        qos,
                        retain,
                        weight,
                        ids,
                        group: 0,
                    },
                )
            })
    }

    proptest! {
        #[test]
        fn queue_is_a_queue(steps in prop::collection::vec((owed(), 0..3_usize), 0..200)) {
            let mut queue = OwedQueue::default();
            let mut model = VecDeque::new();
            let mut sequence = 0;
            for ((step, mut owed), pops) in steps {
                sequence += step;
                owed.sequence = sequence;
                queue.push(&owed);
                model.push_back(owed);
                for _ in 0..pops {
                    prop_assert_eq!(queue.pop(), model.pop_front());
                }
                prop_assert_eq!(queue.front(), model.front().cloned());
                prop_assert_eq!(queue.len(), model.len());
                let weight: u64 = model.iter().map(|owed| u64::from(owed.weight)).sum();
                prop_assert_eq!(queue.weight(), weight);
            }
            prop_assert_eq!(queue.iter().collect::<Vec<_>>(), Vec::from(model));
        }

        #[test]
        fn entry_survives_the_log(
            groups in prop::collection::vec(
                (any::<bool>(), any::<bool>(), prop::collection::vec(1_u32..9, 0..3),
                    prop::collection::btree_set(any::<u64>(), 1..20)),
                1..4,
            ),
            weight: u32,
            original: Option<u64>,
        ) {
            let groups = groups.into_iter().map(|(exactly, retain, ids, sessions)| OwedGroup {
                qos: if exactly { QoS::ExactlyOnce } else { QoS::AtLeastOnce },
                retain,
                ids: ids.into_iter().map(id).collect(),
                sessions: sessions.into_iter().collect(),
            });
            let entry = OwedEntry { weight, original, groups: groups.collect() };
            prop_assert_eq!(OwedEntry::decode(&entry.encode()), Some(entry));
        }

        #[test]
        fn decoding_an_entry_is_total(bytes: Vec<u8>) {
            let _entry = OwedEntry::decode(&bytes);
        }
    }

    #[test]
    fn a_broadcast_adds_at_most_four_bytes_a_session() {
        let sessions: Vec<u64> = (1..=100_000).map(|index| index * 50).collect();
        let group = OwedGroup {
            qos: QoS::AtLeastOnce,
            retain: false,
            ids: Vec::new(),
            sessions,
        };
        let entry = OwedEntry::new(vec![group]).unwrap().encode();
        assert!(entry.len() <= 4 * 100_000, "{} bytes", entry.len());
    }

    /// Everything the queues own, their own structs counted: 100,000 Sessions owed 100 each.
    #[test]
    fn an_owed_message_costs_at_most_sixteen_bytes() {
        for (sessions, each, step) in [(10_000_u64, 100_u64, 10), (10, 100_000, 1_000)] {
            let mut queues = Vec::new();
            for session in 0..sessions {
                let mut queue = OwedQueue::default();
                for index in 0..each {
                    let sequence = 1_000_000 + index * step + session % 7;
                    queue.push(&Owed {
                        sequence,
                        position: Position {
                            partition: 3,
                            offset: sequence * 2,
                        },
                        qos: QoS::AtLeastOnce,
                        retain: false,
                        weight: 200,
                        ids: SmallVec::new(),
                        group: 0,
                    });
                }
                queues.push(queue);
            }
            let heap: usize = queues.iter().map(OwedQueue::heap_bytes).sum();
            let all = heap + queues.len() * size_of::<OwedQueue>();
            let a_message = all as f64 / (sessions * each) as f64;
            assert!(
                a_message <= 16.0,
                "{a_message} bytes each at {sessions} x {each}"
            );
        }
    }

    #[test]
    fn rewriting_follows_a_copied_record_only() {
        let mut queue = OwedQueue::default();
        for sequence in 1..=5 {
            let position = Position {
                partition: 1,
                offset: sequence,
            };
            let ids = SmallVec::new();
            let qos = QoS::AtLeastOnce;
            queue.push(&Owed {
                sequence,
                position,
                qos,
                retain: false,
                weight: 1,
                ids,
                group: 0,
            });
        }
        let from = Position {
            partition: 1,
            offset: 2,
        };
        let to = Position {
            partition: 9,
            offset: 0,
        };
        let elsewhere = Position {
            partition: 8,
            offset: 3,
        };
        queue.rewrite(&[
            Moved {
                sequence: 2,
                from,
                to,
            },
            Moved {
                sequence: 3,
                from: elsewhere,
                to,
            },
        ]);
        let positions: Vec<_> = queue.iter().map(|owed| owed.position.partition).collect();
        assert_eq!(positions, [1, 9, 1, 1, 1]);
    }
}
