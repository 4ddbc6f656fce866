//! Templates: text with `{placeholders}`, for Kafka topics, keys and MQTT topics.
//!
//! For: `telemetry.{site}`, `{payload.id}`, `devices/{key}/cmd`. `{{` and `}}` stand for braces.
//! Holds: an unknown placeholder is an error of the configuration; one that finds nothing is an
//! error of the message, never an empty text.

use std::borrow::Cow;

use crate::kafka_name::{self, NameFault};
use crate::scope::{Context, Name, Scope};

/// A place in a text of the configuration, and what is wrong there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TextError {
    /// The byte of the text at which it goes wrong.
    pub at: usize,
    pub message: String,
}

impl TextError {
    pub(crate) fn new(at: usize, message: impl Into<String>) -> Self {
        Self {
            at,
            message: message.into(),
        }
    }
}

/// A compiled template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pieces: Box<[Piece]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Placeholder { name: Name, written: Box<str> },
}

/// The placeholder that found nothing, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Missing(pub(crate) String);

impl Template {
    pub(crate) fn parse(text: &str, context: Context<'_>) -> Result<Self, TextError> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text.char_indices().peekable();
        while let Some((at, c)) = rest.next() {
            let doubled = rest.peek().is_some_and(|(_, next)| *next == c);
            match c {
                '{' | '}' if doubled => {
                    rest.next();
                    literal.push(c);
                }
                '}' => {
                    return Err(TextError::new(
                        at,
                        "`}` without `{`; write `}}` for a brace",
                    ));
                }
                '{' => {
                    let start = at + 1;
                    let within = text.get(start..).unwrap_or("");
                    let Some(length) = within.find('}') else {
                        return Err(TextError::new(
                            at,
                            "`{` without `}`; write `{{` for a brace",
                        ));
                    };
                    let written = within.get(..length).unwrap_or("");
                    if !literal.is_empty() {
                        pieces.push(Piece::Text(std::mem::take(&mut literal).into()));
                    }
                    let name = placeholder(written, context)
                        .map_err(|message| TextError::new(start, message))?;
                    pieces.push(Piece::Placeholder {
                        name,
                        written: written.into(),
                    });
                    while rest.next_if(|(at, _)| *at <= start + length).is_some() {}
                }
                _ => literal.push(c),
            }
        }
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal.into()));
        }
        Ok(Self {
            pieces: pieces.into(),
        })
    }

    /// The whole text, where there is no placeholder in it.
    pub fn fixed(&self) -> Option<&str> {
        match &*self.pieces {
            [] => Some(""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The texts between the placeholders.
    pub(crate) fn literals(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Text(text) => Some(&**text),
            Piece::Placeholder { .. } => None,
        })
    }

    /// The text with every placeholder replaced. Copies only what is put together.
    pub(crate) fn render<'s>(
        &'s self,
        scope: &'s Scope<'_>,
        captures: &[&'s str],
    ) -> Result<Cow<'s, str>, Missing> {
        self.render_with(scope, captures, |text| text)
    }

    fn render_with<'s>(
        &'s self,
        scope: &'s Scope<'_>,
        captures: &[&'s str],
        adapt: impl Fn(Cow<'s, str>) -> Cow<'s, str>,
    ) -> Result<Cow<'s, str>, Missing> {
        let part = |piece: &'s Piece| match piece {
            Piece::Text(text) => Ok(Cow::Borrowed(&**text)),
            Piece::Placeholder { name, written } => {
                let found = scope
                    .look_up(name, captures)
                    .and_then(|found| found.into_text());
                found
                    .map(&adapt)
                    .ok_or_else(|| Missing(written.to_string()))
            }
        };
        match &*self.pieces {
            [] => Ok(Cow::Borrowed("")),
            [only] => part(only),
            several => {
                let parts = several.iter().map(part).collect::<Result<Vec<_>, _>>()?;
                Ok(Cow::Owned(parts.concat()))
            }
        }
    }
}

fn placeholder(written: &str, context: Context<'_>) -> Result<Name, String> {
    let mut steps = written.split('.');
    let root = steps.next().unwrap_or("");
    if root.is_empty() {
        return Err("a placeholder needs a name".to_owned());
    }
    let steps: Vec<&str> = steps.collect();
    Name::resolve(root, &steps, context)
}

