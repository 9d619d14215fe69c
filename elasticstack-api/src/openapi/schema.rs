//! JSON Schemas of records, from the table of keys: what a client may give, and what answers hold.
//!
//! Invariant: what a schema of something given allows, the table's own check takes, and nothing
//! else, but for what hangs on several keys or on what there is (a drive that is plugged in twice).

use elasticstack_core::wire::keys::{Form, Input, KEYS, Key, Object, Shape, Standing, Takes};
use serde_json::{Map, Value, json};

/// A character of a word that a client chooses, as JSON Schema's dialect of expressions has it.
const WORD: &str = r"[^\s\u0000-\u001f\u007f-\u009f]{1,80}";
const UUID: &str = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";
pub(super) const NO_NUL: &str = r"^[^\u0000]*$";
const NAME: &str = r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$";

/// What a record that is given is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// Making an object.
    Make,
    /// Changing one.
    Change,
}

/// The keys of `object`, in the table's order.
pub(super) fn keys_of(object: Object) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.objects.contains(&object))
}

/// The keys of `object` that a client may give with this wish.
pub(super) fn given_keys(object: Object, wish: Wish) -> impl Iterator<Item = &'static Key> {
    keys_of(object).filter(move |key| match key.input {
        Input::Never => false,
        Input::Create => wish == Wish::Make,
        Input::Stopped | Input::Always => true,
    })
}

/// The keys that this wish can't do without.
pub(super) fn needed_keys(object: Object, wish: Wish) -> impl Iterator<Item = &'static Key> {
    given_keys(object, wish)
        .filter(move |key| wish == Wish::Make && key.needed_by.contains(&object))
}

/// The record that a client gives.
pub(super) fn given(object: Object, wish: Wish) -> Value {
    let keys = given_keys(object, wish);
    let mut schema = record(keys.map(|key| (key, given_value(key, object, wish))));
    let needed: Vec<&str> = needed_keys(object, wish).map(|key| key.pattern).collect();
    if !needed.is_empty() {
        schema["required"] = json!(needed);
    }
    schema
}

/// The record that an answer is.
pub(super) fn answered(object: Object) -> Value {
    record(keys_of(object).map(|key| (key, answered_value(key))))
}

/// The lines that an answer of text is, of one record or of several.
pub(super) fn lines(object: Object) -> Value {
    let names: Vec<String> = keys_of(object).map(|key| expression(key.pattern)).collect();
    let line = format!("({}) [^\\n]*\\n", names.join("|"));
    json!({
        "type": "string",
        "description": "Lines of KEY VALUE, sorted by key; records are parted by an empty line.",
        "pattern": format!("^(({line})+(\\n({line})+)*)?$"),
    })
}

/// A path's parameter that is a UUID.
pub(super) fn uuid() -> Value {
    json!({ "type": "string", "format": "uuid", "pattern": format!("^{UUID}$") })
}

/// A path's parameter that names a resource: a UUID or an address.
pub(super) fn resource() -> Value {
    json!({ "anyOf": [uuid(), { "type": "string", "pattern": Form::Address.pattern() }] })
}

/// A path's parameter that is one of these words.
pub(super) fn one_of(words: &[&str]) -> Value {
    json!({ "type": "string", "enum": words })
}

/// A path's parameter that is a whole number.
pub(super) fn amount() -> Value {
    json!({ "type": "integer", "minimum": 1, "maximum": u32::MAX })
}

/// A path's parameter that is a number of bytes.
pub(super) fn size() -> Value {
    json!({ "type": "string", "pattern": sizes("[0-9]"), "x-unit": "bytes" })
}

