//! What sessions received: nothing acknowledged is missing, nothing at QoS 2 came twice, order held, nothing was made up.

use std::collections::{HashMap, HashSet};

use super::book::{Book, MessageId, matches};
use super::{Kind, Verdict};
use crate::history::{Event, Op};

/// One subscriber's side, as an application above a correct receiver sees it.
#[derive(Default)]
struct Receiver<'a> {
    /// QoS 2 identifiers between PUBLISH and PUBREL: a PUBLISH with one of them is not delivered again [MQTT-4.3.3-10].
    held: HashSet<u16>,
    delivered: HashMap<MessageId<'a>, u32>,
    highest: HashMap<(&'a str, &'a str), u64>,
    /// A promise hangs on this session: an acknowledged subscription or a PUBREC.
    promised: bool,
}

pub(super) fn check<'a>(events: &'a [Event], book: &Book<'a>, verdict: &mut Verdict) {
    let mut receivers: HashMap<&str, Receiver<'_>> = HashMap::new();
    for event in events {
        let receiver = receivers.entry(&event.client).or_default();
        match event.op {
            Op::Connect => connect(receiver, event, verdict),
            Op::Subscribe => receiver.promised |= event.lasting,
            Op::Ack => receiver.promised |= event.lasting && event.qos == 2,
            Op::Recv => receive(receiver, event, book, verdict),
            Op::Release => {
                receiver.held.remove(&event.packet_id);
            }
            Op::Retained => retained(event, book, verdict),
            _ => {}
        }
    }
    missing(&receivers, book, verdict);
}

fn connect(receiver: &mut Receiver<'_>, event: &Event, verdict: &mut Verdict) {
    if event.session_present {
        return;
    }
    receiver.held.clear();
    if receiver.promised && event.lasting {
        verdict.add(Kind::SessionLost, || {
            format!(
                "{} came back as epoch {} to no session",
                event.client, event.session_epoch
            )
        });
    }
    receiver.promised = false;
}

fn receive<'a>(
    receiver: &mut Receiver<'a>,
    event: &'a Event,
    book: &Book<'a>,
    verdict: &mut Verdict,
) {
    let id = MessageId {
        producer: &event.key,
        seq: event.seq,
    };
    let name = || {
        format!(
            "{}/{} on {} at {}",
            event.key, event.seq, event.topic, event.client
        )
    };
    if event.qos == 2 && !receiver.held.insert(event.packet_id) {
        return;
    }
    let Some(sent) = book.messages.get(&id) else {
        return verdict.add(Kind::Phantom, || {
            format!("{}: never sent {}", name(), event.detail)
        });
    };
    if sent.is_refused() || sent.topic != event.topic || sent.sent_at > event.t_mono {
        return verdict.add(Kind::Phantom, || {
            format!("{}: refused, or not what was sent", name())
        });
    }
    let asked = book
        .subscriptions
        .iter()
        .any(|one| one.session == event.client && matches(one.filter, &event.topic));
    if !asked {
        verdict.add(Kind::NotAskedFor, name);
    }
    verdict.figures.delivered += 1;
    let times = receiver.delivered.entry(id).or_default();
    *times += 1;
    if *times > 1 {
        if sent.qos == 2 && event.qos == 2 {
            verdict.add(Kind::DoubledToSession, name);
        } else {
            verdict.figures.repeated += 1;
        }
        return;
    }
    // Order is that of first deliveries: a redelivery after a lost connection repeats a suffix, which is allowed.
    let highest = receiver
        .highest
        .entry((&event.key, &event.topic))
        .or_default();
    if event.seq < *highest {
        let before = *highest;
        verdict.add(Kind::OrderAtSession, || {
            format!("{} after {before}", name())
        });
    }
    *highest = event.seq.max(*highest);
}

/// The Retained Message is the last acknowledged one of its topic, or one sent after it.
fn retained(event: &Event, book: &Book<'_>, verdict: &mut Verdict) {
    let last = book
        .messages
        .iter()
        .filter(|(_, sent)| sent.retain && sent.topic == event.topic)
        .filter(|(_, sent)| sent.acked_at.is_some_and(|at| at <= event.t_mono))
        .map(|(id, _)| id.seq)
        .max()
        .unwrap_or(0);
    if event.seq < last {
        verdict.add(Kind::RetainedStale, || {
            format!(
                "{}: {} is retained, {last} was acknowledged",
                event.topic, event.seq
            )
        });
    }
    let id = MessageId {
        producer: &event.key,
        seq: event.seq,
    };
    if event.seq > 0
        && book
            .messages
            .get(&id)
            .is_none_or(|sent| sent.is_refused() || !sent.retain)
    {
        verdict.add(Kind::Phantom, || {
            format!(
                "retained {}/{} on {}: never sent",
                event.key, event.seq, event.topic
            )
        });
    }
}

fn missing(receivers: &HashMap<&str, Receiver<'_>>, book: &Book<'_>, verdict: &mut Verdict) {
    let acknowledged = book.acknowledged();
    let lasting: Vec<_> = book
        .subscriptions
        .iter()
        .filter(|one| one.lasting)
        .collect();
    for (id, sent) in acknowledged {
        let mut asked = HashSet::new();
        for subscription in &lasting {
            // Subscribed before the message was sent: when it was acknowledged, it was owed.
            if subscription.since <= sent.sent_at
                && matches(subscription.filter, sent.topic)
                && asked.insert(subscription.session)
                && !receivers
                    .get(subscription.session)
                    .is_some_and(|one| one.delivered.contains_key(&id))
            {
                verdict.lose(Kind::LostToSession, id.producer, id.seq, || {
                    format!(
                        "{}/{} on {} (QoS {}) at {}",
                        id.producer, id.seq, sent.topic, sent.qos, subscription.session
                    )
                });
            }
        }
    }
}