/// A template that gives Kafka topic names; what a placeholder finds is escaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaTopicTemplate {
    template: Template,
    /// Characters of the texts between placeholders: escaped in what the placeholders find, so
    /// that two different sets of values never give one name.
    separators: String,
}

impl KafkaTopicTemplate {
    pub(crate) fn parse(text: &str, context: Context<'_>) -> Result<Self, TextError> {
        let template = Template::parse(text, context)?;
        if let Some(fixed) = template.fixed() {
            kafka_name::check(fixed).map_err(|fault| name_error(text, &fault))?;
            return Ok(Self {
                template,
                separators: String::new(),
            });
        }
        for literal in template.literals() {
            if let Some(found) = literal.chars().find(|c| !kafka_name::is_legal(*c)) {
                let at = text.find(found).unwrap_or(0);
                return Err(name_error(text, &NameFault::Illegal { at, found }));
            }
        }
        let length: usize = template.literals().map(str::len).sum();
        if length >= kafka_name::NAME_BYTES_MAX {
            return Err(name_error(text, &NameFault::TooLong));
        }
        if text.starts_with(kafka_name::INTERNAL) {
            return Err(name_error(text, &NameFault::Internal));
        }
        let separators = separators(&template)
            .ok_or_else(|| TextError::new(0, "between two placeholders of a Kafka topic stands `.`, `-` or a letter from g on, else two devices could meet in one topic"))?;
        Ok(Self {
            template,
            separators,
        })
    }

    /// The name, where it is always the same.
    pub fn fixed(&self) -> Option<&str> {
        self.template.fixed()
    }

    pub(crate) fn render<'s>(
        &'s self,
        scope: &'s Scope<'_>,
        captures: &[&'s str],
    ) -> Result<Result<Cow<'s, str>, NameFault>, Missing> {
        if let Some(fixed) = self.template.fixed() {
            return Ok(Ok(Cow::Borrowed(fixed)));
        }
        let name = self
            .template
            .render_with(scope, captures, |text| match text {
                Cow::Borrowed(text) => kafka_name::escape_also(text, &self.separators),
                Cow::Owned(text) => {
                    Cow::Owned(kafka_name::escape_also(&text, &self.separators).into_owned())
                }
            })?;
        Ok(kafka_name::check(&name).map(|()| name))
    }
}

fn name_error(text: &str, fault: &NameFault) -> TextError {
    let at = match fault {
        NameFault::Illegal { at, .. } => *at,
        _ => 0,
    };
    TextError::new(at.min(text.len()), fault.to_string())
}

