//! Wills of Clients that a crash of the server cut off.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::program::Home;
use crate::wire::{Hello, Wire, packet};

/// A Client with a Will, which publishes its name to `will/NAME`.
struct Doomed {
    name: &'static str,
    level: u8,
    expiry_s: u32,
    delay_s: u32,
}

impl Doomed {
    fn connect(&self, address: std::net::SocketAddr) -> Wire {
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', self.level];
        // Will at QoS 1; a session that lasts is taken up.
        body.push(0x0C | u8::from(self.expiry_s == 0) << 1);
        body.extend([0, 60]);
        let text = |body: &mut Vec<u8>, text: &str| {
            body.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
            body.extend(text.as_bytes());
        };
        if self.level == 5 {
            body.extend([5, 0x11]);
            body.extend(self.expiry_s.to_be_bytes());
        }
        text(&mut body, self.name);
        if self.level == 5 {
            body.extend([5, 0x18]);
            body.extend(self.delay_s.to_be_bytes());
        }
        text(&mut body, &format!("will/{}", self.name));
        text(&mut body, self.name);
        let mut wire = Wire::open(address);
        wire.send(&packet(0x10, &body));
        let (first, body) = wire.packet();
        assert_eq!((first, body[1]), (0x20, 0), "CONNACK of {}", self.name);
        wire
    }
}

fn doomed(name: &'static str, level: u8, expiry_s: u32, delay_s: u32) -> Doomed {
    Doomed {
        name,
        level,
        expiry_s,
        delay_s,
    }
}

/// Takes Wills up to that of `last`: how often each came, and how long after `since` at first.
fn wills(watcher: &mut Wire, last: &str, since: Instant) -> BTreeMap<String, (u32, Duration)> {
    let mut came = BTreeMap::new();
    loop {
        let message = watcher.message();
        watcher.acknowledge(0x40, message.id);
        let name = String::from_utf8(message.payload).unwrap();
        assert_eq!(message.topic, format!("will/{name}"));
        let is_last = name == last;
        came.entry(name).or_insert((0, since.elapsed())).0 += 1;
        if is_last {
            return came;
        }
    }
}

#[test]
fn after_a_crash_each_will_comes_once_when_its_delay_has_passed_since_the_restart() {
    let home = Home::new();
    let program = home.start();
    let (mut watcher, _) = Wire::connect(program.mqtt(), &Hello::lasting("watcher"));
    watcher.subscribe("will/#", 1);
    let doomed = [
        // A session that ends with its connection ended with the crash [MQTT-3.1.2-8].
        doomed("clean-3.1.1", 4, 0, 0),
        doomed("clean", 5, 0, 0),
        doomed("clean-delayed", 5, 0, 600),
        doomed("lasting", 5, 3_600, 0),
        doomed("lasting-delayed", 5, 3_600, 2),
        doomed("back", 5, 3_600, 5),
        doomed("said-goodbye", 5, 3_600, 0),
        doomed("sentinel", 5, 3_600, 7),
    ];
    let mut wires = Vec::new();
    for client in &doomed {
        let mut wire = client.connect(program.mqtt());
        if client.name == "said-goodbye" {
            // DISCONNECT with 0x00: there is no Will any more [MQTT-3.14.4-3].
            wire.send(&[0xE0, 0]);
            assert!(wire.next().is_none());
        }
        wires.push(wire);
    }
    let doors = program.kill();
    let restart = Instant::now();
    let program = home.start_on(&doors, &[]);
    // Back before its Will is due [MQTT-3.1.3-9], and says goodbye later.
    let (_back, present) = Wire::connect(program.mqtt(), &Hello::lasting("back"));
    assert!(present, "its session lasts");
    let (mut watcher, present) = Wire::connect(program.mqtt(), &Hello::lasting("watcher"));
    assert!(present, "its session lasts");
    let came = wills(&mut watcher, "sentinel", restart);
    let names: Vec<&str> = came.keys().map(String::as_str).collect();
    let all = [
        "clean",
        "clean-3.1.1",
        "clean-delayed",
        "lasting",
        "lasting-delayed",
        "sentinel",
    ];
    assert_eq!(names, all);
    assert!(came.values().all(|(times, _)| *times == 1), "{came:?}");
    for (name, delay_s) in [("lasting-delayed", 2), ("sentinel", 7)] {
        let (_, after) = came[name];
        assert!(after >= Duration::from_secs(delay_s), "{name}: {after:?}");
    }
    // What was published is not published again after the next crash.
    watcher.send(&[0xE0, 0]);
    assert!(watcher.next().is_none());
    let _last = self::doomed("last", 5, 3_600, 1).connect(program.mqtt());
    let doors = program.kill();
    let program = home.start_on(&doors, &[]);
    let (mut watcher, _) = Wire::connect(program.mqtt(), &Hello::lasting("watcher"));
    let came = wills(&mut watcher, "last", Instant::now());
    assert_eq!(came.keys().collect::<Vec<_>>(), ["last"]);
    program.stop();
}
