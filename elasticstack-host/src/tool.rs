//! Debian's tools, as functions: what one prints, or an error that says what it complained of.

use std::process::{Command, Stdio};

use elasticstack_core::prelude::*;

/// Runs a tool to its end and answers what it printed.
///
/// # Errors
/// `Internal` if it can't be started or fails; with what it said of that.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    // Its words are read, so they are to be the same everywhere.
    let output = command.env("LC_ALL", "C").stdin(Stdio::null()).output();
    let output = output.map_err(|error| {
        Error::internal(format!("starting {name}: is its package installed?")).source(error)
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        return Err(Error::internal(format!("{name} ended with {}: {said}", output.status)));
    }
    String::from_utf8(output.stdout)
        .map_err(|error| Error::internal(format!("reading what {name} printed")).source(error))
}
