//! In which order one Client's Wills come, and what the judge makes of it.

use headwater_mqtt_codec::{QoS, Version};

use super::World;
use super::client::{Client, Event, Mark};
use super::judge::Judge;
use crate::{ConnectionId, Limits};

const FIRST: Mark = Mark {
    publisher: 200,
    sequence: 1,
};
const SECOND: Mark = Mark {
    publisher: 200,
    sequence: 2,
};

/// Has a Will on each of its connections.
const MORTAL: usize = 0;
/// Subscribes to them.
const SUBSCRIBER: usize = 1;

struct Scene {
    world: World,
    clients: [Client; 2],
    judge: Judge,
}

impl Scene {
    fn new() -> Self {
        let filters = vec![("w".to_owned(), QoS::AtLeastOnce)];
        let mut scene = Self {
            world: World::new(2, Limits::default()),
            clients: [
                Client::new(MORTAL, Version::V311, false, Vec::new()),
                Client::new(SUBSCRIBER, Version::V5, true, filters),
            ],
            judge: Judge::default(),
        };
        scene.connect(SUBSCRIBER, 0, None);
        scene.hear(SUBSCRIBER);
        scene.clients[SUBSCRIBER].subscribe();
        scene.judge.subscribes(SUBSCRIBER);
        scene.send(SUBSCRIBER);
        scene.hear(SUBSCRIBER);
        scene
    }

    /// The CONNECT is before that shard.
    fn connect(&mut self, index: usize, shard: usize, will: Option<Mark>) -> ConnectionId {
        let connection = self.world.open(shard);
        if let Some(will) = will {
            self.judge.sent_will(will, "w");
        }
        let will = will.map(|will| (will, "w"));
        self.clients[index].connect(connection, false, will);
        self.judge.connects(index);
        self.send(index);
        connection
    }

    fn send(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let bytes = std::mem::take(&mut client.out);
        self.world.send(client.connection.unwrap(), &bytes);
    }

    /// What comes to a client until nothing moves any more.
    fn events(&mut self, index: usize) -> Vec<Event> {
        self.world.run();
        let client = &mut self.clients[index];
        let bytes = self.world.read(client.connection.unwrap());
        let mut events = Vec::new();
        client.receive(&bytes, &mut events);
        events
    }

    fn judge(&mut self, index: usize, events: &[Event]) -> Result<(), String> {
        let client = &self.clients[index];
        let mut events = events.iter();
        events.try_for_each(|event| self.judge.heard(client, event))
    }

    fn hear(&mut self, index: usize) {
        let events = self.events(index);
        assert!(!events.is_empty());
        self.judge(index, &events).unwrap();
    }
}

fn wills(events: &[Event]) -> Vec<Mark> {
    let marks = events.iter().filter_map(|event| match event {
        Event::Received(one) => Some(one.mark),
        _ => None,
    });
    marks.collect()
}

#[test]
fn wills_of_two_connections_at_once_come_in_the_order_of_their_ends() {
    let mut scene = Scene::new();
    let first = scene.connect(MORTAL, 0, Some(FIRST));
    scene.connect(MORTAL, 1, Some(SECOND));
    // The broker sees the second CONNECT first: then the first one takes the Session over.
    while scene.world.run_shard(1, 1) || scene.world.run_log(1) {}
    scene.world.run();
    scene.world.cut(first);
    let events = scene.events(SUBSCRIBER);
    assert_eq!(wills(&events), [SECOND, FIRST]);
    scene.judge(SUBSCRIBER, &events).unwrap();
}

/// The judge can fail: once the broker must have a Will, it comes before those of later CONNECTs.
#[test]
fn a_will_that_the_broker_has_comes_before_the_next() {
    let cases = [(false, false), (false, true), (true, false), (true, true)];
    for (restarts, is_swapped) in cases {
        let mut scene = Scene::new();
        let away = scene.clients[SUBSCRIBER].connection.unwrap();
        scene.world.cut(away);
        scene.connect(MORTAL, 0, Some(FIRST));
        if restarts {
            // Its CONNACK is lost.
            scene.world.run();
            scene.world.crash(0);
            scene.judge.crashed();
        } else {
            scene.hear(MORTAL);
        }
        let second = scene.connect(MORTAL, 1, Some(SECOND));
        scene.world.run();
        scene.world.cut(second);
        scene.connect(SUBSCRIBER, 1, None);
        let mut events = scene.events(SUBSCRIBER);
        assert_eq!(wills(&events), [FIRST, SECOND]);
        if is_swapped {
            events[1..].reverse(); // CONNACK stays in front.
        }
        let outcome = scene.judge(SUBSCRIBER, &events);
        let outcome = outcome.map_err(|finding| finding.contains("4.6.0-6]"));
        let expected = if is_swapped { Err(true) } else { Ok(()) };
        assert_eq!(outcome, expected, "restarts: {restarts}");
    }
}
