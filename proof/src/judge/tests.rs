//! A judge that cannot complain proves nothing: each kind of violation is fed in once and must be found, alone.

use super::*;
use crate::evidence::{Document, Identity, LogReading, LogRecord};
use crate::history::{Event, Proto};

const RECORDS: u64 = 6;

fn rules() -> Rules {
    Rules {
        routed_to: Some("mqtt".into()),
        faults_min: 1,
        acks_near_faults_min: 1,
    }
}

fn event(t_mono: u64, client: &str, op: Op) -> Event {
    Event {
        t_mono,
        client: client.into(),
        op,
        ..Event::default()
    }
}

fn about(t_mono: u64, client: &str, op: Op, seq: u64) -> Event {
    Event {
        key: "p".into(),
        topic: "t/p".into(),
        qos: 2,
        seq,
        retain: true,
        ..event(t_mono, client, op)
    }
}

fn received(t_mono: u64, seq: u64, packet_id: u16) -> Event {
    Event {
        packet_id,
        ..about(t_mono, "s", Op::Recv, seq)
    }
}

fn released(t_mono: u64, packet_id: u16) -> Event {
    Event {
        packet_id,
        ..event(t_mono, "s", Op::Release)
    }
}

fn record(offset: u64) -> LogRecord {
    let identity = Identity::Message {
        producer: "p".into(),
        seq: offset + 1,
    };
    LogRecord {
        offset,
        checksum: 100,
        identity,
    }
}

fn reading(t_mono: u64, from: u64, to: u64) -> LogReading {
    let records = (from..to).map(record).collect();
    LogReading {
        t_mono,
        topic: "mqtt".into(),
        partition: 0,
        from,
        high_watermark: to,
        records,
    }
}

fn document(offset: u64) -> Document {
    let LogRecord { identity, .. } = record(offset);
    Document {
        id: format!("u/0/{offset}"),
        topic: "mqtt".into(),
        partition: 0,
        offset,
        identity,
    }
}

/// Six messages at QoS 2, a crash after the third acknowledgement, everything delivered, stored and retained.
fn clean() -> Evidence {
    let mut events = vec![
        Event {
            lasting: true,
            ..event(0, "s", Op::Connect)
        },
        Event {
            topic: "t/+".into(),
            lasting: true,
            qos: 2,
            ..event(1, "s", Op::Subscribe)
        },
    ];
    for seq in 1..=RECORDS {
        let at = seq * 1_000;
        events.push(about(at, "p", Op::Send, seq));
        events.push(about(at + 10, "p", Op::Ack, seq));
        if seq == 3 {
            events.push(Event {
                proto: Proto::Harness,
                ..event(at + 20, "server", Op::Crash)
            });
            events.push(Event {
                proto: Proto::Harness,
                millis: 40,
                ..event(at + 30, "server", Op::Ready)
            });
            events.push(Event {
                lasting: true,
                session_present: true,
                ..event(at + 40, "s", Op::Connect)
            });
        }
    }
    for seq in 1..=RECORDS {
        let packet_id = u16::try_from(seq).unwrap();
        events.push(received(10_000 + seq * 10, seq, packet_id));
        events.push(released(10_005 + seq * 10, packet_id));
    }
    events.push(about(11_000, "fresh", Op::Retained, RECORDS));
    let group = Event {
        proto: Proto::Kafka,
        topic: "mqtt".into(),
        offset: 4,
        ..event(11_100, "g", Op::Commit)
    };
    events.push(group.clone());
    events.push(Event {
        op: Op::Committed,
        t_mono: 11_200,
        ..group
    });
    Evidence {
        events,
        readings: vec![reading(3_005, 0, 3), reading(12_000, 0, RECORDS)],
        documents: Some((0..RECORDS).map(document).collect()),
    }
}

/// Exactly these kinds, once each.
fn assert_finds(evidence: &Evidence, expected: &[Kind]) {
    let verdict = judge(evidence, &rules());
    let found: Vec<(Kind, u64)> = verdict
        .violations
        .iter()
        .map(|(kind, count)| (*kind, *count))
        .collect();
    let mut wanted: Vec<(Kind, u64)> = expected.iter().map(|kind| (*kind, 1)).collect();
    wanted.sort_unstable();
    assert_eq!(found, wanted, "{verdict}");
}

