use super::*;

#[test]
fn join_is_answered_after_its_generation_is_on_disk() {
    let mut bench = Bench::new();
    let id = bench.member_id();
    let join = bench.join(&id);
    bench.tick();
    assert!(!bench.answers.contains_key(&join), "not before the write");
    bench.sync_all();
    let joined = bench.joined(join);
    assert_eq!((joined.error, joined.generation), (ErrorCode::None, 1));
    assert_eq!(joined.leader, joined.member_id);
    assert_eq!(
        joined.members,
        [(Text::from(id.as_str()), None, Bytes::from_static(b"t"))]
    );
}

#[test]
fn sync_is_answered_after_the_assignment_is_on_disk() {
    let mut bench = Bench::new();
    let id = bench.member_id();
    bench.join(&id);
    bench.tick();
    bench.sync_all();
    let sync = bench.sync(&id, 1, &[(&id, "p0")]);
    assert!(!bench.answers.contains_key(&sync), "not before the write");
    bench.sync_all();
    assert_eq!(bench.synced(sync).assignment, "p0");
    assert_eq!(bench.state(), GroupState::Stable);
}

#[test]
fn a_restart_keeps_members_generation_and_assignment() {
    let mut bench = Bench::new();
    let (id, generation) = bench.stable();
    bench.restart();
    assert_eq!(bench.heartbeat(&id, generation), ErrorCode::None);
    let sync = bench.sync(&id, generation, &[]);
    assert_eq!(bench.synced(sync).assignment, "all");
    bench.pass(10_000);
    assert_eq!(
        bench.heartbeat(&id, generation),
        ErrorCode::UnknownMemberId,
        "its session ended"
    );
}

#[test]
fn a_crash_between_join_and_sync_never_gives_a_generation_twice() {
    let mut bench = Bench::new();
    let (id, generation) = bench.stable();
    bench.join(&id);
    bench.tick();
    bench.sync_all();
    bench.restart();
    assert_eq!(
        bench.heartbeat(&id, generation + 1),
        ErrorCode::UnknownMemberId
    );
    let (_, later) = bench.stable();
    assert!(later > generation + 1, "{later} after {}", generation + 1);
}

#[test]
fn a_deleted_groups_generations_are_not_used_again() {
    let mut bench = Bench::new();
    let (id, generation) = bench.stable();
    bench.leave(&id);
    bench.sync_all();
    let ticket = Ticket(bench.fresh());
    let mut effects = Vec::new();
    bench
        .coordinator
        .delete(bench.now, ticket, &"g".into(), &mut effects);
    bench.take(effects);
    bench.sync_all();
    assert_eq!(bench.done(ticket), ErrorCode::None);
    assert_eq!(bench.coordinator.describe(&"g".into()), None);
    bench.restart();
    let (_, later) = bench.stable();
    assert!(later > generation, "{later} after {generation}");
}

#[test]
fn a_second_member_makes_the_first_join_again() {
    let mut bench = Bench::new();
    let (first, generation) = bench.stable();
    let second = bench.member_id();
    let join_second = bench.join(&second);
    assert_eq!(
        bench.heartbeat(&first, generation),
        ErrorCode::RebalanceInProgress
    );
    let join_first = bench.join(&first);
    bench.tick();
    bench.sync_all();
    let (a, b) = (bench.joined(join_first), bench.joined(join_second));
    assert_eq!(
        (a.generation, b.generation),
        (generation + 1, generation + 1)
    );
    assert_eq!(a.leader.as_str(), first, "the leader stays");
    assert_eq!(
        (a.members.len(), b.members.len()),
        (2, 0),
        "only the leader sees all"
    );
    let follower = bench.sync(&second, generation + 1, &[]);
    assert!(
        !bench.answers.contains_key(&follower),
        "waits for the leader"
    );
    let leader = bench.sync(&first, generation + 1, &[(&first, "p0"), (&second, "p1")]);
    bench.sync_all();
    assert_eq!(bench.synced(leader).assignment, "p0");
    assert_eq!(bench.synced(follower).assignment, "p1");
}

