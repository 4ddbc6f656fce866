//! The command line: every verb with its flags, nothing of what they do.
//!
//! For: the shapes that scripts depend on. MQTT verbs take mosquitto's flag letters, log verbs
//! kcat's shapes.
//! Not for: work. Called by: `main` through [`crate::run`].

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use headwater_mqtt_codec::Version;

/// Devices in over MQTT, records out over Kafka's protocol, documents kept, in one program.
#[derive(Debug, Parser)]
#[command(name = "headwater", version, args_conflicts_with_subcommands = false)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) serve: Serve,
    #[command(subcommand)]
    pub(crate) verb: Option<Verb>,
}

/// Which system a verb talks to; taken before or after the verb.
#[derive(Clone, Debug, Args)]
pub(crate) struct Target {
    /// Folder of the data [default: $HEADWATER_DATA_DIR, else ~/.local/share/headwater]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Running system: http://127.0.0.1:18083, for pub, sub and bench mqtt://127.0.0.1:1883
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) url: Option<String>,
}

/// What `serve` and `check` read.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Serve {
    /// Configuration file
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// One setting over file and environment, e.g. listeners.tcp.bind=127.0.0.1:0
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Written with the bound addresses as JSON once everything accepts
    #[arg(long, value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,
}

impl Serve {
    /// Takes what was given before the verb where nothing was given after it.
    pub(crate) fn take_missing(&mut self, before: Self) {
        self.config = self.config.take().or(before.config);
        self.ready_file = self.ready_file.take().or(before.ready_file);
        self.set.splice(0..0, before.set);
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run the system in the foreground (also without a verb)
    Serve(Serve),
    /// Say what is wrong with a configuration: exit 0 when nothing is
    Check(Serve),
    /// Publish over MQTT
    #[command(disable_help_flag = true)]
    Pub(Pub),
    /// Subscribe over MQTT and print what comes
    #[command(disable_help_flag = true)]
    Sub(Sub),
    /// Load a broker and say what it took, and whether every message came
    Bench(Bench),
    /// Append records to a topic of the log
    Produce(Produce),
    /// Read records of a topic of the log
    Consume(Consume),
    /// Topics of the log
    #[command(subcommand)]
    Topic(Topic),
    /// Consumer groups
    #[command(subcommand)]
    Group(Group),
    /// Documents
    #[command(subcommand)]
    Doc(Doc),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum MqttVersion {
    #[value(name = "5", aliases = ["5.0", "mqttv5"])]
    V5,
    #[value(name = "3.1.1", aliases = ["311", "mqttv311"])]
    V311,
    #[value(name = "3.1", aliases = ["31", "mqttv31"])]
    V31,
}

impl From<MqttVersion> for Version {
    fn from(version: MqttVersion) -> Self {
        match version {
            MqttVersion::V5 => Self::V5,
            MqttVersion::V311 => Self::V311,
            MqttVersion::V31 => Self::V31,
        }
    }
}

/// How a verb that speaks MQTT introduces itself.
#[derive(Debug, Args)]
pub(crate) struct Login {
    /// User name
    #[arg(short = 'u', long)]
    pub(crate) username: Option<String>,
    /// Password; - reads it from standard input
    #[arg(
        short = 'P',
        long = "pw",
        env = "HEADWATER_MQTT_PASSWORD",
        hide_env_values = true
    )]
    pub(crate) password: Option<String>,
    /// Protocol version
    #[arg(short = 'V', long = "mqtt-version", value_enum, default_value = "5")]
    pub(crate) version: MqttVersion,
}

