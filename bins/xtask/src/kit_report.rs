//! `cargo xtask kit-report`: runs the kits on every backend of this repository, the simulated ones and
//! the real ones on real guests, and prints backend × clause. Owns which tests those are and how
//! the report looks; the verdicts are the tests' own.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use elasticstack_core::conformance::{Outcome, Verdict, collect, table};

use crate::{process, tools};

/// Prints the table, and below it what was skipped and why, and what fails.
///
/// # Errors
/// A clause is broken, or a kit could not run.
pub(crate) fn run() -> Result<()> {
    tools::ensure_packages()?;
    let mut kits = process::cargo(["test", "--quiet", "--locked", "--no-fail-fast"])?;
    kits.args([
        "-p",
        "elasticstack-core",
        "-p",
        "elasticstack-host",
        "-p",
        "elasticstack-bin-target",
        "-p",
        "elasticstack-bin-vmm",
    ]);
    kits.args(["--lib", "--test", "it"]);
    // One at a time, as guests on a software CPU need all of it; every test of a kit has `kit` in
    // its path.
    kits.args(["--", "kit", "--include-ignored", "--nocapture", "--test-threads=1"]);
    let run = kits.stderr(Stdio::inherit()).output().context("`cargo test` cannot be started")?;
    let backends = collect(&String::from_utf8_lossy(&run.stdout));
    print!("{}", table(&backends));
    for (backend, verdicts) in &backends {
        for Verdict { check, outcome, .. } in verdicts {
            match outcome {
                Ok(Outcome::Kept) => {}
                Ok(Outcome::Skipped { missing }) => {
                    println!("{backend} skips {check}: no {missing}")
                }
                Err(violation) => println!("{backend} FAILS {check}: {violation}"),
            }
        }
    }
    ensure!(run.status.success(), "the kits ended with {}: see above", run.status);
    ensure!(!backends.is_empty(), "no kit ran");
    Ok(())
}
