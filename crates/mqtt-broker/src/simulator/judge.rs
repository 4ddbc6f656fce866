//! The history and its judgement: what was acknowledged was delivered, once where that is
//! promised, in order, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use headwater_mqtt_codec::{QoS, topic};

use super::client::{Client, Event, Mark, Received};
use crate::Message;

/// One message as its publisher sent it.
#[derive(Debug)]
pub(crate) struct Sent {
    topic: String,
    qos: QoS,
    retain: bool,
    /// When it was handed to the socket, and when it was acknowledged.
    at: u64,
    acknowledged: Option<u64>,
    /// What its publisher sends from then on comes behind it; `None` while that is open.
    leads_from: Option<u64>,
    /// How many messages it may have become: at QoS 1 each PUBLISH may be one.
    copies: u32,
    /// Its publisher keeps its session.
    by_persistent: bool,
}

/// What one subscriber's session saw.
#[derive(Debug, Default)]
pub(crate) struct Saw {
    /// Since when the subscription of this session stands.
    since: Option<u64>,
    filters: Vec<(String, QoS)>,
    /// The Shared Subscription that is all it has, and its QoS.
    shared: Option<(String, QoS)>,
    persistent: bool,
    /// Takes no long messages.
    short: bool,
    deliveries: BTreeMap<Mark, u32>,
    /// The session began with this connection.
    is_new: bool,
    /// What came on this connection, with RETAIN and without.
    here: BTreeMap<(Mark, bool), u32>,
    /// What came without DUP on any, since the broker last started.
    first_sends: BTreeMap<(Mark, bool), u32>,
    /// Its connection is the one that the subscription was made on.
    steady: bool,
    /// (topic, QoS) -> the last message to come that was published to be retained.
    last_retained: BTreeMap<(String, QoS), Mark>,
    /// (publisher, topic, QoS) -> the last sent of those delivered.
    last: BTreeMap<(usize, String, QoS), Mark>,
}

/// When a client sent its SUBSCRIBEs.
#[derive(Debug, Default)]
struct Subscribes {
    /// In this session.
    at: Vec<u64>,
    /// As many of them before this connection.
    before: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Judge {
    clock: u64,
    sent: BTreeMap<Mark, Sent>,
    saw: BTreeMap<usize, Saw>,
    subscribes: BTreeMap<usize, Subscribes>,
    groups: BTreeMap<String, Group>,
    /// Publishers of MQTT 5.0 whom a full disk refuses: one who does not hear of it, because the
    /// connection breaks, sends the refused one again behind what was taken after it.
    pub(crate) unordered: BTreeSet<usize>,
    /// Groups with a member at QoS 0, which loses what it is sent with its connection.
    pub(crate) lossy_groups: BTreeSet<String>,
    /// Groups with a member that takes no long messages.
    pub(crate) short_groups: BTreeSet<String>,
    /// The log takes no long messages: before MQTT 5.0 they are acknowledged all the same.
    pub(crate) loses_long: bool,
    pub(crate) deliveries: u64,
    pub(crate) acknowledged: u64,
    pub(crate) wills_due: u64,
    /// PUBLISHes with RETAIN.
    pub(crate) retained: u64,
}

impl Judge {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    pub(crate) fn sent(
        &mut self,
        mark: Mark,
        topic: &str,
        qos: QoS,
        retain: bool,
        by_persistent: bool,
    ) {
        let at = self.tick();
        let topic = topic.to_owned();
        let sent = Sent {
            topic,
            qos,
            retain,
            at,
            acknowledged: None,
            leads_from: Some(at),
            copies: 1,
            by_persistent,
        };
        assert!(self.sent.insert(mark, sent).is_none());
    }

    /// The client sends CONNECT with this Will, at QoS 1. It is published when its connection ends,
    /// and of two connections that are open at once either may come to the broker first: until the
    /// client knows that it has this one, the next one's Will may be the earlier.
    pub(crate) fn sent_will(&mut self, mark: Mark, topic: &str) {
        self.sent(mark, topic, QoS::AtLeastOnce, false, false);
        self.sent.get_mut(&mark).expect("sent").leads_from = None;
    }

