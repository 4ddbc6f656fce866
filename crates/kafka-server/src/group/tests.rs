use bytes::Bytes;

use super::*;
use crate::options::GroupLimits;

mod chance;
mod membership;
mod offsets;

/// A coordinator with its disk and clock in the test's hands.
struct Bench {
    coordinator: Coordinator,
    limits: GroupLimits,
    now: Now,
    disk: std::collections::BTreeMap<Bytes, Bytes>,
    /// Handed out, not on disk yet, in order.
    writing: Vec<(WriteId, Vec<RowChange>)>,
    answers: HashMap<Ticket, Answer, foldhash::fast::RandomState>,
    next: u64,
}

impl Bench {
    fn new() -> Self {
        let limits = GroupLimits {
            initial_rebalance_delay_ms: 0,
            ..GroupLimits::default()
        };
        let now = Now {
            mono_ms: 1_000,
            wall_ms: 1_700_000_000_000,
        };
        Self {
            coordinator: Coordinator::new(0, limits.clone(), now),
            limits,
            now,
            disk: std::collections::BTreeMap::new(),
            writing: Vec::new(),
            answers: HashMap::default(),
            next: 0,
        }
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Answer { ticket, answer } => {
                    let before = self.answers.insert(ticket, answer);
                    assert_eq!(before, None, "{ticket:?} was answered twice");
                }
                Effect::Persist { write, rows } => self.writing.push((write, rows)),
            }
        }
    }

    /// The oldest write reaches the disk, or fails.
    fn sync_one(&mut self, ok: bool) {
        let (write, rows) = self.writing.remove(0);
        if ok {
            for row in rows {
                match row.value {
                    Some(value) => self.disk.insert(row.key, value),
                    None => self.disk.remove(&row.key),
                };
            }
        }
        let mut effects = Vec::new();
        self.coordinator
            .persisted(self.now, write, ok, &mut effects);
        self.take(effects);
    }

    fn sync_all(&mut self) {
        while !self.writing.is_empty() {
            self.sync_one(true);
        }
    }

    fn tick(&mut self) {
        let mut effects = Vec::new();
        self.coordinator.tick(self.now, &|_| true, &mut effects);
        self.take(effects);
    }

    fn pass(&mut self, ms: u64) {
        let until = self.now.mono_ms + ms;
        while self.coordinator.deadline() <= until {
            let step = self.coordinator.deadline().saturating_sub(self.now.mono_ms);
            self.now.mono_ms += step;
            self.now.wall_ms += i64::try_from(step).unwrap();
            self.tick();
        }
        let step = until - self.now.mono_ms;
        self.now.mono_ms = until;
        self.now.wall_ms += i64::try_from(step).unwrap();
    }

    /// Power cut: memory is gone, and what was not on disk with it.
    fn restart(&mut self) {
        self.writing.clear();
        self.answers.clear();
        self.coordinator = Coordinator::new(0, self.limits.clone(), self.now);
        for (key, value) in &self.disk {
            self.coordinator.restore(self.now, key, value).unwrap();
        }
    }

    fn join_as(&mut self, member_id: &str, instance_id: Option<&str>, topic: &str) -> Ticket {
        let ticket = Ticket(self.fresh());
        let join = Join {
            group_id: "g".into(),
            member_id: member_id.into(),
            instance_id: instance_id.map(Text::from),
            client_id: "c".into(),
            client_host: "/h".into(),
            fresh_member_id: Text::from(format!("m{}", ticket.0)),
            member_id_required: true,
            can_skip_assignment: true,
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 30_000,
            protocol_type: "consumer".into(),
            protocols: vec![("range".into(), Bytes::copy_from_slice(topic.as_bytes()))],
        };
        let mut effects = Vec::new();
        self.coordinator.join(self.now, ticket, join, &mut effects);
        self.take(effects);
        ticket
    }

    fn join(&mut self, member_id: &str) -> Ticket {
        self.join_as(member_id, None, "t")
    }

    /// A new member's id, as MEMBER_ID_REQUIRED tells it.
    fn member_id(&mut self) -> String {
        let ticket = self.join("");
        let told = self.joined(ticket);
        assert_eq!(told.error, ErrorCode::MemberIdRequired);
        told.member_id.to_string()
    }

    fn joined(&mut self, ticket: Ticket) -> Joined {
        match self.answers.remove(&ticket) {
            Some(Answer::Joined(joined)) => joined,
            other => panic!("{other:?}"),
        }
    }

    fn caller(member_id: &str, generation: i32) -> Caller {
        Caller {
            group_id: "g".into(),
            member_id: member_id.into(),
            instance_id: None,
            generation,
        }
    }

    fn sync(&mut self, member_id: &str, generation: i32, assignments: &[(&str, &str)]) -> Ticket {
        let ticket = Ticket(self.fresh());
        let sync = Sync {
            caller: Self::caller(member_id, generation),
            protocol_type: None,
            protocol: None,
            assignments: assignments
                .iter()
                .map(|(id, what)| (Text::from(*id), Bytes::copy_from_slice(what.as_bytes())))
                .collect(),
        };
        let mut effects = Vec::new();
        self.coordinator.sync(self.now, ticket, sync, &mut effects);
        self.take(effects);
        ticket
    }

    fn synced(&mut self, ticket: Ticket) -> Synced {
        match self.answers.remove(&ticket) {
            Some(Answer::Synced(synced)) => synced,
            other => panic!("{other:?}"),
        }
    }

    fn heartbeat(&mut self, member_id: &str, generation: i32) -> ErrorCode {
        self.coordinator
            .heartbeat(self.now, &Self::caller(member_id, generation))
    }

    fn leave(&mut self, member_id: &str) -> ErrorCode {
        let mut effects = Vec::new();
        let outcome =
            self.coordinator
                .leave(self.now, &"g".into(), &member_id.into(), None, &mut effects);
        self.take(effects);
        outcome
    }

    fn commit(&mut self, member_id: &str, generation: i32, offset: i64) -> Ticket {
        let ticket = Ticket(self.fresh());
        let committed = Committed {
            offset,
            leader_epoch: -1,
            metadata: Text::default(),
            committed_at_ms: self.now.wall_ms,
        };
        let caller = Self::caller(member_id, generation);
        let mut effects = Vec::new();
        let offsets = vec![(PartitionId(7), committed)];
        self.coordinator
            .commit(self.now, ticket, &caller, offsets, &mut effects);
        self.take(effects);
        ticket
    }

    fn done(&mut self, ticket: Ticket) -> ErrorCode {
        match self.answers.remove(&ticket) {
            Some(Answer::Done(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    fn offset(&self) -> Option<i64> {
        self.coordinator
            .offset(&"g".into(), PartitionId(7))
            .map(|committed| committed.offset)
    }

    fn state(&self) -> GroupState {
        self.coordinator.describe(&"g".into()).unwrap().state
    }

    /// One member, stable.
    fn stable(&mut self) -> (String, i32) {
        let id = self.member_id();
        let join = self.join(&id);
        self.tick();
        self.sync_all();
        let joined = self.joined(join);
        assert_eq!(joined.error, ErrorCode::None);
        let sync = self.sync(&id, joined.generation, &[(&id, "all")]);
        self.sync_all();
        assert_eq!(self.synced(sync).assignment, "all");
        (id, joined.generation)
    }
}