fn position_of(evidence: &Evidence, wanted: impl Fn(&Event) -> bool) -> usize {
    evidence.events.iter().position(wanted).unwrap()
}

fn last_log(evidence: &mut Evidence) -> &mut LogReading {
    evidence.readings.last_mut().unwrap()
}

#[test]
fn clean_history_passes_and_is_counted() {
    let verdict = judge(&clean(), &rules());
    assert!(verdict.is_clean(), "{verdict}");
    let expected = Figures {
        sent: 6,
        acked: 6,
        refused: 0,
        delivered: 6,
        repeated: 0,
        lost: 0,
        records: 6,
        documents: 6,
        faults: 1,
        acks_near_faults: 3,
        recovery_millis_max: 40,
    };
    assert_eq!(verdict.figures, expected);
}

#[test]
fn acknowledged_message_that_a_subscribed_session_never_got_is_lost() {
    let mut evidence = clean();
    evidence
        .events
        .retain(|event| !(event.op == Op::Recv && event.seq == 4));
    assert_finds(&evidence, &[Kind::LostToSession]);
    assert_eq!(judge(&evidence, &rules()).figures.lost, 1);
    // Not owed to who subscribed after it was sent.
    let subscribe = position_of(&evidence, |event| event.op == Op::Subscribe);
    evidence.events[subscribe].t_mono = 4_005;
    assert!(judge(&evidence, &rules()).is_clean());
}

#[test]
fn message_without_an_answer_may_be_missing_everywhere() {
    let mut evidence = clean();
    evidence
        .events
        .retain(|event| !(matches!(event.op, Op::Recv | Op::Ack | Op::Retained) && event.seq == 6));
    last_log(&mut evidence).records.pop();
    last_log(&mut evidence).high_watermark = 5;
    evidence.documents.as_mut().unwrap().pop();
    assert_finds(&evidence, &[]);
}

#[test]
fn acknowledged_message_that_is_not_in_the_log_is_lost() {
    let mut evidence = clean();
    last_log(&mut evidence).records.pop();
    last_log(&mut evidence).high_watermark = 5;
    evidence.documents.as_mut().unwrap().pop();
    assert_finds(&evidence, &[Kind::LostFromLog]);
}

#[test]
fn record_without_a_document_is_lost_there() {
    let mut evidence = clean();
    evidence.documents.as_mut().unwrap().remove(2);
    assert_finds(&evidence, &[Kind::LostFromDocuments]);
}

#[test]
fn qos2_message_delivered_twice_is_doubled() {
    let mut evidence = clean();
    evidence.events.push(received(10_500, 2, 9));
    assert_finds(&evidence, &[Kind::DoubledToSession]);
}

#[test]
fn qos2_publish_repeated_before_its_pubrel_is_one_delivery() {
    let mut evidence = clean();
    let release = position_of(&evidence, |event| {
        event.op == Op::Release && event.packet_id == 2
    });
    evidence.events.insert(
        release,
        Event {
            dup: true,
            ..received(10_022, 2, 2)
        },
    );
    assert_finds(&evidence, &[]);
    // The same bytes after PUBREL are a second delivery: the server forgot that it had released the identifier.
    let release = position_of(&evidence, |event| {
        event.op == Op::Release && event.packet_id == 2
    });
    evidence.events.insert(
        release + 1,
        Event {
            dup: true,
            ..received(10_026, 2, 2)
        },
    );
    assert_finds(&evidence, &[Kind::DoubledToSession]);
}

#[test]
fn qos1_message_delivered_twice_is_allowed_and_counted() {
    let mut evidence = clean();
    for event in &mut evidence.events {
        event.qos = event.qos.min(1);
    }
    evidence.events.push(Event {
        qos: 1,
        ..received(10_500, 2, 9)
    });
    let verdict = judge(&evidence, &rules());
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!(verdict.figures.repeated, 1);
}

