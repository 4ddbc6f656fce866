//! MongoDB's filter notation, read.
//!
//! For: [`Filter`], made from text; what is not understood is refused by name.
//! Not for: answering it (`evaluate`), SQL (`pushdown`).
//! Calls: `evaluate`'s types, `path`, `value`.
//! Holds: a filter is bounded in depth and size before it meets a document.

use crate::evaluate::{Condition, Test};
use crate::path::{PATH_PARTS_MAX, Path};
use crate::value::{Reading, Typed, Value};
use std::borrow::Cow;

/// Longest text of a filter.
pub const FILTER_BYTES_MAX: usize = 256 * 1024;
/// Deepest nesting of `$and`, `$or`, `$nor` and `$not`.
pub const FILTER_DEPTH_MAX: usize = 32;
/// Most conditions and listed values.
pub const FILTER_TERMS_MAX: usize = 20_000;

const KNOWN: &str = "$eq $ne $gt $gte $lt $lte $in $nin $exists $and $or $nor $not";

type Fields<'a> = Vec<(Cow<'a, str>, Value<'a>)>;

/// A filter as MongoDB's `find` takes it, checked and compiled.
///
/// `ts` is a date. A number to compare it with is taken as milliseconds since 1970, so that
/// `{"ts": {"$gte": 1795368451123}}` says the same as `{"$date": …}` around it.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    pub(crate) condition: Condition,
}

/// Why a text is not a filter that can be answered.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FilterError {
    #[error("the filter is not JSON: {0}")]
    Json(String),
    #[error("a filter is an object, such as {{\"payload.temp\": {{\"$gt\": 30}}}}")]
    NotAnObject,
    #[error("{operator} is not an operator of this store, which has {KNOWN}")]
    UnknownOperator { operator: String },
    #[error("{operator} needs {needs}")]
    Operand {
        operator: String,
        needs: &'static str,
    },
    #[error("the filter is longer than {FILTER_BYTES_MAX} bytes")]
    TooLong,
    #[error("the filter is nested deeper than {FILTER_DEPTH_MAX} levels")]
    TooDeep,
    #[error("the filter has more than {FILTER_TERMS_MAX} terms")]
    TooManyTerms,
    #[error("a path has more than {PATH_PARTS_MAX} names")]
    LongPath,
}

impl Default for Filter {
    fn default() -> Self {
        Self::all()
    }
}

impl Filter {
    /// Matches every document.
    pub fn all() -> Self {
        Self {
            condition: Condition::All(Vec::new()),
        }
    }

    /// Reads a filter from its JSON text. Text, not `serde_json::Value`: the order of keys counts
    /// when a whole object is compared, and that type sorts them. (In a request body, take
    /// `Box<serde_json::value::RawValue>` and pass `.get()`.)
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        if text.len() > FILTER_BYTES_MAX {
            return Err(FilterError::TooLong);
        }
        let value = Value::parse(text, Reading::Plain)
            .map_err(|error| FilterError::Json(error.to_string()))?;
        let Value::Object(fields) = value else {
            return Err(FilterError::NotAnObject);
        };
        let mut reader = FilterReader { terms: 0 };
        Ok(Self {
            condition: reader.object(fields, 0)?,
        })
    }

    /// Whether a document, one line as `find` gives it, matches. `None` where it is not JSON.
    pub fn matches(&self, document: &str) -> Option<bool> {
        let document = Value::parse(document, Reading::Extended).ok()?;
        Some(self.condition.matches(&document))
    }
}

struct FilterReader {
    terms: usize,
}

impl FilterReader {
    fn count(&mut self, terms: usize) -> Result<(), FilterError> {
        self.terms += terms;
        if self.terms > FILTER_TERMS_MAX {
            return Err(FilterError::TooManyTerms);
        }
        Ok(())
    }

    /// `{field: …, $and: […], …}`: all of it must hold.
    fn object(&mut self, fields: Fields<'_>, depth: usize) -> Result<Condition, FilterError> {
        if depth > FILTER_DEPTH_MAX {
            return Err(FilterError::TooDeep);
        }
        let mut all = Vec::with_capacity(fields.len());
        for (key, value) in fields {
            self.count(1)?;
            all.push(match key.as_ref() {
                "$and" => Condition::All(self.branches(&key, value, depth)?),
                "$or" => Condition::Any(self.branches(&key, value, depth)?),
                "$nor" => not(Condition::Any(self.branches(&key, value, depth)?)),
                operator if operator.starts_with('$') => return Err(unknown(operator)),
                path => self.field(path, value, depth)?,
            });
        }
        Ok(flat(all))
    }

    /// The array of filters behind `$and`, `$or`, `$nor`.
    fn branches(
        &mut self,
        operator: &str,
        value: Value<'_>,
        depth: usize,
    ) -> Result<Vec<Condition>, FilterError> {
        let refused = || operand(operator, "an array of at least one filter");
        let Value::Array(branches) = value else {
            return Err(refused());
        };
        if branches.is_empty() {
            return Err(refused());
        }
        let mut conditions = Vec::with_capacity(branches.len());
        for branch in branches {
            let Value::Object(fields) = branch else {
                return Err(refused());
            };
            conditions.push(self.object(fields, depth + 1)?);
        }
        Ok(conditions)
    }