#[test]
fn a_member_that_does_not_join_again_is_left_behind_after_the_rebalance_timeout() {
    let mut bench = Bench::new();
    let (first, generation) = bench.stable();
    let second = bench.member_id();
    let join = bench.join(&second);
    for _ in 0..5 {
        bench.pass(5_000);
        assert_eq!(
            bench.heartbeat(&first, generation),
            ErrorCode::RebalanceInProgress
        );
    }
    bench.pass(5_001);
    bench.sync_all();
    let joined = bench.joined(join);
    assert_eq!((joined.error, joined.members.len()), (ErrorCode::None, 1));
    assert_eq!(
        bench.heartbeat(&first, generation),
        ErrorCode::UnknownMemberId
    );
}

#[test]
fn a_silent_member_is_dropped_when_its_session_ends_and_not_before() {
    let mut bench = Bench::new();
    let (id, generation) = bench.stable();
    bench.pass(9_999);
    assert_eq!(bench.heartbeat(&id, generation), ErrorCode::None);
    bench.pass(9_999);
    assert_eq!(bench.heartbeat(&id, generation), ErrorCode::None);
    bench.pass(10_000);
    assert_eq!(bench.heartbeat(&id, generation), ErrorCode::UnknownMemberId);
    assert_eq!(bench.state(), GroupState::Empty);
}

#[test]
fn a_failed_write_of_a_generation_tells_members_to_try_again_under_a_new_one() {
    let mut bench = Bench::new();
    let id = bench.member_id();
    let join = bench.join(&id);
    bench.tick();
    bench.sync_one(false);
    assert_eq!(bench.joined(join).error, ErrorCode::CoordinatorNotAvailable);
    let again = bench.join(&id);
    bench.tick();
    bench.sync_all();
    assert_eq!(bench.joined(again).generation, 2);
}

#[test]
fn a_failed_write_of_an_assignment_reaches_nobody() {
    let mut bench = Bench::new();
    let id = bench.member_id();
    bench.join(&id);
    bench.tick();
    bench.sync_all();
    let sync = bench.sync(&id, 1, &[(&id, "p0")]);
    bench.sync_one(false);
    let synced = bench.synced(sync);
    assert_eq!(synced.error, ErrorCode::CoordinatorNotAvailable);
    assert_eq!(synced.assignment, Bytes::new());
    assert_eq!(bench.state(), GroupState::PreparingRebalance);
}

#[test]
fn a_static_member_comes_back_without_a_rebalance() {
    let mut bench = Bench::new();
    let join = bench.join_as("", Some("i"), "t");
    bench.tick();
    bench.sync_all();
    let first = bench.joined(join).member_id;
    let sync = bench.sync(&first, 1, &[(&first, "p0")]);
    bench.sync_all();
    bench.synced(sync);
    let back = bench.join_as("", Some("i"), "t");
    bench.sync_all();
    let joined = bench.joined(back);
    assert_eq!((joined.error, joined.generation), (ErrorCode::None, 1));
    assert!(joined.skip_assignment && joined.member_id != first);
    bench.restart();
    assert_eq!(
        bench.heartbeat(&joined.member_id, 1),
        ErrorCode::None,
        "also after a crash"
    );
    let caller = Caller {
        instance_id: Some("i".into()),
        ..Bench::caller(&first, 1)
    };
    assert_eq!(
        bench.coordinator.heartbeat(bench.now, &caller),
        ErrorCode::FencedInstanceId,
        "the old one is fenced"
    );
}

#[test]
fn members_without_a_common_strategy_are_refused() {
    let mut bench = Bench::new();
    bench.stable();
    let ticket = Ticket(bench.fresh());
    let join = Join {
        group_id: "g".into(),
        member_id: Text::default(),
        instance_id: None,
        client_id: "c".into(),
        client_host: "/h".into(),
        fresh_member_id: "other".into(),
        member_id_required: false,
        can_skip_assignment: false,
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 30_000,
        protocol_type: "consumer".into(),
        protocols: vec![("sticky".into(), Bytes::new())],
    };
    let mut effects = Vec::new();
    bench
        .coordinator
        .join(bench.now, ticket, join, &mut effects);
    bench.take(effects);
    assert_eq!(
        bench.joined(ticket).error,
        ErrorCode::InconsistentGroupProtocol
    );
}

#[test]
fn a_group_takes_only_so_many_members() {
    let mut bench = Bench::new();
    bench.limits.members_max = 2;
    bench.restart();
    bench.member_id();
    bench.member_id();
    let third = bench.join("");
    assert_eq!(bench.joined(third).error, ErrorCode::GroupMaxSizeReached);
    bench.pass(10_000);
    bench.member_id();
}
