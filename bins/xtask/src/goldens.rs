//! Rewrites golden files. A test whose name contains `golden` compares what the code says with a
//! file beside it, and writes the file instead when `UPDATE_GOLDENS=1`; nextest checks them on every
//! run, this command only sets the variable.
//!
//! `layers.txt` is not refreshed here: an edge between crates is a decision, see `layers --bless`.

use anyhow::Result;

use crate::{process, tools};

/// Runs the golden tests in writing mode and shows which files changed.
pub(crate) fn run() -> Result<()> {
    tools::ensure_nextest()?;
    let mut write = process::cargo(["nextest", "run", "--workspace", "-E", "test(golden)"])?;
    process::run(write.env("UPDATE_GOLDENS", "1"))?;
    process::run(process::command("git")?.args(["--no-pager", "diff", "--stat"]))
}
