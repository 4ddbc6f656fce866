//! MQTT Topic Filters with named captures: which topics a route takes, and what it learns of them.
//!
//! For: `{x}`, a `+` that remembers its level, and `{rest...}`, a `#` that remembers the rest.
//! Not for: the subscription tree (`mqtt-broker`); a configuration has few filters, it is walked.
//! Holds: a filter that begins with a wildcard does not take topics that begin with `$` [MQTT-4.7.2-1].

use std::fmt;

use smallvec::SmallVec;

/// What the captures of a filter hold for one topic, in the filter's order.
pub type Captures<'a> = SmallVec<[&'a str; 4]>;

/// Longest MQTT string (1.5.4).
pub(crate) const MQTT_STRING_BYTES_MAX: usize = 65_535;

/// A compiled Topic Filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    levels: Box<[Level]>,
    /// The filter ends with `#` or `{rest...}`; that level is not in `levels`.
    open: bool,
    /// The open end is named, so its text is the last capture.
    open_named: bool,
    names: Box<[String]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Level {
    Text(Box<str>),
    Any { named: bool },
}

/// Why a text is not a filter, and at which byte of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct FilterError {
    pub at: usize,
    pub why: FilterFault,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterFault {
    Empty,
    TooLong,
    /// `#` or `{rest...}` before the last level.
    OpenNotLast,
    /// `+`, `#`, `{` or `}` beside other text in one level.
    NotAWholeLevel(char),
    BadName(String),
    TakenName(String),
    TwiceNamed(String),
    Nul,
    Shared,
}

impl fmt::Display for FilterFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a topic filter cannot be empty"),
            Self::TooLong => f.write_str("a topic filter has at most 65,535 bytes"),
            Self::OpenNotLast => f.write_str("`#` and `{rest...}` can only be the last level"),
            Self::NotAWholeLevel(found) => {
                write!(f, "`{found}` needs a level of its own, between two `/`")
            }
            Self::BadName(name) => write!(
                f,
                "`{name}` is no capture name; take letters, digits, `_` and `-`, a letter first"
            ),
            Self::TakenName(name) => write!(f, "the name `{name}` has a meaning of its own"),
            Self::TwiceNamed(name) => write!(f, "two captures are named `{name}`"),
            Self::Nul => f.write_str("a topic filter cannot hold U+0000"),
            Self::Shared => f.write_str("a route has no shared filter; leave out `$share/GROUP/`"),
        }
    }
}

/// Words that name something else in templates and conditions.
const TAKEN: [&str; 14] = [
    "topic", "client", "user", "key", "value", "payload", "header", "and", "or", "not", "exists",
    "true", "false", "null",
];

impl Filter {
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let fail = |at, why| Err(FilterError { at, why });
        if text.is_empty() {
            return fail(0, FilterFault::Empty);
        }
        if text.len() > MQTT_STRING_BYTES_MAX {
            return fail(0, FilterFault::TooLong);
        }
        if let Some(at) = text.find('\0') {
            return fail(at, FilterFault::Nul);
        }
        if text.starts_with("$share/") {
            return fail(0, FilterFault::Shared);
        }
        let mut filter = Builder {
            levels: Vec::new(),
            open: false,
            open_named: false,
            names: Vec::new(),
        };
        let mut at = 0;
        for level in text.split('/') {
            if filter.open {
                return fail(at - 1, FilterFault::OpenNotLast);
            }
            filter.level(level, at)?;
            at += level.len() + 1;
        }
        Ok(Self {
            levels: filter.levels.into(),
            open: filter.open,
            open_named: filter.open_named,
            names: filter.names.into(),
        })
    }

    /// Names of the captures, in the filter's order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether this filter takes `topic`, a valid Topic Name.
    pub fn matches(&self, topic: &str) -> bool {
        self.walk(topic, |_| ())
    }

    /// The captures for `topic`, or `None` if the filter does not take it.
    pub fn captures<'t>(&self, topic: &'t str) -> Option<Captures<'t>> {
        let mut captures = Captures::new();
        self.walk(topic, |text| captures.push(text))
            .then_some(captures)
    }

    fn walk<'t>(&self, topic: &'t str, mut capture: impl FnMut(&'t str)) -> bool {
        let wild_first = !matches!(self.levels.first(), Some(Level::Text(_)));
        if wild_first && topic.starts_with('$') {
            return false;
        }
        let mut rest = Some(topic);
        for level in &self.levels {
            let Some(text) = rest else { return false };
            let (head, tail) = match memchr::memchr(b'/', text.as_bytes()) {
                Some(at) => (text.get(..at).unwrap_or(text), text.get(at + 1..)),
                None => (text, None),
            };
            match level {
                Level::Text(expected) if **expected != *head => return false,
                Level::Text(_) | Level::Any { named: false } => {}
                Level::Any { named: true } => capture(head),
            }
            rest = tail;
        }
        if self.open {
            // `sport/#` takes `sport` too: the rest is then empty (4.7.1.2).
            if self.open_named {
                capture(rest.unwrap_or(""));
            }
            return true;
        }
        rest.is_none()
    }

    /// Whether every topic that `other` takes is taken by this filter too. Exact.
    pub fn covers(&self, other: &Self) -> bool {
        let mine = &self.levels;
        let theirs = &other.levels;
        // A topic is never empty, so the open end of `#` and of `/#` takes at least one level, which
        // a `+` can stand for: `+/#` covers `#`, but `a/+/#` does not cover `a/#`.
        let nothing_before = match &**theirs {
            [] => true,
            [Level::Text(text)] => text.is_empty(),
            _ => false,
        };
        let owes_a_level = other.open && nothing_before;
        for (place, level) in mine.iter().enumerate() {
            let covered = match (level, theirs.get(place)) {
                (Level::Text(text), Some(Level::Text(other))) => text == other,
                (Level::Text(_), Some(Level::Any { .. })) => false,
                (Level::Any { .. }, Some(Level::Text(other))) => {
                    place > 0 || !other.starts_with('$')
                }
                (Level::Any { .. }, Some(Level::Any { .. })) => true,
                (Level::Any { .. }, None) => place == theirs.len() && owes_a_level,
                (Level::Text(_), None) => false,
            };
            if !covered {
                return false;
            }
        }
        if self.open {
            // An open end at the very front leaves out topics that begin with `$`.
            let dollar = matches!(theirs.first(), Some(Level::Text(text)) if text.starts_with('$'));
            return !(mine.is_empty() && dollar);
        }
        mine.len() == theirs.len() && !other.open
    }
}

