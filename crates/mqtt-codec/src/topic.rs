//! Topic Names and Topic Filters: what is well formed, what matches (MQTT 5.0, 4.7, 4.8.2).
//!
//! For: the rules on one name and one filter. Not for: many filters at once, the broker has a tree.
//! Calls: nothing. Called by: the packets that carry topics, and the broker.
//! Holds: no recursion and no allocation, so that 65,535 levels cost time linear in their bytes.

use crate::text::FIELD_BYTES_MAX;

/// Whether `name` may stand in a PUBLISH: not empty [MQTT-4.7.3-1], no wildcard [MQTT-4.7.0-1], no
/// U+0000 [MQTT-4.7.3-2], at most 65,535 bytes [MQTT-4.7.3-3].
pub fn validate_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= FIELD_BYTES_MAX
        && memchr::memchr3(b'+', b'#', 0, name.as_bytes()).is_none()
}

/// Whether `filter` is well formed, without regard to `$share`: a wildcard fills its level
/// [MQTT-4.7.1-2], and `#` only the last one [MQTT-4.7.1-1].
pub fn validate_filter(filter: &str) -> bool {
    let bytes = filter.as_bytes();
    if bytes.is_empty() || bytes.len() > FIELD_BYTES_MAX {
        return false;
    }
    memchr::memchr3_iter(b'+', b'#', 0, bytes).all(|at| {
        let before = at.checked_sub(1).and_then(|index| bytes.get(index));
        let after = bytes.get(at + 1);
        let fills_its_level = before.is_none_or(|byte| *byte == b'/');
        match bytes.get(at) {
            Some(b'#') => fills_its_level && after.is_none(),
            Some(b'+') => fills_its_level && after.is_none_or(|byte| *byte == b'/'),
            _ => false,
        }
    })
}

/// Whether `filter` selects `name`. Both must be valid, and the filter not shared.
pub fn matches(filter: &str, name: &str) -> bool {
    // [MQTT-4.7.2-1]
    if name.starts_with('$') && filter.starts_with(['#', '+']) {
        return false;
    }
    let mut names = name.split('/');
    for level in filter.split('/') {
        // Also selects the level above it (4.7.1.2).
        if level == "#" {
            return true;
        }
        match names.next() {
            Some(name) if level == "+" || level == name => {}
            _ => return false,
        }
    }
    names.next().is_none()
}

/// A Shared Subscription's parts (MQTT 5.0, 4.8.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Shared<'a> {
    pub group: &'a str,
    pub filter: &'a str,
}

/// A filter that begins with `$share/` and is no Shared Subscription.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("$share/ must be followed by a group and a valid topic filter")]
pub struct InvalidShared;

/// Takes `$share/{group}/{filter}` apart; `Ok(None)` when it does not begin so. The inner filter
/// is valid then. The group is not empty [MQTT-4.8.2-1] and has no wildcard [MQTT-4.8.2-2].
pub fn split_shared(filter: &str) -> Result<Option<Shared<'_>>, InvalidShared> {
    let Some(rest) = filter.strip_prefix("$share/") else {
        return Ok(None);
    };
    match rest.split_once('/') {
        Some((group, filter)) if validate_name(group) && validate_filter(filter) => {
            Ok(Some(Shared { group, filter }))
        }
        _ => Err(InvalidShared),
    }
}
