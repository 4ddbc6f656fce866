//! The compiled flows, and where a message goes in the log.
//!
//! For: [`Flows::compile`] when a configuration is read, [`Flows::route`] for every PUBLISH.
//! Calls: `filter`, `template`, `condition`. Called by: `server`, which swaps one `Arc<Flows>` for
//! another as a whole.
//! Holds: a `Flows` never changes; one error refuses all of it; routes are asked in file order and
//! the first that takes a message without `copy` is the last.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::condition::Condition;
use crate::config::{CommitPoint, DeliverConfig, FlowConfig, FlowKind, RouteConfig};
use crate::dead_letter::{self, DEAD_LETTERS, Rejected};
use crate::deliver::Deliver;
use crate::filter::{Captures, Filter};
use crate::kafka_name;
use crate::message::Incoming;
use crate::record::{RecordBody, encode_with};
use crate::scope::{Context, Scope};
use crate::sink::Sink;
use crate::template::{KafkaTopicTemplate, Template, TextError};

/// All flows of a configuration, ready to run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Flows {
    routes: Vec<Route>,
    delivers: Vec<Deliver>,
    sinks: Vec<Sink>,
}

/// One error of a flow: which table, which key of it, and where in the key's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}[{index}].{key}: {message}", kind.table())]
pub struct FlowError {
    pub kind: FlowKind,
    /// Place among the tables of its kind, from 0.
    pub index: usize,
    pub key: &'static str,
    /// The byte of the key's text at which it goes wrong.
    pub at: Option<usize>,
    pub message: String,
    /// The table of the same kind that causes it.
    pub because_of: Option<usize>,
}

impl Flows {
    /// Compiles what `config` really means ([`FlowConfig::effective`]), or tells all that is wrong.
    pub fn compile(config: &FlowConfig) -> Result<Self, Vec<FlowError>> {
        let config = config.effective();
        let mut errors = Errors::default();
        let routes = errors.each(FlowKind::Route, &config.route, Route::compile);
        let delivers = errors.each(FlowKind::Deliver, &config.deliver, Deliver::compile);
        let sinks = errors.each(FlowKind::Sink, &config.sink, Sink::compile);
        errors.unreachable(&routes);
        errors.twice(FlowKind::Deliver, &delivers, Deliver::name);
        errors.twice(FlowKind::Sink, &sinks, Sink::name);
        if errors.0.is_empty() {
            let routes = routes.into_iter().flatten().collect();
            let delivers = delivers.into_iter().flatten().collect();
            Ok(Self {
                routes,
                delivers,
                sinks: sinks.into_iter().flatten().collect(),
            })
        } else {
            Err(errors.0)
        }
    }

    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    pub fn delivers(&self) -> &[Deliver] {
        &self.delivers
    }

    pub fn sinks(&self) -> &[Sink] {
        &self.sinks
    }

    /// Whether any route stores this message in the log.
    pub fn takes(&self, incoming: &Incoming<'_>) -> bool {
        let scope = Scope::message(incoming);
        self.routes.iter().any(|route| match &route.condition {
            None => route.filter.matches(incoming.topic),
            Some(condition) => route
                .filter
                .captures(incoming.topic)
                .is_some_and(|captures| condition.holds(&scope, &captures)),
        })
    }

    /// The records to make of this message, in file order: none if no route takes it.
    pub fn route<'a>(&'a self, incoming: &'a Incoming<'_>) -> SmallVec<[Routed<'a>; 1]> {
        let scope = Scope::message(incoming);
        let mut routed = SmallVec::new();
        for (index, route) in self.routes.iter().enumerate() {
            let Some(captures) = route.filter.captures(incoming.topic) else {
                continue;
            };
            if !route
                .condition
                .as_ref()
                .is_none_or(|where_| where_.holds(&scope, &captures))
            {
                continue;
            }
            routed.push(route.apply(index, incoming, &scope, &captures));
            if !route.copy {
                break;
            }
        }
        routed
    }
}

