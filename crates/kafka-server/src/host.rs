//! What the Kafka side asks of the program around it.
//!
//! For: deeds that touch what others are owed (a sleeping MQTT session may be owed records of a
//! partition that a Kafka client trims), and the policy that every door asks.
//! Not for: reading and appending; the log is used directly.

use headwater_commitlog::{Admin, CommitError, Log, PartitionId, Unit};

/// Called once, from any thread, when the deed is on disk or has failed; must be short.
pub type Done = Box<dyn FnOnce(Result<(), CommitError>) + Send>;

/// Who a connection speaks for.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Principal(pub String);

impl Principal {
    /// The one principal of a listener without an authenticator.
    pub fn anonymous() -> Self {
        Self("anonymous".to_owned())
    }
}

/// What a principal wants to do, and with what.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action<'a> {
    WriteTopic(&'a str),
    ReadTopic(&'a str),
    DescribeTopic(&'a str),
    CreateTopic(&'a str),
    AlterTopic(&'a str),
    DeleteTopic(&'a str),
    ReadGroup(&'a str),
    DescribeGroup(&'a str),
    DeleteGroup(&'a str),
    DescribeCluster,
    WriteIdempotently,
}

/// The program around the Kafka server.
pub trait Host: Send + Sync + 'static {
    /// Drops the records of `partition` below `before`, after what sessions are still owed of
    /// them was copied.
    fn trim(&self, partition: PartitionId, before: u64, done: Done);

    /// Deletes a topic with its records, after what sessions are still owed of them was copied.
    fn delete_topic(&self, name: &str, done: Done);

    /// Takes a place for one more connection, in what the program may hold of all kinds together.
    /// False: there is none, now.
    fn take_place(&self) -> bool {
        true
    }

    /// Gives back a place that was taken.
    fn give_place_back(&self) {}

    /// Whether a principal may do that. Asked at every door; allows all until an authenticator
    /// is configured.
    fn allows(&self, _principal: &Principal, _action: Action<'_>) -> bool {
        true
    }

    /// Checks a SASL/PLAIN user name and password; `None` refuses. Without an authenticator both
    /// are ignored.
    fn authenticate(&self, _user: &str, _password: &[u8]) -> Option<Principal> {
        Some(Principal::anonymous())
    }
}

/// A host where nobody but Kafka clients is owed anything: trims and deletes at once.
pub struct Alone(pub Log);

impl Alone {
    fn administer(&self, admin: Admin, done: Done) {
        let unit = Unit {
            admin: vec![admin],
            ..Unit::default()
        };
        self.0.submit(
            vec![unit],
            Box::new(move |outcomes| {
                done(
                    outcomes
                        .into_iter()
                        .next()
                        .unwrap_or(Err(CommitError::Closed))
                        .map(|_| ()),
                );
            }),
        );
    }
}

impl Host for Alone {
    fn trim(&self, partition: PartitionId, before: u64, done: Done) {
        self.administer(
            Admin::TrimTo {
                partition,
                offset: before,
            },
            done,
        );
    }

    fn delete_topic(&self, name: &str, done: Done) {
        self.administer(Admin::DeleteTopic { name: name.into() }, done);
    }
}
