//! What the broker says of itself, below `$SYS`. Bytes from the specification.

use bytes::Bytes;

use super::World;
use super::exchanges::{connect_v3, connect_v5, exchange, hex, live};
use crate::{ConnectionId, Input, Limits, System, Table};

const LASTING: &str = "05 11 00000064";

/// SUBSCRIBE of 3.1.1 at this QoS.
fn subscribe(filter: &str, qos: u8) -> Vec<u8> {
    let length = u8::try_from(filter.len()).unwrap();
    let head = [0x82, length + 5, 0, 1, 0, length];
    [&head, filter.as_bytes(), &[qos]].concat()
}

/// PUBLISH of QoS 0 in 3.1.1.
fn publish(first: u8, topic: &str, payload: &str) -> Vec<u8> {
    let length = u8::try_from(topic.len() + payload.len() + 2).unwrap();
    let head = [first, length, 0, u8::try_from(topic.len()).unwrap()];
    [&head, topic.as_bytes(), payload.as_bytes()].concat()
}

fn say(world: &mut World, value: &'static str) {
    let topic = "$SYS/broker/uptime".parse().unwrap();
    let values = vec![(topic, Bytes::from_static(value.as_bytes()))];
    world.inboxes[0].push_back(Input::System(values));
    world.run();
}

#[test]
fn what_the_broker_says_stands_for_who_subscribes_and_is_no_message() {
    let mut world = World::new(2, Limits::default());
    let early = live(&mut world, 0, &connect_v3('e', true));
    exchange(&mut world, early, &subscribe("$SYS/#", 1));
    let everything = live(&mut world, 1, &connect_v3('a', true));
    for filter in ["#", "+/broker/uptime", "+/#"] {
        exchange(&mut world, everything, &subscribe(filter, 0));
    }
    let lasting = live(&mut world, 1, &connect_v5('l', "00", LASTING, ""));
    exchange(
        &mut world,
        lasting,
        &hex("82 18 0001 00 0012 24535953 2f62726f6b6572 2f757074696d65 01"),
    );
    world.cut(lasting);
    world.run();
    let rows = world.log.rows(Table::Retained);
    assert_ne!(world.read(early), [], "they were announced");
    for said in ["1 seconds", "2 seconds"] {
        say(&mut world, said);
        let live = publish(0x30, "$SYS/broker/uptime", said);
        assert_eq!(world.read(early), live, "at QoS 0, whatever was granted");
    }
    assert_eq!(world.read(everything), [], "[MQTT-4.7.2-1]");
    let late = live(&mut world, 1, &connect_v3('n', true));
    let suback = hex("90 03 0001 00");
    let stands = publish(0x31, "$SYS/broker/uptime", "2 seconds");
    let answer = exchange(&mut world, late, &subscribe("$SYS/broker/+", 0));
    assert_eq!(
        answer,
        [suback, stands].concat(),
        "MQTT 3.1.1, [MQTT-3.3.1-8]"
    );
    // Who was away has missed nothing that the log would know of.
    let back = live(&mut world, 0, &connect_v5('l', "00", LASTING, ""));
    world.run();
    assert_eq!(world.read(back), []);
    assert_eq!(world.log.rows(Table::Retained), rows);
    let shared = &world.shards[0].shared;
    assert_eq!(shared.retained_size(), (0, 0));
    let dropped: u64 = (world.shards.iter())
        .map(|one| one.counts().dropped_qos0)
        .sum();
    assert_eq!(dropped, 0);
    world.agrees_with_its_log(true).unwrap();
}