    pub(crate) fn acknowledged(&mut self, mark: Mark) {
        self.acknowledged += 1;
        let at = self.tick();
        self.sent.get_mut(&mark).expect("sent").acknowledged = Some(at);
    }

    fn resent(&mut self, mark: Mark) {
        self.sent.get_mut(&mark).expect("sent").copies += 1;
    }

    /// The connection that had this Will is lost, and CONNACK had said that the broker has it.
    pub(crate) fn will_is_due(&mut self, mark: Mark) {
        self.wills_due += 1;
        let at = self.tick();
        self.sent.get_mut(&mark).expect("sent").acknowledged = Some(at);
    }

    /// The client sends CONNECT.
    pub(crate) fn connects(&mut self, client: usize) {
        let subscribes = self.subscribes.entry(client).or_default();
        subscribes.before = subscribes.at.len();
    }

    /// The client sends SUBSCRIBE.
    pub(crate) fn subscribes(&mut self, client: usize) {
        let at = self.tick();
        self.subscribes.entry(client).or_default().at.push(at);
    }

    /// CONNACK came for the CONNECT with this Will.
    fn connected(&mut self, client: usize, present: bool, will: Option<Mark>) {
        let at = self.tick();
        if let Some(will) = will {
            self.sent.get_mut(&will).expect("sent").leads_from = Some(at);
        }
        let saw = self.saw.get_mut(&client).expect("fresh");
        saw.here.clear();
        saw.is_new = !present;
        if !present {
            let subscribes = self.subscribes.entry(client).or_default();
            subscribes
                .at
                .drain(..std::mem::take(&mut subscribes.before));
        }
    }

    /// What happened at a client.
    pub(crate) fn heard(&mut self, client: &Client, event: &Event) -> Result<(), String> {
        let index = client.index;
        match event {
            Event::Connected { present } => {
                // A CONNACK may have been lost with its connection: then the session is there
                // and its client did not know.
                if !present || !self.saw.contains_key(&index) {
                    self.fresh(index, client);
                } else if !client.persistent {
                    return Err("session present after Clean Start".into());
                }
                self.connected(index, *present, client.will);
            }
            Event::Subscribed => self.subscribed(index),
            Event::Acknowledged(mark) => self.acknowledged(*mark),
            Event::Resent(mark) => self.resent(*mark),
            Event::Received(one) => self.received(index, one)?,
        }
        Ok(())
    }

    /// The client has a session without a past.
    fn fresh(&mut self, index: usize, client: &Client) {
        let saw = Saw {
            filters: client.filters.clone(),
            shared: client.shared().cloned(),
            persistent: client.persistent,
            short: client.packet_bytes_max.is_some(),
            ..Saw::default()
        };
        // The broker knows by now that the session before it has ended.
        let at = self.tick();
        if let Some((name, QoS::ExactlyOnce)) = &saw.shared {
            self.groups.entry(name.clone()).or_default().ended_at = at;
        }
        self.saw.insert(index, saw);
    }

    /// The client's connection ended; its session may go on.
    pub(crate) fn lost(&mut self, client: usize) {
        if let Some(saw) = self.saw.get_mut(&client) {
            saw.steady = false;
        }
    }

    /// Everybody's did, and the broker does not know what it has sent at QoS 1.
    pub(crate) fn crashed(&mut self) {
        let at = self.tick();
        for sent in self.sent.values_mut() {
            sent.leads_from.get_or_insert(at); // Nothing is on its way any more.
        }
        for saw in self.saw.values_mut() {
            saw.steady = false;
            saw.first_sends.clear();
        }
    }

    fn subscribed(&mut self, client: usize) {
        let at = self.tick();
        let saw = self.saw.get_mut(&client).expect("connected");
        saw.since.get_or_insert(at);
        saw.steady = true;
    }

    /// From here on the client may have no subscription.
    pub(crate) fn unsubscribes(&mut self, client: usize) {
        if let Some(saw) = self.saw.get_mut(&client) {
            saw.since = None;
            saw.steady = false;
        }
    }

    /// The client's session ended.
    pub(crate) fn ended(&mut self, client: usize) {
        let saw = self.saw.remove(&client);
        let group = saw.and_then(|saw| self.groups.get_mut(&saw.shared?.0));
        let deliveries = group
            .into_iter()
            .flat_map(|group| group.deliveries.values_mut());
        for one in deliveries.flatten().filter(|one| one.client == client) {
            one.forgotten = true;
        }
    }