/// A compiled `[[route]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    name: String,
    filter: Filter,
    to: KafkaTopicTemplate,
    /// `None`: the client id.
    key: Option<Template>,
    condition: Option<Condition>,
    copy: bool,
}

/// One record that a route makes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routed<'a> {
    /// Place of the route in [`Flows::routes`].
    pub route: usize,
    /// Kafka topic; [`DEAD_LETTERS`] if the route could not be carried out.
    pub topic: Cow<'a, str>,
    pub key: Cow<'a, [u8]>,
    /// Why it is a dead letter.
    pub rejected: Option<Rejected>,
    flow: &'a str,
}

impl Routed<'_> {
    /// The same as a dead letter, because its topic does not exist.
    pub fn without_topic(self) -> Self {
        let topic = self.topic.into_owned();
        Self {
            topic: Cow::Borrowed(DEAD_LETTERS),
            rejected: Some(Rejected::NoKafkaTopic { topic }),
            ..self
        }
    }

    /// The record to append to [`topic`](Self::topic); a dead letter carries the reason.
    pub fn encode(&self, incoming: &Incoming<'_>) -> RecordBody {
        let Some(rejected) = &self.rejected else {
            return encode_with(incoming, Some(&self.key), &[]);
        };
        let sentence = rejected.sentence();
        let reason = [
            (dead_letter::REASON, rejected.code()),
            (dead_letter::MESSAGE, &sentence),
            (dead_letter::FLOW, self.flow),
        ];
        let reason = reason.map(|(name, value)| (name, Some(value.as_bytes())));
        encode_with(incoming, Some(&self.key), &reason)
    }
}

impl Route {
    fn compile(config: &RouteConfig) -> Result<Self, Fault> {
        let filter = Filter::parse(&config.from)
            .map_err(|error| Fault::at("from", error.at, error.to_string()))?;
        let context = Context::Route {
            captures: filter.names(),
        };
        let to = KafkaTopicTemplate::parse(&config.to, context).map_err(Fault::text("to"))?;
        let key = match config.key.as_deref() {
            None | Some("{client}") => None,
            Some(text) => Some(Template::parse(text, context).map_err(Fault::text("key"))?),
        };
        let condition = compile_where(config.condition.as_deref(), context)?;
        let name = format!("route/{}", config.from);
        Ok(Self {
            name,
            filter,
            to,
            key,
            condition,
            copy: config.copy,
        })
    }

    /// For metrics and dead letters: `route/` and the filter as it is written.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// The one Kafka topic it writes to, unless `to` has placeholders.
    pub fn fixed_topic(&self) -> Option<&str> {
        self.to.fixed()
    }

    fn apply<'a>(
        &'a self,
        index: usize,
        incoming: &'a Incoming<'_>,
        scope: &Scope<'_>,
        captures: &Captures<'a>,
    ) -> Routed<'a> {
        let key = self
            .key
            .as_ref()
            .and_then(|key| key.render(scope, captures).ok());
        let key = match key {
            Some(key) => Cow::Owned(key.into_owned().into_bytes()),
            None => Cow::Borrowed(incoming.client.as_bytes()),
        };
        let topic = match self.to.fixed() {
            Some(fixed) => Ok(Cow::Borrowed(fixed)),
            None => match self.to.render(scope, captures) {
                Ok(Ok(name)) => Ok(Cow::Owned(name.into_owned())),
                Ok(Err(fault)) => Err(Rejected::KafkaTopic(fault)),
                Err(missing) => Err(Rejected::MissingValue {
                    placeholder: missing.0,
                }),
            },
        };
        let (topic, rejected) = match topic {
            Ok(topic) => (topic, None),
            Err(rejected) => (Cow::Borrowed(DEAD_LETTERS), Some(rejected)),
        };
        Routed {
            route: index,
            topic,
            key,
            rejected,
            flow: &self.name,
        }
    }
}