#[test]
fn clients_do_not_publish_in_the_brokers_name() {
    let mut world = World::new(1, Limits::default());
    let reader = live(&mut world, 0, &connect_v3('r', true));
    exchange(&mut world, reader, &subscribe("$SYS/#", 0));
    let liar = live(&mut world, 0, &connect_v3('l', true));
    assert_ne!(world.read(reader), [], "it was announced");
    for topic in ["$SYS", "$SYS/broker/uptime"] {
        exchange(&mut world, liar, &publish(0x31, topic, "0"));
    }
    assert_eq!(world.read(reader), []);
    assert_eq!(world.shards[0].counts().refused, 2);
    // The names of others that begin so are theirs.
    exchange(&mut world, reader, &subscribe("$SYSTEM", 0));
    exchange(&mut world, liar, &publish(0x30, "$SYSTEM", "0"));
    assert_eq!(world.read(reader), publish(0x30, "$SYSTEM", "0"));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn watcher(world: &mut World) -> ConnectionId {
    let watcher = live(world, 0, &connect_v3('w', true));
    exchange(world, watcher, &subscribe("$SYS/brokers/+/clients/#", 0));
    watcher
}

#[test]
fn clients_that_come_and_go_are_announced_as_emqx_does() {
    let mut world = World::new(2, Limits::default());
    let watcher = watcher(&mut world);
    let now = world.now.wall_ms;
    let client = live(&mut world, 1, &connect_v3('c', true));
    let about =
        "{\"clientid\":\"c\",\"username\":\"anonymous\",\"proto_name\":\"MQTT\",\"proto_ver\":4,";
    let topic = "$SYS/brokers/headwater@127.0.0.1/clients/c/";
    let came = text(&world.read(watcher));
    assert_eq!(
        came.split_once('{').unwrap().1,
        format!(
            "{}\"ts\":{now},\"connected_at\":{now},\"connack\":0,\"clean_start\":true,\
             \"keepalive\":0,\"expiry_interval\":0}}",
            &about[1..]
        )
    );
    assert!(came.contains(&format!("{topic}connected{{")), "{came}");
    world.cut(client);
    world.run();
    let went = text(&world.read(watcher));
    assert!(
        went.contains(&format!("{topic}disconnected{about}")),
        "{went}"
    );
    assert!(went.ends_with("\"reason\":\"tcp_closed\"}"), "{went}");
    let first = live(&mut world, 1, &connect_v3('c', false));
    let second = live(&mut world, 0, &connect_v3('c', false));
    let all = text(&world.read(watcher));
    assert_eq!(all.matches("/connected{").count(), 2, "{all}");
    assert_eq!(all.matches("\"reason\":\"takenover\"").count(), 1, "{all}");
    assert!(!world.is_open(first));
    exchange(&mut world, second, &hex("e000"));
    let all = text(&world.read(watcher));
    assert!(all.ends_with("\"reason\":\"normal\"}"), "{all}");
    assert_eq!(all.matches("disconnected{").count(), 1, "{all}");
}

#[test]
fn a_storm_of_clients_is_announced_at_a_rate_and_off_is_off() {
    for (rate, announced, unannounced) in [(10, 10, 30), (0, 0, 0)] {
        let system = System {
            announcements_per_second: rate,
            ..System::default()
        };
        let mut world = World::speaking(1, system);
        let watcher = live(&mut world, 0, &connect_v3('w', true));
        world.pass(1_000);
        exchange(&mut world, watcher, &subscribe("$SYS/#", 0));
        for _ in 0..20 {
            let client = live(&mut world, 0, &connect_v3('c', true));
            world.cut(client);
            world.run();
        }
        let all = text(&world.read(watcher));
        assert_eq!(all.matches("\"clientid\":\"c\"").count(), announced);
        assert_eq!(world.shards[0].counts().unannounced, unannounced);
        world.pass(200);
        live(&mut world, 0, &connect_v3('d', true));
        assert_eq!(world.read(watcher).is_empty(), rate == 0);
    }
}

#[test]
fn clients_of_other_machines_read_it_where_that_is_said() {
    for is_open in [false, true] {
        let system = System {
            is_open,
            ..System::default()
        };
        let mut world = World::speaking(1, system);
        let far = world.open_from(0, "192.0.2.1:5000");
        let near = world.open_from(0, "127.0.0.1:5000");
        for (client, id) in [(far, 'f'), (near, 'n')] {
            exchange(&mut world, client, &connect_v3(id, true));
        }
        // Refused with 0x80, 3.9.3 of MQTT 3.1.1.
        let code = if is_open { 0 } else { 0x80 };
        for (client, filter, code) in [(far, "$SYS/#", code), (near, "$SYS/#", 0), (far, "#", 0)] {
            let answer = exchange(&mut world, client, &subscribe(filter, 0));
            assert_eq!(answer[..5], [0x90, 3, 0, 1, code], "{filter}");
        }
    }
}

#[test]
fn a_subscription_that_was_allowed_once_reads_what_a_new_one_may() {
    for filter in ["$SYS/broker/+", "$share/g/$SYS/broker/+"] {
        let open = System {
            is_open: true,
            ..System::default()
        };
        let mut world = World::speaking(1, open);
        let connects = |world: &mut World, address| {
            let client = world.open_from(0, address);
            exchange(world, client, &connect_v3('c', false));
            client
        };
        let (far, near) = ("192.0.2.1:5000", "127.0.0.1:5000");
        let client = connects(&mut world, far);
        let answer = exchange(&mut world, client, &subscribe(filter, 0));
        assert_eq!(answer[..5], [0x90, 3, 0, 1, 0]);
        say(&mut world, "1 seconds");
        let said = publish(0x30, "$SYS/broker/uptime", "1 seconds");
        assert!(world.read(client).ends_with(&said), "{filter}");
        // It is closed by the next start; then the Session is taken over from here and back.
        world.system.is_open = false;
        world.crash(0);
        for (address, reads) in [(far, false), (near, true), (far, false)] {
            let client = connects(&mut world, address);
            say(&mut world, "2 seconds");
            let said = publish(0x30, "$SYS/broker/uptime", "2 seconds");
            let expected = if reads { said } else { Vec::new() };
            assert_eq!(world.read(client), expected, "{filter} from {address}");
        }
        assert_eq!(world.shards[0].counts().dropped_denied, 2, "{filter}");
    }
}

#[test]
fn packets_bytes_and_subscriptions_are_counted() {
    let mut world = World::new(2, Limits::default());
    let one = live(&mut world, 0, &connect_v3('a', true));
    let mut put = 4;
    let lasting = live(&mut world, 1, &connect_v3('b', false));
    put += 4;
    let counts = |world: &World| {
        let mut sum = crate::Counts::default();
        world.shards.iter().for_each(|one| sum.add(&one.counts()));
        sum
    };
    let taken = (connect_v3('a', true).len() * 2) as u64;
    let sum = counts(&world);
    assert_eq!((sum.packets_received, sum.bytes_received), (2, taken));
    assert_eq!((sum.opened, sum.connected), (2, 2));
    for filter in ["t", "u", "t"] {
        put += exchange(&mut world, one, &subscribe(filter, 0)).len() as u64;
    }
    put += exchange(&mut world, lasting, &subscribe("x", 1)).len() as u64;
    assert_eq!(counts(&world).subscriptions, 3);
    put += exchange(&mut world, one, &publish(0x30, "t", "payload")).len() as u64;
    let sum = counts(&world);
    assert_eq!((sum.payload_received, sum.payload_sent), (7, 7));
    assert_eq!((sum.packets_sent, sum.bytes_sent), (2 + 4 + 1, put));
    // UNSUBSCRIBE from u and from what never was.
    exchange(&mut world, one, &hex("a2 08 0002 0001 75 0001 76"));
    assert_eq!(counts(&world).subscriptions, 2);
    // Moves to the other shard, then its Session ends with a clean one.
    live(&mut world, 0, &connect_v3('b', false));
    assert_eq!(counts(&world).subscriptions, 2);
    live(&mut world, 0, &connect_v3('b', true));
    assert_eq!(counts(&world).subscriptions, 1);
    world.cut(one);
    world.run();
    assert_eq!(counts(&world).subscriptions, 0);
}