struct Builder {
    levels: Vec<Level>,
    open: bool,
    open_named: bool,
    names: Vec<String>,
}

impl Builder {
    fn level(&mut self, level: &str, at: usize) -> Result<(), FilterError> {
        match level {
            "#" => self.open = true,
            "+" => self.levels.push(Level::Any { named: false }),
            _ => match level
                .strip_prefix('{')
                .and_then(|rest| rest.strip_suffix('}'))
            {
                Some(name) if name.ends_with("...") => {
                    self.name(name.trim_end_matches("..."), at + 1)?;
                    self.open = true;
                    self.open_named = true;
                }
                Some(name) => {
                    self.name(name, at + 1)?;
                    self.levels.push(Level::Any { named: true });
                }
                None => match level.char_indices().find(|(_, c)| "+#{}".contains(*c)) {
                    Some((within, c)) => {
                        let why = FilterFault::NotAWholeLevel(c);
                        return Err(FilterError {
                            at: at + within,
                            why,
                        });
                    }
                    None => self.levels.push(Level::Text(level.into())),
                },
            },
        }
        Ok(())
    }

    fn name(&mut self, name: &str, at: usize) -> Result<(), FilterError> {
        let fail = |why| Err(FilterError { at, why });
        if !is_name(name) {
            return fail(FilterFault::BadName(name.to_owned()));
        }
        if TAKEN.contains(&name) {
            return fail(FilterFault::TakenName(name.to_owned()));
        }
        if self.names.iter().any(|known| known == name) {
            return fail(FilterFault::TwiceNamed(name.to_owned()));
        }
        self.names.push(name.to_owned());
        Ok(())
    }
}

