//! The part of a filter that SQLite can answer.
//!
//! For: [`push`]: from a condition to SQL that is true for at least every matching document.
//! Not for: deciding what matches; all but an exact answer is re-checked by `evaluate`.
//! Calls: `evaluate`'s types, `schema`.
//! Holds: SQL never excludes a document that matches. Columns are answered exactly; fields inside
//! `doc` are answered too widely where SQL and MongoDB differ: a document with an array anywhere
//! passes (paths reach into arrays), numbers pass within a hair's breadth (SQLite reads a decimal
//! with its own rounding), true passes as 1.

use crate::document::parse_id;
use crate::evaluate::{Condition, Test};
use crate::path::Path;
use crate::schema::{self, OFFSET_SQL, STREAM_SQL, StreamKey};
use crate::value::Value;
use rusqlite::types::Value as Parameter;

/// Longest list of `$in` that becomes SQL.
const LIST_MAX: usize = 200;
/// Most comparisons of one statement; SQLite takes an expression 1,000 levels deep, and each AND or
/// OR is one.
const TERMS_MAX: usize = 400;

/// A condition in SQL over row `d`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sql {
    pub(crate) text: String,
    pub(crate) parameters: Vec<Parameter>,
    /// Comparisons in it.
    terms: usize,
    /// True for exactly the documents that match, as NULL is for those that do not.
    pub(crate) exact: bool,
}

/// What is known of the collection that is asked.
#[derive(Debug, Default)]
pub(crate) struct Indexes {
    pub(crate) paths: Vec<String>,
}

/// The SQL of a condition; `None` if every document must be looked at.
pub(crate) fn push(condition: &Condition, indexes: &Indexes) -> Option<Sql> {
    let sql = pushed(condition, indexes)?;
    (sql.terms <= TERMS_MAX).then_some(sql)
}

fn pushed(condition: &Condition, indexes: &Indexes) -> Option<Sql> {
    match condition {
        Condition::All(inner) => {
            let parts: Vec<Sql> = inner.iter().filter_map(|c| pushed(c, indexes)).collect();
            let exact = parts.len() == inner.len() && parts.iter().all(|part| part.exact);
            if parts.is_empty() && !exact {
                return None;
            }
            Some(Sql {
                exact,
                ..joined(parts, " AND ", "1")
            })
        }
        Condition::Any(inner) => {
            let parts: Option<Vec<Sql>> = inner.iter().map(|c| pushed(c, indexes)).collect();
            Some(joined(parts?, " OR ", "0"))
        }
        Condition::Not(inner) => {
            let inner = pushed(inner, indexes).filter(|sql| sql.exact)?;
            // NULL counts as no match inside, so it is one outside.
            Some(Sql {
                text: format!("NOT coalesce({}, 0)", inner.text),
                ..inner
            })
        }
        Condition::Field(path, test) => field(path, test, indexes),
    }
}

fn joined(parts: Vec<Sql>, with: &str, none: &str) -> Sql {
    if parts.is_empty() {
        return exact(none);
    }
    let exact = parts.iter().all(|part| part.exact);
    let terms = parts.iter().map(|part| part.terms).sum();
    let text = parts
        .iter()
        .map(|part| part.text.as_str())
        .collect::<Vec<_>>()
        .join(with);
    let parameters = parts.into_iter().flat_map(|part| part.parameters).collect();
    Sql {
        text: format!("({text})"),
        parameters,
        terms,
        exact,
    }
}

fn exact(text: &str) -> Sql {
    Sql {
        text: text.to_owned(),
        parameters: Vec::new(),
        terms: 1,
        exact: true,
    }
}

fn with(text: String, parameters: Vec<Parameter>) -> Option<Sql> {
    Some(Sql {
        text,
        parameters,
        terms: 1,
        exact: true,
    })
}

fn field(path: &Path, test: &Test, indexes: &Indexes) -> Option<Sql> {
    if let Test::In(values) = test {
        if values.len() > LIST_MAX {
            return None;
        }
        let parts: Option<Vec<Sql>> = values
            .iter()
            .map(|value| field(path, &Test::Equal(value.clone()), indexes))
            .collect();
        return Some(joined(parts?, " OR ", "0"));
    }
    match path.single() {
        Some("_id") => id(test),
        Some("topic") => topic(test),
        Some("ts") => ts(test),
        Some("kafka_topic") => kafka_topic(test),
        Some("partition") => number(test, &|compared| {
            format!("{STREAM_SQL} IN (SELECT id FROM streams WHERE partition {compared})")
        }),
        Some("offset") => number(test, &|compared| format!("{OFFSET_SQL} {compared}")),
        // A column is no object: nothing below it exists.
        _ if COLUMNS.contains(&path.first()) => None,
        _ => body(path, test, indexes),
    }
}

const COLUMNS: [&str; 6] = ["_id", "topic", "ts", "kafka_topic", "partition", "offset"];

/// The comparison a test makes, as SQL writes it.
fn comparison(test: &Test) -> Option<(&'static str, &Value<'static>)> {
    match test {
        Test::Equal(operand) => Some(("=", operand)),
        Test::Greater(operand) => Some((">", operand)),
        Test::GreaterOrEqual(operand) => Some((">=", operand)),
        Test::Less(operand) => Some(("<", operand)),
        Test::LessOrEqual(operand) => Some(("<=", operand)),
        Test::In(_) | Test::Exists => None,
    }
}