    /// `path: {$gt: 1, …}` or `path: value`.
    fn field(
        &mut self,
        path: &str,
        value: Value<'_>,
        depth: usize,
    ) -> Result<Condition, FilterError> {
        let path = Path::parse(path).ok_or(FilterError::LongPath)?;
        match value {
            Value::Object(fields) if begins_with_operator(&fields) => match Value::typed(&fields) {
                Ok(typed) => Ok(Condition::Field(path, Test::Equal(typed.into_owned()))),
                Err(Typed::Invalid) => Err(invalid_type(&fields)),
                Err(Typed::Unknown) => self.operators(&path, fields, depth),
            },
            value => Ok(Condition::Field(
                path.clone(),
                Test::Equal(literal(&path, value)?),
            )),
        }
    }

    /// `{$gt: 1, $lt: 5}`: each must hold, if need be by different elements of an array.
    fn operators(
        &mut self,
        path: &Path,
        fields: Fields<'_>,
        depth: usize,
    ) -> Result<Condition, FilterError> {
        if depth > FILTER_DEPTH_MAX {
            return Err(FilterError::TooDeep);
        }
        let mut all = Vec::with_capacity(fields.len());
        for (operator, value) in fields {
            self.count(1)?;
            let field = |test| Condition::Field(path.clone(), test);
            all.push(match operator.as_ref() {
                "$eq" => field(Test::Equal(literal(path, value)?)),
                "$ne" => not(field(Test::Equal(literal(path, value)?))),
                "$gt" => field(Test::Greater(literal(path, value)?)),
                "$gte" => field(Test::GreaterOrEqual(literal(path, value)?)),
                "$lt" => field(Test::Less(literal(path, value)?)),
                "$lte" => field(Test::LessOrEqual(literal(path, value)?)),
                "$in" => field(Test::In(self.list(path, &operator, value)?)),
                "$nin" => not(field(Test::In(self.list(path, &operator, value)?))),
                "$exists" if truth(&value) => field(Test::Exists),
                "$exists" => not(field(Test::Exists)),
                "$not" => match value {
                    Value::Object(inner) if begins_with_operator(&inner) => {
                        not(self.operators(path, inner, depth + 1)?)
                    }
                    _ => return Err(operand("$not", "an object of operators")),
                },
                "$and" | "$or" | "$nor" => {
                    return Err(operand(&operator, "to stand outside of a field"));
                }
                other => return Err(unknown(other)),
            });
        }
        Ok(flat(all))
    }

    /// The sorted values behind `$in` and `$nin`.
    fn list(
        &mut self,
        path: &Path,
        operator: &str,
        value: Value<'_>,
    ) -> Result<Vec<Value<'static>>, FilterError> {
        let Value::Array(items) = value else {
            return Err(operand(operator, "an array"));
        };
        self.count(items.len())?;
        let mut values = items
            .into_iter()
            .map(|item| literal(path, item))
            .collect::<Result<Vec<_>, _>>()?;
        values.sort_by(Value::compare);
        values.dedup();
        Ok(values)
    }
}

/// A value to compare `path` with: Extended JSON's types are read, other `$` keys refused.
fn literal(path: &Path, value: Value<'_>) -> Result<Value<'static>, FilterError> {
    let value = typed_inside(value)?;
    match value {
        Value::Int(ms) if path.single() == Some("ts") => Ok(Value::Date(ms)),
        Value::Double(_) if path.single() == Some("ts") => {
            Err(operand("ts", "a date or a whole number of milliseconds"))
        }
        other => Ok(other.into_owned()),
    }
}

/// Recurses as deep as the parser let the text be.
fn typed_inside(value: Value<'_>) -> Result<Value<'_>, FilterError> {
    match value {
        Value::Object(fields) if begins_with_operator(&fields) => match Value::typed(&fields) {
            Ok(typed) => Ok(typed),
            Err(Typed::Invalid) => Err(invalid_type(&fields)),
            Err(Typed::Unknown) => Err(unknown(first_key(&fields))),
        },
        Value::Object(fields) => {
            let inside = fields.into_iter().map(|(key, value)| {
                if key.starts_with('$') {
                    return Err(unknown(&key));
                }
                Ok((key, typed_inside(value)?))
            });
            Ok(Value::Object(inside.collect::<Result<_, _>>()?))
        }
        Value::Array(items) => Ok(Value::Array(
            items
                .into_iter()
                .map(typed_inside)
                .collect::<Result<_, _>>()?,
        )),
        other => Ok(other),
    }
}

/// What MongoDB takes for true behind `$exists`.
fn truth(value: &Value<'_>) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Int(n) => *n != 0,
        Value::Double(n) => *n != 0.0,
        _ => true,
    }
}

fn begins_with_operator(fields: &Fields<'_>) -> bool {
    first_key(fields).starts_with('$')
}

fn first_key<'f>(fields: &'f Fields<'_>) -> &'f str {
    fields.first().map_or("", |(key, _)| key)
}

fn not(condition: Condition) -> Condition {
    Condition::Not(Box::new(condition))
}

/// A conjunction of one is that one.
fn flat(mut all: Vec<Condition>) -> Condition {
    match (all.pop(), all.is_empty()) {
        (Some(only), true) => only,
        (last, _) => {
            all.extend(last);
            Condition::All(all)
        }
    }
}

fn unknown(operator: &str) -> FilterError {
    // Cut, because it is said back to whoever asked.
    FilterError::UnknownOperator {
        operator: operator.chars().take(64).collect(),
    }
}

fn operand(operator: &str, needs: &'static str) -> FilterError {
    FilterError::Operand {
        operator: operator.to_owned(),
        needs,
    }
}

fn invalid_type(fields: &Fields<'_>) -> FilterError {
    operand(
        first_key(fields),
        "a value of that type, as Extended JSON writes it",
    )
}