/// The characters that stand between placeholders and that no escape contains (`_` and the
/// hexadecimal digits it writes). `None` if somewhere between two placeholders there is none.
fn separators(template: &Template) -> Option<String> {
    let is_own = |c: &char| !matches!(c, '_' | '0'..='9' | 'A'..='F');
    let mut separators = String::new();
    let mut between: Option<Vec<char>> = None;
    for piece in &template.pieces {
        match (piece, &mut between) {
            (Piece::Placeholder { .. }, Some(own)) => {
                if own.is_empty() {
                    return None;
                }
                separators.extend(own.drain(..));
            }
            (Piece::Placeholder { .. }, None) => between = Some(Vec::new()),
            (Piece::Text(text), Some(own)) => own.extend(text.chars().filter(is_own)),
            (Piece::Text(_), None) => {}
        }
    }
    Some(separators)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::Incoming;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn parse(text: &str, captures: &[&str]) -> Result<Template, TextError> {
        Template::parse(
            text,
            Context::Route {
                captures: &names(captures),
            },
        )
    }

    fn message(payload: &'static str) -> Incoming<'static> {
        Incoming {
            topic: "s/7",
            payload: payload.as_bytes(),
            client: "c1",
            ..Incoming::default()
        }
    }

    #[test]
    fn placeholders_find_captures_facts_and_fields() {
        let mut incoming = message(r#"{"id": "x", "n": 1.50, "ok": true, "deep": [{"a": 7}]}"#);
        incoming.properties.user = [("h.x", "1"), ("h.x", "2")].into_iter().collect();
        let scope = Scope::message(&incoming);
        for (text, expected) in [
            ("plain", "plain"),
            ("{device}", "7"),
            ("a-{device}-{client}-{user}", "a-7-c1-anonymous"),
            ("{topic}", "s/7"),
            ("{payload.id}{value.n}{value.ok}", "x1.5true"),
            ("{value.deep.0.a}", "7"),
            ("{header.h.x}", "2"),
            ("{header.mqtt-qos}", "0"),
            ("{{{device}}}", "{7}"),
        ] {
            let template = parse(text, &["device"]).unwrap();
            assert_eq!(template.render(&scope, &["7"]).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn a_placeholder_that_finds_nothing_says_which() {
        let incoming = message(r#"{"a": {}, "n": null, "l": []}"#);
        let scope = Scope::message(&incoming);
        for written in [
            "value.b",
            "value.a",
            "value.n",
            "value.l",
            "value.l.0",
            "header.x",
        ] {
            let template = parse(&format!("x{{{written}}}"), &[]).unwrap();
            assert_eq!(
                template.render(&scope, &[]),
                Err(Missing(written.to_owned()))
            );
        }
    }

    #[test]
    fn a_bad_template_is_refused_where_it_is_bad() {
        for (text, at, message) in [
            (
                "a{devise}",
                2,
                "unknown name `devise`; did you mean `device`?",
            ),
            ("{key}", 1, "unknown name `key`;"),
            ("a{client", 1, "`{` without `}`"),
            ("a}", 1, "`}` without `{`"),
            ("{}", 1, "a placeholder needs a name"),
            ("{client.x}", 1, "`client` is text and has no fields"),
            ("{header}", 1, "`header` needs a name"),
            ("{payload.}", 1, "an empty step in `payload.`"),
        ] {
            let error = parse(text, &["device"]).unwrap_err();
            assert_eq!(error.at, at, "{text}");
            assert!(
                error.message.starts_with(message),
                "{text}: {}",
                error.message
            );
        }
    }

    fn kafka(text: &str, captures: &[&str]) -> Result<KafkaTopicTemplate, TextError> {
        KafkaTopicTemplate::parse(
            text,
            Context::Route {
                captures: &names(captures),
            },
        )
    }

    #[test]
    fn kafka_topics_are_checked_when_read_and_escaped_when_rendered() {
        for (text, at) in [
            ("a/b", 1),
            ("t.{a}/x", 5),
            ("", 0),
            ("..", 0),
            ("__headwater_owed", 0),
            ("__headwater_{a}", 0),
            ("{a}{b}", 0),
            ("{a}_{b}", 0),
        ] {
            assert_eq!(kafka(text, &["a", "b"]).unwrap_err().at, at, "{text}");
        }
        let incoming = message("");
        let scope = Scope::message(&incoming);
        let one = kafka("t_{a}", &["a"]).unwrap();
        assert_eq!(
            one.render(&scope, &["x.y/z"]),
            Ok(Ok(Cow::Borrowed("t_x.y_2Fz")))
        );
        let only = kafka("{a}", &["a"]).unwrap();
        assert_eq!(only.render(&scope, &[""]), Ok(Err(NameFault::Empty)));
        assert_eq!(
            only.render(&scope, &[".."]),
            Ok(Ok(Cow::Borrowed("_2E_2E")))
        );
        let long = "ä".repeat(50);
        assert_eq!(only.render(&scope, &[&long]), Ok(Err(NameFault::TooLong)));
        let internal = kafka("__head{a}", &["a"]).unwrap();
        assert_eq!(
            internal.render(&scope, &["water_x"]),
            Ok(Err(NameFault::Internal))
        );
    }

    proptest! {
        #[test]
        fn two_sets_of_captures_never_give_one_topic(
            left in ("[a./_F2x-]{0,4}", "[a./_F2x-]{0,4}"),
            right in ("[a./_F2x-]{0,4}", "[a./_F2x-]{0,4}"),
            text in prop_oneof![Just("{a}.{b}"), Just("t_{a}_x{b}"), Just("{a}-F_{b}.z")],
        ) {
            prop_assume!(left != right);
            let incoming = message("");
            let scope = Scope::message(&incoming);
            let template = kafka(text, &["a", "b"]).unwrap();
            let one = template.render(&scope, &[&left.0, &left.1]).unwrap();
            let other = template.render(&scope, &[&right.0, &right.1]).unwrap();
            if let (Ok(one), Ok(other)) = (one, other) {
                prop_assert_ne!(one, other);
            }
        }

        #[test]
        fn parse_is_total(text: String) {
            let _parsed = parse(&text, &["a"]);
        }
    }
}
