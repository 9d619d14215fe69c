//! `KEY=VALUE` arguments. Which keys there are, and what they take, is the API's to say.

use elasticstack_core::secret::Secret;
use elasticstack_core::wire::record::Record;

/// One `KEY=VALUE`; an empty value unsets the key. Which values are secret is the API's to say too, so
/// all are kept as if they were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    key: String,
    value: Secret,
}

/// Reads a setting, for clap.
///
/// # Errors
/// What is taken instead.
pub fn parse(text: &str) -> Result<Setting, String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => {
            Ok(Setting { key: key.to_owned(), value: Secret::new(value) })
        }
        _ => Err("give KEY=VALUE, or KEY= to unset it".to_owned()),
    }
}

/// Lays the settings over `record`: the last of two wins.
pub(crate) fn apply(record: &mut Record, settings: Vec<Setting>) {
    for Setting { key, value } in settings {
        record.set(key, value.expose());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_shown_without_its_value_and_sets_it() {
        let setting = parse("password=canary").unwrap();
        let shown = format!("{setting:?}");
        assert!(shown.contains("password") && !shown.contains("canary"), "{shown}");
        let mut record = Record::new();
        apply(&mut record, vec![setting]);
        assert_eq!(record.value("password"), Some("canary"));
    }
}
