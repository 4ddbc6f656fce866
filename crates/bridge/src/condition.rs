//! `where`: a small language that says yes or no to a message or a record.
//!
//! For: `value.temp > 30 and topic != "a/b"`, `exists header.x`, `not (site == "lab")`.
//! Not for: arithmetic, functions, regular expressions.
//! Holds: parsing and evaluation are total and bounded; what is missing never matches by accident.
//!
//! # The language
//!
//! Names: `value.a.b` (also written `payload.a.b`; a field of the JSON payload, array elements by
//! number, `value` alone the whole of it), `topic`, `client`, `header.x`, in a route also `user`
//! and the captures of `from`, in a sink also `key`. A step with other characters than letters,
//! digits, `_`, `-` stands in quotes: `value."a b"`. Literals: `"text"` or `'text'`, numbers,
//! `true`, `false`, `null`. Operators: `== != < <= > >=`, `and or not` (also `&& || !`),
//! parentheses, `exists NAME`. `not` binds more than `and`, `and` more than `or`.
//!
//! Types: numbers are compared with numbers, by value; text with text, by its bytes; `true`,
//! `false` and `null` only for equality. Two things of different types are never equal, so `!=`
//! between them is true, and any other comparison is false. A text is never read as a number. Objects and arrays equal
//! nothing. A comparison with something that is missing is false, `!=` too; `exists` asks for it.
//! A name alone is true if it holds `true`.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use crate::scope::{Context, Found, Name, Scope};
use crate::template::TextError;

/// Longest condition, in bytes.
pub const TEXT_BYTES_MAX: usize = 4096;

/// Deepest nesting of parentheses and `not`.
pub const DEPTH_MAX: usize = 32;

/// A compiled `where`.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition(Node);

#[derive(Clone, Debug, PartialEq)]
enum Node {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    Exists(Name),
    Holds(Term),
    Compare {
        left: Term,
        comparison: Comparison,
        right: Term,
    },
}

#[derive(Clone, Debug, PartialEq)]
enum Term {
    Name(Name),
    Literal(Value),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Condition {
    pub(crate) fn parse(text: &str, context: Context<'_>) -> Result<Self, TextError> {
        if text.len() > TEXT_BYTES_MAX {
            let message = format!("a condition has at most {TEXT_BYTES_MAX} bytes");
            return Err(TextError::new(TEXT_BYTES_MAX, message));
        }
        let tokens = lex(text)?;
        let mut parser = Parser {
            tokens: tokens.into_iter().peekable(),
            end: text.len(),
            context,
        };
        let node = parser.any(0)?;
        match parser.tokens.next() {
            None => Ok(Self(node)),
            Some((at, token)) => Err(TextError::new(
                at,
                format!("unexpected {}; `and` or `or`?", token.show()),
            )),
        }
    }

    /// Whether the message or record in `scope` matches.
    pub(crate) fn holds(&self, scope: &Scope<'_>, captures: &[&str]) -> bool {
        self.0.holds(scope, captures)
    }
}

impl Node {
    fn holds(&self, scope: &Scope<'_>, captures: &[&str]) -> bool {
        match self {
            Self::All(nodes) => nodes.iter().all(|node| node.holds(scope, captures)),
            Self::Any(nodes) => nodes.iter().any(|node| node.holds(scope, captures)),
            Self::Not(node) => !node.holds(scope, captures),
            Self::Exists(name) => find(scope, captures, name).is_some(),
            Self::Holds(term) => {
                term.value(scope, captures) == Some(Found::Json(&Value::Bool(true)))
            }
            Self::Compare {
                left,
                comparison,
                right,
            } => match (left.value(scope, captures), right.value(scope, captures)) {
                (Some(left), Some(right)) => comparison.holds(&left, &right),
                _ => false,
            },
        }
    }
}

fn find<'s>(scope: &'s Scope<'_>, captures: &[&'s str], name: &Name) -> Option<Found<'s>> {
    scope.look_up(name, captures)
}

