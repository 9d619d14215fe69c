//! Who an initiator is, and who we are: CHAP with MD5, one way or both (RFC 7143, section 12.1.3;
//! RFC 1994). Pure: whoever uses it brings the random bytes.

use std::fmt::Write as _;

use base64::Engine as _;
use elasticstack_core::secret::Secret;
use md5::{Digest as _, Md5};
use subtle::{Choice, ConstantTimeEq as _};

/// The one algorithm, by its number in CHAP_A.
pub(super) const MD5: &str = "5";

/// The longest challenge that an initiator may send, in bytes (section 12.1.3).
const MAX_CHALLENGE: usize = 1024;

/// A name and the secret that proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The name, as in CHAP_N.
    pub user: String,
    /// The secret. Twelve bytes and more resist whoever listens (section 12.1.3).
    pub secret: Secret,
}

/// How an initiator logs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chap {
    /// Proves the initiator to us.
    pub initiator: Credentials,
    /// Proves us to an initiator that asks. Without it such an initiator is refused.
    pub target: Option<Credentials>,
}

/// Random bytes for one login: the first is the identifier, the rest the challenge.
pub(super) type Nonce = [u8; 17];

/// Why an answer or a challenge is none. Told to nobody but the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ChapError {
    #[error("the initiator's name or secret is wrong")]
    Wrong,
    #[error("the initiator sent our own challenge back")]
    Reflected,
    #[error("the initiator wants us to prove ourselves, and no secret is set for that")]
    NoSecretOfOurs,
    #[error("a step of CHAP that lacks a key or holds what is no number")]
    Malformed,
}

