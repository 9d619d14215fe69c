//! `KEY=VALUE` arguments. Which keys there are, and what they take, is the API's to say.

use elasticstack_core::wire::record::Record;

/// One `KEY=VALUE`; an empty value unsets the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    key: String,
    value: String,
}

/// Reads a setting, for clap.
///
/// # Errors
/// What is taken instead.
pub fn parse(text: &str) -> Result<Setting, String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => {
            Ok(Setting { key: key.to_owned(), value: value.to_owned() })
        }
        _ => Err("give KEY=VALUE, or KEY= to unset it".to_owned()),
    }
}

/// Lays the settings over `record`: the last of two wins.
pub(crate) fn apply(record: &mut Record, settings: Vec<Setting>) {
    for Setting { key, value } in settings {
        record.set(key, value);
    }
}