impl Term {
    fn value<'s>(&'s self, scope: &'s Scope<'_>, captures: &[&'s str]) -> Option<Found<'s>> {
        match self {
            Self::Name(name) => find(scope, captures, name),
            Self::Literal(value) => Some(Found::Json(value)),
        }
    }
}

impl Comparison {
    fn holds(self, left: &Found<'_>, right: &Found<'_>) -> bool {
        match self {
            Self::Equal => equal(left, right),
            Self::NotEqual => !equal(left, right),
            Self::Less => order(left, right).is_some_and(Ordering::is_lt),
            Self::LessOrEqual => order(left, right).is_some_and(Ordering::is_le),
            Self::Greater => order(left, right).is_some_and(Ordering::is_gt),
            Self::GreaterOrEqual => order(left, right).is_some_and(Ordering::is_ge),
        }
    }
}

fn text_of<'f>(found: &'f Found<'_>) -> Option<&'f str> {
    match found {
        Found::Text(text) => Some(text),
        Found::Json(value) => value.as_str(),
    }
}

fn equal(left: &Found<'_>, right: &Found<'_>) -> bool {
    match (left, right) {
        (Found::Json(Value::Bool(left)), Found::Json(Value::Bool(right))) => left == right,
        (Found::Json(Value::Null), Found::Json(Value::Null)) => true,
        _ => order(left, right).is_some_and(Ordering::is_eq),
    }
}

/// The order of two numbers or two texts; other things have none.
fn order(left: &Found<'_>, right: &Found<'_>) -> Option<Ordering> {
    if let (Some(left), Some(right)) = (text_of(left), text_of(right)) {
        return Some(left.cmp(right));
    }
    match (left, right) {
        (Found::Json(Value::Number(left)), Found::Json(Value::Number(right))) => {
            order_numbers(left, right)
        }
        _ => None,
    }
}

/// Exact, also between a whole number of more than 53 bits and a fraction.
fn order_numbers(left: &Number, right: &Number) -> Option<Ordering> {
    match (left.as_i128(), right.as_i128()) {
        (Some(left), Some(right)) => Some(left.cmp(&right)),
        (Some(left), None) => order_mixed(left, right.as_f64()?),
        (None, Some(right)) => order_mixed(right, left.as_f64()?).map(Ordering::reverse),
        (None, None) => left.as_f64()?.partial_cmp(&right.as_f64()?),
    }
}

fn order_mixed(whole: i128, fraction: f64) -> Option<Ordering> {
    // JSON's whole numbers here have 64 bits: beyond that the fraction's sign decides.
    const BEYOND: f64 = 18_446_744_073_709_551_616.0; // 2^64
    if fraction >= BEYOND {
        return Some(Ordering::Less);
    }
    if fraction < -BEYOND {
        return Some(Ordering::Greater);
    }
    let floor = fraction.floor();
    #[expect(clippy::cast_possible_truncation, reason = "between -2^64 and 2^64")]
    let below = floor as i128;
    let above_floor = if fraction > floor {
        Ordering::Less
    } else {
        Ordering::Equal
    };
    Some(whole.cmp(&below).then(above_floor))
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Compare(Comparison),
    And,
    Or,
    Not,
    Exists,
    Open,
    Close,
    Literal(Value),
    /// Root and steps.
    Name(Vec<String>),
}

impl Token {
    fn show(&self) -> String {
        match self {
            Self::Compare(_) => "comparison".to_owned(),
            Self::And => "`and`".to_owned(),
            Self::Or => "`or`".to_owned(),
            Self::Not => "`not`".to_owned(),
            Self::Exists => "`exists`".to_owned(),
            Self::Open => "`(`".to_owned(),
            Self::Close => "`)`".to_owned(),
            Self::Literal(value) => format!("`{value}`"),
            Self::Name(steps) => format!("`{}`", steps.join(".")),
        }
    }
}

struct Parser<'a> {
    tokens: std::iter::Peekable<std::vec::IntoIter<(usize, Token)>>,
    end: usize,
    context: Context<'a>,
}

