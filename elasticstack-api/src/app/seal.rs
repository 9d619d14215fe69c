//! Sealing what is kept for one caller under a key that only its own secret gives.
//!
//! Invariant: neither the secret nor a key made from it is ever stored, so that a copy of the
//! database opens nothing. A hash is keyed too: it gives no way to try out what was hashed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use elasticstack_core::prelude::*;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::error::Unspecified;
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::hmac;

const SALT: &[u8] = b"elasticstack idempotency 1";

/// Seals and hashes for one purpose of one caller.
pub(super) struct Seal {
    sealing: LessSafeKey,
    hashing: hmac::Key,
}

impl Seal {
    /// The seal that `secret` gives for `purpose`.
    pub(super) fn new(secret: &Secret, purpose: &str) -> Result<Self> {
        let root = Salt::new(HKDF_SHA256, SALT).extract(secret.expose().as_bytes());
        let sealing = [b"seal ", purpose.as_bytes()];
        let sealing = root.expand(&sealing, &CHACHA20_POLY1305).map_err(broken)?;
        let hashing = [b"hash ", purpose.as_bytes()];
        let hashing = root.expand(&hashing, hmac::HMAC_SHA256).map_err(broken)?;
        Ok(Self {
            sealing: LessSafeKey::new(UnboundKey::from(sealing)),
            hashing: hmac::Key::from(hashing),
        })
    }

    /// A hash of these parts, in Base64.
    pub(super) fn hash<'a>(&self, parts: impl IntoIterator<Item = &'a str>) -> String {
        let mut context = hmac::Context::with_key(&self.hashing);
        for part in parts {
            // A length ahead of each keeps "a", "bc" and "ab", "c" apart.
            context.update(format!("{} ", part.len()).as_bytes());
            context.update(part.as_bytes());
        }
        STANDARD.encode(context.sign())
    }

    /// `text` so that only [`Seal::open`] of the same seal reads it.
    pub(super) fn close(&self, text: String) -> Result<String> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce)
            .map_err(|error| Error::internal(format!("drawing a nonce: {error}")))?;
        let mut sealed = text.into_bytes();
        self.sealing
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::empty(),
                &mut sealed,
            )
            .map_err(broken)?;
        Ok(STANDARD.encode([nonce.as_slice(), &sealed].concat()))
    }

    /// What [`Seal::close`] was given.
    ///
    /// # Errors
    /// `Internal` if another seal closed it, or it was changed.
    pub(super) fn open(&self, sealed: &str) -> Result<String> {
        let bytes = STANDARD
            .decode(sealed)
            .map_err(|error| Error::internal("reading a sealed text").source(error))?;
        let (nonce, rest) = bytes
            .split_first_chunk::<NONCE_LEN>()
            .ok_or_else(|| Error::internal("a sealed text without a nonce"))?;
        let mut text = rest.to_vec();
        let text = self
            .sealing
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::empty(), &mut text)
            .map_err(broken)?;
        String::from_utf8(text.to_vec())
            .map_err(|error| Error::internal("a sealed text that is none").source(error))
    }
}

fn broken(_: Unspecified) -> Error {
    Error::internal("sealing or opening what is kept for a caller")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(secret: &str, purpose: &str) -> Seal {
        Seal::new(&Secret::new(secret), purpose).unwrap()
    }

    #[test]
    fn only_the_same_secret_and_purpose_open_what_is_sealed() {
        let sealed = seal("secret", "a").close("the bundle".to_owned()).unwrap();
        assert_eq!(seal("secret", "a").open(&sealed).unwrap(), "the bundle");
        let again = seal("secret", "a").close("the bundle".to_owned()).unwrap();
        assert_ne!(sealed, again, "the same text twice does not look the same");
        for other in [seal("secret", "b"), seal("Secret", "a")] {
            assert!(other.open(&sealed).is_err());
        }
        let mut bytes = STANDARD.decode(&sealed).unwrap();
        for index in 0..bytes.len() {
            bytes[index] ^= 1;
            assert!(seal("secret", "a").open(&STANDARD.encode(&bytes)).is_err(), "byte {index}");
            bytes[index] ^= 1;
        }
        for odd in ["", "AAAA", "!"] {
            assert!(seal("secret", "a").open(odd).is_err(), "{odd:?}");
        }
    }

    #[test]
    fn a_hash_is_of_its_parts_and_of_who_hashes() {
        let hash = seal("secret", "a").hash(["a", "bc"]);
        assert_eq!(hash, seal("secret", "a").hash(["a", "bc"]));
        assert_ne!(hash, seal("secret", "a").hash(["ab", "c"]));
        assert_ne!(hash, seal("secret", "b").hash(["a", "bc"]));
        assert_ne!(hash, seal("other", "a").hash(["a", "bc"]));
    }
}
