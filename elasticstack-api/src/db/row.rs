//! Reading columns into the core's types, and naming what failed.
//!
//! A value that is not what its column promises is an `Internal` error that names the column:
//! nothing that stands in the database can panic the process.

use std::collections::BTreeMap;
use std::str::FromStr;

use elasticstack_core::prelude::*;
use elasticstack_core::wire::record::Record;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::dialect::{Column, Failure, Row, is_outage};

/// Turns the database's error into ours, saying what was being done.
pub(super) fn failed<E: Into<Failure>>(doing: &'static str) -> impl Fn(E) -> Error {
    move |error| {
        let failure = error.into();
        let ours = if is_outage(&failure) {
            Error::new(
                ErrorKind::Unavailable,
                "the control plane's database does not answer: repeat the call in a moment",
            )
            .context(doing)
        } else {
            Error::internal(doing)
        };
        ours.source(failure)
    }
}

/// A column as the database has it.
pub(super) fn column<'r, T: Column<'r>>(row: &'r Row, name: &str) -> Result<T> {
    row.column(name)
        .map_err(|error| Error::internal(format!("reading column {name}")).source(error))
}

/// A column that is a number and never negative.
pub(super) fn number(row: &Row, name: &str) -> Result<u64> {
    let value: i64 = column(row, name)?;
    u64::try_from(value).map_err(|_| unexpected(name, &value.to_string()))
}

/// A column that is a small number.
pub(super) fn small(row: &Row, name: &str) -> Result<u32> {
    let value = number(row, name)?;
    u32::try_from(value).map_err(|_| unexpected(name, &value.to_string()))
}

/// A column that is a number of bytes.
pub(super) fn bytes(row: &Row, name: &str) -> Result<Bytes> {
    let value = number(row, name)?;
    Bytes::try_from(value).map_err(|_| unexpected(name, &value.to_string()))
}

/// A column that is an instant.
pub(super) fn instant(row: &Row, name: &str) -> Result<Timestamp> {
    column(row, name).map(Timestamp::from_micros)
}

/// A column that is text of a form.
pub(super) fn parsed<T: FromStr>(row: &Row, name: &str) -> Result<T> {
    let text: &str = column(row, name)?;
    text.parse().map_err(|_| unexpected(name, text))
}

/// A column that is text of a form, or null.
pub(super) fn parsed_if_any<T: FromStr>(row: &Row, name: &str) -> Result<Option<T>> {
    let text: Option<&str> = column(row, name)?;
    text.map(|text| text.parse().map_err(|_| unexpected(name, text))).transpose()
}

/// A column that is one word of a list.
pub(super) fn word<T>(
    row: &Row,
    name: &str,
    from_word: impl FnOnce(&str) -> Option<T>,
) -> Result<T> {
    let text: &str = column(row, name)?;
    from_word(text).ok_or_else(|| unexpected(name, text))
}

/// A column that keeps a value as JSON, or null.
pub(super) fn from_json_if_any<T: DeserializeOwned>(row: &Row, name: &str) -> Result<Option<T>> {
    let text: Option<&str> = column(row, name)?;
    text.map(serde_json::from_str)
        .transpose()
        .map_err(|error| Error::internal(format!("reading column {name}")).source(error))
}

/// What [`from_json_if_any`] reads.
pub(super) fn to_json_if_any<T: Serialize>(
    value: Option<&T>,
    name: &str,
) -> Result<Option<String>> {
    value
        .map(serde_json::to_string)
        .transpose()
        .map_err(|error| Error::internal(format!("writing column {name}")).source(error))
}

/// A column that keeps a record.
pub(super) fn record(row: &Row, name: &str) -> Result<Record> {
    let text: &str = column(row, name)?;
    let keys: BTreeMap<String, String> = serde_json::from_str(text)
        .map_err(|error| Error::internal(format!("reading column {name}")).source(error))?;
    let mut record = Record::new();
    for (key, value) in keys {
        record.set(key, value);
    }
    Ok(record)
}

/// What [`record`] reads.
pub(super) fn from_record(record: &Record) -> Result<String> {
    let keys: BTreeMap<&str, &str> = record.iter().collect();
    serde_json::to_string(&keys).map_err(|error| Error::internal("writing a record").source(error))
}

/// A counter as the database stores it; one past its range stays at the end of it.
pub(super) fn stored(counter: u64) -> i64 {
    i64::try_from(counter).unwrap_or(i64::MAX)
}

fn unexpected(name: &str, value: &str) -> Error {
    Error::internal(format!(
        "column {name} holds {value:?}, which no version of this program wrote"
    ))
}