    /// A PUBLISH came, whether it is passed on or not.
    fn received(&mut self, client: usize, received: &Received) -> Result<(), String> {
        let Received {
            mark, qos, retain, ..
        } = *received;
        let topic = &received.topic[..];
        let (copies_max, retained_max) = self.copies_max(client, mark)?;
        let sent = &self.sent[&mark];
        let saw = self
            .saw
            .get_mut(&client)
            .ok_or(format!("{client} has no session"))?;
        if sent.topic != topic {
            return Err(format!("{mark:?} came on {topic}"));
        }
        saw.count(received, copies_max, retained_max)
            .map_err(|finding| format!("to {client}: {finding}, {sent:?}"))?;
        if received.held {
            return Ok(());
        }
        self.deliveries += 1;
        self.retained += u64::from(retain);
        if let Some((name, granted)) = &saw.shared {
            let group = self.groups.entry(name.clone()).or_default();
            return group.received(client, mark, sent, *granted, qos, retain);
        }
        if sent.retain {
            let last = saw.last_retained.insert((topic.to_owned(), qos), mark);
            let last = last.filter(|_| retain && saw.steady);
            if let Some(last) = last.filter(|last| sent.is_before(&self.sent[last])) {
                return Err(format!("{mark:?} is retained no more after {last:?}"));
            }
        }
        let granted = saw
            .filters
            .iter()
            .filter(|(filter, _)| topic::matches(filter, topic));
        if retain {
            // One for each subscription, at that one's QoS.
            let fits = granted
                .clone()
                .any(|(_, granted)| qos == sent.qos.min(*granted));
            let wrong = format!("retained {mark:?} came at {qos:?}");
            return fits.then_some(()).ok_or(wrong);
        }
        let granted = granted.map(|(_, qos)| *qos).max();
        let granted = granted.ok_or(format!("{client} never asked for {topic}"))?;
        if qos != granted.min(sent.qos) {
            return Err(format!(
                "{mark:?} came at {qos:?}, not {granted:?} [MQTT-3.3.4-2]"
            ));
        }
        let count = saw.deliveries.entry(mark).or_default();
        *count += 1;
        if *count == 1 {
            // A message sent before the SUBACK may have been matched before it, and again, when it
            // was sent again, after a later one.
            if saw.since.is_none_or(|since| sent.at < since) {
                return Ok(());
            }
            // Nor are those in order that were lost on their way at QoS 0 and sent again.
            if qos < sent.qos && qos == QoS::AtMostOnce {
                return Ok(());
            }
            let key = (mark.publisher, topic.to_owned(), sent.qos);
            let last = saw.last.entry(key).or_insert(mark);
            let is_late = sent.leads(&self.sent[&*last]);
            if is_late && !self.unordered.contains(&mark.publisher) {
                return Err(format!(
                    "{mark:?} came to {client} after {last:?} [MQTT-4.6.0-6]"
                ));
            }
            *last = mark.max(*last);
        } else if qos == QoS::AtMostOnce && sent.qos == QoS::AtMostOnce {
            return Err(format!("{mark:?} came {count} times at QoS 0"));
        } else if qos == QoS::ExactlyOnce {
            return Err(format!("{mark:?} came {count} times to {client} at QoS 2"));
        }
        Ok(())
    }

    /// How often one connection may see a message, in all and with RETAIN: each subscription has it
    /// once for each SUBSCRIBE that was sent before another took its place, and where it came by
    /// itself the first SUBSCRIBE found nothing.
    fn copies_max(&self, client: usize, mark: Mark) -> Result<(u32, u32), String> {
        let sent = self.sent.get(&mark);
        let sent = sent.ok_or(format!("{mark:?} was never sent"))?;
        if !sent.retain {
            return Ok((sent.copies, 0));
        }
        let replaced_at = self.replaced_at(mark, sent);
        let subscribes = self.subscribes.get(&client);
        let asked = subscribes.into_iter().flat_map(|one| &one.at);
        let asked = asked.filter(|at| **at < replaced_at).count();
        let filters = self.saw.get(&client).into_iter();
        let filters = filters.flat_map(|saw| &saw.filters);
        let filters = filters.filter(|(filter, _)| topic::matches(filter, &sent.topic));
        let retained_max = u32::try_from(asked * filters.count()).unwrap();
        Ok((
            sent.copies.max(sent.copies + retained_max - 1),
            retained_max,
        ))
    }

