//! Dotted paths, and what they lead to.
//!
//! For: [`Path`], and walking one through a document's objects and arrays as MongoDB does.
//! Not for: what is asked of the values found.
//! Calls: `value`. Called by: `evaluate`, `sort`.
//! Holds: a path through an array reaches into each of its objects, and by number to one element.

use crate::value::Value;
use std::ops::ControlFlow;

/// Names in a path at the most; a document is at most 100 deep.
pub(crate) const PATH_PARTS_MAX: usize = 100;

/// `payload.readings.0.temp`
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Path {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
struct Part {
    name: String,
    /// The name as a place in an array, where it can be one.
    index: Option<usize>,
}

/// What stands at the end of an array, besides its elements.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Walk {
    /// For matching: the array itself is met too, after its elements; an element that is no
    /// object has no fields and is passed over.
    Match,
    /// For sorting: only the elements; one without the field counts as missing.
    Sort,
}

impl Path {
    /// `None` for a path of more than [`PATH_PARTS_MAX`] names.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let parts: Vec<Part> = text
            .split('.')
            .take(PATH_PARTS_MAX + 1)
            .map(|name| {
                let canonical = name == "0" || !name.starts_with(['0', '+']);
                Part {
                    name: name.to_owned(),
                    index: name.parse().ok().filter(|_| canonical),
                }
            })
            .collect();
        (parts.len() <= PATH_PARTS_MAX).then_some(Self { parts })
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().map(|part| part.name.as_str())
    }

    /// The name, where the path is one name only.
    pub(crate) fn single(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [part] => Some(&part.name),
            _ => None,
        }
    }

    /// Whether a name could also be a place in an array.
    pub(crate) fn has_index(&self) -> bool {
        self.parts.iter().any(|part| part.index.is_some())
    }

    pub(crate) fn first(&self) -> &str {
        self.parts.first().map_or("", |part| &part.name)
    }

    /// Gives each value the path leads to, `None` for a missing one, until `visit` breaks. A path
    /// into an array may lead nowhere at all.
    pub(crate) fn walk<'v, 'a>(
        &self,
        root: &'v Value<'a>,
        how: Walk,
        visit: &mut dyn FnMut(Option<&'v Value<'a>>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        from_value(root, &self.parts, how, visit)
    }
}

type Visit<'f, 'v, 'a> = &'f mut dyn FnMut(Option<&'v Value<'a>>) -> ControlFlow<()>;

fn from_value<'v, 'a>(
    value: &'v Value<'a>,
    path: &[Part],
    how: Walk,
    visit: Visit<'_, 'v, 'a>,
) -> ControlFlow<()> {
    let Some((part, rest)) = path.split_first() else {
        return end(value, how, visit);
    };
    match value {
        Value::Object(fields) => match fields.iter().find(|(name, _)| *name == part.name) {
            Some((_, field)) => from_value(field, rest, how, visit),
            None => visit(None),
        },
        Value::Array(items) => in_array(items, part, rest, path, how, visit),
        _ => visit(None),
    }
}

/// The path ends at `value`.
fn end<'v, 'a>(value: &'v Value<'a>, how: Walk, visit: Visit<'_, 'v, 'a>) -> ControlFlow<()> {
    let Value::Array(items) = value else {
        return visit(Some(value));
    };
    for item in items {
        visit(Some(item))?;
    }
    match how {
        Walk::Match => visit(Some(value)),
        Walk::Sort => ControlFlow::Continue(()),
    }
}

/// The path, `part` and then `rest`, goes on inside an array.
fn in_array<'v, 'a>(
    items: &'v [Value<'a>],
    part: &Part,
    rest: &[Part],
    path: &[Part],
    how: Walk,
    visit: Visit<'_, 'v, 'a>,
) -> ControlFlow<()> {
    for (place, item) in items.iter().enumerate() {
        let named = part.index == Some(place);
        if matches!(item, Value::Object(_)) {
            from_value(item, path, how, visit)?;
        } else if how == Walk::Sort && part.index.is_none() {
            visit(None)?;
        }
        if !named {
            continue;
        }
        match (item, rest.split_first()) {
            // An element named by its place stands for itself: an array there is one value.
            (_, None) => visit(Some(item))?,
            (Value::Object(_), Some(_)) => from_value(item, rest, how, visit)?,
            (Value::Array(inner), Some((next, after))) => {
                in_array(inner, next, after, rest, how, visit)?;
            }
            _ => {}
        }
    }
    ControlFlow::Continue(())
}
