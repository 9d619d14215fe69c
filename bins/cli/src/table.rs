//! Aligned tables. Owns the layout; knows of keys only which of them are amounts.

use std::fmt;

use elasticstack_core::amount;
use elasticstack_core::units::{Bytes, MebiBytes, MegaHertz};
use elasticstack_core::wire::record::Record;
use serde_json::{Map, Value};

/// Rows of cells under optional headings.
#[derive(Debug, Clone, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table whose first row is `headings`.
    #[must_use]
    pub fn with_headings(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|heading| heading.to_uppercase()).collect()] }
    }

    /// Adds a row.
    pub fn push(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| printable(&cell)).collect());
    }

    /// One object: a row a key.
    #[must_use]
    pub fn of_record(record: &Record) -> Self {
        let mut table = Self::default();
        for (key, value) in record.iter() {
            table.push([key.to_owned(), readable(key, value)]);
        }
        table
    }

    /// Several objects: a row an object, a column a key.
    #[must_use]
    pub fn of_records(keys: &[&str], records: &[Record]) -> Self {
        let mut table = Self::with_headings(keys);
        for record in records {
            table.push(keys.iter().map(|key| readable(key, record.value(key).unwrap_or("-"))));
        }
        table
    }

    /// A list of objects whose keys are the headings.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let Some((headings, rows)) = self.rows.split_first() else { return Value::Array(vec![]) };
        let object = |row: &Vec<String>| {
            let cells = headings.iter().zip(row);
            Value::Object(Map::from_iter(
                cells.map(|(heading, cell)| (heading.to_lowercase(), Value::from(cell.as_str()))),
            ))
        };
        rows.iter().map(object).collect()
    }
}

impl fmt::Display for Table {
    /// Columns two spaces apart, nothing after the last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cells = |at: usize| self.rows.iter().filter_map(move |row| row.get(at));
        let widths: Vec<usize> = (0..columns)
            .map(|at| cells(at).map(|cell| cell.chars().count()).max().unwrap_or(0))
            .collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{cell:<width$}  "));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// The value with its unit, where the key has one.
fn readable(key: &str, value: &str) -> String {
    let unit = match key {
        "cpu" => value.parse().ok().map(|mhz| MegaHertz(mhz).to_string()),
        "mem" => value.parse().ok().map(|mib| MebiBytes(mib).to_string()),
        "size" | "rawsize" => value
            .parse::<u64>()
            .ok()
            .and_then(|bytes| Bytes::try_from(bytes).ok())
            .map(amount::shown),
        _ => None,
    };
    unit.unwrap_or_else(|| value.to_owned())
}

/// `text` with every control character replaced: names and logs come from strangers.
#[must_use]
pub fn printable(text: &str) -> String {
    let shown = |character: char| match character {
        '\t' => ' ',
        character if character.is_control() => char::REPLACEMENT_CHARACTER,
        character => character,
    };
    text.chars().map(shown).collect()
}