/// Seven records, the last a copy of message 2.
fn with_second_copy_in_log() -> Evidence {
    let mut evidence = clean();
    let identity = record(1).identity;
    last_log(&mut evidence).records.push(LogRecord {
        offset: 6,
        checksum: 7,
        identity: identity.clone(),
    });
    last_log(&mut evidence).high_watermark = 7;
    evidence.documents.as_mut().unwrap().push(Document {
        identity,
        ..document(6)
    });
    evidence
}

#[test]
fn qos2_message_twice_in_the_log_is_doubled() {
    let mut evidence = with_second_copy_in_log();
    assert_finds(&evidence, &[Kind::DoubledInLog]);
    for event in &mut evidence.events {
        event.qos = event.qos.min(1);
    }
    assert_finds(&evidence, &[]);
}

#[test]
fn messages_of_a_producer_that_change_places_are_out_of_order() {
    let mut evidence = clean();
    let second = position_of(&evidence, |event| event.op == Op::Recv && event.seq == 2);
    let third = position_of(&evidence, |event| event.op == Op::Recv && event.seq == 3);
    evidence.events.swap(second, third);
    // The releases still stand in the order of identifiers; each frees its own.
    assert_finds(&evidence, &[Kind::OrderAtSession]);
}

#[test]
fn redelivered_suffix_is_in_order() {
    let mut evidence = clean();
    for event in &mut evidence.events {
        event.qos = event.qos.min(1);
    }
    for seq in 4..=RECORDS {
        evidence.events.push(Event {
            qos: 1,
            dup: true,
            ..received(10_600 + seq, seq, 4)
        });
    }
    assert_finds(&evidence, &[]);
}

#[test]
fn records_of_a_producer_that_change_places_are_out_of_order() {
    let mut evidence = clean();
    let records = &mut last_log(&mut evidence).records;
    let fourth = records[4].identity.clone();
    records[4].identity = std::mem::replace(&mut records[5].identity, fourth);
    let documents = evidence.documents.as_mut().unwrap();
    let fourth = documents[4].identity.clone();
    documents[4].identity = std::mem::replace(&mut documents[5].identity, fourth);
    assert_finds(&evidence, &[Kind::OrderInLog]);
}

#[test]
fn what_was_never_sent_or_was_refused_is_a_phantom() {
    let mut evidence = clean();
    evidence.events.push(received(10_500, 77, 9));
    assert_finds(&evidence, &[Kind::Phantom]);

    // A refused message must stay away: here it is at the session, in the log and retained.
    let mut evidence = clean();
    let ack = position_of(&evidence, |event| event.op == Op::Ack && event.seq == 6);
    evidence.events[ack].op = Op::Fail;
    let verdict = judge(&evidence, &rules());
    assert_eq!(verdict.count(Kind::Phantom), 3, "{verdict}");

    let mut evidence = clean();
    let foreign = Identity::Foreign {
        why: "checksum wrong".into(),
    };
    last_log(&mut evidence).records[5].identity = foreign.clone();
    evidence.documents.as_mut().unwrap()[5].identity = foreign;
    assert_finds(&evidence, &[Kind::Phantom, Kind::LostFromLog]);
}

#[test]
fn message_on_another_topic_is_not_the_one_that_was_sent() {
    let mut evidence = clean();
    let fourth = position_of(&evidence, |event| event.op == Op::Recv && event.seq == 4);
    evidence.events[fourth].topic = "t/other".into();
    assert_finds(&evidence, &[Kind::Phantom, Kind::LostToSession]);
}

#[test]
fn delivery_without_a_subscription_is_not_asked_for() {
    let mut evidence = clean();
    evidence.events.push(Event {
        client: "stranger".into(),
        ..received(10_500, 2, 9)
    });
    assert_finds(&evidence, &[Kind::NotAskedFor]);
}

#[test]
fn promised_session_that_is_gone_is_lost() {
    let mut evidence = clean();
    let again = position_of(&evidence, |event| {
        event.op == Op::Connect && event.t_mono > 0
    });
    evidence.events[again].session_present = false;
    assert_finds(&evidence, &[Kind::SessionLost]);
    // Nothing was promised to a session that never subscribed.
    evidence.events.retain(|event| event.op != Op::Subscribe);
    assert_eq!(judge(&evidence, &rules()).count(Kind::SessionLost), 0);
}

