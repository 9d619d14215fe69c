//! The text of login and text negotiation: `key=value` pairs, each ended by a zero byte (RFC 7143,
//! section 6.1). Pure; no bytes make it panic.

/// The longest text of one negotiation step, over all of its PDUs, in bytes.
pub const MAX_TEXT: usize = 16 << 10;

/// The longest key, in bytes.
const MAX_KEY: usize = 63;

/// The most pairs in one text: more than there are keys, few enough to look through one by one.
const MAX_PAIRS: usize = 64;

/// Why bytes are no such text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// It is too long.
    #[error("{0} bytes of text, the limit is {MAX_TEXT}")]
    TooLong(usize),
    /// It has too many pairs.
    #[error("more than {MAX_PAIRS} pairs of text")]
    TooMany,
    /// Something that is not `key=value`, or not UTF-8.
    #[error("a text that is not made of key=value pairs in UTF-8")]
    NotPairs,
    /// A key is empty or too long.
    #[error("a key of {0} bytes, one has 1 to {MAX_KEY}")]
    Key(usize),
    /// A key stands twice.
    #[error("a key stands twice in one text")]
    Twice,
}

/// The pairs of a text, in its order. Keys are never repeated.
///
/// # Errors
/// [`TextError`].
pub fn parse(text: &[u8]) -> Result<Vec<(&str, &str)>, TextError> {
    if text.len() > MAX_TEXT {
        return Err(TextError::TooLong(text.len()));
    }
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    // Some initiators pad with more zeros than one.
    for pair in text.split(|byte| *byte == 0).filter(|pair| !pair.is_empty()) {
        let pair = std::str::from_utf8(pair).map_err(|_| TextError::NotPairs)?;
        let (key, value) = pair.split_once('=').ok_or(TextError::NotPairs)?;
        if key.is_empty() || key.len() > MAX_KEY {
            return Err(TextError::Key(key.len()));
        }
        if pairs.len() == MAX_PAIRS {
            return Err(TextError::TooMany);
        }
        if pairs.iter().any(|(earlier, _)| *earlier == key) {
            return Err(TextError::Twice);
        }
        pairs.push((key, value));
    }
    Ok(pairs)
}

/// Appends one pair to a text.
pub fn push(text: &mut Vec<u8>, key: &str, value: &str) {
    for part in [key, "=", value, "\0"] {
        text.extend_from_slice(part.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pairs_are_read_in_their_order_and_a_value_may_hold_anything() {
        let text = b"SessionType=Normal\0AuthMethod=CHAP,None\0X-a=b=c\0\0Empty=\0";
        let pairs =
            [("SessionType", "Normal"), ("AuthMethod", "CHAP,None"), ("X-a", "b=c"), ("Empty", "")];
        assert_eq!(parse(text).unwrap(), pairs);
    }

    #[test]
    fn what_is_no_text_is_refused() {
        let long = [b"k".repeat(64), b"=v\0".to_vec()].concat();
        let many: Vec<u8> = (0..65).flat_map(|n| format!("k{n}=v\0").into_bytes()).collect();
        for (text, error) in [
            (&b"no pair\0"[..], TextError::NotPairs),
            (b"\xff=1\0", TextError::NotPairs),
            (b"=v\0", TextError::Key(0)),
            (&long, TextError::Key(64)),
            (b"k=1\0k=2\0", TextError::Twice),
            (&many, TextError::TooMany),
            (&[0; MAX_TEXT + 1], TextError::TooLong(MAX_TEXT + 1)),
        ] {
            assert_eq!(parse(text), Err(error));
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_it(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&text);
        }

        #[test]
        fn what_is_written_is_read_back(
            pairs in proptest::collection::btree_map("[A-Za-z-]{1,63}", "[ -~]{0,50}", 0..20)
        ) {
            let mut text = Vec::new();
            for (key, value) in &pairs {
                push(&mut text, key, value);
            }
            let read = parse(&text).unwrap();
            prop_assert!(read.iter().copied().eq(pairs.iter().map(|(k, v)| (&**k, &**v))));
        }
    }
}
