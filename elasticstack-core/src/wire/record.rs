//! Records: the flat sets of keys that the public API speaks, in its text and its JSON form.
//!
//! A [`Record`] holds text only; what a value means, and whether JSON shows it as a number, is
//! said by its key's row in [`super::keys`]. An empty value unsets its key.
//!
//! ```text
//! name web one           one `KEY SP VALUE LF` a line; `\n` and `\\` stand for a line end and a
//! size 12582912          backslash in a value; records are parted by an empty line
//! ```
//!
//! Readers take CR LF for a line end, as old clients write it. So a line whose value itself ends in
//! CR is written with that line end, and nothing is lost.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use super::keys::{self, Key, Object, Shape};
use super::shown::{quote_into, shape_into, shape_json};
use crate::error::{Error, ErrorKind, Result};

/// The most keys that one record may have.
pub const MAX_KEYS: usize = 1_000;

/// The most characters of the part of a key that a client chooses.
pub const MAX_WORD: usize = 80;

/// Whether a client may choose `text` as part of a key: 1 to [`MAX_WORD`] characters without
/// spaces or control characters, so that no key can forge a line of the text form.
#[must_use]
pub fn is_word(text: &str) -> bool {
    let is_visible = |character: char| !character.is_whitespace() && !character.is_control();
    !text.is_empty() && text.chars().count() <= MAX_WORD && text.chars().all(is_visible)
}

/// Keys and their values, sorted by key. `Debug` prints `***` for the values of secret keys.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Record {
    entries: BTreeMap<String, String>,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.iter().map(|(key, value)| {
            let is_shown = value.is_empty() || !keys::is_secret(key);
            (key, if is_shown { value } else { "***" })
        });
        f.debug_map().entries(shown).finish()
    }
}

impl Record {
    /// A record without keys.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of a key, if it is set.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&str> {
        self.entries.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Sets a key. The last of several settings wins.
    #[expect(clippy::needless_pass_by_value, reason = "numbers and text alike are given plainly")]
    pub fn set(&mut self, key: impl Into<String>, value: impl ToString) {
        self.entries.insert(key.into(), value.to_string());
    }

