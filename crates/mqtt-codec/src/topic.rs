//! Topic Names and Topic Filters: what is well formed, what matches (MQTT 5.0, 4.7, 4.8.2).
//!
//! For: the rules on one name and one filter. Not for: many filters at once, the broker has a tree.
//! Calls: nothing. Called by: the packets that carry topics, and the broker.
//! Holds: no recursion and no allocation, so that 65,535 levels cost time linear in their bytes.

use crate::text::FIELD_BYTES_MAX;

/// Whether `name` may stand in a PUBLISH: not empty [MQTT-4.7.3-1], no wildcard [MQTT-4.7.0-1], no
/// U+0000 [MQTT-4.7.3-2], at most 65,535 bytes [MQTT-4.7.3-3].
pub fn validate_name(name: &str) -> bool {
    // Without an early exit this becomes a few vector instructions; a name is short and rarely bad.
    let strange = |found, byte: &u8| found | matches!(byte, b'+' | b'#' | 0);
    !name.is_empty()
        && name.len() <= FIELD_BYTES_MAX
        && !name.as_bytes().iter().fold(false, strange)
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

/// Whether `filter` selects every name that `other` selects, which may be a name too. Both must be
/// valid and not shared.
pub fn covers(filter: &str, other: &str) -> bool {
    // [MQTT-4.7.2-1]
    if other.starts_with('$') && filter.starts_with(['#', '+']) {
        return false;
    }
    let mut others = other.split('/');
    for level in filter.split('/') {
        // Also selects the level above it (4.7.1.2).
        if level == "#" {
            return true;
        }
        match others.next() {
            Some(other) if level == other || (level == "+" && other != "#") => {}
            _ => return false,
        }
    }
    others.next().is_none()
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn filter_covers_what_selects_less() {
        for (filter, other, expected) in [
            ("#", "#", true),
            ("#", "+/a/#", true),
            ("a/#", "a/b/+", true),
            ("a/#", "a", true),
            ("a/#", "a/#", true),
            ("a/+", "a/+", true),
            ("a/+", "a/b", true),
            ("a/+", "a/#", false),
            ("a/+/#", "a/#", false),
            ("a/b", "a/+", false),
            ("a/b", "#", false),
            ("a", "a/b", false),
            ("a/b", "a", false),
            // [MQTT-4.7.2-1]
            ("#", "$SYS/#", false),
            ("+/x", "$a/x", false),
            ("$SYS/#", "$SYS/+/x", true),
        ] {
            assert_eq!(covers(filter, other), expected, "{filter} {other}");
        }
    }

    proptest! {
        #[test]
        fn what_is_covered_is_selected(
            filter in "(([ab+]/){0,2}[ab+]|([ab+]/){0,2}#)",
            other in "(([ab+]/){0,2}[ab+]|([ab+]/){0,2}#)",
            name in "([ab]/){0,3}[ab]",
        ) {
            prop_assert_eq!(covers(&filter, &name), matches(&filter, &name));
            if covers(&filter, &other) && matches(&other, &name) {
                prop_assert!(matches(&filter, &name), "{} {} {}", filter, other, name);
            }
        }
    }

    #[test]
    fn topic_filter_selects_topic_name() {
        for (filter, name, expected, why) in [
            ("sport/tennis", "sport/tennis", true, "itself"),
            ("sport/tennis", "sport/Tennis", false, "4.7.3: case counts"),
            ("sport/tennis", "sport", false, "shorter"),
            ("sport", "sport/tennis", false, "longer"),
            (
                "sport/#",
                "sport",
                true,
                "4.7.1.2: # includes its parent level",
            ),
            ("sport/#", "sport/", true, "4.7.1.2"),
            ("sport/#", "sport/a/b", true, "4.7.1.2"),
            ("sport/#", "sports", false, "4.7.1.2"),
            ("#", "/", true, "4.7.1.2"),
            ("sport/+", "sport", false, "4.7.1.3"),
            (
                "sport/+",
                "sport/",
                true,
                "4.7.1.3: an empty level is a level",
            ),
            ("sport/+/x", "sport/a/x", true, "4.7.1.3"),
            ("+", "/finance", false, "4.7.1.3"),
            ("/+", "/finance", true, "4.7.1.3"),
            ("+/+", "/finance", true, "4.7.1.3"),
            ("+/+/#", "a", false, "two levels are needed"),
            ("+/+/#", "a/b", true, "4.7.1.2"),
            ("#", "$SYS/uptime", false, "[MQTT-4.7.2-1]"),
            ("+/uptime", "$SYS/uptime", false, "[MQTT-4.7.2-1]"),
            ("$SYS/#", "$SYS/uptime", true, "4.7.2"),
            ("$SYS/+", "$SYS/uptime", true, "4.7.2"),
            ("a/#", "a/$x", true, "4.7.2: only at the beginning"),
            ("ﬀ", "ff", false, "[MQTT-4.7.3-4]: no normalization"),
        ] {
            assert_eq!(matches(filter, name), expected, "{filter} on {name}: {why}");
        }
    }

    #[test]
    fn wildcards_fill_their_level() {
        for (filter, expected, why) in [
            ("", false, "[MQTT-4.7.3-1]"),
            ("/", true, "two empty levels"),
            ("#", true, "[MQTT-4.7.1-1]"),
            ("a/#", true, "[MQTT-4.7.1-1]"),
            ("/#", true, "[MQTT-4.7.1-1]"),
            ("a#", false, "[MQTT-4.7.1-1]"),
            ("a/#/b", false, "[MQTT-4.7.1-1]"),
            ("#/", false, "[MQTT-4.7.1-1]"),
            ("##", false, "[MQTT-4.7.1-1]"),
            ("+", true, "[MQTT-4.7.1-2]"),
            ("+/a/+", true, "[MQTT-4.7.1-2]"),
            ("a+", false, "[MQTT-4.7.1-2]"),
            ("+a", false, "[MQTT-4.7.1-2]"),
            ("++", false, "[MQTT-4.7.1-2]"),
            ("+#", false, "[MQTT-4.7.1-1]"),
            ("a\0", false, "[MQTT-4.7.3-2]"),
        ] {
            assert_eq!(validate_filter(filter), expected, "{filter}: {why}");
        }
        for (name, expected, why) in [
            ("", false, "[MQTT-4.7.3-1]"),
            ("a/+", false, "[MQTT-4.7.0-1]"),
            ("a#", false, "[MQTT-4.7.0-1]"),
            ("a\0", false, "[MQTT-4.7.3-2]"),
            (" /$x/\u{feff}", true, "4.7.3: all else may stand in it"),
        ] {
            assert_eq!(validate_name(name), expected, "{name}: {why}");
        }
        let longest = "a".repeat(65_535);
        assert!(validate_name(&longest) && validate_filter(&longest));
        let longer = "a".repeat(65_536);
        assert!(
            !validate_name(&longer) && !validate_filter(&longer),
            "[MQTT-4.7.3-3]"
        );
    }

    #[test]
    fn shared_subscriptions_come_apart() {
        for (filter, group, inner) in [
            ("$share/g/a/b", "g", "a/b"),
            ("$share/g//", "g", "/"),
            ("$share/g/#", "g", "#"),
            ("$share/$x/$SYS/a", "$x", "$SYS/a"),
        ] {
            let parts = Shared {
                group,
                filter: inner,
            };
            assert_eq!(split_shared(filter), Ok(Some(parts)), "{filter}");
        }
        for filter in ["a/b", "$share", "$sharex/g/a", "$SHARE/g/a", "/$share/g/a"] {
            assert_eq!(split_shared(filter), Ok(None), "{filter}");
        }
        for filter in [
            "$share/",
            "$share/g",
            "$share/g/",
            "$share//a",
            "$share/+/a",
            "$share/g#/a",
        ] {
            assert_eq!(split_shared(filter), Err(InvalidShared), "{filter}");
        }
    }

    /// 4.7.1 said once more, by levels and with recursion.
    fn selects(filter: &[&str], name: &[&str]) -> bool {
        match (filter, name) {
            (["#"], _) | ([], []) => true,
            ([level, filter @ ..], [first, name @ ..]) if *level == "+" || level == first => {
                selects(filter, name)
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matching_is_what_the_levels_say(filter in "[a$+#/]{1,8}", name in "[a$/]{1,8}") {
            prop_assume!(validate_filter(&filter));
            let levels: Vec<_> = filter.split('/').collect();
            let system = name.starts_with('$') && matches!(levels[0], "+" | "#");
            let expected = !system && selects(&levels, &name.split('/').collect::<Vec<_>>());
            prop_assert_eq!(matches(&filter, &name), expected);
        }

        #[test]
        fn a_valid_name_is_a_filter_for_itself_alone(name in ".{1,12}", other in ".{1,12}") {
            prop_assume!(validate_name(&name) && validate_name(&other));
            prop_assert!(validate_filter(&name));
            prop_assert!(matches(&name, &name));
            prop_assert_eq!(matches(&name, &other), name == other);
        }
    }
}
