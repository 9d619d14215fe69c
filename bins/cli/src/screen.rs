//! Where a command's words go: results to standard output as a table or JSON, progress and errors
//! to standard error. Text from the server is shown so that it cannot steer a terminal.

use std::io::Write;

use elasticstack_core::wire::keys::Object;
use elasticstack_core::wire::record::Record;
use serde_json::Value;

use crate::failure::{Failure, Result};
use crate::table::{Table, printable};

/// The form of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Tables and sentences.
    People,
    /// One JSON document.
    Json,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// One line that changes, on a terminal.
    Live,
    /// A line for each change, in a log.
    Lines,
}

/// What standard output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sink {
    /// A person's terminal, which obeys control characters.
    Terminal,
    /// A file or another program, which takes any bytes.
    Bytes,
}

/// The two outputs of a command.
pub struct Screen<'a> {
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    form: Form,
    progress: Progress,
    sink: Sink,
    shown: String,
}

impl std::fmt::Debug for Screen<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen").field("form", &self.form).finish_non_exhaustive()
    }
}

impl<'a> Screen<'a> {
    /// A screen over standard output, which is a `sink`, and standard error.
    pub fn new(
        (out, sink): (&'a mut dyn Write, Sink),
        (err, progress): (&'a mut dyn Write, Progress),
        form: Form,
    ) -> Self {
        Self { out, err, form, progress, sink, shown: String::new() }
    }

    /// Shows one object with all its keys.
    ///
    /// # Errors
    /// `Output`.
    pub fn record(&mut self, object: Object, record: &Record) -> Result<()> {
        match self.form {
            Form::Json => self.json(&record.to_json(object)),
            Form::People => Ok(write!(self.out, "{}", Table::of_record(record))?),
        }
    }

    /// Shows several objects: those of `columns`' keys, or in JSON everything.
    ///
    /// # Errors
    /// `Output`.
    pub fn records(&mut self, object: Object, columns: &[&str], records: &[Record]) -> Result<()> {
        match self.form {
            Form::Json => self.json(&records.iter().map(|record| record.to_json(object)).collect()),
            Form::People => Ok(write!(self.out, "{}", Table::of_records(columns, records))?),
        }
    }

    /// Shows the headings of columns whose rows come one by one.
    ///
    /// # Errors
    /// `Output`.
    pub fn headings(&mut self, columns: &[(&str, usize)]) -> Result<()> {
        if self.form == Form::Json {
            return Ok(());
        }
        self.cells(columns.iter().map(|(column, width)| (column.to_uppercase(), *width)))
    }

    /// Shows one object as a row, each column so wide at least; in JSON as a line with everything.
    ///
    /// # Errors
    /// `Output`.
    pub fn row(
        &mut self,
        object: Object,
        columns: &[(&str, usize)],
        record: &Record,
    ) -> Result<()> {
        if self.form == Form::Json {
            writeln!(self.out, "{}", record.to_json(object))?;
            return Ok(self.out.flush()?);
        }
        let cell = |column: &str| printable(record.value(column).unwrap_or("-"));
        self.cells(columns.iter().map(|(column, width)| (cell(column), *width)))
    }

    fn cells(&mut self, cells: impl Iterator<Item = (String, usize)>) -> Result<()> {
        let line: String = cells.map(|(cell, width)| format!("{cell:<width$}  ")).collect();
        writeln!(self.out, "{}", line.trim_end())?;
        Ok(self.out.flush()?)
    }

    /// Says that something was done to `id`: a sentence, or in JSON the id under `key`.
    ///
    /// # Errors
    /// `Output`.
    pub fn done(&mut self, key: &str, id: &str, what: &str) -> Result<()> {
        match self.form {
            Form::Json => self.json(&serde_json::json!({ key: id })),
            Form::People => Ok(writeln!(self.out, "{key} {id}: {what}")?),
        }
    }

    /// Shows a table with headings.
    ///
    /// # Errors
    /// `Output`.
    pub fn table(&mut self, table: &Table) -> Result<()> {
        match self.form {
            Form::Json => self.json(&table.to_json()),
            Form::People => Ok(write!(self.out, "{table}")?),
        }
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// `Output`.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes)?;
        Ok(self.out.flush()?)
    }

    /// Writes a log: as it is, but harmless on a terminal.
    ///
    /// # Errors
    /// `Output`.
    pub fn log(&mut self, log: &[u8]) -> Result<()> {
        match self.sink {
            Sink::Bytes => self.bytes(log),
            Sink::Terminal => {
                let text = String::from_utf8_lossy(log).replace('\r', "");
                let lines: Vec<_> = text.split('\n').map(printable).collect();
                self.bytes(lines.join("\n").as_bytes())
            }
        }
    }

    /// Shows how far something is. Progress that cannot be shown is no failure.
    pub fn progress(&mut self, line: &str) {
        if line == self.shown {
            return;
        }
        let line = printable(line);
        let _ = match self.progress {
            Progress::Live => {
                let width = self.shown.chars().count();
                write!(self.err, "\r{line:<width$}").and_then(|()| self.err.flush())
            }
            Progress::Lines => writeln!(self.err, "{line}"),
        };
        self.shown = line;
    }

    /// Ends a line of progress, if one is open.
    pub fn progress_ends(&mut self) {
        if self.progress == Progress::Live && !self.shown.is_empty() {
            let _ = writeln!(self.err);
        }
        self.shown.clear();
    }

    /// Says why the command failed. Where even that cannot be said, the status says it.
    pub fn failed(&mut self, failure: &Failure) {
        self.progress_ends();
        if let Some(line) = failure.line() {
            let _ = writeln!(self.err, "{}", printable(&line));
        }
    }

    fn json(&mut self, value: &Value) -> Result<()> {
        Ok(writeln!(self.out, "{value:#}")?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_one_changing_line_on_a_terminal_and_lines_in_a_log() {
        for (progress, wanted) in
            [(Progress::Live, "\rcopied 9%\rdone     \n"), (Progress::Lines, "copied 9%\ndone\n")]
        {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let mut screen =
                Screen::new((&mut out, Sink::Bytes), (&mut err, progress), Form::People);
            for line in ["copied 9%", "copied 9%", "done"] {
                screen.progress(line);
            }
            screen.progress_ends();
            assert_eq!(String::from_utf8(err).unwrap(), wanted);
        }
    }

    #[test]
    fn a_log_cannot_steer_a_terminal_and_is_whole_in_a_file() {
        let log = b"up\r\n\x1b]0;owned\x07\xff\n";
        for (sink, wanted) in [
            (Sink::Bytes, log.as_slice()),
            (Sink::Terminal, "up\n\u{fffd}]0;owned\u{fffd}\u{fffd}\n".as_bytes()),
        ] {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let mut screen =
                Screen::new((&mut out, sink), (&mut err, Progress::Lines), Form::People);
            screen.log(log).unwrap();
            assert_eq!(out, wanted, "{sink:?}");
        }
    }
}
