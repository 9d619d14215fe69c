//! Text that must not reach a log, an error or a command line.

use std::fmt;
use std::hint::black_box;

use serde::{Deserialize, Serialize};

/// A secret such as a VNC password. `Debug` prints `***` and there is no `Display`; the one way
/// to the text is [`Secret::expose`], which a reader can search for. Two are compared in a time
/// that tells nothing of where they differ.
#[derive(Clone, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` secret from here on.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        let (one, other) = (self.0.as_bytes(), other.0.as_bytes());
        let pairs = one.iter().zip(other);
        // Hidden from the optimizer, who would else end at the first difference.
        let differing = pairs.fold(0, |all, (one, other)| black_box(all | (one ^ other)));
        one.len() == other.len() && differing == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_never_shows_a_secret() {
        assert_eq!(format!("{:?}", Some(Secret::new("hunter2"))), "Some(***)");
    }

    #[test]
    fn secrets_are_the_same_if_every_byte_is() {
        let secret = Secret::new("hunter2");
        assert_eq!(secret, Secret::new("hunter2"));
        for other in ["", "hunter", "hunter22", "Hunter2", "hunter3"] {
            assert_ne!(secret, Secret::new(other), "{other:?}");
        }
    }
}