    /// [`Record::set`], for building.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl ToString) -> Self {
        self.set(key, value);
        self
    }

    /// Takes a key away.
    pub fn remove(&mut self, key: &str) -> Option<String> {
        self.entries.remove(key)
    }

    /// Every key with its value, sorted; the value is empty where the key is to be unset.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Whether it has no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Lays `change` over this record: its keys replace ours, its empty values unset ours.
    pub fn apply(&mut self, change: &Self) {
        for (key, value) in change.iter() {
            if value.is_empty() {
                self.entries.remove(key);
            } else {
                self.entries.insert(key.to_owned(), value.to_owned());
            }
        }
    }

    /// Reads one record in text form. A body in form encoding (`a=b&c=d`) is taken as such if its
    /// first line has a `=` before its first space.
    ///
    /// # Errors
    /// `MalformedBody` for bytes that are not UTF-8, for too many keys, or a line without a key.
    pub fn from_text(body: &[u8]) -> Result<Self> {
        let mut records = Self::list_from_text(body)?;
        match (records.pop(), records.len()) {
            (None, _) => Ok(Self::default()),
            (Some(record), 0) => Ok(record),
            (Some(_), more) => Err(malformed(format!(
                "one object was expected, the body has {}: they are parted by empty lines",
                more + 1
            ))),
        }
    }

    /// Reads any number of records in text form.
    ///
    /// # Errors
    /// As [`Record::from_text`].
    pub fn list_from_text(body: &[u8]) -> Result<Vec<Self>> {
        let text = std::str::from_utf8(body)
            .map_err(|_| malformed("the body is not UTF-8 text: send KEY VALUE lines in UTF-8"))?;
        let mut records = Vec::new();
        let mut record = Self::default();
        for line in text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)) {
            if line.is_empty() {
                if !record.is_empty() {
                    records.push(std::mem::take(&mut record));
                }
                continue;
            }
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            if key.is_empty() {
                return Err(malformed("a line begins with a space: send KEY VALUE lines"));
            }
            record.set(key, unescape(value));
            record.check_length()?;
        }
        if !record.is_empty() {
            records.push(record);
        }
        Ok(records)
    }

    /// Reads one record in `application/x-www-form-urlencoded` form.
    ///
    /// # Errors
    /// `MalformedBody` for a broken escape or bytes that are not UTF-8.
    pub fn from_form(body: &[u8]) -> Result<Self> {
        let mut record = Self::default();
        for pair in body.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty()) {
            let split = pair.iter().position(|&byte| byte == b'=').unwrap_or(pair.len());
            let (key, value) = pair.split_at(split);
            let value = value.strip_prefix(b"=").unwrap_or(value);
            record.set(percent_decoded(key)?, percent_decoded(value)?);
            record.check_length()?;
        }
        Ok(record)
    }

    /// Reads one record in JSON form. An empty body is an empty record; numbers and booleans stand
    /// for their text, `null` unsets a key, an array stands for its elements parted by spaces.
    ///
    /// # Errors
    /// `MalformedBody` if it is not one JSON object of such values.
    pub fn from_json(body: &[u8]) -> Result<Self> {
        Self::from_map(json_object(body)?)
    }

    /// Reads one record in JSON form as a client gives it: a list only for a key that takes words.
    ///
    /// # Errors
    /// As [`Record::from_json`], and `InvalidValue` for a list that its key does not take.
    pub fn given_in_json(object: Object, body: &[u8]) -> Result<Self> {
        let map = json_object(body)?;
        let takes_list = |name: &str| keys::find(object, name).is_none_or(Key::takes_list);
        if let Some((name, _)) =
            map.iter().find(|(name, value)| value.is_array() && !takes_list(name))
        {
            let refused = format!("{name} was given a list, it takes one value");
            return Err(Error::new(ErrorKind::InvalidValue, refused).field(name));
        }
        Self::from_map(map)
    }

    /// Reads any number of records in JSON form: an array of objects, or one object.
    ///
    /// # Errors
    /// As [`Record::from_json`].
    pub fn list_from_json(body: &[u8]) -> Result<Vec<Self>> {
        match serde_json::from_slice(body) {
            Ok(Value::Array(items)) => items
                .into_iter()
                .map(|item| match item {
                    Value::Object(map) => Self::from_map(map),
                    _ => Err(malformed("the body is an array of something else than objects")),
                })
                .collect(),
            _ => Self::from_json(body).map(|record| vec![record]),
        }
    }

    fn from_map(map: Map<String, Value>) -> Result<Self> {
        let mut record = Self::default();
        for (key, value) in map {
            let text = match value {
                Value::Array(items) => {
                    let words: Result<Vec<_>> =
                        items.into_iter().map(|item| word(&key, item)).collect();
                    words?.join(" ")
                }
                scalar_value => scalar(&key, scalar_value)?,
            };
            record.set(key, text);
            record.check_length()?;
        }
        Ok(record)
    }

    fn check_length(&self) -> Result<()> {
        if self.entries.len() > MAX_KEYS {
            return Err(malformed(format!(
                "a body has at most {MAX_KEYS} keys, this one has more"
            )));
        }
        Ok(())
    }

    /// Writes the record in text form, every line ended.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (key, value) in self.iter() {
            text.push_str(key);
            text.push(' ');
            escape_into(&mut text, value);
            text.push_str(if value.ends_with('\r') { "\r\n" } else { "\n" });
        }
        text
    }

    /// The record as a JSON object, numbers bare where the key's row says so.
    #[must_use]
    pub fn to_json(&self, object: Object) -> Value {
        let entries =
            self.iter().map(|(key, value)| (key.to_owned(), shape_json(shape(object, key), value)));
        Value::Object(entries.collect())
    }

    /// Writes at the end of `text` what [`Record::to_json`] is when it is written, in a fraction
    /// of the time.
    pub fn json_into(&self, object: Object, text: &mut String) {
        text.push('{');
        for (index, (key, value)) in self.iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            quote_into(text, key);
            text.push(':');
            shape_into(text, shape(object, key), value);
        }
        text.push('}');
    }

    /// Whether [`Record::from_json`] makes this very record of its JSON: a number that is not
    /// written as numbers are, such as `007`, loses its form there.
    #[must_use]
    pub fn survives_json(&self, object: Object) -> bool {
        self.iter().all(|(key, value)| match shape(object, key) {
            Shape::Text | Shape::Devices => true,
            Shape::Number => {
                value.parse::<u64>().map_or(true, |number| number.to_string() == value)
            }
        })
    }
}

fn shape(object: Object, key: &str) -> Shape {
    keys::find(object, key).map_or(Shape::Text, |key| key.shape)
}

/// Writes records in text form, parted by empty lines.
#[must_use]
pub fn list_to_text(records: &[Record]) -> String {
    records.iter().map(Record::to_text).collect::<Vec<_>>().join("\n")
}

fn json_object(body: &[u8]) -> Result<Map<String, Value>> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(malformed("the body is JSON but not an object: send {\"key\": \"value\"}")),
        Err(error) => Err(malformed(format!("the body is not JSON: {error}"))),
    }
}

fn word(key: &str, value: Value) -> Result<String> {
    let text = scalar(key, value)?;
    if text.is_empty() {
        return Err(malformed(format!(
            "the list of {key:?} has an item that is empty: leave it out"
        )));
    }
    Ok(text)
}

