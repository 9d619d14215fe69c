//! Tests that run themselves on a machine: the test's own program is there, since the machine's root
//! is ours, and is told by the environment what part of the test it is to do.

use anyhow::{Context as _, Result, ensure};

use super::Machine;

const STAGE: &str = "ELASTICSTACK_LAB_STAGE";

/// The part of a test that this process is to do, on a machine; `None` for the part that boots one.
#[must_use]
pub fn stage() -> Option<String> {
    std::env::var(STAGE).ok()
}

impl Machine {
    /// Runs a part of the test of this name, of this very program, and waits for its end. What it
    /// printed is answered.
    ///
    /// # Errors
    /// The machine is gone, or the test fails there, with what it printed.
    pub fn run_stage(&mut self, test: &str, stage: &str) -> Result<String> {
        let program = std::env::current_exe().context("find this program")?;
        let program = program.to_str().context("this program's path is no text")?;
        let run = format!("'{program}' --exact {test} --include-ignored --nocapture");
        let printed = self.run(&format!("{STAGE}={stage} {run}"))?.ok()?;
        // A name that no test has is no failure to the program.
        ensure!(printed.contains("1 passed"), "there is no test {test}:\n{printed}");
        Ok(printed)
    }
}