/// The keys of our challenge: CHAP_A, CHAP_I, CHAP_C.
pub(super) fn challenge(nonce: &Nonce) -> [(&'static str, String); 3] {
    let [identifier, challenge @ ..] = nonce;
    [("CHAP_A", MD5.to_owned()), ("CHAP_I", identifier.to_string()), ("CHAP_C", to_hex(challenge))]
}

/// Checks the initiator's answer to our challenge. What it returns are the keys that answer the
/// initiator's own challenge, if there is one.
pub(super) fn check(
    chap: &Chap,
    nonce: &Nonce,
    pairs: &[(&str, &str)],
) -> Result<Vec<(&'static str, String)>, ChapError> {
    let find = |key| pairs.iter().find(|(found, _)| *found == key).map(|(_, value)| *value);
    let name = find("CHAP_N").ok_or(ChapError::Malformed)?;
    let response = find("CHAP_R").and_then(from_text).ok_or(ChapError::Malformed)?;
    let [identifier, challenge @ ..] = nonce;
    let expected = digest(*identifier, &chap.initiator.secret, challenge);
    let right: Choice = name.as_bytes().ct_eq(chap.initiator.user.as_bytes())
        & expected.as_slice().ct_eq(&response);
    if !bool::from(right) {
        return Err(ChapError::Wrong);
    }
    match (find("CHAP_I"), find("CHAP_C")) {
        (None, None) => Ok(Vec::new()),
        (Some(identifier), Some(theirs)) => {
            let identifier = identifier.parse().map_err(|_| ChapError::Malformed)?;
            let theirs = from_text(theirs).ok_or(ChapError::Malformed)?;
            if theirs.as_slice() == challenge {
                return Err(ChapError::Reflected);
            }
            let ours = chap.target.as_ref().ok_or(ChapError::NoSecretOfOurs)?;
            let response = digest(identifier, &ours.secret, &theirs);
            Ok(vec![("CHAP_N", ours.user.clone()), ("CHAP_R", to_hex(&response))])
        }
        _ => Err(ChapError::Malformed),
    }
}

/// The keys that answer a target's challenge in `pairs`, for the initiator that `own` is of.
pub(super) fn prove(
    own: &Credentials,
    pairs: &[(&str, &str)],
) -> Result<[(&'static str, String); 2], ChapError> {
    let find = |key| pairs.iter().find(|(found, _)| *found == key).map(|(_, value)| *value);
    let identifier = find("CHAP_I").and_then(|identifier| identifier.parse().ok());
    let challenge = find("CHAP_C").and_then(from_text);
    let (identifier, challenge) = identifier.zip(challenge).ok_or(ChapError::Malformed)?;
    let response = digest(identifier, &own.secret, &challenge);
    Ok([("CHAP_N", own.user.clone()), ("CHAP_R", to_hex(&response))])
}

fn digest(identifier: u8, secret: &Secret, challenge: &[u8]) -> [u8; 16] {
    let mut hash = Md5::new();
    hash.update([identifier]);
    hash.update(secret.expose().as_bytes());
    hash.update(challenge);
    hash.finalize().into()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A binary value, in hexadecimal or base64 (section 6.1).
fn from_text(text: &str) -> Option<Vec<u8>> {
    let (form, digits) = text.split_at_checked(2)?;
    if digits.len() > 2 * MAX_CHALLENGE {
        return None;
    }
    let bytes = match form {
        "0x" | "0X" => {
            let nibbles: Option<Vec<u8>> = digits
                .chars()
                .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
                .collect();
            let mut nibbles = nibbles?;
            // A leading zero may be left out.
            if nibbles.len() % 2 == 1 {
                nibbles.insert(0, 0);
            }
            nibbles.chunks_exact(2).map(|pair| pair.iter().fold(0, |all, n| all << 4 | n)).collect()
        }
        "0b" | "0B" => base64::engine::general_purpose::STANDARD.decode(digits).ok()?,
        _ => return None,
    };
    (!bytes.is_empty() && bytes.len() <= MAX_CHALLENGE).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NONCE: Nonce = *b"\x07sixteen bytes...";

    fn credentials(user: &str, secret: &str) -> Credentials {
        Credentials { user: user.to_owned(), secret: Secret::new(secret) }
    }

    fn chap() -> Chap {
        Chap {
            initiator: credentials("host-a", "a secret of some"),
            target: Some(credentials("target", "another secret..")),
        }
    }

    fn answer(secret: &str) -> String {
        to_hex(&digest(7, &Secret::new(secret), &NONCE[1..]))
    }

    #[test]
    fn the_digest_is_the_one_of_rfc_1994() {
        // MD5 of 07 "secret" 01 02, by another implementation.
        let digest = digest(7, &Secret::new("secret"), &[1, 2]);
        assert_eq!(to_hex(&digest), "0x685ea5241d343e7d5ec57f91aef3a65d");
    }

    #[test]
    fn only_the_right_name_with_the_right_secret_is_let_in() {
        let right = answer("a secret of some");
        assert_eq!(check(&chap(), &NONCE, &[("CHAP_N", "host-a"), ("CHAP_R", &right)]), Ok(vec![]));
        let wrong = answer("a secret of somf");
        let other_nonce = *b"\x07sixteen bytes,,,";
        for (nonce, name, response, error) in [
            (NONCE, "host-b", &*right, ChapError::Wrong),
            (NONCE, "host-a", &wrong, ChapError::Wrong),
            (NONCE, "host-a", "0x00", ChapError::Wrong),
            (other_nonce, "host-a", &right, ChapError::Wrong),
            (NONCE, "host-a", "0xzz", ChapError::Malformed),
            (NONCE, "host-a", "", ChapError::Malformed),
        ] {
            let pairs = [("CHAP_N", name), ("CHAP_R", response)];
            assert_eq!(check(&chap(), &nonce, &pairs), Err(error), "{name} {response}");
        }
    }

    #[test]
    fn a_challenge_is_answered_with_what_checks_and_only_if_it_is_one() {
        let posed = challenge(&NONCE);
        let posed: Vec<_> = posed.iter().map(|(key, value)| (*key, &**value)).collect();
        let own = credentials("host-a", "a secret of some");
        let answer = prove(&own, &posed).unwrap();
        let answer: Vec<_> = answer.iter().map(|(key, value)| (*key, &**value)).collect();
        assert_eq!(check(&chap(), &NONCE, &answer), Ok(vec![]));
        for wrong in [&posed[..2], &[("CHAP_I", "256"), posed[2]], &[posed[1], ("CHAP_C", "x")]] {
            assert_eq!(prove(&own, wrong), Err(ChapError::Malformed), "{wrong:?}");
        }
    }

    #[test]
    fn we_prove_ourselves_to_whoever_asks_but_not_with_our_own_challenge() {
        let right = answer("a secret of some");
        let mut pairs =
            vec![("CHAP_N", "host-a"), ("CHAP_R", &*right), ("CHAP_I", "9"), ("CHAP_C", "0x0102")];
        let proof = to_hex(&digest(9, &Secret::new("another secret.."), &[1, 2]));
        let keys = vec![("CHAP_N", "target".to_owned()), ("CHAP_R", proof)];
        assert_eq!(check(&chap(), &NONCE, &pairs), Ok(keys));

        let one_way = Chap { target: None, ..chap() };
        assert_eq!(check(&one_way, &NONCE, &pairs), Err(ChapError::NoSecretOfOurs));
        let reflected = to_hex(&NONCE[1..]);
        pairs[3] = ("CHAP_C", &reflected);
        assert_eq!(check(&chap(), &NONCE, &pairs), Err(ChapError::Reflected));
        pairs.pop();
        assert_eq!(check(&chap(), &NONCE, &pairs), Err(ChapError::Malformed));
    }

    #[test]
    fn no_secret_is_in_debug_output() {
        let shown = format!("{:?}", chap());
        assert!(!shown.contains("secret of") && !shown.contains("another"), "{shown}");
    }

    proptest! {
        #[test]
        fn binary_values_are_read_back_in_both_forms(
            bytes in proptest::collection::vec(any::<u8>(), 1..200)
        ) {
            let base64 = base64::engine::general_purpose::STANDARD.encode(&bytes);
            prop_assert_eq!(from_text(&to_hex(&bytes)), Some(bytes.clone()));
            prop_assert_eq!(from_text(&format!("0b{base64}")), Some(bytes));
        }

        #[test]
        fn no_value_panics_it(text in ".*") {
            let _ = from_text(&text);
            let _ = from_text(&format!("0x{text}"));
            let _ = from_text(&format!("0b{text}"));
        }
    }
}
