use super::*;

#[test]
fn a_commit_is_answered_and_seen_after_it_is_on_disk() {
    let mut bench = Bench::new();
    let (id, generation) = bench.stable();
    let commit = bench.commit(&id, generation, 5);
    assert!(!bench.answers.contains_key(&commit), "not before the write");
    assert_eq!(bench.offset(), None);
    bench.sync_all();
    assert_eq!(bench.done(commit), ErrorCode::None);
    assert_eq!(bench.offset(), Some(5));
    bench.restart();
    assert_eq!(bench.offset(), Some(5));
}

#[test]
fn a_commit_that_did_not_reach_the_disk_is_refused_and_not_seen() {
    let mut bench = Bench::new();
    let (id, generation) = bench.stable();
    let commit = bench.commit(&id, generation, 5);
    bench.sync_one(false);
    assert_eq!(bench.done(commit), ErrorCode::CoordinatorNotAvailable);
    assert_eq!(bench.offset(), None);
}

#[test]
fn a_late_commit_of_a_fenced_member_is_refused() {
    let mut bench = Bench::new();
    let (id, generation) = bench.stable();
    let old = bench.commit(&id, generation - 1, 9);
    assert_eq!(bench.done(old), ErrorCode::IllegalGeneration);
    bench.pass(10_000);
    let gone = bench.commit(&id, generation, 9);
    assert_eq!(bench.done(gone), ErrorCode::UnknownMemberId);
    assert_eq!(bench.offset(), None);
}

#[test]
fn a_reader_without_a_group_protocol_commits_only_while_there_are_no_members() {
    let mut bench = Bench::new();
    let commit = bench.commit("", -1, 3);
    bench.sync_all();
    assert_eq!(bench.done(commit), ErrorCode::None);
    bench.stable();
    let refused = bench.commit("", -1, 4);
    assert_eq!(bench.done(refused), ErrorCode::UnknownMemberId);
    assert_eq!(bench.offset(), Some(3));
}

#[test]
fn offsets_stay_while_there_are_members_and_seven_days_longer() {
    const DAY_MS: u64 = 24 * 3_600_000;
    let mut bench = Bench::new();
    let (id, generation) = bench.stable();
    bench.commit(&id, generation, 5);
    bench.sync_all();
    bench.leave(&id);
    bench.sync_all();
    bench.pass(7 * DAY_MS - 60_000);
    assert_eq!(bench.offset(), Some(5));
    bench.pass(180_000);
    bench.sync_all();
    assert_eq!(bench.offset(), None);
    bench.restart();
    assert_eq!(bench.offset(), None);
}

#[test]
fn offsets_of_deleted_partitions_go_with_them() {
    let mut bench = Bench::new();
    let (id, generation) = bench.stable();
    bench.commit(&id, generation, 5);
    bench.sync_all();
    bench.now.mono_ms += 60_001;
    bench.heartbeat(&id, generation);
    let mut effects = Vec::new();
    bench.coordinator.tick(bench.now, &|_| false, &mut effects);
    bench.take(effects);
    bench.sync_all();
    assert_eq!(bench.offset(), None);
    bench.restart();
    assert_eq!(bench.offset(), None);
}