/// What is wrong with one flow, before it is known which one it is.
pub(crate) struct Fault {
    key: &'static str,
    at: Option<usize>,
    message: String,
}

impl Fault {
    pub(crate) fn at(key: &'static str, at: usize, message: impl Into<String>) -> Self {
        Self {
            key,
            at: Some(at),
            message: message.into(),
        }
    }

    pub(crate) fn whole(key: &'static str, message: impl Into<String>) -> Self {
        Self {
            key,
            at: None,
            message: message.into(),
        }
    }

    pub(crate) fn text(key: &'static str) -> impl Fn(TextError) -> Self {
        move |error| Self::at(key, error.at, error.message)
    }
}

pub(crate) fn compile_where(
    text: Option<&str>,
    context: Context<'_>,
) -> Result<Option<Condition>, Fault> {
    text.map(|text| Condition::parse(text, context))
        .transpose()
        .map_err(Fault::text("where"))
}

/// Checks the Kafka topic that a deliver or a sink reads.
pub(crate) fn check_source(from: &str) -> Result<(), Fault> {
    kafka_name::check(from).map_err(|fault| match fault {
        kafka_name::NameFault::Illegal { at, .. } => Fault::at("from", at, fault.to_string()),
        _ => Fault::whole("from", fault.to_string()),
    })
}

/// `commit = "acked"` is of a later version.
pub(crate) fn check_commit(config: &DeliverConfig) -> Result<(), Fault> {
    match config.commit {
        CommitPoint::Routed => Ok(()),
        CommitPoint::Acked => Err(Fault::whole(
            "commit",
            "`acked` is not built yet in this version; take `routed`",
        )),
    }
}

#[derive(Default)]
struct Errors(Vec<FlowError>);

impl Errors {
    /// Compiles each flow; a place without one stands for an error.
    fn each<C, F>(
        &mut self,
        kind: FlowKind,
        configs: &[C],
        compile: impl Fn(&C) -> Result<F, Fault>,
    ) -> Vec<Option<F>> {
        let mut one = |(index, config)| match compile(config) {
            Ok(flow) => Some(flow),
            Err(Fault { key, at, message }) => {
                self.0.push(FlowError {
                    kind,
                    index,
                    key,
                    at,
                    message,
                    because_of: None,
                });
                None
            }
        };
        configs.iter().enumerate().map(&mut one).collect()
    }

    fn unreachable(&mut self, routes: &[Option<Route>]) {
        for (index, route) in routes.iter().enumerate() {
            let Some(route) = route else { continue };
            let before = routes.iter().take(index).enumerate().find(|(_, earlier)| {
                earlier.as_ref().is_some_and(|earlier| {
                    earlier.condition.is_none()
                        && !earlier.copy
                        && earlier.filter.covers(&route.filter)
                })
            });
            let Some((earlier, Some(taker))) = before else {
                continue;
            };
            let taker = taker.name.strip_prefix("route/").unwrap_or(&taker.name);
            self.0.push(FlowError {
                kind: FlowKind::Route,
                index,
                key: "from",
                at: None,
                message: format!(
                    "this route is never reached: route[{earlier}], `{taker}`, takes all of it; \
                     put it behind, or let the earlier one say `copy = true`"
                ),
                because_of: Some(earlier),
            });
        }
    }

    /// Two flows of one name would share one position in the log.
    fn twice<F>(&mut self, kind: FlowKind, flows: &[Option<F>], name: impl Fn(&F) -> &str) {
        for (index, flow) in flows.iter().enumerate() {
            let same = |other: &Option<F>| {
                flow.as_ref()
                    .zip(other.as_ref())
                    .is_some_and(|(a, b)| name(a) == name(b))
            };
            if let Some(first) = flows.iter().take(index).position(same) {
                let table = kind.table();
                self.0.push(FlowError {
                    kind,
                    index,
                    key: "from",
                    at: None,
                    message: format!("{table}[{first}] goes the same way already"),
                    because_of: Some(first),
                });
            }
        }
    }
}