/// Letters, digits, `_` and `-`, a letter or `_` first: also a word of a condition.
fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter(text: &str) -> Filter {
        Filter::parse(text).unwrap()
    }

    #[test]
    fn a_filter_takes_what_mqtt_says_it_takes() {
        for (text, topic, expected, why) in [
            ("a/b", "a/b", true, "the same text"),
            ("a/b", "a/b/c", false, "more levels than the filter"),
            ("a/b", "a", false, "fewer levels"),
            (
                "sport/#",
                "sport",
                true,
                "# includes its parent level, 4.7.1.2",
            ),
            ("sport/{rest...}", "sport", true, "so does a named one"),
            ("sport/#", "sports", false, "a level is whole"),
            (
                "sport/+",
                "sport/",
                true,
                "an empty level is a level, 4.7.1.1",
            ),
            ("sport/+", "sport", false, "+ is one level, 4.7.1.3"),
            ("+", "/a", false, "two levels"),
            ("+/+", "/a", true, "the first of them empty"),
            ("#", "$SYS/uptime", false, "[MQTT-4.7.2-1]"),
            ("{x}/uptime", "$SYS/uptime", false, "[MQTT-4.7.2-1]"),
            ("$SYS/#", "$SYS/uptime", true, "named by its first level"),
            ("#", "a//b/", true, "everything"),
        ] {
            assert_eq!(
                filter(text).matches(topic),
                expected,
                "{text} on {topic}: {why}"
            );
        }
    }

    #[test]
    fn captures_hold_their_levels() {
        let f = filter("sensors/{site}/+/{device}/{rest...}");
        assert_eq!(f.names(), ["site", "device", "rest"]);
        assert_eq!(
            f.captures("sensors/a/b/c/d/e").unwrap().as_slice(),
            ["a", "c", "d/e"]
        );
        assert_eq!(
            f.captures("sensors/a//c").unwrap().as_slice(),
            ["a", "c", ""]
        );
        assert_eq!(f.captures("sensors/a/b"), None);
    }

    #[test]
    fn a_bad_filter_is_refused_where_it_is_bad() {
        for (text, at, why) in [
            ("", 0, FilterFault::Empty),
            ("a/#/b", 3, FilterFault::OpenNotLast),
            ("a/{r...}/b", 8, FilterFault::OpenNotLast),
            ("a/b+", 3, FilterFault::NotAWholeLevel('+')),
            ("a/dev-{x}", 6, FilterFault::NotAWholeLevel('{')),
            ("a/{x y}", 3, FilterFault::BadName("x y".to_owned())),
            ("{}", 1, FilterFault::BadName(String::new())),
            ("{topic}", 1, FilterFault::TakenName("topic".to_owned())),
            ("{x}/{x}", 5, FilterFault::TwiceNamed("x".to_owned())),
            ("a\0", 1, FilterFault::Nul),
            ("$share/g/a", 0, FilterFault::Shared),
        ] {
            assert_eq!(Filter::parse(text), Err(FilterError { at, why }), "{text}");
        }
    }

    #[test]
    fn covering_knows_the_dollar_rule_and_the_parent_level() {
        for (wide, narrow, expected) in [
            ("#", "a/b", true),
            ("#", "#", true),
            ("#", "$SYS/#", false),
            ("+/#", "#", true),
            ("+/+/#", "#", false),
            ("/+/#", "/#", true),
            ("/+/+/#", "/#", false),
            ("/+/#", "+/#", false),
            ("a/#", "a", true),
            ("a/#", "a/+", true),
            ("a/+/#", "a/#", false),
            ("a/+", "a/#", false),
            ("a/{x}", "a/{y}", true),
            ("a/b", "a/+", false),
            ("$SYS/#", "$SYS/a", true),
            ("+/a", "$SYS/a", false),
            ("a/b/c", "a/b", false),
        ] {
            assert_eq!(
                filter(wide).covers(&filter(narrow)),
                expected,
                "{wide} over {narrow}"
            );
        }
    }

    fn filters() -> impl Strategy<Value = String> {
        let level = prop_oneof![
            Just("a"),
            Just("b"),
            Just(""),
            Just("+"),
            Just("{x}"),
            Just("$s")
        ];
        (proptest::collection::vec(level, 0..4), any::<bool>()).prop_filter_map(
            "no filter",
            |(levels, open)| {
                let mut levels: Vec<String> = levels
                    .iter()
                    .enumerate()
                    .map(|(n, l)| l.replace("{x}", &format!("{{x{n}}}")))
                    .collect();
                if open {
                    levels.push("#".to_owned());
                }
                let text = levels.join("/");
                (!text.is_empty()).then_some(text)
            },
        )
    }

    /// Topics among which one tells two such filters apart, if any topic does: every filter uses
    /// only the levels `a`, `b`, the empty one and `$s`; `z` stands for all others.
    fn witnesses() -> Vec<String> {
        let mut topics: Vec<Vec<&str>> = vec![vec![]];
        let mut all = Vec::new();
        for _ in 0..5 {
            topics = topics
                .iter()
                .flat_map(|t| {
                    ["a", "b", "", "$s", "z"].map(|l| {
                        let mut longer = t.clone();
                        longer.push(l);
                        longer
                    })
                })
                .collect();
            all.extend(topics.iter().map(|t| t.join("/")).filter(|t| !t.is_empty()));
        }
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn covering_is_exact(wide in filters(), narrow in filters()) {
            let (wide, narrow) = (filter(&wide), filter(&narrow));
            let escapes = witnesses().into_iter().find(|t| narrow.matches(t) && !wide.matches(t));
            prop_assert_eq!(wide.covers(&narrow), escapes.is_none(), "{:?}", escapes);
        }

        #[test]
        fn parse_is_total(text: String) {
            let _parsed = Filter::parse(&text);
        }
    }
}
