//! `[[permission]]`: what Clients may publish and subscribe to, the same for all of them.
//!
//! For: the broker's `Policy` until users and roles exist; the rules that stand can be swapped.
//! Not for: who somebody is. Kafka's and HTTP's doors do not ask yet.
//! Holds: what a rule denies to subscribers reaches nobody, whatever filter it comes by: SUBSCRIBE is
//!   refused where the whole filter is denied, and each message is judged again when it is sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use headwater_mqtt_broker::{Peer, Policy, Publisher, Verdict};
use headwater_mqtt_codec::topic;
use serde::Deserialize;

/// One rule.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Permission {
    effect: Effect,
    /// Default all.
    #[serde(default)]
    action: Action,
    /// A Topic Filter. A rule matches a SUBSCRIBE when it selects all that the asked filter does. A
    /// `deny` of `#` matches everything, the topics that begin with `$` too: it closes the rest.
    topic: String,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Effect {
    Allow,
    Deny,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Action {
    Publish,
    Subscribe,
    #[default]
    All,
}

impl Permission {
    /// `asked` is a Topic Name or a Topic Filter.
    fn covers(&self, asked: &str) -> bool {
        let closes_all = self.effect == Effect::Deny && self.topic == "#";
        closes_all || topic::covers(&self.topic, asked)
    }

    /// What is wrong with it, as a sentence with the next step.
    pub(crate) fn problem(&self) -> Option<String> {
        let filter = &self.topic;
        if filter.starts_with("$share/") {
            return Some(
                "a permission holds for shared subscriptions too; leave out $share/GROUP/".into(),
            );
        }
        (!topic::validate_filter(filter)).then(|| {
            format!("{filter:?} is no topic filter: + takes a whole level, # the last one, and it is not empty")
        })
    }
}

/// The rules that stand.
#[derive(Debug, Default)]
pub(crate) struct Permissions {
    rules: ArcSwap<Vec<Permission>>,
    /// Some rule denies something to subscribers, so that deliveries have to be judged.
    judges_deliveries: AtomicBool,
    /// How often they were swapped.
    generation: AtomicU64,
}

impl Permissions {
    pub(crate) fn new(rules: Vec<Permission>) -> Self {
        let new = Self::default();
        new.swap(rules);
        new
    }

    pub(crate) fn swap(&self, rules: Vec<Permission>) {
        let denies = rules
            .iter()
            .any(|rule| rule.effect == Effect::Deny && rule.action != Action::Publish);
        // Judged too much for a moment rather than too little.
        self.judges_deliveries.fetch_or(denies, Ordering::AcqRel);
        self.rules.store(Arc::new(rules));
        self.judges_deliveries.store(denies, Ordering::Release);
        // Last: who reads it finds all of this.
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// `asked` is a Topic Name or a Topic Filter.
    fn verdict(&self, action: Action, asked: &str) -> Verdict {
        let rules = self.rules.load();
        let matching = rules.iter().find(|rule| {
            (rule.action == action || rule.action == Action::All) && rule.covers(asked)
        });
        match matching.map(|rule| rule.effect) {
            None | Some(Effect::Allow) => Verdict::Allow,
            Some(Effect::Deny) => Verdict::Deny,
        }
    }
}

/// What the broker holds; the reload has the other end.
#[derive(Debug)]
pub(crate) struct PermissionQuestion(pub(crate) Arc<Permissions>);

impl Policy for PermissionQuestion {
    fn connect(
        &self,
        _peer: &Peer,
        _client: &str,
        _user: Option<&str>,
        _password: Option<&[u8]>,
    ) -> Result<Box<str>, Verdict> {
        Ok("anonymous".into())
    }

    fn publish(&self, _publisher: &Publisher, topic: &str) -> Verdict {
        self.0.verdict(Action::Publish, topic)
    }

    fn subscribe(&self, _subscriber: &Publisher, filter: &str) -> Verdict {
        let filter = match topic::split_shared(filter) {
            Ok(Some(shared)) => shared.filter,
            Ok(None) | Err(_) => filter,
        };
        self.0.verdict(Action::Subscribe, filter)
    }

    fn receive(&self, _subscriber: &Publisher, topic: &str) -> Verdict {
        if !self.0.judges_deliveries.load(Ordering::Acquire) {
            return Verdict::Allow;
        }
        self.0.verdict(Action::Subscribe, topic)
    }

    fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permissions(rules: &[(&str, &str, &str)]) -> Permissions {
        let text: String = rules
            .iter()
            .map(|(effect, action, topic)| {
                format!(
                    "[[permission]]\neffect = {effect:?}\naction = {action:?}\ntopic = {topic:?}\n"
                )
            })
            .collect();
        let config: crate::config::Config = toml::from_str(&text).unwrap();
        assert_eq!(config.problems(), []);
        Permissions::new(config.permission)
    }

    #[test]
    fn first_rule_that_matches_decides() {
        let rules = permissions(&[
            ("allow", "subscribe", "a/public/#"),
            ("deny", "all", "a/#"),
            ("deny", "publish", "+/readonly"),
        ]);
        for (action, asked, allowed) in [
            (Action::Subscribe, "a/public/x", true),
            (Action::Subscribe, "a/public/+", true),
            (Action::Publish, "a/public/x", false),
            (Action::Subscribe, "a/+", false),
            (Action::Subscribe, "a/#", false),
            (Action::Publish, "a", false),
            (Action::Publish, "b/readonly", false),
            (Action::Subscribe, "b/readonly", true),
            // Wider than what is denied: granted, and judged message by message.
            (Action::Subscribe, "#", true),
            (Action::Subscribe, "+/x", true),
            (Action::Publish, "$a/readonly", true),
        ] {
            let verdict = rules.verdict(action, asked);
            assert_eq!(verdict == Verdict::Allow, allowed, "{action:?} {asked}");
        }
    }

    #[test]
    fn list_of_what_is_allowed_closes_the_rest() {
        let rules = permissions(&[("allow", "all", "a/#"), ("deny", "all", "#")]);
        for (asked, allowed) in [
            ("a/b", true),
            ("a/+/#", true),
            ("#", false),
            ("+/b", false),
            ("b", false),
            ("$x/y", false),
            ("$SYS/#", false),
        ] {
            for action in [Action::Subscribe, Action::Publish] {
                let verdict = rules.verdict(action, asked);
                assert_eq!(verdict == Verdict::Allow, allowed, "{action:?} {asked}");
            }
        }
        // Only the end of such a list is so: what is allowed stays what the filter selects.
        let rules = permissions(&[("allow", "all", "#"), ("deny", "all", "$x/#")]);
        assert_eq!(rules.verdict(Action::Publish, "$x/y"), Verdict::Deny);
    }

    #[test]
    fn shared_subscription_is_judged_by_its_filter() {
        let question =
            PermissionQuestion(Arc::new(permissions(&[("deny", "subscribe", "secret/#")])));
        let publisher = Publisher {
            client: "c".into(),
            principal: "anonymous".into(),
        };
        assert_eq!(
            question.subscribe(&publisher, "$share/g/secret/x"),
            Verdict::Deny
        );
        assert_eq!(
            question.subscribe(&publisher, "$share/g/+/x"),
            Verdict::Allow
        );
        assert_eq!(question.receive(&publisher, "secret/x"), Verdict::Deny);
        let before = question.generation();
        question.0.swap(Vec::new());
        assert_ne!(question.generation(), before, "it is asked again");
        assert_eq!(question.receive(&publisher, "secret/x"), Verdict::Allow);
    }

    #[test]
    fn what_is_no_filter_is_told() {
        for topic in ["", "a/#/b", "a+", "$share/g/a"] {
            let text = format!("[[permission]]\neffect = \"deny\"\ntopic = {topic:?}\n");
            let config: crate::config::Config = toml::from_str(&text).unwrap();
            assert_eq!(config.problems().len(), 1, "{topic}");
        }
    }
}