fn scalar(key: &str, value: Value) -> Result<String> {
    match value {
        Value::Null => Ok(String::new()),
        Value::Bool(flag) => Ok(flag.to_string()),
        Value::Number(number) if number.is_f64() => {
            number.as_f64().and_then(whole).ok_or_else(|| {
                malformed(format!(
                    "the value of {key:?} is no whole number of 64 bits: send one, or send text"
                ))
            })
        }
        Value::Number(number) => Ok(number.to_string()),
        Value::String(text) => Ok(text),
        Value::Array(_) | Value::Object(_) => Err(malformed(format!(
            "the value of {key:?} is nested: send text, a number, true, false, null or a list of these"
        ))),
    }
}

fn unescape(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        match (character, characters.as_str().chars().next()) {
            ('\\', Some('n')) => {
                text.push('\n');
                characters.next();
            }
            ('\\', Some('\\')) => {
                text.push('\\');
                characters.next();
            }
            _ => text.push(character),
        }
    }
    text
}

/// A number that JSON writes with a fraction or an exponent, if it is whole all the same.
fn whole(number: f64) -> Option<String> {
    const LOWEST: f64 = -9_223_372_036_854_775_808.0;
    const HIGHEST: f64 = 18_446_744_073_709_551_616.0;
    let is_whole = number.fract() == 0.0 && number > LOWEST && number < HIGHEST;
    // Minus zero is zero.
    is_whole.then(|| format!("{:.0}", number + 0.0))
}

fn escape_into(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\n' => text.push_str("\\n"),
            '\\' => text.push_str("\\\\"),
            _ => text.push(character),
        }
    }
}

fn percent_decoded(bytes: &[u8]) -> Result<String> {
    let broken = || malformed("a form value has a broken % escape or is not UTF-8");
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes.iter();
    while let Some(&byte) = rest.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || {
                    let digit = char::from(*rest.next()?).to_digit(16)?;
                    u8::try_from(digit).ok()
                };
                match (digit(), digit()) {
                    (Some(high), Some(low)) => high << 4 | low,
                    _ => return Err(broken()),
                }
            }
            _ => byte,
        });
    }
    String::from_utf8(decoded).map_err(|_| broken())
}

