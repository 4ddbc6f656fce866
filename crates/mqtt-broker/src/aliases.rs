//! Topic Aliases of one connection, both ways (MQTT 5.0, 3.3.2.3.4).
//!
//! For: what an alias of the Client stands for, and which one a topic has towards it.
//! Not for: how many there may be, see `limits` and the Client's Topic Alias Maximum.
//! Holds: nothing passes from one connection to the next [MQTT-3.3.2-7]; none is zero
//!   [MQTT-3.3.2-8]. A connection without aliases owns no memory for them.

use std::num::NonZeroU16;

use headwater_mqtt_codec::Text;

use crate::matching::FastMap;

/// Aliases given on one connection, whatever the Client allows: they are looked through in turn.
pub(crate) const GIVEN_MAX: u16 = 32;
/// An alias in place of a shorter topic would make the packet longer.
const TOPIC_BYTES_MIN: usize = 4;
/// Longer topics keep their names, which bounds the memory of `GIVEN_MAX` of them.
const TOPIC_BYTES_MAX: usize = 1_024;

#[derive(Debug, Default)]
pub(crate) struct Aliases {
    /// The Client's.
    set: FastMap<NonZeroU16, Text>,
    /// Ours: the first is alias 1.
    given: Vec<Given>,
    /// Counts their uses.
    clock: u64,
}

#[derive(Debug)]
struct Given {
    topic: Text,
    used: u64,
}

/// How a topic is said to the Client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Alias {
    /// By its name.
    No,
    /// By its name, beside an alias that stands for it from then on.
    New(NonZeroU16),
    /// By this alone.
    Known(NonZeroU16),
}

impl Alias {
    /// What stands in the packet.
    pub(crate) fn number(self) -> Option<NonZeroU16> {
        match self {
            Self::No => None,
            Self::New(alias) | Self::Known(alias) => Some(alias),
        }
    }
}

impl Aliases {
    /// The Client's alias stands for `topic` from here on.
    pub(crate) fn set(&mut self, alias: NonZeroU16, topic: &Text) {
        self.set.insert(alias, topic.detached());
    }

    pub(crate) fn topic(&self, alias: NonZeroU16) -> Option<&Text> {
        self.set.get(&alias)
    }

    /// How `topic` is to be said where the Client takes `given_max` aliases. An alias that is new
    /// is not given before it is said: see [`give`](Self::give).
    pub(crate) fn of(&mut self, topic: &str, given_max: u16) -> Alias {
        if !(TOPIC_BYTES_MIN..=TOPIC_BYTES_MAX).contains(&topic.len()) {
            return Alias::No;
        }
        self.clock += 1;
        let mut oldest = (u64::MAX, 0);
        for (index, given) in self.given.iter_mut().enumerate() {
            if given.topic == *topic {
                given.used = self.clock;
                return number(index).map_or(Alias::No, Alias::Known);
            }
            oldest = oldest.min((given.used, index));
        }
        let next = self.given.len();
        let has_room = next < usize::from(given_max.min(GIVEN_MAX));
        let index = if has_room { next } else { oldest.1 };
        number(index).map_or(Alias::No, Alias::New)
    }

    /// The packet that says so is on its way.
    pub(crate) fn give(&mut self, alias: NonZeroU16, topic: &Text) {
        let given = Given {
            topic: topic.detached(),
            used: self.clock,
        };
        match self.given.get_mut(usize::from(alias.get()) - 1) {
            Some(old) => *old = given,
            None => self.given.push(given),
        }
    }
}

fn number(index: usize) -> Option<NonZeroU16> {
    NonZeroU16::new(u16::try_from(index + 1).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(aliases: &mut Aliases, topic: &str, given_max: u16) -> Alias {
        let alias = aliases.of(topic, given_max);
        if let Alias::New(alias) = alias {
            aliases.give(alias, &topic.parse().unwrap());
        }
        alias
    }

    #[test]
    fn the_alias_of_the_topic_that_was_said_longest_ago_is_given_again() {
        let mut aliases = Aliases::default();
        let alias = |number| NonZeroU16::new(number).unwrap();
        for (topic, expected) in [
            ("one/1", Alias::New(alias(1))),
            ("two/2", Alias::New(alias(2))),
            ("one/1", Alias::Known(alias(1))),
            ("three", Alias::New(alias(2))),
            ("two/2", Alias::New(alias(1))),
            ("three", Alias::Known(alias(2))),
        ] {
            assert_eq!(say(&mut aliases, topic, 2), expected, "{topic}");
        }
    }

    #[test]
    fn aliases_stay_within_every_bound() {
        let mut aliases = Aliases::default();
        for index in 0..1_000 {
            let topic = format!("topic/{index}");
            let number = say(&mut aliases, &topic, u16::MAX).number().unwrap();
            assert!(number.get() <= GIVEN_MAX, "{number}");
        }
        assert_eq!(aliases.given.len(), usize::from(GIVEN_MAX));
        assert_eq!(say(&mut aliases, "abc", u16::MAX), Alias::No, "no gain");
        let long = "x".repeat(TOPIC_BYTES_MAX + 1);
        assert_eq!(say(&mut aliases, &long, u16::MAX), Alias::No);
    }
}