fn record(keys: impl Iterator<Item = (&'static Key, Value)>) -> Value {
    let (mut properties, mut patterns) = (Map::new(), Map::new());
    for (key, mut schema) in keys {
        schema["description"] = key.doc.into();
        schema["x-since"] = key.since.into();
        if let Some(unit) = key.unit {
            schema["x-unit"] = unit.into();
        }
        match key.standing {
            Standing::Honoured => {}
            Standing::Kept => schema["x-standing"] = "kept, not honoured yet".into(),
            Standing::RefusedBut(_) => schema["x-standing"] = "refused but for these".into(),
        }
        if is_plain(key.pattern) {
            properties.insert(key.pattern.to_owned(), schema);
        } else {
            patterns.insert(format!("^{}$", expression(key.pattern)), schema);
        }
    }
    let mut schema = json!({ "type": "object", "additionalProperties": false });
    if !properties.is_empty() {
        schema["properties"] = properties.into();
    }
    if !patterns.is_empty() {
        schema["patternProperties"] = patterns.into();
    }
    schema
}

fn is_plain(pattern: &str) -> bool {
    !pattern.contains(['{', '*'])
}

/// The expression that a pattern of the table stands for; nothing else in it is special.
fn expression(pattern: &str) -> String {
    pattern.replace('{', "[").replace('}', "]").replace('*', WORD)
}

fn given_value(key: &Key, object: Object, wish: Wish) -> Value {
    let needed = key.needed_by.contains(&object);
    let mut forms = Vec::new();
    if let Standing::RefusedBut(values) = key.standing {
        forms.extend(values.iter().map(|value| json!({ "const": value })));
    } else {
        forms.extend(forms_of(key.takes, needed && wish == Wish::Make));
    }
    // A size of nothing leaves it as it is; nothing else that is needed can be unset.
    if !needed || (wish == Wish::Change && key.takes == Takes::Size) {
        forms.push(json!({ "enum": ["", null] }));
    }
    let mut schema = json!({ "anyOf": forms });
    match key.takes {
        Takes::Drive => schema["x-object"] = Object::Drive.word().into(),
        Takes::Devices => schema["x-names-keys"] = true.into(),
        _ => {}
    }
    schema
}

/// The forms in which JSON may give a value; text gives the forms of a string.
fn forms_of(takes: Takes, is_needed: bool) -> Vec<Value> {
    match takes {
        Takes::Text(max) => scalars(max, NO_NUL),
        Takes::Words(max) => {
            let mut forms = scalars(max, NO_NUL);
            let items = json!({ "anyOf": scalars(max, NO_NUL) });
            forms.push(json!({ "type": "array", "items": items }));
            forms
        }
        Takes::Name => scalars(elasticstack_core::name::Name::MAX_CHARS, NAME),
        Takes::Uuids(max) => {
            let text = format!("^{UUID}( {UUID})*$");
            let most = max.saturating_add(1) / 37;
            vec![
                json!({ "type": "string", "maxLength": max, "pattern": text }),
                json!({ "type": "array", "maxItems": most, "items": uuid() }),
            ]
        }
        Takes::Size => {
            let (least, first) = if is_needed { (1, "[1-9]") } else { (0, "[0-9]") };
            vec![
                json!({ "type": "integer", "minimum": least, "maximum": i64::MAX }),
                json!({ "type": "string", "pattern": sizes(first) }),
            ]
        }
        Takes::Range(low, high) => range(low, high),
        Takes::RangeOrAuto(low, high) => {
            let mut forms = range(low, high);
            forms.push(json!({ "const": "auto" }));
            forms
        }
        Takes::Flag => vec![json!({ "enum": [true, false, "true", "false"] })],
        Takes::Form(form) => {
            let mut schema = json!({ "type": "string", "pattern": form.pattern() });
            if let Some(most) = form.most() {
                schema["maxLength"] = most.into();
            }
            vec![schema]
        }
        Takes::OneOf(words) => vec![json!({ "enum": words })],
        Takes::Drive => vec![uuid()],
        Takes::Devices => {
            let ports = KEYS.iter().filter(|key| key.takes == Takes::Drive);
            let ports: Vec<String> = ports.map(|key| expression(key.pattern)).collect();
            let port = format!("({})", ports.join("|"));
            let item = json!({ "type": "string", "pattern": format!("^{port}$") });
            vec![
                json!({ "type": "string", "pattern": format!("^{port}( {port})*$") }),
                json!({ "type": "array", "items": item }),
            ]
        }
        Takes::Nothing => Vec::new(),
    }
}

/// Text of at most `max` characters, or what JSON has for it: a whole number or a boolean.
fn scalars(max: usize, pattern: &str) -> Vec<Value> {
    let digits =
        |count: usize| u32::try_from(count).ok().and_then(|count| 10_i64.checked_pow(count));
    let highest = digits(max).map_or(json!(u64::MAX), |limit| json!(limit - 1));
    let lowest = digits(max.saturating_sub(1)).map_or(json!(i64::MIN), |limit| json!(1 - limit));
    let mut forms = vec![
        json!({ "type": "string", "minLength": 1, "maxLength": max, "pattern": pattern }),
        json!({ "type": "integer", "minimum": lowest, "maximum": highest }),
    ];
    if max >= "false".len() {
        forms.push(json!({ "type": "boolean" }));
    }
    forms
}

/// A whole number in a range, bare or quoted. Quoted, it is shown for the lengths of which every
/// number is in the range.
fn range(low: u32, high: u32) -> Vec<Value> {
    let mut forms = vec![json!({ "type": "integer", "minimum": low, "maximum": high })];
    let is_inside = |digits: &u32| {
        let (first, end) = (10_u64.pow(digits - 1), 10_u64.pow(*digits));
        first >= u64::from(low) && end - 1 <= u64::from(high)
    };
    let inside: Vec<u32> = (1..=10).filter(is_inside).collect();
    if let (Some(shortest), Some(longest)) = (inside.first(), inside.last()) {
        let pattern = format!("^[1-9][0-9]{{{},{}}}$", shortest - 1, longest - 1);
        forms.push(json!({ "type": "string", "pattern": pattern }));
    }
    forms
}

/// Numbers of bytes below the largest, by suffix.
fn sizes(first: &str) -> String {
    let digits = |count: u8| format!("{first}[0-9]{{0,{}}}", count - 1);
    let (none, kilo, mega, giga, tera) = (digits(18), digits(15), digits(12), digits(9), digits(6));
    format!("^({none}|{kilo}[kK]|{mega}M|{giga}G|{tera}T)$")
}

fn answered_value(key: &Key) -> Value {
    match (key.shape, key.takes) {
        (Shape::Number, Takes::RangeOrAuto(..)) => {
            json!({ "anyOf": [{ "type": "integer" }, { "const": "auto" }] })
        }
        (Shape::Number, _) => json!({ "type": "integer" }),
        (Shape::Text, _) => json!({ "type": "string" }),
        (Shape::Devices, _) => json!({
            "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }],
        }),
    }
}

/// A value that this key takes, for examples.
pub(super) fn example(key: &Key) -> Value {
    match key.takes {
        Takes::Name => "web".into(),
        Takes::Size => "10G".into(),
        Takes::Range(low, high) | Takes::RangeOrAuto(low, high) => {
            low.saturating_mul(4).min(high).into()
        }
        Takes::Flag => "true".into(),
        Takes::Form(form) => form.example().into(),
        Takes::OneOf(words) => words.first().copied().unwrap_or_default().into(),
        Takes::Drive | Takes::Uuids(_) => EXAMPLE_UUID.into(),
        Takes::Text(_) | Takes::Words(_) | Takes::Devices | Takes::Nothing => "example".into(),
    }
}

/// The object of all examples.
pub(super) const EXAMPLE_UUID: &str = "5b0e3c52-0000-4000-8000-00000000d001";

#[cfg(test)]
mod tests {
    use elasticstack_core::wire::keys::{Moment, check};
    use elasticstack_core::wire::record::Record;

    use super::*;

    #[test]
    fn an_example_of_every_needed_key_makes_a_record_that_is_taken() {
        for object in [Object::Drive, Object::Host, Object::Server] {
            let mut record = Record::new();
            for key in needed_keys(object, Wish::Make) {
                let value = example(key);
                record.set(key.pattern, value.as_str().map_or(value.to_string(), str::to_owned));
            }
            check(object, Moment::Create, &record).unwrap();
        }
    }

    #[test]
    fn a_change_may_unset_what_the_schema_says_it_may() {
        for object in KEYS.iter().flat_map(|key| key.objects).copied() {
            for key in given_keys(object, Wish::Change).filter(|key| is_plain(key.pattern)) {
                let schema = given_value(key, object, Wish::Change);
                let forms = schema["anyOf"].as_array().unwrap();
                let may_be_unset = forms.contains(&json!({ "enum": ["", null] }));
                let unset = Record::new().with(key.pattern, "");
                let is_taken = check(object, Moment::SetStopped, &unset).is_ok();
                assert_eq!(is_taken, may_be_unset, "{} of {}", key.pattern, object.word());
            }
        }
    }

    #[test]
    fn quoted_numbers_are_shown_only_where_all_of_a_length_are_taken() {
        for (low, high, pattern) in [
            (500, 100_000, Some("^[1-9][0-9]{3,4}$")),
            (1, 64, Some("^[1-9][0-9]{0,0}$")),
            (128, 1_048_576, Some("^[1-9][0-9]{3,5}$")),
            (20, 30, None),
            (0, u32::MAX, Some("^[1-9][0-9]{0,8}$")),
        ] {
            let forms = range(low, high);
            let shown = forms.get(1).and_then(|form| form["pattern"].as_str());
            assert_eq!(shown, pattern, "{low} to {high}");
        }
    }

    #[test]
    fn the_bounds_of_whole_numbers_are_those_of_their_text() {
        let bounds = |max| {
            let forms = scalars(max, NO_NUL);
            (forms[1]["minimum"].clone(), forms[1]["maximum"].clone())
        };
        assert_eq!(bounds(8), (json!(-9_999_999), json!(99_999_999)));
        assert_eq!(bounds(80), (json!(i64::MIN), json!(u64::MAX)));
    }
}
