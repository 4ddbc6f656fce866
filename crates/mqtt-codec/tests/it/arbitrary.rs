//! Any packet that a version can say, for property tests.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;
use headwater_mqtt_codec::{
    AckProperties, Auth, AuthReason, Authentication, Binary, ConnAck, ConnAckProperties,
    ConnAckReason, Connect, ConnectProperties, Delivery, Disconnect, DisconnectReason, Packet,
    PacketId, PayloadFormat, PubAck, PubAckReason, PubComp, PubCompReason, PubRec, PubRecReason,
    PubRel, PubRelReason, Publish, PublishProperties, QoS, RetainHandling, SubAck, SubAckReason,
    Subscribe, Subscription, SubscriptionId, SubscriptionOptions, Text, UnsubAck, UnsubAckReason,
    Unsubscribe, UserProperties, Version, Will, WillProperties,
};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

pub(crate) fn version() -> impl Strategy<Value = Version> {
    select(vec![Version::V31, Version::V311, Version::V5])
}

/// Any characters but U+0000, of one to four bytes each.
fn text() -> impl Strategy<Value = Text> {
    prop::collection::vec(any::<char>(), 0..12).prop_map(|characters| {
        let text: String = characters.into_iter().filter(|c| *c != '\0').collect();
        text.parse().unwrap()
    })
}

fn topic_name() -> impl Strategy<Value = Text> {
    text().prop_map(|text| {
        let name: String = text
            .chars()
            .map(|c| if matches!(c, '+' | '#') { '/' } else { c })
            .collect();
        if name.is_empty() {
            "t".parse().unwrap()
        } else {
            name.parse().unwrap()
        }
    })
}

fn topic_filter(version: Version) -> impl Strategy<Value = Text> {
    let filter = (topic_name(), select(vec!["", "/#", "/+", "/+/x", "/"]))
        .prop_map(|(name, tail)| format!("{name}{tail}").parse().unwrap());
    let special: &[&str] = match version {
        Version::V5 => &["#", "+", "+/+", "$share/g/#", "$share/g/a/+"],
        Version::V31 | Version::V311 => &["#", "+", "+/+", "$share//x", "$share/g"],
    };
    prop_oneof![
        filter,
        select(special).prop_map(|filter| filter.parse().unwrap())
    ]
}

fn binary() -> impl Strategy<Value = Binary> {
    prop::collection::vec(any::<u8>(), 0..12)
        .prop_map(|bytes| Bytes::from(bytes).try_into().unwrap())
}

fn user_properties() -> impl Strategy<Value = UserProperties> {
    prop::collection::vec((text(), text()), 0..3).prop_map(|pairs| pairs.into_iter().collect())
}

