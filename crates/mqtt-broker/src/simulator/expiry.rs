//! Expired Retained Messages go, and nothing else.

use super::World;
use super::exchanges::{connect_v5, exchange, hex, live};
use crate::{Input, Limits, Table};

/// Retained, on "a", lives 5 s.
const SHORT: &str = "31 0a 0001 61 05 02 00000005 78";
/// Its successor, for ever.
const LONG: &str = "31 05 0001 61 00 79";

fn held(world: &World) -> (usize, usize) {
    let rows = world.log.rows(Table::Retained);
    (rows, world.shared.retained_size().0)
}

#[test]
fn expired_retained_messages_leave_log_and_memory() {
    let mut world = World::new(2, Limits::default());
    let publisher = live(&mut world, 1, &connect_v5('p', "02", "00", ""));
    exchange(&mut world, publisher, &hex(SHORT));
    // More than one slice.
    for topic in 0x30..0x76 {
        let publish = format!("31 0b 0002 62{topic:02x} 05 02 00000005 78");
        exchange(&mut world, publisher, &hex(&publish));
    }
    exchange(&mut world, publisher, &hex("31 05 0001 63 00 78"));
    assert_eq!(held(&world), (72, 72));
    world.pass(4_999);
    world.run();
    assert_eq!(held(&world), (72, 72));
    // At a full disk they stay, and go when there is space again; so after a restart.
    world.log.full = true;
    world.pass(1);
    world.run();
    assert_eq!(held(&world), (72, 72));
    world.crash(0);
    world.log.full = false;
    world.run();
    assert_eq!(held(&world), (1, 1));
    assert_eq!(world.shared.retained_size().1, 2);
}

#[test]
fn a_newer_retained_message_survives_the_sweep_of_the_older() {
    for newer_first in [true, false] {
        let mut world = World::new(2, Limits::default());
        let publisher = live(&mut world, 1, &connect_v5('p', "02", "00", ""));
        exchange(&mut world, publisher, &hex(SHORT));
        world.pass(5_000);
        let newer = |world: &mut World| {
            world.send(publisher, &hex(LONG));
            world.run_shard(1, 1);
        };
        if newer_first {
            newer(&mut world);
        }
        world.inboxes[0].push_back(Input::Tick);
        world.run_shard(0, 1);
        assert_eq!(world.shards[0].pending_commits(), 1, "the sweep");
        if !newer_first {
            newer(&mut world);
        }
        world.run();
        assert_eq!(held(&world), (1, 1), "newer first: {newer_first}");
        world.agrees_with_its_log(true).unwrap();
        world.pass(10_000);
        world.run();
        assert_eq!(held(&world), (1, 1));
    }
}
