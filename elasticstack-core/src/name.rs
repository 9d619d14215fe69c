//! What customers call their drives and servers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A label of 1 to 80 characters without control characters. It names nothing: ids do. It is
/// never part of a path or a command line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// The longest name, in characters.
    pub const MAX_CHARS: usize = 80;

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Text that cannot be a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidName {
    /// Nothing, or nothing but spaces.
    #[error("a name has at least one character that is not a space")]
    Blank,
    /// Over the limit.
    #[error("a name has at most {max} characters, this one has {found}", max = Name::MAX_CHARS)]
    TooLong {
        /// How many characters it has.
        found: usize,
    },
    /// Control characters would corrupt the text format and terminals.
    #[error("a name has no control characters such as line ends or tabs")]
    Control,
}

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::try_from(text.to_owned())
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        let found = text.chars().count();
        if text.trim().is_empty() {
            Err(InvalidName::Blank)
        } else if found > Self::MAX_CHARS {
            Err(InvalidName::TooLong { found })
        } else if text.chars().any(char::is_control) {
            Err(InvalidName::Control)
        } else {
            Ok(Self(text))
        }
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_visible_text() {
        for good in ["a", "web.img", "../../etc/passwd", "ein Server", &"ü".repeat(80)] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        let long = "x".repeat(81);
        for (bad, why) in [
            ("", InvalidName::Blank),
            ("   ", InvalidName::Blank),
            ("a\nb", InvalidName::Control),
            ("a\0", InvalidName::Control),
            (long.as_str(), InvalidName::TooLong { found: 81 }),
        ] {
            assert_eq!(bad.parse::<Name>(), Err(why));
        }
    }
}
