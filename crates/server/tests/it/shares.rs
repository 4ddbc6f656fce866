//! Shared Subscriptions through the real program.

use crate::program::{Home, until};
use crate::wire::{Hello, Wire};

#[test]
fn a_group_is_served_over_two_connections_and_owed_over_a_kill() {
    let home = Home::new();
    home.configure("[mqtt]\nshards = 2\n");
    let program = home.start();
    let (mut x, _) = Wire::connect(program.mqtt(), &Hello::lasting("x"));
    let (mut y, _) = Wire::connect(program.mqtt(), &Hello::lasting("y"));
    x.subscribe("$share/g/a/#", 1);
    y.subscribe("$share/g/a/#", 1);
    for number in 0..2 {
        program.done(&format!("pub -i p -t a/1 -m {number} -q 1"));
    }
    // One each.
    let mut got = Vec::new();
    for member in [&mut x, &mut y] {
        let message = member.message();
        member.acknowledge(0x40, message.id);
        got.push(message.payload);
    }
    got.sort();
    assert_eq!(got, [b"0", b"1"]);
    // Both are away; the next is in flight to nobody.
    drop((x, y));
    until("nobody is connected", || {
        program.metric("headwater_connections") == 0
    });
    for number in 2..12 {
        program.done(&format!("pub -i p -t a/1 -m {number:02} -q 1"));
    }
    let doors = program.kill();
    let program = home.start_on(&doors, &[]);
    let (mut y, present) = Wire::connect(program.mqtt(), &Hello::lasting("y"));
    assert!(present);
    let mut got = Vec::new();
    while got.last().is_none_or(|last| last != b"11") {
        let message = y.message();
        y.acknowledge(0x40, message.id);
        // What was acknowledged before the kill may come again: that is recorded lazily.
        if message.payload.len() == 2 {
            got.push(message.payload);
        }
    }
    let all: Vec<Vec<u8>> = (2..12)
        .map(|number| format!("{number:02}").into_bytes())
        .collect();
    assert_eq!(got, all);
    program.stop();
}
