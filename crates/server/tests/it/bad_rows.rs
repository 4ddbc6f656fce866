//! What broke other brokers, one test a row of the list that the project keeps of such inputs (`row_NN_...`).
//!
//! Each sends those bytes and asserts the answer; then others must go on, every socket of the row must be
//! gone, no bug may have been met, and memory must have come back. Where a row holds much, what is freed
//! stays with the allocator for a while: such a row goes several rounds, and the later ones must find the
//! memory of the first.

mod floods;
mod handshake;
mod packets;
mod publishes;
mod sessions;
mod takeovers;

/// CONNECT of 3.1.1 and of 5.0, client id "a", clean, Keep Alive 60 s.
const CON4: &str = "10 0d 0004 4d515454 04 02 003c 0001 61";
const CON5: &str = "10 0e 0004 4d515454 05 02 003c 00 0001 61";

/// The list has 38 rows; none is left out.
#[test]
fn every_row_has_its_test() {
    let sources = [
        include_str!("bad_rows/floods.rs"),
        include_str!("bad_rows/handshake.rs"),
        include_str!("bad_rows/packets.rs"),
        include_str!("bad_rows/publishes.rs"),
        include_str!("bad_rows/sessions.rs"),
        include_str!("bad_rows/takeovers.rs"),
        include_str!("websocket.rs"),
    ];
    for row in 1..=38 {
        let name = format!("\nfn row_{row:02}_");
        assert!(sources.iter().any(|one| one.contains(&name)), "row {row}");
    }
}
