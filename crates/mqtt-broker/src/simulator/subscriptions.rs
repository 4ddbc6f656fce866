//! SUBSCRIBE and UNSUBSCRIBE of many filters, some of them twice. Bytes from the specification.

use super::exchanges::{connect_v5, exchange, hex, live};
use super::{Asked, World};
use crate::{Limits, Table};

const LASTING: &str = "05 11 00000064";

fn filters(world: &World) -> Vec<String> {
    let all = world.shards.iter().flat_map(|shard| &shard.sessions);
    let all = all.flat_map(|(_, session)| &session.subscriptions);
    all.map(|one| format!("{} {:?}", one.filter, one.options.qos))
        .collect()
}

#[test]
fn filters_in_any_order_are_found_and_the_last_word_on_each_counts() {
    for flags in ["02", "00"] {
        let mut world = World::new(1, Limits::default());
        let client = live(&mut world, 0, &connect_v5('s', flags, LASTING, ""));
        // c, a, c again and b; then b again, a new one and a: as one SUBSCRIBE after the other
        // [MQTT-3.8.4-5].
        let subscribe = "82 13 0001 00 0001 63 00 0001 61 00 0001 63 01 0001 62 00";
        let answer = exchange(&mut world, client, &hex(subscribe));
        assert_eq!(answer, hex("90 07 0001 00 00 00 01 00"));
        let subscribe = "82 0f 0002 00 0001 62 02 0001 61 01 0001 64 00";
        let answer = exchange(&mut world, client, &hex(subscribe));
        assert_eq!(answer, hex("90 06 0002 00 02 01 00"));
        let subscribe = "82 08 0003 00 0002 6161 00";
        exchange(&mut world, client, &hex(subscribe));
        let all = [
            "a AtLeastOnce",
            "aa AtMostOnce",
            "b ExactlyOnce",
            "c AtLeastOnce",
            "d AtMostOnce",
        ];
        assert_eq!(filters(&world), all);
        // b, nobody, b again, d: as one UNSUBSCRIBE after the other [MQTT-3.10.4-6].
        let unsubscribe = "a2 0f 0004 00 0001 62 0001 78 0001 62 0001 64";
        let answer = exchange(&mut world, client, &hex(unsubscribe));
        assert_eq!(answer, hex("b0 07 0004 00 00 11 11 00"));
        assert_eq!(filters(&world), [all[0], all[1], all[3]]);
        world.agrees_with_its_log(true).unwrap();
    }
}

#[test]
fn what_an_unsubscribe_commits_is_bounded_by_the_subscriptions() {
    let mut world = World::new(1, Limits::default());
    let client = live(&mut world, 0, &connect_v5('s', "00", LASTING, ""));
    // The SUBSCRIBE is not answered yet.
    world.send(client, &hex("82 07 0001 00 0001 61 00"));
    world.send(
        client,
        &[&hex("a2 78 0002 00")[..], &hex("0001 61").repeat(39)].concat(),
    );
    world.run_shard(0, 2);
    let changes: Vec<usize> = (world.log.asked.iter())
        .map(|asked| match asked {
            Asked::Commit(commit) => commit.changes.len(),
            Asked::Wish(_) => 0,
        })
        .collect();
    assert_eq!(changes, [1, 1]);
    world.run();
    assert_eq!(world.log.rows(Table::Subscriptions), 0);
    world.agrees_with_its_log(true).unwrap();
}

#[test]
fn many_new_filters_are_merged_with_the_old() {
    let mut world = World::new(1, Limits::default());
    let client = live(&mut world, 0, &connect_v5('s', "02", "00", ""));
    for (id, from) in [("01", 1), ("02", 0)] {
        let filter = |one: u8| format!("0001 {:02x} 00", b'a' + one);
        let filters: String = (0..12).rev().map(|one| filter(2 * one + from)).collect();
        let subscribe = format!("82 33 00{id} 00 {filters}");
        let answer = exchange(&mut world, client, &hex(&subscribe));
        assert_eq!(answer.len(), 2 + 3 + 12);
    }
    let found = filters(&world);
    assert_eq!(found.len(), 24);
    assert!(found.is_sorted(), "{found:?}");
}