    /// When it was known at the latest that another is the Retained Message of the topic.
    fn replaced_at(&self, mark: Mark, sent: &Sent) -> u64 {
        let others = self.sent.iter().filter(|(other, one)| {
            one.retain && one.topic == sent.topic && sent.is_before(one) && **other != mark
        });
        // A long one may be acknowledged and not stored.
        let others = others.filter(|(other, _)| !(self.loses_long && other.is_long()));
        let at = others.filter_map(|(_, one)| one.acknowledged).min();
        at.unwrap_or(u64::MAX)
    }

    /// At rest, with everybody connected: whatever was promised must have come. `retained` are the
    /// Retained Messages.
    pub(crate) fn verdict(&self, retained: &[Arc<Message>]) -> Result<(), String> {
        for (client, saw) in self.saw.iter().filter(|(_, saw)| saw.shared.is_none()) {
            saw.knows_retained(retained)
                .map_err(|finding| format!("{client}: {finding}, {saw:?}"))?;
            let Some(since) = saw.since else { continue };
            let missing: BTreeSet<Mark> = self
                .sent
                .iter()
                .filter(|(_, sent)| sent.acknowledged.is_some() && sent.at > since)
                .filter(|(_, sent)| {
                    saw.filters.iter().any(|(filter, qos)| {
                        *qos > QoS::AtMostOnce && topic::matches(filter, &sent.topic)
                    })
                })
                .map(|(mark, _)| *mark)
                .filter(|mark| !saw.deliveries.contains_key(mark))
                .filter(|mark| !((saw.short || self.loses_long) && mark.is_long()))
                .collect();
            if !missing.is_empty() {
                let sent: Vec<_> = missing
                    .iter()
                    .map(|mark| self.sent.get_key_value(mark))
                    .collect();
                return Err(format!(
                    "acknowledged and never delivered to {client}: {sent:?}, {saw:?}"
                ));
            }
        }
        self.verdict_on_groups()
    }

    /// What was acknowledged while a lasting session subscribed, some member got.
    fn verdict_on_groups(&self) -> Result<(), String> {
        for (client, saw) in &self.saw {
            let (Some((name, granted)), Some(since)) = (&saw.shared, saw.since) else {
                continue;
            };
            if *granted == QoS::AtMostOnce || !saw.persistent {
                continue;
            }
            if self.lossy_groups.contains(name) {
                continue;
            }
            let nothing = Group::default();
            let group = self.groups.get(name).unwrap_or(&nothing);
            let missing = self.sent.iter().find(|(mark, sent)| {
                sent.acknowledged.is_some()
                    && sent.at > since
                    && sent.qos > QoS::AtMostOnce
                    && selects(name, &sent.topic)
                    && !group.deliveries.contains_key(mark)
                    && !(mark.is_long() && (self.loses_long || self.is_short(name)))
                    // Sent at QoS 2 to a session that ended.
                    && !(sent.qos == QoS::ExactlyOnce && sent.at < group.ended_at)
            });
            if let Some(missing) = missing {
                return Err(format!(
                    "acknowledged and never delivered to {name}, where {client} is since {since}: \
                     {missing:?}, {group:?}"
                ));
            }
        }
        Ok(())
    }