#[test]
fn retained_message_older_than_the_last_acknowledged_is_stale() {
    for seq in [0, 5] {
        let mut evidence = clean();
        let retained = position_of(&evidence, |event| event.op == Op::Retained);
        evidence.events[retained].seq = seq;
        assert_finds(&evidence, &[Kind::RetainedStale]);
    }
}

#[test]
fn missing_offset_is_a_gap() {
    let mut evidence = clean();
    last_log(&mut evidence).records.remove(2);
    // An earlier pass saw it: it is a hole in the last pass, not in the set of messages.
    assert_finds(&evidence, &[Kind::OffsetGap]);
    let mut evidence = clean();
    last_log(&mut evidence).high_watermark = RECORDS + 1;
    assert_finds(&evidence, &[Kind::OffsetGap]);
}

#[test]
fn record_that_changes_between_two_passes_is_found() {
    let mut evidence = clean();
    last_log(&mut evidence).records[1].checksum = 101;
    assert_finds(&evidence, &[Kind::OffsetChanged]);
}

#[test]
fn record_that_a_reader_saw_and_a_crash_took_back_has_vanished() {
    let mut evidence = clean();
    evidence.readings.push(reading(13_000, 0, 5));
    evidence.documents.as_mut().unwrap().pop();
    assert_finds(&evidence, &[Kind::OffsetVanished, Kind::LostFromLog]);
}

#[test]
fn document_that_differs_from_its_record_or_has_none_is_found() {
    let mut evidence = clean();
    evidence.documents.as_mut().unwrap()[3].identity = record(0).identity;
    assert_finds(&evidence, &[Kind::DocumentDiffers]);
    let mut evidence = clean();
    evidence.documents.as_mut().unwrap().push(document(3));
    assert_finds(&evidence, &[Kind::DocumentPhantom]);
    let mut evidence = clean();
    evidence.documents.as_mut().unwrap().push(document(6));
    assert_finds(&evidence, &[Kind::DocumentPhantom]);
}

#[test]
fn group_that_stands_before_its_commit_went_back() {
    let mut evidence = clean();
    evidence.events.last_mut().unwrap().offset = 3;
    assert_finds(&evidence, &[Kind::CommitWentBack]);
}

#[test]
fn produced_record_must_stand_where_the_answer_said() {
    let mut evidence = clean();
    for event in evidence
        .events
        .iter_mut()
        .filter(|event| matches!(event.op, Op::Send | Op::Ack))
    {
        event.proto = Proto::Kafka;
        event.topic = "mqtt".into();
        event.offset = event.seq - 1;
    }
    evidence.events.retain(|event| {
        !matches!(
            event.op,
            Op::Recv | Op::Release | Op::Retained | Op::Subscribe
        )
    });
    assert_finds(&evidence, &[]);
    let ack = position_of(&evidence, |event| event.op == Op::Ack && event.seq == 2);
    evidence.events[ack].offset = 0;
    assert_finds(&evidence, &[Kind::LostFromLog]);
}

#[test]
fn run_in_which_too_little_happened_is_no_proof() {
    let mut evidence = clean();
    evidence.events.retain(|event| event.op != Op::Crash);
    let verdict = judge(&evidence, &rules());
    assert_eq!(
        verdict.count(Kind::Vacuous),
        2,
        "no fault, and so no acknowledgement near one: {verdict}"
    );

    let mut evidence = clean();
    let crash = position_of(&evidence, |event| event.op == Op::Crash);
    evidence.events[crash].t_mono += NEAR_FAULT_MICROS * 2;
    assert_finds(&evidence, &[Kind::Vacuous]);

    let verdict = judge(
        &Evidence::default(),
        &Rules {
            faults_min: 0,
            acks_near_faults_min: 0,
            ..rules()
        },
    );
    assert_eq!(
        verdict.count(Kind::Vacuous),
        1,
        "nothing was acknowledged: {verdict}"
    );
}
