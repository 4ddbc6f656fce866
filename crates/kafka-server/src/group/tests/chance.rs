//! Seeded schedules: members join, sync, commit, fall silent and leave while writes are slow, fail
//! or are lost with the power.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

/// What one simulated consumer believes.
#[derive(Default)]
struct Consumer {
    id: String,
    generation: i32,
    join: Option<Ticket>,
    sync: Option<Ticket>,
    commit: Option<(Ticket, i64)>,
}

#[test]
fn promises_hold_under_any_schedule() {
    for seed in 0..300 {
        run(seed);
    }
}

fn run(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut bench = Bench::new();
    let mut consumers: Vec<Consumer> = (0..3).map(|_| Consumer::default()).collect();
    // Generation to the ids its answers named as leader.
    let mut leaders: BTreeMap<i32, BTreeSet<String>> = BTreeMap::new();
    let mut acknowledged = None;
    let mut next_offset = 0;
    for step in 0..400 {
        let place = format!("seed {seed} step {step}");
        match rng.random_range(0..100) {
            0 => {
                bench.restart();
                for consumer in &mut consumers {
                    (consumer.join, consumer.sync, consumer.commit) = (None, None, None);
                }
                // Nothing acknowledged is lost; what was under way may or may not be there.
                assert!(bench.offset() >= acknowledged, "{place}: {acknowledged:?}");
                acknowledged = bench.offset();
            }
            1..=4 => bench.pass(rng.random_range(0..15_000)),
            5..=9 => bench.pass(rng.random_range(0..500)),
            10..=54 if !bench.writing.is_empty() => bench.sync_one(rng.random_range(0..20) > 0),
            choice => {
                let index = rng.random_range(0..consumers.len());
                let consumer = &mut consumers[index];
                act(&mut bench, consumer, choice, &mut next_offset);
            }
        }
        bench.tick();
        for consumer in &mut consumers {
            collect(
                &mut bench,
                consumer,
                &mut leaders,
                &mut acknowledged,
                &place,
            );
        }
    }
    for (generation, leaders) in leaders {
        assert_eq!(
            leaders.len(),
            1,
            "seed {seed}: generation {generation} had {leaders:?}"
        );
    }
}

fn act(bench: &mut Bench, consumer: &mut Consumer, choice: u32, next_offset: &mut i64) {
    if consumer.join.is_some() || consumer.sync.is_some() || consumer.commit.is_some() {
        return;
    }
    match choice {
        55..=74 => consumer.join = Some(bench.join(&consumer.id)),
        75..=84 if consumer.generation > 0 => {
            let error = bench.heartbeat(&consumer.id, consumer.generation);
            if error == ErrorCode::UnknownMemberId {
                *consumer = Consumer::default();
            }
        }
        85..=97 if consumer.generation > 0 => {
            *next_offset += 1;
            let ticket = bench.commit(&consumer.id, consumer.generation, *next_offset);
            consumer.commit = Some((ticket, *next_offset));
        }
        98.. if !consumer.id.is_empty() => {
            bench.leave(&consumer.id);
            *consumer = Consumer::default();
        }
        _ => {}
    }
}

fn collect(
    bench: &mut Bench,
    consumer: &mut Consumer,
    leaders: &mut BTreeMap<i32, BTreeSet<String>>,
    acknowledged: &mut Option<i64>,
    place: &str,
) {
    if let Some(ticket) = consumer.join
        && bench.answers.contains_key(&ticket)
    {
        consumer.join = None;
        let joined = bench.joined(ticket);
        match joined.error {
            ErrorCode::None => {
                assert!(
                    joined.generation >= consumer.generation,
                    "{place}: back in generations"
                );
                consumer.id = joined.member_id.to_string();
                consumer.generation = joined.generation;
                leaders
                    .entry(joined.generation)
                    .or_default()
                    .insert(joined.leader.to_string());
                let parts: Vec<(&str, &str)> = joined
                    .members
                    .iter()
                    .map(|(id, _, _)| (id.as_str(), id.as_str()))
                    .collect();
                consumer.sync = Some(bench.sync(&consumer.id, joined.generation, &parts));
            }
            ErrorCode::MemberIdRequired => consumer.id = joined.member_id.to_string(),
            ErrorCode::UnknownMemberId => *consumer = Consumer::default(),
            ErrorCode::CoordinatorNotAvailable => {}
            error => panic!("{place}: {error:?}"),
        }
    }
    if let Some(ticket) = consumer.sync
        && bench.answers.contains_key(&ticket)
    {
        consumer.sync = None;
        let synced = bench.synced(ticket);
        if synced.error == ErrorCode::None {
            let own = consumer.id.as_bytes();
            assert_eq!(synced.assignment, own, "{place}: got another's assignment");
        }
    }
    if let Some((ticket, offset)) = consumer.commit
        && bench.answers.contains_key(&ticket)
    {
        consumer.commit = None;
        if bench.done(ticket) == ErrorCode::None {
            assert!(
                bench.offset() >= Some(offset),
                "{place}: acknowledged and not there"
            );
            *acknowledged = Some(offset).max(*acknowledged);
        }
    }
}
