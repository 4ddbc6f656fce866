//! Whether a document matches: MongoDB's rules, over values.
//!
//! For: [`Condition`], the compiled filter, and its one question.
//! Not for: reading the notation (`filter`), SQL (`pushdown`), HTTP. MongoDB's wire protocol is to
//! stand in front of this as it is.
//! Calls: `path`, `value`.
//! Holds: a negation is the exact complement: `$ne`, `$nin`, `$not` and `$nor` match every
//! document that the positive form does not.

use crate::path::{Path, Walk};
use crate::value::Value;
use std::ops::ControlFlow;

/// A filter, taken apart into the few things it can be made of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Condition {
    /// `$and`; empty, it is always true.
    All(Vec<Self>),
    /// `$or`; empty, it is never true.
    Any(Vec<Self>),
    Not(Box<Self>),
    /// True when any of the values at the path passes.
    Field(Path, Test),
}

/// What is asked of one value. There are no negations here: `$ne` is the `Not` of `Equal`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Test {
    Equal(Value<'static>),
    Greater(Value<'static>),
    GreaterOrEqual(Value<'static>),
    Less(Value<'static>),
    LessOrEqual(Value<'static>),
    /// Sorted by [`Value::compare`].
    In(Vec<Value<'static>>),
    Exists,
}

impl Condition {
    pub(crate) fn matches(&self, document: &Value<'_>) -> bool {
        match self {
            Self::All(inner) => inner.iter().all(|condition| condition.matches(document)),
            Self::Any(inner) => inner.iter().any(|condition| condition.matches(document)),
            Self::Not(inner) => !inner.matches(document),
            Self::Field(path, test) => path
                .walk(
                    document,
                    Walk::Match,
                    &mut |value| match test.passes(value) {
                        true => ControlFlow::Break(()),
                        false => ControlFlow::Continue(()),
                    },
                )
                .is_break(),
        }
    }
}

impl Test {
    /// `None` is a field that is not there: equal to null.
    fn passes(&self, value: Option<&Value<'_>>) -> bool {
        const MISSING: Value<'static> = Value::Null;
        let found = value.unwrap_or(&MISSING);
        match self {
            Self::Exists => value.is_some(),
            Self::Equal(operand) => found.compare(operand).is_eq(),
            Self::In(operands) => operands.binary_search_by(|o| o.compare(found)).is_ok(),
            Self::Greater(operand) => comparable(found, operand) && found.compare(operand).is_gt(),
            Self::GreaterOrEqual(operand) => {
                comparable(found, operand) && found.compare(operand).is_ge()
            }
            Self::Less(operand) => comparable(found, operand) && found.compare(operand).is_lt(),
            Self::LessOrEqual(operand) => {
                comparable(found, operand) && found.compare(operand).is_le()
            }
        }
    }
}

/// Only values of one type are less or greater, and NaN is neither than any number.
fn comparable(found: &Value<'_>, operand: &Value<'_>) -> bool {
    let nan = |value: &Value<'_>| matches!(value, Value::Double(n) if n.is_nan());
    found.type_rank() == operand.type_rank() && nan(found) == nan(operand)
}