fn id(test: &Test) -> Option<Sql> {
    match test {
        Test::Exists => Some(exact("1")),
        Test::Equal(Value::String(text)) => {
            let Some((key, low)) = parse_id(text).and_then(|position| StreamKey::of(&position))
            else {
                return Some(exact("0"));
            };
            with(
                "d.id = (SELECT (id << 40) | ? FROM streams \
                 WHERE topic = ? AND partition = ? AND high = ?)"
                    .to_owned(),
                vec![
                    Parameter::Integer(low),
                    Parameter::Blob(key.topic.to_vec()),
                    Parameter::Integer(i64::from(key.partition)),
                    Parameter::Integer(key.high),
                ],
            )
        }
        Test::Equal(_) => Some(exact("0")),
        _ => None,
    }
}

fn topic(test: &Test) -> Option<Sql> {
    if *test == Test::Exists {
        return Some(exact("1"));
    }
    match (comparison(test)?, test) {
        (("=", Value::String(name)), _) => with(
            "d.topic = (SELECT id FROM topics WHERE name = ?)".to_owned(),
            vec![Parameter::Text(name.to_string())],
        ),
        ((operator, Value::String(name)), _) => with(
            format!("d.topic IN (SELECT id FROM topics WHERE name {operator} ?)"),
            vec![Parameter::Text(name.to_string())],
        ),
        (("=" | ">=" | "<=", Value::Null), _) => Some(exact("d.topic IS NULL")),
        _ => Some(exact("0")),
    }
}

fn ts(test: &Test) -> Option<Sql> {
    if *test == Test::Exists {
        return Some(exact("1"));
    }
    match comparison(test)? {
        (operator, Value::Date(ms)) => {
            with(format!("d.ts {operator} ?"), vec![Parameter::Integer(*ms)])
        }
        _ => Some(exact("0")),
    }
}

fn kafka_topic(test: &Test) -> Option<Sql> {
    if *test == Test::Exists {
        return Some(exact("1"));
    }
    match comparison(test)? {
        (operator, Value::String(name)) => with(
            format!("{STREAM_SQL} IN (SELECT id FROM streams WHERE kafka_topic {operator} ?)"),
            vec![Parameter::Text(name.to_string())],
        ),
        _ => Some(exact("0")),
    }
}

fn number(test: &Test, sql: &dyn Fn(&str) -> String) -> Option<Sql> {
    if *test == Test::Exists {
        return Some(exact("1"));
    }
    match comparison(test)? {
        (operator, Value::Int(n)) => {
            with(sql(&format!("{operator} ?")), vec![Parameter::Integer(*n)])
        }
        // SQLite has no NaN to compare with.
        (_, Value::Double(n)) if n.is_nan() => Some(exact("0")),
        (operator, Value::Double(n)) => {
            with(sql(&format!("{operator} ?")), vec![Parameter::Real(*n)])
        }
        _ => Some(exact("0")),
    }
}

/// A field inside `doc`: never exact.
fn body(path: &Path, test: &Test, indexes: &Indexes) -> Option<Sql> {
    let x = schema::index_expression("d.", path)?;
    let (text, parameters) = match (test, comparison(test)) {
        (Test::Exists, _) => {
            // An explicit null exists too, and `json_extract` cannot tell it from nothing.
            (
                x.replacen("json_extract", "json_type", 1) + " IS NOT NULL",
                vec![],
            )
        }
        (_, Some((operator, operand))) => compared(&x, operator, operand)?,
        _ => return None,
    };
    let name: Vec<&str> = path.names().collect();
    let text = if indexes.paths.contains(&name.join(".")) && *test != Test::Exists {
        // Ranges over the index, each: a value that is an array is text that begins with '[',
        // a path that crosses one is NULL.
        format!("({text} OR ({x} IS NULL AND d.arrays = 1) OR ({x} >= '[' AND {x} < '\\'))")
    } else {
        format!("(d.arrays = 1 OR {text})")
    };
    Some(Sql {
        text,
        parameters,
        terms: 4,
        exact: false,
    })
}

fn compared(x: &str, operator: &str, operand: &Value<'_>) -> Option<(String, Vec<Parameter>)> {
    let (from, to) = match operand {
        Value::Null if matches!(operator, ">" | "<") => return Some(("0".to_owned(), vec![])),
        Value::Null => return Some((format!("{x} IS NULL"), vec![])),
        Value::Bool(b) => {
            let bit = Parameter::Integer(i64::from(*b));
            range(
                operator,
                bit.clone(),
                bit,
                Parameter::Integer(0),
                Parameter::Integer(1),
            )
        }
        Value::Int(n) => number_range(operator, *n as f64),
        Value::Double(n) if n.is_nan() => return None,
        Value::Double(n) => number_range(operator, *n),
        // SQLite ends a string at its first NUL.
        Value::String(text) if text.contains('\0') => return None,
        Value::String(text) => {
            let text = Parameter::Text(text.to_string());
            return Some(match operator {
                "=" => (format!("{x} = ?"), vec![text]),
                ">" | ">=" => (format!("({x} >= ?)"), vec![text]),
                // Every text is greater than every number.
                _ => (format!("({x} >= '' AND {x} <= ?)"), vec![text]),
            });
        }
        _ => return None,
    };
    Some((format!("({x} BETWEEN ? AND ?)"), vec![from, to]))
}

fn number_range(operator: &str, n: f64) -> (Parameter, Parameter) {
    // Wider than any rounding of 15 digits or more, and than what turns into zero.
    let breadth = (n.abs() * 1e-12).max(1e-290);
    range(
        operator,
        Parameter::Real(n - breadth),
        Parameter::Real(n + breadth),
        Parameter::Real(f64::NEG_INFINITY),
        Parameter::Real(f64::INFINITY),
    )
}

fn range(
    operator: &str,
    from: Parameter,
    to: Parameter,
    least: Parameter,
    greatest: Parameter,
) -> (Parameter, Parameter) {
    match operator {
        "=" => (from, to),
        ">" | ">=" => (from, greatest),
        _ => (least, to),
    }
}