/// What `pub` and `sub` share.
#[derive(Debug, Args)]
pub(crate) struct MqttClient {
    /// Host
    #[arg(short = 'h', long)]
    pub(crate) host: Option<String>,
    /// Port
    #[arg(short = 'p', long)]
    pub(crate) port: Option<u16>,
    /// Client identifier
    #[arg(short = 'i', long)]
    pub(crate) id: Option<String>,
    #[command(flatten)]
    pub(crate) login: Login,
    /// Quality of service, 0 to 2
    #[arg(short = 'q', long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub(crate) qos: u8,
    /// Keep Alive in seconds
    #[arg(short = 'k', long, default_value_t = 60)]
    pub(crate) keepalive: u16,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

#[derive(Debug, Args)]
pub(crate) struct Pub {
    #[command(flatten)]
    pub(crate) client: MqttClient,
    /// Topic
    #[arg(short = 't', long)]
    pub(crate) topic: String,
    /// Payload
    #[arg(short = 'm', long, group = "payload", allow_hyphen_values = true)]
    pub(crate) message: Option<String>,
    /// Payload from a file
    #[arg(short = 'f', long, group = "payload")]
    pub(crate) file: Option<PathBuf>,
    /// Payload from standard input, as one message
    #[arg(short = 's', long = "stdin-file", group = "payload")]
    pub(crate) stdin: bool,
    /// One message a line of standard input
    #[arg(short = 'l', long = "stdin-line", group = "payload")]
    pub(crate) lines: bool,
    /// Empty payload
    #[arg(short = 'n', long = "null-message", group = "payload")]
    pub(crate) null: bool,
    /// Retain
    #[arg(short = 'r', long)]
    pub(crate) retain: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Sub {
    #[command(flatten)]
    pub(crate) client: MqttClient,
    /// Topic filter, repeatable
    #[arg(short = 't', long = "topic", required = true)]
    pub(crate) topics: Vec<String>,
    /// Leave out topics that match this filter, repeatable
    #[arg(short = 'T', long = "filter-out")]
    pub(crate) filter_out: Vec<String>,
    /// Stop after so many messages
    #[arg(short = 'C', value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Stop after so many seconds, with exit code 27
    #[arg(short = 'W', value_name = "SECONDS")]
    pub(crate) wait: Option<u64>,
    /// Stop once the subscription is acknowledged
    #[arg(short = 'E')]
    pub(crate) exit_after_suback: bool,
    /// Keep the session (clean start off); needs -i
    #[arg(short = 'c', long = "disable-clean-session", requires = "id")]
    pub(crate) no_clean: bool,
    /// Seconds that the session outlives the connection (MQTT 5)
    #[arg(short = 'x', long)]
    pub(crate) session_expiry_interval: Option<u32>,
    /// Print the topic before the payload
    #[arg(short = 'v', long)]
    pub(crate) verbose: bool,
    /// Format: %t topic, %p payload, %q QoS, %r retain, %l length, %x hexadecimal, %j JSON, %% percent
    #[arg(short = 'F', value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// No newline after a payload
    #[arg(short = 'N')]
    pub(crate) no_newline: bool,
    /// Leave out retained messages
    #[arg(short = 'R')]
    pub(crate) no_retained: bool,
}

/// Who publishes to whom.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum BenchCase {
    /// N publishers, each with a topic and a subscriber of its own
    P2p,
    /// N publishers to one subscriber
    FanIn,
    /// One publisher to N subscribers
    FanOut,
}

/// Loads the broker at --url, `mqtt://HOST[:PORT]` or `mqtts://HOST[:PORT]`.
///
/// Without --rate each publisher has a window of undelivered messages: the rate that the broker
/// sustains. With --rate messages are due at a clock's ticks, and latency counts from there. Exit
/// code 1 when a message was lost, repeated or came out of order.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// Who publishes to whom
    #[arg(value_enum, default_value = "p2p")]
    pub(crate) case: BenchCase,
    /// Pairs, publishers or subscribers [default: 10, 100, 1000]
    #[arg(short = 'n', value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) count: Option<u32>,
    /// Quality of service, 0 to 2
    #[arg(short = 'q', long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub(crate) qos: u8,
    /// Bytes of a payload, 16 at least
    #[arg(long, default_value_t = 64)]
    pub(crate) size: usize,
    /// Messages a second, of all publishers together; else as many as the windows let through
    #[arg(long)]
    pub(crate) rate: Option<u32>,
    /// Undelivered messages a publisher may have [default: 2000 shared by all, 8 to 200; fan-out 32]
    #[arg(long, conflicts_with = "rate", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) window: Option<u64>,
    /// Seconds that are measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) secs: u64,
    /// Seconds before them
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub(crate) warmup: u64,
    /// The broker's process on this machine, for its CPU time and memory
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// Certificates to trust, for mqtts:// [default: DIR/tls/ca.pem]
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) login: Login,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Produce {
    /// Topic of the log
    pub(crate) topic: String,
    /// Key of every record
    #[arg(short, long)]
    pub(crate) key: Option<String>,
    /// Header name=value, repeatable
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE")]
    pub(crate) headers: Vec<String>,
    /// Partition; else by the key
    #[arg(short, long)]
    pub(crate) partition: Option<u32>,
    /// Separates key and value of a line of standard input
    #[arg(short = 'K', value_name = "DELIMITER")]
    pub(crate) key_delimiter: Option<String>,
    /// The value; else one record a line of standard input
    #[arg(short = 'm', long, allow_hyphen_values = true)]
    pub(crate) message: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Consume {
    /// Topic of the log
    pub(crate) topic: String,
    /// Where to begin: start, end, an offset, -N for the last N, @MS for a time
    #[arg(short, long, default_value = "start", allow_hyphen_values = true)]
    pub(crate) offset: String,
    /// Only this partition
    #[arg(short, long)]
    pub(crate) partition: Option<u32>,
    /// Stop after so many records
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Go on and wait for new records
    #[arg(long)]
    pub(crate) follow: bool,
    /// Format: %t topic, %p partition, %o offset, %k key, %v or %s value, %T time, %h headers
    #[arg(short, long)]
    pub(crate) format: Option<String>,
    /// One JSON object a line
    #[arg(short = 'J', long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Topic {
    /// Names, partitions, sizes
    List,
    /// One topic's partitions and offsets
    Describe { topic: String },
    /// Make a topic
    Create {
        topic: String,
        /// Partitions [default: log.partitions]
        #[arg(short, long)]
        partitions: Option<u32>,
        /// Setting such as retention.ms=1000, repeatable
        #[arg(short, long = "config", value_name = "KEY=VALUE")]
        config: Vec<String>,
    },
    /// Delete a topic with its records
    Delete { topic: String },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Group {
    /// Names and states
    List,
    /// Members, committed offsets and lag
    Describe { group: String },
    /// Forget a group without members
    Delete { group: String },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Doc {
    /// Print documents, one JSON document a line
    Find {
        /// DATABASE.COLLECTION and a filter, either may be left out
        #[arg(value_name = "COLLECTION|FILTER", num_args = 0..=2)]
        what: Vec<String>,
        /// Order, e.g. '{"ts": -1}'
        #[arg(long)]
        sort: Option<String>,
        /// At most so many
        #[arg(long)]
        limit: Option<u64>,
        /// Leave out the first so many
        #[arg(long)]
        skip: Option<u64>,
    },
    /// Print the bare number of documents
    Count {
        /// DATABASE.COLLECTION and a filter, either may be left out
        #[arg(value_name = "COLLECTION|FILTER", num_args = 0..=2)]
        what: Vec<String>,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn target_is_taken_before_and_after_the_verb() {
        for line in [
            ["headwater", "--data-dir", "d", "topic", "list"],
            ["headwater", "topic", "list", "--data-dir", "d"],
        ] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert_eq!(cli.target.data_dir, Some(PathBuf::from("d")), "{line:?}");
        }
    }

    #[test]
    fn h_is_the_host_in_mqtt_verbs() {
        let cli =
            Cli::try_parse_from(["headwater", "pub", "-h", "::1", "-t", "a", "-m", "-1"]).unwrap();
        let Some(Verb::Pub(publish)) = cli.verb else {
            panic!("not pub")
        };
        assert_eq!(publish.client.host.as_deref(), Some("::1"));
        assert_eq!(publish.message.as_deref(), Some("-1"));
    }
}
