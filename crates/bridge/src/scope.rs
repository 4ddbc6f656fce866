//! What a name in a template or a condition finds: in a message, or in a record.
//!
//! For: `topic`, `client`, `user`, `key`, `header.x`, `value.a.b` and the captures of a filter.
//! Holds: JSON is parsed only when a name asks for it, and once; a missing thing is `None`.

use std::borrow::Cow;
use std::cell::OnceCell;

use serde_json::Value;

use crate::message::Incoming;
use crate::record::{self, Facts, Record};

/// In bytes. A payload larger than this is never parsed as JSON for a template or a condition: its fields
/// are missing. Parsing takes some thirty times the payload's size in the worst case.
const JSON_BYTES_MAX: usize = 1 << 20;

/// Longest path into a payload, in steps.
const PATH_STEPS_MAX: usize = 32;

/// Which names there are: a route sees a message, a deliver and a sink see a record.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Context<'a> {
    Route { captures: &'a [String] },
    Record,
}

/// A name, resolved when the configuration was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Capture(usize),
    Topic,
    Client,
    User,
    Key,
    Header(Box<str>),
    /// Empty: the whole payload.
    Value(Box<[Box<str>]>),
}

impl Name {
    /// Resolves `root` with the steps behind its dots.
    pub(crate) fn resolve(
        root: &str,
        steps: &[&str],
        context: Context<'_>,
    ) -> Result<Self, String> {
        if let Context::Route { captures } = context
            && let Some(index) = captures.iter().position(|name| name == root)
        {
            return plain(root, steps, Self::Capture(index));
        }
        match (root, context) {
            ("topic", _) => plain(root, steps, Self::Topic),
            ("client", _) => plain(root, steps, Self::Client),
            ("user", Context::Route { .. }) => plain(root, steps, Self::User),
            ("key", Context::Record) => plain(root, steps, Self::Key),
            ("header", _) if steps.is_empty() => Err("`header` needs a name: `header.x`".into()),
            ("header", _) => Ok(Self::Header(steps.join(".").into())),
            ("value" | "payload", _) if steps.iter().any(|step| step.is_empty()) => {
                Err(format!("an empty step in `{root}.{}`", steps.join(".")))
            }
            ("value" | "payload", _) if steps.len() > PATH_STEPS_MAX => {
                Err(format!("a path has at most {PATH_STEPS_MAX} steps"))
            }
            ("value" | "payload", _) => Ok(Self::Value(
                steps.iter().map(|step| Box::from(*step)).collect(),
            )),
            _ => Err(unknown(root, context)),
        }
    }
}

fn plain(root: &str, steps: &[&str], name: Name) -> Result<Name, String> {
    if steps.is_empty() {
        Ok(name)
    } else {
        Err(format!("`{root}` is text and has no fields"))
    }
}

fn unknown(root: &str, context: Context<'_>) -> String {
    let (captures, own): (&[String], [&str; 5]) = match context {
        Context::Route { captures } => (captures, ["client", "user", "topic", "payload", "header"]),
        Context::Record => (&[], ["key", "value", "header", "topic", "client"]),
    };
    let valid = captures.iter().map(String::as_str).chain(own);
    format!(
        "unknown name `{root}`; {}",
        crate::diagnostic::key_help(root, valid)
    )
}

/// What a name found.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Found<'s> {
    Text(Cow<'s, str>),
    Json(&'s Value),
}

impl<'s> Found<'s> {
    /// As text in a template: text as it is, numbers and truth values as JSON writes them.
    /// Objects, arrays and null have none.
    pub(crate) fn into_text(self) -> Option<Cow<'s, str>> {
        match self {
            Self::Text(text) => Some(text),
            Self::Json(Value::String(text)) => Some(Cow::Borrowed(text)),
            Self::Json(Value::Number(number)) => Some(Cow::Owned(number.to_string())),
            Self::Json(Value::Bool(truth)) => Some(Cow::Borrowed(record::bool_text(*truth))),
            Self::Json(Value::Null | Value::Array(_) | Value::Object(_)) => None,
        }
    }
}