impl Parser<'_> {
    fn any(&mut self, depth: usize) -> Result<Node, TextError> {
        let mut nodes = vec![self.all(depth)?];
        while self.take(&Token::Or) {
            nodes.push(self.all(depth)?);
        }
        Ok(one_or(nodes, Node::Any))
    }

    fn all(&mut self, depth: usize) -> Result<Node, TextError> {
        let mut nodes = vec![self.one(depth)?];
        while self.take(&Token::And) {
            nodes.push(self.one(depth)?);
        }
        Ok(one_or(nodes, Node::All))
    }

    fn one(&mut self, depth: usize) -> Result<Node, TextError> {
        if depth > DEPTH_MAX {
            return Err(TextError::new(
                self.at(),
                format!("nested deeper than {DEPTH_MAX}"),
            ));
        }
        if self.take(&Token::Not) {
            return Ok(Node::Not(Box::new(self.one(depth + 1)?)));
        }
        if self.take(&Token::Exists) {
            return self.exists();
        }
        if self.take(&Token::Open) {
            let node = self.any(depth + 1)?;
            self.close()?;
            return Ok(node);
        }
        let start = self.at();
        let left = self.term()?;
        let Some((_, Token::Compare(comparison))) = self
            .tokens
            .next_if(|(_, token)| matches!(token, Token::Compare(_)))
        else {
            return match left {
                Term::Literal(Value::Bool(_)) | Term::Name(_) => Ok(Node::Holds(left)),
                Term::Literal(_) => Err(TextError::new(start, "a comparison is missing here")),
            };
        };
        let right = self.term()?;
        Ok(Node::Compare {
            left,
            comparison,
            right,
        })
    }

    fn exists(&mut self) -> Result<Node, TextError> {
        let open = self.take(&Token::Open);
        let at = self.at();
        let Term::Name(name) = self.term()? else {
            return Err(TextError::new(
                at,
                "`exists` asks for a name, not for a literal",
            ));
        };
        if open {
            self.close()?;
        }
        Ok(Node::Exists(name))
    }

    fn term(&mut self) -> Result<Term, TextError> {
        let at = self.at();
        match self.tokens.next() {
            Some((_, Token::Literal(value))) => Ok(Term::Literal(value)),
            Some((_, Token::Name(steps))) => {
                let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
                let (root, steps) = steps.split_first().unwrap_or((&"", &[]));
                Name::resolve(root, steps, self.context)
                    .map(Term::Name)
                    .map_err(|message| TextError::new(at, message))
            }
            Some((_, token)) => Err(TextError::new(
                at,
                format!("a name or a value is missing before {}", token.show()),
            )),
            None => Err(TextError::new(
                at,
                "a name or a value is missing at the end",
            )),
        }
    }

    fn close(&mut self) -> Result<(), TextError> {
        let at = self.at();
        if self.take(&Token::Close) {
            return Ok(());
        }
        Err(TextError::new(at, "`)` is missing here"))
    }

    fn take(&mut self, wanted: &Token) -> bool {
        self.tokens.next_if(|(_, token)| token == wanted).is_some()
    }

    fn at(&mut self) -> usize {
        self.tokens.peek().map_or(self.end, |(at, _)| *at)
    }
}

fn one_or(mut nodes: Vec<Node>, several: impl FnOnce(Vec<Node>) -> Node) -> Node {
    if nodes.len() == 1
        && let Some(node) = nodes.pop()
    {
        return node;
    }
    several(nodes)
}

