//! `cargo xtask layers`: the rules that keep the tree as it was meant. Owns which files are read and
//! the printing of what was found; the rules themselves are pure and stand one subject a file.
//!
//! A violation is one line: where, which rule, what to do. All of them are printed, not the first.

pub(crate) mod graph;
mod manifest;
mod promises;
mod source;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::process;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write the edges found to layers.txt before checking
    #[arg(long)]
    bless: bool,
}

/// One broken rule at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// The file from the root, with `:line` where there is one.
    place: String,
    rule: &'static str,
    remedy: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.place, self.rule, self.remedy)
    }
}

impl Violation {
    fn new(place: impl Into<String>, rule: &'static str, remedy: impl Into<String>) -> Self {
        Self { place: place.into(), rule, remedy: remedy.into() }
    }
}

const GOLDEN: &str = "layers.txt";

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.bless {
        fs::write(process::root().join(GOLDEN), graph::render(&graph::members()?))
            .with_context(|| format!("{GOLDEN} cannot be written"))?;
    }
    check()
}

/// Checks the whole tree.
///
/// # Errors
/// Any rule is broken; each violation has been printed.
pub(crate) fn check() -> Result<()> {
    let findings = inspect()?;
    for file in &findings.unsafe_files {
        println!("{file} has unsafe code");
    }
    for violation in &findings.violations {
        eprintln!("{violation}");
    }
    match findings.violations.len() {
        0 => Ok(()),
        1 => bail!("1 rule is broken"),
        n => bail!("{n} rules are broken"),
    }
}

#[derive(Default)]
struct Findings {
    violations: Vec<Violation>,
    unsafe_files: Vec<String>,
}

fn inspect() -> Result<Findings> {
    let mut findings = Findings::default();
    let violations = &mut findings.violations;

    let members = graph::members()?;
    violations.extend(graph::fences(&members));
    violations.extend(graph::differences(&read(GOLDEN)?, &graph::render(&members)));
    violations.extend(graph::runtime_in_core()?);

    violations.extend(manifest::check_root(&read("Cargo.toml")?));
    for member in &members {
        violations.extend(manifest::check_member(member.manifest(), &read(member.manifest())?)?);
    }

    let mut tests = BTreeSet::new();
    for path in rust_files()? {
        let scan = source::scan(&path, &read(&path)?);
        violations.extend(scan.violations);
        tests.extend(scan.tests);
        if scan.has_unsafe {
            findings.unsafe_files.push(path);
        }
    }
    violations.extend(promises::check(&read("SPECIFICATION.md")?, &tests));
    Ok(findings)
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(process::root().join(path)).with_context(|| format!("{path} cannot be read"))
}

/// Every Rust file that git tracks or would track, from the root.
fn rust_files() -> Result<Vec<String>> {
    let listing = process::capture(process::command("git")?.args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "--",
        "*.rs",
    ]))?;
    // A file deleted but not yet committed is still listed.
    let exists = |path: &&str| process::root().join(path).is_file();
    Ok(listing.lines().filter(exists).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_tree_keeps_every_rule() {
        let shown: Vec<_> = inspect().unwrap().violations.iter().map(ToString::to_string).collect();
        assert!(shown.is_empty(), "{}", shown.join("\n"));
    }

    #[test]
    fn the_files_checked_include_this_one() {
        assert!(rust_files().unwrap().iter().any(|path| path == "bins/xtask/src/layers.rs"));
    }
}