fn malformed(public: impl Into<String>) -> Error {
    Error::new(ErrorKind::MalformedBody, public)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn debug_output_never_shows_the_value_of_a_secret_key() {
        let secret: Vec<_> = keys::KEYS.iter().filter(|key| key.is_secret).collect();
        assert!(!secret.is_empty());
        for row in secret {
            let key = row.pattern;
            assert!(row.matches(key), "{key} stands for several: try one of them");
            let record = Record::new().with(key, "canary").with("name", "web");
            let shown = format!("{record:?}");
            assert!(!shown.contains("canary") && shown.contains("\"web\""), "{shown}");
            assert_eq!(record.value(key), Some("canary"));
        }
    }

    #[test]
    fn numbers_of_json_are_whole_and_lists_are_for_keys_that_take_words() {
        for (given, text) in [
            ("2000", Some("2000")),
            ("2000.0", Some("2000")),
            ("2e3", Some("2000")),
            ("-0.0", Some("0")),
            ("18446744073709551615", Some("18446744073709551615")),
            ("18446744073709551616", None),
            ("-9223372036854775809", None),
            ("0.5", None),
            ("1e300", None),
        ] {
            let read = Record::from_json(format!(r#"{{"cpu": {given}}}"#).as_bytes());
            assert_eq!(read.ok().as_ref().and_then(|record| record.value("cpu")), text, "{given}");
        }
        let lists = br#"{"boot": ["ide:0:0"], "tags": ["a", "b"]}"#;
        let given = Record::given_in_json(Object::Server, lists).unwrap();
        assert_eq!(given.value("tags"), Some("a b"));
        for items in ["[null]", r#"["ide:0:0", ""]"#] {
            let refused = Record::from_json(format!(r#"{{"boot": {items}}}"#).as_bytes());
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::MalformedBody, "{items}");
        }
        let refused = Record::given_in_json(Object::Server, br#"{"cpu": [2000]}"#).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidValue);
        assert_eq!(refused.blamed_field(), Some("cpu"));
    }

    #[test]
    fn text_is_read_as_old_clients_write_it() {
        let record = Record::from_text(
            b"name my web\nsize 10G\nuser:note a\\nb\r\nide:0:0 disk\nide:0:0 x\ntags",
        )
        .unwrap();
        assert_eq!(record.value("name"), Some("my web"));
        assert_eq!(record.value("user:note"), Some("a\nb"));
        assert_eq!(record.value("ide:0:0"), Some("x"), "the last of two wins");
        assert_eq!(record.value("tags"), None, "an empty value unsets");
        assert!(Record::from_text(b"").unwrap().is_empty());
    }

    #[test]
    fn json_is_read_with_numbers_quoted_or_bare() {
        let record = Record::from_json(br#"{"cpu":"2","mem":1700,"persistent":true,"nic:1:vlan":null,"boot":["ide:0:0","ide:0:1"]}"#).unwrap();
        assert_eq!(record.value("cpu"), Some("2"));
        assert_eq!(record.value("mem"), Some("1700"));
        assert_eq!(record.value("persistent"), Some("true"));
        assert_eq!(record.value("nic:1:vlan"), None);
        assert_eq!(record.value("boot"), Some("ide:0:0 ide:0:1"));
        assert!(Record::from_json(b"  ").unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_a_malformed_body() {
        let many = (0..=MAX_KEYS).map(|n| format!("user:{n} x\n")).collect::<String>();
        let readers: [(&str, Result<Record>); 8] = [
            ("not utf-8", Record::from_text(b"name \xff\xfe")),
            ("leading space", Record::from_text(b" name x")),
            ("two objects", Record::from_text(b"a 1\n\nb 2\n")),
            ("too many keys", Record::from_text(many.as_bytes())),
            ("truncated json", Record::from_json(br#"{"name": "x"#)),
            ("json array", Record::from_json(b"[1]")),
            ("nested json", Record::from_json(br#"{"a":{"b":1}}"#)),
            ("broken escape", Record::from_form(b"a=%4")),
        ];
        for (what, outcome) in readers {
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::MalformedBody, "{what}");
        }
    }

    #[test]
    fn no_key_that_a_client_chooses_can_forge_a_line() {
        let long = "x".repeat(MAX_WORD);
        for word in ["a", "a:b", "größe", &long] {
            assert!(is_word(word) && keys::find(Object::Drive, &format!("user:{word}")).is_some());
        }
        for text in ["", "a b", "a\nstatus", "a\r", "\t", "\u{2028}", &format!("{long}x")] {
            assert!(!is_word(text), "{text:?}");
            assert!(keys::find(Object::Server, &format!("user:{text}")).is_none(), "{text:?}");
        }
    }

    #[test]
    fn json_numbers_are_bare_only_where_old_clients_expect_them() {
        let server = Record::new()
            .with("cpu", 2000)
            .with("smp", "auto")
            .with("boot", "ide:0:0 block:1")
            .with("ide:0:0:read:bytes", 7);
        let json = server.to_json(Object::Server).to_string();
        assert_eq!(
            json,
            r#"{"boot":["ide:0:0","block:1"],"cpu":2000,"ide:0:0:read:bytes":"7","smp":"auto"}"#
        );
        let drive = Record::new().with("size", 4096).with("write:requests", 7);
        assert_eq!(
            drive.to_json(Object::Drive).to_string(),
            r#"{"size":4096,"write:requests":"7"}"#
        );
    }

    fn written(record: &Record, object: Object) -> String {
        let mut text = String::new();
        record.json_into(object, &mut text);
        text
    }

    proptest! {
        #[test]
        fn what_a_record_writes_as_text_it_reads(
            entries in proptest::collection::btree_map("[a-z:]{1,8}", "[^\u{0}]{1,11}\r?", 1..8)
        ) {
            let record = Record { entries: entries.into_iter().collect() };
            prop_assert_eq!(Record::from_text(record.to_text().as_bytes()).unwrap(), record.clone());
            let json = record.to_json(Object::Drive).to_string();
            prop_assert_eq!(Record::from_json(json.as_bytes()).unwrap(), record);
        }

        #[test]
        fn what_is_written_at_once_is_what_is_written_by_way_of_values(
            cpu in "0{0,2}[0-9]{0,22}|[a-z+]",
            boot in "([a-z0-9:]{0,7} ){0,3}[a-z0-9:]{0,7}",
            key in ".{1,5}",
            value in "(.|[\u{0}-\u{22}\\\\]){0,12}",
        ) {
            let record = Record::new().with("cpu", cpu).with("boot", boot).with(key, value);
            for object in Object::ALL {
                let json = written(&record, object);
                prop_assert_eq!(&json, &record.to_json(object).to_string());
                let same = Record::from_json(json.as_bytes()).is_ok_and(|read| read == record);
                prop_assert!(same || !record.survives_json(object), "{}", json);
            }
            prop_assert_eq!(written(&Record::new(), Object::Host), "{}");
        }

        #[test]
        fn no_bytes_panic_a_parser(body: Vec<u8>) {
            let _ = (Record::from_text(&body), Record::from_json(&body), Record::from_form(&body));
            let _ = (Record::list_from_text(&body), Record::list_from_json(&body));
        }
    }
}