    /// Some member takes no long messages: they are dropped while it is alone.
    fn is_short(&self, name: &str) -> bool {
        self.short_groups.contains(name)
    }
}

/// Who got it, at which QoS.
#[derive(Debug)]
struct Delivered {
    client: usize,
    qos: QoS,
    /// Its client wanted another session since, and did not always get it.
    forgotten: bool,
}

/// What the members of a group saw, whenever they were members.
#[derive(Debug, Default)]
pub(crate) struct Group {
    deliveries: BTreeMap<Mark, Vec<Delivered>>,
    /// When the session of a member at QoS 2 ended last.
    ended_at: u64,
}

fn check_copies(
    seen: &BTreeMap<(Mark, bool), u32>,
    one: &Received,
    copies_max: u32,
    retained_max: u32,
) -> Result<(), String> {
    let count = |retain| seen.get(&(one.mark, retain)).copied().unwrap_or(0);
    let (plain, retained) = (count(false), count(true));
    if retained > retained_max || plain + retained > copies_max {
        return Err(format!(
            "{one:?} came {plain} times and {retained} times with RETAIN, \
             {retained_max} of {copies_max} may have it"
        ));
    }
    Ok(())
}

fn selects(name: &str, topic: &str) -> bool {
    let shared = topic::split_shared(name).unwrap().unwrap();
    topic::matches(shared.filter, topic)
}

impl Group {
    fn received(
        &mut self,
        client: usize,
        mark: Mark,
        sent: &Sent,
        granted: QoS,
        qos: QoS,
        retain: bool,
    ) -> Result<(), String> {
        if retain {
            return Err(format!("{mark:?} came with RETAIN, 4.8.2"));
        }
        if qos > granted.min(sent.qos) {
            return Err(format!("{mark:?} came at {qos:?} [MQTT-4.8.2-3]"));
        }
        let all = self.deliveries.entry(mark).or_default();
        all.push(Delivered {
            client,
            qos,
            forgotten: false,
        });
        let exactly = all.iter().filter(|one| one.qos == QoS::ExactlyOnce);
        let exactly = exactly.filter(|one| one.client != client || !one.forgotten);
        if exactly.count() > 1 && sent.by_persistent {
            return Err(format!(
                "{mark:?} came more than once at QoS 2: {all:?} [MQTT-4.8.2-5]"
            ));
        }
        if qos == QoS::AtMostOnce && sent.qos == QoS::AtMostOnce && all.len() > 1 {
            return Err(format!("{mark:?} came twice at QoS 0: {all:?}"));
        }
        Ok(())
    }
}

impl Sent {
    /// It was done with before the other was sent.
    fn is_before(&self, other: &Self) -> bool {
        self.acknowledged.is_some_and(|at| at < other.at)
    }

    /// It comes before the other, of the same publisher.
    fn leads(&self, other: &Self) -> bool {
        self.leads_from.is_some_and(|at| at < other.at)
    }
}

impl Saw {
    /// On one connection nothing is sent twice [MQTT-4.4.0-1], and what is sent again on another
    /// has DUP [MQTT-3.3.1-1].
    fn count(&mut self, one: &Received, copies_max: u32, retained_max: u32) -> Result<(), String> {
        let Received {
            mark, retain, dup, ..
        } = *one;
        if dup && self.is_new {
            return Err(format!("{one:?} was never sent to this session"));
        }
        *self.here.entry((mark, retain)).or_default() += 1;
        check_copies(&self.here, one, copies_max, retained_max)?;
        // What a member lost is its group's again, and sent to whomever as a new one.
        if !dup && self.shared.is_none() {
            *self.first_sends.entry((mark, retain)).or_default() += 1;
            check_copies(&self.first_sends, one, copies_max, retained_max)
                .map_err(|finding| format!("{finding} without DUP"))?;
        }
        Ok(())
    }

    /// A subscription's last word on a topic is its Retained Message. At QoS 0 it may have been
    /// dropped, and messages of another QoS may overtake it.
    fn knows_retained(&self, retained: &[Arc<Message>]) -> Result<(), String> {
        for message in retained.iter().filter(|_| self.steady) {
            let mark = Mark::read(&message.payload).expect("a payload of ours");
            let granted = (self.filters.iter())
                .filter(|(filter, _)| topic::matches(filter, &message.topic))
                .map(|(_, granted)| *granted);
            let (Some(least), Some(most)) = (granted.clone().min(), granted.max()) else {
                continue;
            };
            let (least, most) = (least.min(message.qos), most.min(message.qos));
            if least != most || most == QoS::AtMostOnce || self.short && mark.is_long() {
                continue;
            }
            let last = self.last_retained.get(&(message.topic.to_string(), most));
            if last != Some(&mark) {
                return Err(format!(
                    "{mark:?} is retained, the last to come was {last:?}"
                ));
            }
        }
        Ok(())
    }
}
