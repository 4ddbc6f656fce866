//! Topic Names and Topic Filters: what is well formed, what matches (MQTT 5.0, 4.7, 4.8.2).
//!
//! For: the rules on one name and one filter. Not for: many filters at once, the broker has a tree.
//! Holds: no recursion and no allocation, so that 65,535 levels cost time linear in their bytes.

/// Whether `name` may stand in a PUBLISH: not empty, no wildcard, no U+0000, at most 65,535 bytes.
pub fn validate_name(name: &str) -> bool {
    let _ = name;
    todo!()
}

/// Whether `filter` is well formed, without regard to `$share`.
pub fn validate_filter(filter: &str) -> bool {
    let _ = filter;
    todo!()
}

/// Whether `filter`, which is valid and not shared, selects `name`, which is valid.
pub fn matches(filter: &str, name: &str) -> bool {
    let _ = (filter, name);
    todo!()
}

/// A Shared Subscription's parts (MQTT 5.0, 4.8.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Shared<'a> {
    pub group: &'a str,
    pub filter: &'a str,
}

/// `$share/{group}/{filter}` taken apart. `Ok(None)`: not shared. `Err`: begins with `$share` but is
/// none [MQTT-4.8.2-1], [MQTT-4.8.2-2]. The inner filter is valid when this is `Ok(Some(_))`.
pub fn split_shared(filter: &str) -> Result<Option<Shared<'_>>, InvalidShared> {
    let _ = filter;
    todo!()
}

/// A filter that begins with `$share/` and is no Shared Subscription.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("$share must be followed by a group and a valid topic filter")]
pub struct InvalidShared;
