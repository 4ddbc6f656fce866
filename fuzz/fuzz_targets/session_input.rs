//! Arbitrary bytes and events into a Shard: no panic, and nothing grows past its bound.

#![no_main]

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use headwater_mqtt_broker::{
    Applicant, AuthenticationExchange, AuthenticationMethod, AuthenticationStep, Config,
    ConnectionId, Effect, Input, Limits, Loaded, Now, Peer, Receipt, Shard, Shared, Verdict,
    distribute,
};
use libfuzzer_sys::fuzz_target;

const OUTPUT_BYTES_MAX: usize = 1 << 10;
/// What one read of 255 bytes is answered with at the most, and a Reason String with each.
const ANSWERS_BYTES_MAX: usize = 8 << 10;

/// A CONNECT of each kind, so that most runs get past the door.
const CONNECTS: [&[u8]; 5] = [
    b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01a",
    b"\x10\x0d\x00\x04MQTT\x04\x00\x00\x3c\x00\x01b",
    b"\x10\x13\x00\x04MQTT\x05\x00\x00\x3c\x05\x11\x00\x00\x00\x64\x00\x01b",
    // Topic Alias Maximum 5, Receive Maximum 2, Maximum Packet Size 256.
    b"\x10\x19\x00\x04MQTT\x05\x00\x00\x3c\x0b\x22\x00\x05\x21\x00\x02\x27\x00\x00\x01\x00\x00\x01c",
    // Authentication Method "W".
    b"\x10\x12\x00\x04MQTT\x05\x02\x00\x3c\x04\x15\x00\x01W\x00\x01d",
];

/// A method that is content with "o", refuses "n" and asks on after anything else.
struct Word;

impl AuthenticationMethod for Word {
    fn begin(&self, _: Applicant<'_>) -> Box<dyn AuthenticationExchange> {
        Box::new(Self)
    }
}

impl AuthenticationExchange for Word {
    fn step(&mut self, data: Option<&[u8]>) -> AuthenticationStep {
        match data {
            Some(b"o") => AuthenticationStep::Done {
                principal: "o".into(),
                data: None,
            },
            Some(b"n") => AuthenticationStep::Refused(Verdict::Deny),
            _ => AuthenticationStep::Continue(None),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let limits = Limits {
        queue_messages_max: 64,
        output_bytes_max: OUTPUT_BYTES_MAX,
        ..Limits::default()
    };
    let shared = Arc::new(Shared::new(Config {
        limits,
        methods: [("W".into(), Box::new(Word) as _)].into(),
        ..Config::default()
    }));
    let mut shard = Shard::new(shared.clone(), 0);
    let mut now = Now {
        mono_ms: 1,
        wall_ms: 1,
    };
    let mut inputs: Vec<Input> = Vec::new();
    let (mut connection, mut stored, mut owed) = (ConnectionId(0), 0_u64, 0_u64);
    let (mut blocked, mut unread) = (BTreeSet::new(), BTreeSet::new());
    let mut rest = data;
    while let [kind, length, tail @ ..] = rest {
        let (piece, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = tail;
        match kind % 8 {
            0 => {
                connection = ConnectionId(connection.0 + 1);
                inputs.push(Input::Opened {
                    connection,
                    peer: Peer { address: None },
                    limits: Default::default(),
                    handshake_ms: 0,
                });
                let bytes = Bytes::from_static(CONNECTS[usize::from(kind / 8) % CONNECTS.len()]);
                inputs.push(Input::Received { connection, bytes });
            }
            1 => inputs.push(Input::Closed { connection }),
            2 => {
                now.mono_ms += u64::from(*length) * 1_000;
                now.wall_ms += i64::from(*length) * 1_000;
                inputs.push(Input::Tick);
            }
            3 => {
                if let Some(output) = shard.output(connection) {
                    output.advance(output.remaining());
                }
                blocked.remove(&connection);
                inputs.push(Input::Drained { connection });
            }
            // Who is not read sends nothing.
            _ if unread.contains(&connection) => {}
            _ => {
                let bytes = Bytes::copy_from_slice(piece);
                inputs.push(Input::Received { connection, bytes });
            }
        }
        while !inputs.is_empty() {
            let mut effects = Vec::new();
            for input in inputs.drain(..) {
                shard.step(now, input, &mut effects);
            }
            shard.settle(now, &mut effects);
            let mut commits = Vec::new();
            for effect in effects {
                match effect {
                    Effect::Flush(id) => {
                        let output = shard.output(id).expect("an open connection is flushed");
                        // Messages up to the limit, of which one may be all the bytes there are; at
                        // twice as much the Client is not read.
                        let bytes_max = 2 * OUTPUT_BYTES_MAX + data.len() + ANSWERS_BYTES_MAX;
                        assert!(output.len() <= bytes_max, "{} bytes wait", output.len());
                        // Its socket takes all, or some.
                        let taken = if kind & 16 == 0 { usize::MAX } else { 100 };
                        output.advance(taken.min(output.remaining()));
                        let connection = id;
                        if !output.is_empty() {
                            blocked.insert(id);
                            inputs.push(Input::Blocked { connection });
                        } else if blocked.remove(&id) {
                            inputs.push(Input::Drained { connection });
                        }
                    }
                    Effect::Pause(id) => drop(unread.insert(id)),
                    Effect::Resume(id) => drop(unread.remove(&id)),
                    Effect::Close(id) => drop(shard.take_output(id).expect("kept until taken")),
                    Effect::Load { request, .. } => {
                        inputs.push(Input::Loaded {
                            request,
                            items: vec![if kind & 8 == 0 {
                                Loaded::Gone
                            } else {
                                Loaded::Failed
                            }],
                        });
                    }
                    Effect::Commit(commit) => {
                        let mut receipt = Receipt::default();
                        if commit.stores_message() {
                            stored += 1;
                            receipt.stored = Some(headwater_mqtt_broker::Position {
                                partition: 1,
                                offset: stored,
                            });
                        }
                        if commit.owed.is_some() {
                            owed += 1;
                            receipt.owed = Some(owed);
                        }
                        commits.push((commit, Ok(receipt)));
                    }
                    _ => {}
                }
            }
            let mut into = [Vec::new()];
            distribute(&shared, commits, &mut into);
            inputs.extend(into.into_iter().flatten());
        }
    }
});