/// One message or record while flows look at it.
#[derive(Debug)]
pub(crate) struct Scope<'a> {
    source: Source<'a>,
    json: OnceCell<Option<Value>>,
}

#[derive(Debug)]
enum Source<'a> {
    Message(&'a Incoming<'a>),
    Record(&'a Record, &'a Facts<'a>),
}

impl<'a> Scope<'a> {
    pub(crate) fn message(incoming: &'a Incoming<'a>) -> Self {
        Self {
            source: Source::Message(incoming),
            json: OnceCell::new(),
        }
    }

    pub(crate) fn record(record: &'a Record, facts: &'a Facts<'a>) -> Self {
        Self {
            source: Source::Record(record, facts),
            json: OnceCell::new(),
        }
    }

    pub(crate) fn look_up<'s>(&'s self, name: &Name, captures: &[&'s str]) -> Option<Found<'s>> {
        let text = match (name, &self.source) {
            (Name::Capture(index), _) => captures.get(*index).copied(),
            (Name::Topic, Source::Message(message)) => Some(message.topic),
            (Name::Topic, Source::Record(_, facts)) => facts.topic,
            (Name::Client, Source::Message(message)) => Some(message.client),
            (Name::Client, Source::Record(_, facts)) => facts.client,
            (Name::User, Source::Message(message)) => Some(message.user.unwrap_or("anonymous")),
            (Name::Key, Source::Record(record, _)) => record
                .key
                .as_deref()
                .and_then(|key| str::from_utf8(key).ok()),
            (Name::User, Source::Record(..)) | (Name::Key, Source::Message(_)) => None,
            (Name::Header(header), Source::Message(message)) => {
                return message_header(message, header).map(Found::Text);
            }
            (Name::Header(header), Source::Record(record, _)) => record
                .headers
                .last(header)
                .flatten()
                .and_then(|value| str::from_utf8(value).ok()),
            (Name::Value(path), _) => return self.value(path),
        };
        text.map(|text| Found::Text(Cow::Borrowed(text)))
    }

    fn payload(&self) -> &[u8] {
        match &self.source {
            Source::Message(message) => message.payload,
            Source::Record(record, _) => record.value.as_deref().unwrap_or_default(),
        }
    }

    fn value(&self, path: &[Box<str>]) -> Option<Found<'_>> {
        let payload = self.payload();
        let json = self.json.get_or_init(|| {
            let small = payload.len() <= JSON_BYTES_MAX;
            small
                .then(|| serde_json::from_slice(payload).ok())
                .flatten()
        });
        let Some(json) = json else {
            // `value` alone also names a payload that is text but no JSON.
            let whole = path.is_empty() && !payload.is_empty();
            let text = str::from_utf8(payload).ok().filter(|_| whole)?;
            return Some(Found::Text(Cow::Borrowed(text)));
        };
        let found = path.iter().try_fold(json, |value, step| match value {
            Value::Object(fields) => fields.get(&**step),
            Value::Array(elements) => elements.get(step.parse::<usize>().ok()?),
            _ => None,
        })?;
        Some(Found::Json(found))
    }
}

/// The header that the message's record would have: the last of that name.
fn message_header<'m>(message: &Incoming<'m>, header: &str) -> Option<Cow<'m, str>> {
    let properties = &message.properties;
    let text = match header {
        record::TOPIC => Some(message.topic),
        record::CLIENT => Some(message.client),
        record::QOS => Some(record::qos_text(message.qos)),
        record::RETAIN => Some(record::bool_text(message.retain)),
        record::FORMAT => properties.utf8.map(record::format_text),
        record::EXPIRY => return properties.expiry_s.map(|s| Cow::Owned(s.to_string())),
        record::CONTENT_TYPE => properties.content_type,
        record::RESPONSE_TOPIC => properties.response_topic,
        record::CORRELATION_DATA => properties
            .correlation_data
            .and_then(|data| str::from_utf8(data).ok()),
        _ => {
            let mut from_the_end = properties.user.iter().rev();
            from_the_end
                .find(|(name, _)| record::header_name(name) == header)
                .map(|(_, v)| *v)
        }
    };
    text.map(Cow::Borrowed)
}