fn qos() -> impl Strategy<Value = QoS> {
    select(vec![QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    any::<NonZeroU16>().prop_map(PacketId)
}

fn payload_format() -> impl Strategy<Value = PayloadFormat> {
    select(vec![PayloadFormat::Unspecified, PayloadFormat::Utf8])
}

fn subscription_id() -> impl Strategy<Value = SubscriptionId> {
    prop_oneof![1..=200_u32, 1..=268_435_455_u32].prop_map(|id| SubscriptionId::new(id).unwrap())
}

fn authentication() -> impl Strategy<Value = Authentication> {
    (text(), of(binary())).prop_map(|(method, data)| Authentication { method, data })
}

fn ack_properties(version: Version) -> BoxedStrategy<Option<Box<AckProperties>>> {
    if version < Version::V5 {
        return Just(None).boxed();
    }
    (of(text()), user_properties())
        .prop_map(|(reason_string, user_properties)| {
            let properties = AckProperties {
                reason_string,
                user_properties,
            };
            (properties != AckProperties::default()).then(|| Box::new(properties))
        })
        .boxed()
}

/// Any of `all` in 5.0, only the first before it.
fn reason<R: Copy + std::fmt::Debug + 'static>(
    version: Version,
    all: &'static [R],
) -> impl Strategy<Value = R> {
    select(if version == Version::V5 {
        all
    } else {
        &all[..1]
    })
}

fn connect_properties(version: Version) -> BoxedStrategy<ConnectProperties> {
    if version < Version::V5 {
        return Just(ConnectProperties::default()).boxed();
    }
    let numbers = (
        any::<u32>(),
        any::<NonZeroU16>(),
        any::<Option<NonZeroU32>>(),
        any::<u16>(),
    );
    (
        numbers,
        any::<bool>(),
        any::<bool>(),
        user_properties(),
        of(authentication()),
    )
        .prop_map(
            |(numbers, response, problem, user_properties, authentication)| ConnectProperties {
                session_expiry_interval: numbers.0,
                receive_maximum: numbers.1,
                maximum_packet_size: numbers.2,
                topic_alias_maximum: numbers.3,
                request_response_information: response,
                request_problem_information: problem,
                user_properties,
                authentication,
            },
        )
        .boxed()
}

fn will_properties(version: Version) -> BoxedStrategy<Option<Box<WillProperties>>> {
    if version < Version::V5 {
        return Just(None).boxed();
    }
    let times = (any::<u32>(), of(any::<u32>()));
    let texts = (of(text()), of(topic_name()));
    (
        times,
        of(payload_format()),
        texts,
        of(binary()),
        user_properties(),
    )
        .prop_map(
            |(times, payload_format, texts, correlation_data, user_properties)| {
                let properties = WillProperties {
                    delay_interval: times.0,
                    payload_format,
                    message_expiry_interval: times.1,
                    content_type: texts.0,
                    response_topic: texts.1,
                    correlation_data,
                    user_properties,
                };
                (properties != WillProperties::default()).then(|| Box::new(properties))
            },
        )
        .boxed()
}

fn will(version: Version) -> impl Strategy<Value = Will> {
    (
        topic_name(),
        binary(),
        qos(),
        any::<bool>(),
        will_properties(version),
    )
        .prop_map(|(topic, payload, qos, retain, properties)| Will {
            topic,
            payload,
            qos,
            retain,
            properties,
        })
}

pub(crate) fn connect(version: Version) -> impl Strategy<Value = Packet> {
    let flags = (any::<bool>(), any::<bool>(), any::<u16>());
    let names = (text(), of(text()), of(binary()));
    (flags, names, of(will(version)), connect_properties(version)).prop_map(
        move |(flags, (client_id, user_name, password), will, properties)| {
            let password_alone = version < Version::V5 && user_name.is_none();
            Packet::Connect(Box::new(Connect {
                version,
                bridge: flags.0 && version < Version::V5,
                clean_start: flags.1,
                keep_alive: flags.2,
                client_id,
                will,
                user_name,
                password: if password_alone { None } else { password },
                properties,
            }))
        },
    )
}

fn connack(version: Version) -> impl Strategy<Value = Packet> {
    let reason = match version {
        Version::V5 => select(ConnAckReason::ALL),
        Version::V31 | Version::V311 => select(
            &[
                ConnAckReason::Success,
                ConnAckReason::UnsupportedProtocolVersion,
                ConnAckReason::ClientIdentifierNotValid,
                ConnAckReason::ServerUnavailable,
                ConnAckReason::BadUserNameOrPassword,
                ConnAckReason::NotAuthorized,
            ][..],
        ),
    };
    (any::<bool>(), reason, connack_properties(version)).prop_map(
        move |(session_present, reason, properties)| {
            Packet::ConnAck(Box::new(ConnAck {
                session_present: session_present && version > Version::V31,
                reason,
                properties,
            }))
        },
    )
}

fn connack_properties(version: Version) -> BoxedStrategy<ConnAckProperties> {
    if version < Version::V5 {
        return Just(ConnAckProperties::default()).boxed();
    }
    let numbers = (
        of(any::<u32>()),
        any::<NonZeroU16>(),
        any::<Option<NonZeroU32>>(),
        any::<u16>(),
        of(any::<u16>()),
    );
    let texts = (of(text()), of(text()), of(text()), of(text()));
    (
        numbers,
        qos(),
        any::<[bool; 4]>(),
        texts,
        user_properties(),
        of(authentication()),
    )
        .prop_map(
            |(numbers, maximum_qos, available, texts, user_properties, authentication)| {
                ConnAckProperties {
                    session_expiry_interval: numbers.0,
                    receive_maximum: numbers.1,
                    maximum_qos,
                    retain_available: available[0],
                    maximum_packet_size: numbers.2,
                    assigned_client_identifier: texts.0,
                    topic_alias_maximum: numbers.3,
                    reason_string: texts.1,
                    user_properties,
                    wildcard_subscription_available: available[1],
                    subscription_identifiers_available: available[2],
                    shared_subscription_available: available[3],
                    server_keep_alive: numbers.4,
                    response_information: texts.2,
                    server_reference: texts.3,
                    authentication,
                }
            },
        )
        .boxed()
}

fn delivery() -> impl Strategy<Value = Delivery> {
    (qos(), packet_id(), any::<bool>()).prop_map(|(qos, packet_id, dup)| match qos {
        QoS::AtMostOnce => Delivery::AtMostOnce,
        QoS::AtLeastOnce => Delivery::AtLeastOnce { packet_id, dup },
        QoS::ExactlyOnce => Delivery::ExactlyOnce { packet_id, dup },
    })
}

fn publish_properties(version: Version) -> BoxedStrategy<Option<Box<PublishProperties>>> {
    if version < Version::V5 {
        return Just(None).boxed();
    }
    let texts = (of(topic_name()), of(text()));
    (
        of(payload_format()),
        of(any::<u32>()),
        texts,
        of(binary()),
        user_properties(),
    )
        .prop_map(
            |(payload_format, expiry, texts, correlation_data, user_properties)| {
                let properties = PublishProperties {
                    payload_format,
                    message_expiry_interval: expiry,
                    response_topic: texts.0,
                    content_type: texts.1,
                    correlation_data,
                    user_properties,
                };
                (properties != PublishProperties::default()).then(|| Box::new(properties))
            },
        )
        .boxed()
}

fn publish(version: Version, subscription_ids_max: usize) -> impl Strategy<Value = Packet> {
    let message = (
        topic_name(),
        publish_properties(version),
        prop::collection::vec(any::<u8>(), 0..200),
    );
    let alias = of(any::<NonZeroU16>());
    let ids = prop::collection::vec(subscription_id(), 0..=subscription_ids_max);
    (delivery(), any::<[bool; 2]>(), message, alias, ids).prop_map(
        move |(delivery, [retain, by_alias], (topic, properties, payload), topic_alias, ids)| {
            let topic_alias = topic_alias.filter(|_| version == Version::V5);
            Packet::Publish(Publish {
                delivery,
                retain,
                topic: if by_alias && topic_alias.is_some() {
                    Text::default()
                } else {
                    topic
                },
                topic_alias,
                subscription_ids: if version == Version::V5 {
                    ids
                } else {
                    Vec::new()
                },
                properties,
                payload: payload.into(),
            })
        },
    )
}

/// PUBACK, PUBREC, PUBREL, PUBCOMP: either side sends them.
fn ack(version: Version) -> impl Strategy<Value = Packet> {
    let properties = || ack_properties(version);
    prop_oneof![
        (
            packet_id(),
            reason(version, PubAckReason::ALL),
            properties()
        )
            .prop_map(|(packet_id, reason, properties)| {
                Packet::PubAck(PubAck {
                    packet_id,
                    reason,
                    properties,
                })
            }),
        (
            packet_id(),
            reason(version, PubRecReason::ALL),
            properties()
        )
            .prop_map(|(packet_id, reason, properties)| {
                Packet::PubRec(PubRec {
                    packet_id,
                    reason,
                    properties,
                })
            }),
        (
            packet_id(),
            reason(version, PubRelReason::ALL),
            properties()
        )
            .prop_map(|(packet_id, reason, properties)| {
                Packet::PubRel(PubRel {
                    packet_id,
                    reason,
                    properties,
                })
            }),
        (
            packet_id(),
            reason(version, PubCompReason::ALL),
            properties()
        )
            .prop_map(|(packet_id, reason, properties)| {
                Packet::PubComp(PubComp {
                    packet_id,
                    reason,
                    properties,
                })
            }),
    ]
}

fn subscription(version: Version) -> impl Strategy<Value = Subscription> {
    let handling = select(vec![
        RetainHandling::Send,
        RetainHandling::SendIfNew,
        RetainHandling::DoNotSend,
    ]);
    (topic_filter(version), qos(), any::<[bool; 2]>(), handling).prop_map(
        move |(filter, qos, [no_local, retain_as_published], retain_handling)| {
            let options = SubscriptionOptions {
                qos,
                no_local: no_local && !filter.starts_with("$share/"),
                retain_as_published,
                retain_handling,
            };
            let only_qos = SubscriptionOptions {
                qos,
                ..SubscriptionOptions::default()
            };
            let options = if version == Version::V5 {
                options
            } else {
                only_qos
            };
            Subscription { filter, options }
        },
    )
}

fn subscribe(version: Version) -> impl Strategy<Value = Packet> {
    let subscriptions = prop::collection::vec(subscription(version), 1..4);
    (
        packet_id(),
        of(subscription_id()),
        user_properties(),
        subscriptions,
    )
        .prop_map(
            move |(packet_id, subscription_id, user_properties, subscriptions)| {
                let v5 = version == Version::V5;
                Packet::Subscribe(Box::new(Subscribe {
                    packet_id,
                    subscription_id: subscription_id.filter(|_| v5),
                    user_properties: if v5 {
                        user_properties
                    } else {
                        UserProperties::default()
                    },
                    subscriptions,
                }))
            },
        )
}

fn unsubscribe(version: Version) -> impl Strategy<Value = Packet> {
    let filters = prop::collection::vec(topic_filter(version), 1..4);
    (packet_id(), user_properties(), filters).prop_map(
        move |(packet_id, user_properties, filters)| {
            let user_properties = match version {
                Version::V5 => user_properties,
                Version::V31 | Version::V311 => UserProperties::default(),
            };
            Packet::Unsubscribe(Box::new(Unsubscribe {
                packet_id,
                user_properties,
                filters,
            }))
        },
    )
}

fn suback(version: Version) -> impl Strategy<Value = Packet> {
    // The first four are all there is before 5.0.
    let codes = match version {
        Version::V5 => SubAckReason::ALL,
        Version::V31 | Version::V311 => &SubAckReason::ALL[..4],
    };
    let reasons = prop::collection::vec(select(codes), 1..4);
    (packet_id(), ack_properties(version), reasons).prop_map(|(packet_id, properties, reasons)| {
        Packet::SubAck(Box::new(SubAck {
            packet_id,
            properties,
            reasons,
        }))
    })
}

fn unsuback(version: Version) -> impl Strategy<Value = Packet> {
    let count = if version == Version::V5 { 1..4 } else { 0..1 };
    let reasons = prop::collection::vec(select(UnsubAckReason::ALL), count);
    (packet_id(), ack_properties(version), reasons).prop_map(|(packet_id, properties, reasons)| {
        Packet::UnsubAck(Box::new(UnsubAck {
            packet_id,
            properties,
            reasons,
        }))
    })
}

/// Of a client when `expiry`, else of a server [MQTT-3.14.2-2].
fn disconnect(version: Version, expiry: bool) -> BoxedStrategy<Packet> {
    let normal = Disconnect::new(DisconnectReason::NormalDisconnection);
    if version < Version::V5 {
        // A server of 3.1 and 3.1.1 has none.
        let client = Packet::Disconnect(Box::new(normal));
        return Just(if expiry { client } else { Packet::PingResp }).boxed();
    }
    (
        select(DisconnectReason::ALL),
        of(any::<u32>()),
        of(text()),
        of(text()),
        user_properties(),
    )
        .prop_map(
            move |(reason, interval, reason_string, server_reference, user_properties)| {
                Packet::Disconnect(Box::new(Disconnect {
                    reason,
                    session_expiry_interval: interval.filter(|_| expiry),
                    reason_string,
                    server_reference,
                    user_properties,
                }))
            },
        )
        .boxed()
}

fn auth() -> impl Strategy<Value = Packet> {
    (
        select(AuthReason::ALL),
        authentication(),
        of(text()),
        user_properties(),
    )
        .prop_map(|(reason, authentication, reason_string, user_properties)| {
            Packet::Auth(Box::new(Auth {
                reason,
                authentication,
                reason_string,
                user_properties,
            }))
        })
}

/// AUTH where it exists.
fn auth_or_ack(version: Version) -> BoxedStrategy<Packet> {
    if version == Version::V5 {
        auth().boxed()
    } else {
        ack(version).boxed()
    }
}

/// What a client sends after its CONNECT.
pub(crate) fn packets_of_client(version: Version) -> impl Strategy<Value = Packet> {
    prop_oneof![
        3 => publish(version, 0),
        3 => ack(version),
        2 => subscribe(version),
        1 => unsubscribe(version),
        1 => Just(Packet::PingReq),
        1 => disconnect(version, true),
        1 => auth_or_ack(version),
    ]
}

/// What a server sends.
pub(crate) fn packets_of_server(version: Version) -> impl Strategy<Value = Packet> {
    prop_oneof![
        2 => connack(version),
        3 => publish(version, 3),
        3 => ack(version),
        1 => suback(version),
        1 => unsuback(version),
        1 => Just(Packet::PingResp),
        1 => disconnect(version, false),
        1 => auth_or_ack(version),
    ]
}