fn lex(text: &str) -> Result<Vec<(usize, Token)>, TextError> {
    let mut lexer = Lexer { text, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip(|c| c.is_whitespace());
        let at = lexer.at;
        match lexer.token()? {
            Some(token) => tokens.push((at, token)),
            None => return Ok(tokens),
        }
    }
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Lexer<'t> {
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or("")
    }

    /// Moves over the characters that `wanted` takes, and returns them.
    fn skip(&mut self, wanted: impl Fn(char) -> bool) -> &'t str {
        let rest = self.rest();
        let length = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.at += length;
        rest.get(..length).unwrap_or("")
    }

    fn token(&mut self) -> Result<Option<Token>, TextError> {
        use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
        const SIGNS: [(&str, Token); 12] = [
            ("==", Token::Compare(Equal)),
            ("!=", Token::Compare(NotEqual)),
            ("<=", Token::Compare(LessOrEqual)),
            (">=", Token::Compare(GreaterOrEqual)),
            ("<", Token::Compare(Less)),
            (">", Token::Compare(Greater)),
            ("&&", Token::And),
            ("||", Token::Or),
            ("!", Token::Not),
            ("(", Token::Open),
            (")", Token::Close),
            ("=", Token::Exists), // refused below
        ];
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return Ok(None);
        };
        if let Some((sign, token)) = SIGNS.into_iter().find(|(sign, _)| rest.starts_with(sign)) {
            if sign == "=" {
                return Err(TextError::new(self.at, "`=` compares nothing; write `==`"));
            }
            self.at += sign.len();
            return Ok(Some(token));
        }
        match first {
            '"' | '\'' => Ok(Some(Token::Literal(Value::String(self.quoted(first)?)))),
            '-' | '0'..='9' => self.number().map(Some),
            c if c.is_ascii_alphabetic() || c == '_' => self.word().map(Some),
            c => Err(TextError::new(
                self.at,
                format!("`{c}` has no meaning here"),
            )),
        }
    }

    fn number(&mut self) -> Result<Token, TextError> {
        let at = self.at;
        let digits = self.skip(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-'));
        match serde_json::from_str::<Number>(digits) {
            Ok(number) => Ok(Token::Literal(Value::Number(number))),
            Err(_) => Err(TextError::new(at, format!("`{digits}` is no number"))),
        }
    }

    fn quoted(&mut self, quote: char) -> Result<String, TextError> {
        let start = self.at;
        let mut text = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((offset, c)) = chars.next() {
            match c {
                _ if c == quote => {
                    self.at = start + offset + 1;
                    return Ok(text);
                }
                '\\' => match chars.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, plain @ ('\\' | '"' | '\''))) => text.push(plain),
                    _ => {
                        let message = r#"after `\` stands `n`, `t`, `\`, `"` or `'`"#;
                        return Err(TextError::new(start + offset, message));
                    }
                },
                _ => text.push(c),
            }
        }
        Err(TextError::new(start, "this quote is not closed"))
    }

    /// A keyword, or a name with its steps.
    fn word(&mut self) -> Result<Token, TextError> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let mut steps = vec![self.skip(is_name).to_owned()];
        while self.rest().starts_with('.') {
            self.at += 1;
            let step = match self.rest().chars().next() {
                Some(quote @ ('"' | '\'')) => self.quoted(quote)?,
                _ => self.skip(is_name).to_owned(),
            };
            if step.is_empty() {
                return Err(TextError::new(self.at, "a name is missing after the dot"));
            }
            steps.push(step);
        }
        Ok(match steps.as_slice() {
            [word] => match word.as_str() {
                "and" => Token::And,
                "or" => Token::Or,
                "not" => Token::Not,
                "exists" => Token::Exists,
                "true" => Token::Literal(Value::Bool(true)),
                "false" => Token::Literal(Value::Bool(false)),
                "null" => Token::Literal(Value::Null),
                _ => Token::Name(steps),
            },
            _ => Token::Name(steps),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::Incoming;

    fn parse(text: &str) -> Result<Condition, TextError> {
        Condition::parse(
            text,
            Context::Route {
                captures: &["site".to_owned()],
            },
        )
    }

    fn holds(text: &str) -> bool {
        let payload = br#"{"temp": 30.5, "n": 9007199254740993, "s": "b", "t": true, "z": null,
            "a": [1, {"x y": 2}], "o": {}, "big": 1e300}"#;
        let incoming = Incoming {
            topic: "s/lab/t",
            client: "c1",
            payload,
            qos: 1,
            properties: crate::Properties {
                user: [("x-y", "7")].into_iter().collect(),
                ..Default::default()
            },
            ..Incoming::default()
        };
        let scope = Scope::message(&incoming);
        parse(text)
            .unwrap_or_else(|e| panic!("{text}: {e} at {}", e.at))
            .holds(&scope, &["lab"])
    }

    #[test]
    fn a_condition_says_what_it_says() {
        for (text, expected) in [
            ("value.temp > 30", true),
            ("payload.temp >= 30.5 && value.temp <= 30.5", true),
            ("value.temp < 30 or site == 'lab'", true),
            (
                "site == 'lab' and topic == \"s/lab/t\" and client == 'c1'",
                true,
            ),
            ("not value.temp > 30", false),
            ("!(value.temp > 30) || user == 'anonymous'", true),
            ("false and false or true", true),
            ("true or false and false", true),
            ("not false and false", false),
            ("value.t", true),
            ("value.s", false),
            ("exists value.z and exists(value.o)", true),
            ("exists value.missing", false),
            ("exists header.x-y and header.x-y == '7'", true),
            ("header.mqtt-qos == '1'", true),
            ("value.a.0 == 1 and value.a.1.\"x y\" == 2", true),
            ("30 < value.temp", true),
            ("-1.5e0 < 0", true),
            ("value.s > 'a' and value.s < \"c\"", true),
            (r#"'it\'s' == "it's""#, true),
        ] {
            assert_eq!(holds(text), expected, "{text}");
        }
    }

    #[test]
    fn types_and_missing_things_follow_the_rules() {
        for (text, expected, why) in [
            ("value.missing != null", false, "missing: false, != too"),
            ("not value.missing == 1", true, "not turns it round"),
            ("value.z == null", true, "null is there"),
            ("value.z != null", false, "null is null"),
            ("value.temp != null", true, "a number is not null"),
            ("value.temp == '30.5'", false, "text is no number"),
            ("value.temp != '30.5'", true, "different types differ"),
            ("header.x-y > 5", false, "a header is text"),
            ("value.t < true", false, "truth has no order"),
            ("value.o == value.o", false, "objects equal nothing"),
            ("value.a != value.a", true, "so they differ"),
            ("value.n == 9007199254740993", true, "whole numbers exactly"),
            (
                "value.n == 9007199254740992",
                false,
                "not as fractions of 53 bits",
            ),
            ("value.n > 9007199254740992.0", true, "nor against one"),
            (
                "value.n < value.big and -5 > -1e300",
                true,
                "beyond 64 bits the sign decides",
            ),
            (
                "1 < 1.5 and 2 > 1.5 and -1 > -1.5 and 1 == 1.0",
                true,
                "between the two kinds",
            ),
        ] {
            assert_eq!(holds(text), expected, "{text}: {why}");
        }
    }

    #[test]
    fn a_payload_that_is_no_json_has_no_fields_but_is_text() {
        let incoming = Incoming {
            payload: b"on",
            ..Incoming::default()
        };
        let scope = Scope::message(&incoming);
        assert!(
            parse("value == 'on' and not exists value.x")
                .unwrap()
                .holds(&scope, &[])
        );
        let incoming = Incoming {
            payload: b"21.5",
            ..Incoming::default()
        };
        let scope = Scope::message(&incoming);
        assert!(
            parse("value > 21 and value < 22")
                .unwrap()
                .holds(&scope, &[])
        );
        let incoming = Incoming {
            payload: b"\xFF",
            ..Incoming::default()
        };
        assert!(
            !parse("exists value")
                .unwrap()
                .holds(&Scope::message(&incoming), &[])
        );
    }

    #[test]
    fn an_error_has_its_place() {
        for (text, at, message) in [
            (
                "value.temp > ",
                13,
                "a name or a value is missing at the end",
            ),
            ("value.temp = 3", 11, "`=` compares nothing; write `==`"),
            ("(value.temp > 3", 15, "`)` is missing here"),
            ("value.temp > 3 4", 15, "unexpected `4`; `and` or `or`?"),
            ("a == 'x", 5, "this quote is not closed"),
            ("sit == 'x'", 0, "unknown name `sit`; did you mean `site`?"),
            ("topic.x == 'x'", 0, "`topic` is text and has no fields"),
            ("1.2.3 > topic", 0, "`1.2.3` is no number"),
            ("value..a", 6, "a name is missing after the dot"),
            ("'a'", 0, "a comparison is missing here"),
            ("1 < 2 < 3", 6, "unexpected comparison; `and` or `or`?"),
            ("topic == $x", 9, "`$` has no meaning here"),
            (
                "exists 'a'",
                7,
                "`exists` asks for a name, not for a literal",
            ),
            ("", 0, "a name or a value is missing at the end"),
            (
                r"'\q' == topic",
                1,
                r#"after `\` stands `n`, `t`, `\`, `"` or `'`"#,
            ),
        ] {
            assert_eq!(parse(text), Err(TextError::new(at, message)), "{text}");
        }
    }

    #[test]
    fn depth_and_length_are_bounded() {
        let nested = |n: usize| format!("{}true{}", "(".repeat(n), ")".repeat(n));
        assert!(parse(&nested(DEPTH_MAX)).is_ok());
        assert!(parse(&nested(DEPTH_MAX + 1)).is_err());
        assert!(parse(&"not ".repeat(DEPTH_MAX + 1)).is_err());
        assert!(parse(&format!("topic == '{}'", "x".repeat(TEXT_BYTES_MAX))).is_err());
    }

    proptest! {
        #[test]
        fn parsing_and_evaluating_are_total(
            text in r#"([a-z.]{1,8}|value|[()<>=!&|'"]{1,2}|[0-9.e-]{1,4}| |\PC){0,12}"#,
            payload: Vec<u8>,
        ) {
            if let Ok(condition) = parse(&text) {
                let incoming = Incoming { payload: &payload, ..Incoming::default() };
                let _matched = condition.holds(&Scope::message(&incoming), &["x"]);
            }
        }
    }
}
