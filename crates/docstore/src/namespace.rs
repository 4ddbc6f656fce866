//! DATABASE.COLLECTION, checked once.
//!
//! For: [`Namespace`], MongoDB's word for the full name of a collection.
//! Not for: what the collection holds, or whether it exists.
//! Calls: nothing.
//! Holds: a `Namespace` is a name that MongoDB takes too, so a sink can move there unchanged.

use std::fmt;

/// Longest full name in bytes; MongoDB's limit since 4.4.
const NAMESPACE_BYTES_MAX: usize = 255;
/// Longest database name in bytes.
const DATABASE_BYTES_MAX: usize = 63;

/// The full name of a collection: `iot.telemetry`. What follows the first dot is the collection,
/// further dots included.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Namespace(String);

/// Why a name is not the full name of a collection.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NamespaceError {
    #[error("{0:?} has no dot: a collection is named DATABASE.COLLECTION")]
    NoDatabase(String),
    #[error("the {part} name is empty")]
    Empty { part: &'static str },
    #[error("the {part} name is {bytes} bytes long, at most {bytes_max} are allowed")]
    TooLong {
        part: &'static str,
        bytes: usize,
        bytes_max: usize,
    },
    #[error("the {part} name may not hold {character:?}")]
    Character { part: &'static str, character: char },
    #[error("a collection name may not begin with \"system.\"")]
    System,
    #[error("a collection name may not begin or end with a dot")]
    Dot,
}

impl Namespace {
    pub fn parse(name: &str) -> Result<Self, NamespaceError> {
        let Some((database, collection)) = name.split_once('.') else {
            return Err(NamespaceError::NoDatabase(name.to_owned()));
        };
        // What MongoDB refuses on Windows it refuses in no tool everywhere; the stricter set.
        check("database", database, DATABASE_BYTES_MAX, "/\\ \"$*<>:|?")?;
        check(
            "collection",
            collection,
            NAMESPACE_BYTES_MAX - database.len() - 1,
            "$",
        )?;
        if collection.starts_with("system.") {
            return Err(NamespaceError::System);
        }
        if collection.starts_with('.') || collection.ends_with('.') {
            return Err(NamespaceError::Dot);
        }
        Ok(Self(name.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn database(&self) -> &str {
        self.0.split_once('.').map_or("", |(database, _)| database)
    }

    pub fn collection(&self) -> &str {
        self.0
            .split_once('.')
            .map_or("", |(_, collection)| collection)
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn check(
    part: &'static str,
    name: &str,
    bytes_max: usize,
    banned: &str,
) -> Result<(), NamespaceError> {
    if name.is_empty() {
        return Err(NamespaceError::Empty { part });
    }
    if name.len() > bytes_max {
        return Err(NamespaceError::TooLong {
            part,
            bytes: name.len(),
            bytes_max,
        });
    }
    match name.chars().find(|c| c.is_control() || banned.contains(*c)) {
        Some(character) => Err(NamespaceError::Character { part, character }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_and_refused_as_mongodb_does() {
        let long = format!("d.{}", "c".repeat(254));
        let longest = format!("d.{}", "c".repeat(253));
        let long_database = format!("{}.c", "d".repeat(64));
        for (name, taken, why) in [
            ("headwater.messages", true, "the default"),
            ("iot.site.a", true, "a collection may hold dots"),
            ("iot.größe", true, "any letters"),
            (&longest, true, "255 bytes in all"),
            (&long, false, "256 bytes in all"),
            (&long_database, false, "a database of 64 bytes"),
            ("telemetry", false, "no database"),
            (".telemetry", false, "an empty database"),
            ("iot.", false, "an empty collection"),
            ("iot..a", false, "begins with a dot"),
            ("iot.a.", false, "ends with a dot"),
            ("io t.a", false, "a space in the database"),
            ("i/o.a", false, "a slash in the database"),
            ("iot.a$b", false, "a dollar"),
            ("iot.a\0b", false, "a NUL"),
            ("iot.system.users", false, "reserved"),
        ] {
            assert_eq!(Namespace::parse(name).is_ok(), taken, "{name:?}: {why}");
        }
    }

    #[test]
    fn the_first_dot_parts_database_and_collection() {
        let namespace = Namespace::parse("iot.site.a").unwrap();
        assert_eq!(
            (namespace.database(), namespace.collection()),
            ("iot", "site.a")
        );
    }
}
