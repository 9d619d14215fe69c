//! How JSON shows a value, by the shape of its key: as a value of JSON, and written.

use serde_json::Value;

use super::keys::Shape;

/// A value as JSON shows it.
pub(super) fn shape_json(shape: Shape, value: &str) -> Value {
    match shape {
        Shape::Number => value.parse::<u64>().map_or_else(|_| value.into(), Value::from),
        Shape::Text => value.into(),
        Shape::Devices if is_list(value) => value.split(' ').map(Value::from).collect(),
        Shape::Devices => value.into(),
    }
}

/// Whether these are devices with one space between any two: only then a list says all of it.
fn is_list(value: &str) -> bool {
    value.contains(' ') && value.split(' ').all(|device| !device.is_empty())
}

/// What [`shape_json`] gives, written.
pub(super) fn shape_into(text: &mut String, shape: Shape, value: &str) {
    match shape {
        Shape::Number => match value.parse::<u64>() {
            Ok(number) => text.push_str(&number.to_string()),
            Err(_) => quote_into(text, value),
        },
        Shape::Devices if is_list(value) => {
            for (index, device) in value.split(' ').enumerate() {
                text.push(if index == 0 { '[' } else { ',' });
                quote_into(text, device);
            }
            text.push(']');
        }
        Shape::Text | Shape::Devices => quote_into(text, value),
    }
}

/// Writes a string of JSON with the escapes that `serde_json` writes.
pub(super) fn quote_into(text: &mut String, value: &str) {
    text.push('"');
    let mut rest = value;
    while let Some(at) = rest.find(|character: char| character < ' ' || "\"\\".contains(character))
    {
        let (plain, special) = rest.split_at(at);
        text.push_str(plain);
        let mut characters = special.chars();
        match characters.next() {
            Some('\n') => text.push_str("\\n"),
            Some('\r') => text.push_str("\\r"),
            Some('\t') => text.push_str("\\t"),
            Some('\u{8}') => text.push_str("\\b"),
            Some('\u{c}') => text.push_str("\\f"),
            Some(character @ ('"' | '\\')) => text.extend(['\\', character]),
            Some(character) => text.push_str(&format!("\\u{:04x}", u32::from(character))),
            None => {}
        }
        rest = characters.as_str();
    }
    text.push_str(rest);
    text.push('"');
}
