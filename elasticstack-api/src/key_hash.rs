//! What is kept of a secret that opens something: an account's key, a token, a ticket.
//!
//! Invariants: a hash is enough because these secrets are random and long; two are compared, however
//! that is written, in a time that tells nothing of where they differ; none is ever shown.

use std::fmt;

use elasticstack_core::secret::Secret;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// Stands in for the hash of what is not there; no secret has it.
const NO_HASH: &str = "----------------------------------------------------------------";

/// The SHA-256 of a secret, in hex.
#[derive(Clone, Eq)]
pub(crate) struct KeyHash(String);

impl KeyHash {
    /// What nothing opens.
    pub(crate) const NONE: Self = Self(String::new());

    /// That of a secret.
    pub(crate) fn of(secret: &Secret) -> Self {
        Self(hex(&Sha256::digest(secret.expose().as_bytes())))
    }

    /// One that was written down.
    pub(crate) const fn kept(text: String) -> Self {
        Self(text)
    }

    /// As it is written down.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the one that was kept. Where none was it is not, which takes as long.
    pub(crate) fn is(&self, kept: Option<&Self>) -> bool {
        self.is_text(kept.map_or(NO_HASH, Self::as_str))
    }

    fn is_text(&self, other: &str) -> bool {
        self.0.as_bytes().ct_eq(other.as_bytes()).into()
    }
}

impl PartialEq for KeyHash {
    fn eq(&self, other: &Self) -> bool {
        self.is_text(&other.0)
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Bytes as text.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut hex = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String can't fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_only_that_of_its_own_secret() {
        let hash = KeyHash::of(&Secret::new("hunter2"));
        let kept = KeyHash::kept(
            "f52fbd32b2b3b86ff88ef6c490628285f482af15ddcb29541f94bcf526a3f6c7".to_owned(),
        );
        assert!(hash.is(Some(&kept)) && hash == kept, "{}", hash.as_str());
        let changed = |at: usize| {
            let mut text = kept.as_str().to_owned();
            text.replace_range(at..=at, "-");
            KeyHash::kept(text)
        };
        for other in [
            changed(0),
            changed(63),
            KeyHash::kept(kept.as_str()[..63].to_owned()),
            KeyHash::kept(NO_HASH.to_owned()),
            KeyHash::NONE,
        ] {
            assert!(!hash.is(Some(&other)) && hash != other, "{}", other.as_str());
        }
        assert!(!hash.is(None));
    }

    #[test]
    fn a_hash_is_never_shown() {
        assert_eq!(format!("{:?}", KeyHash::of(&Secret::new("hunter2"))), "***");
    }
}
