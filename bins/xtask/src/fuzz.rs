//! Fuzzing of whatever parses bytes from outside, for a bounded time. Owns how the package `fuzz` is
//! built on the pinned toolchain, without a nightly compiler; each file in `fuzz/fuzz_targets` is a
//! target, and `fuzz/seeds/TARGET` holds what it begins with.
//!
//! What a run found worth keeping stays in the project's cache, so the next one begins there. An
//! input that fails is kept beside it, and the message names it.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::process;

const MANIFEST: &str = "fuzz/Cargo.toml";

/// Flags make cross builds of it: build scripts and macros must not get them.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// The counters and comparisons that libFuzzer learns from.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                     -Cllvm-args=-sanitizer-coverage-pc-table \
                     -Cllvm-args=-sanitizer-coverage-trace-compares";

/// The most that one input may take of time and memory, and be long.
const LIMITS: [&str; 3] = ["-timeout=10", "-rss_limit_mb=512", "-max_len=65536"];

/// Builds every target and runs each from its seeds for 10 seconds.
///
/// # Errors
/// A target can't be built, has no seeds, or an input makes it fail: all that do are told.
pub(crate) fn run() -> Result<()> {
    all(Duration::from_secs(10))
}

/// The same, for 10 minutes.
///
/// # Errors
/// Those of [`run`].
pub(crate) fn long() -> Result<()> {
    all(Duration::from_secs(600))
}

/// Runs each target for so long, as many at a time as there are processors.
fn all(each: Duration) -> Result<()> {
    process::run(&mut process::cargo(["fmt", "--check", "--manifest-path", MANIFEST])?)?;
    let home = process::target_dir().join("fuzz");
    let mut build = process::cargo(["build", "--release", "--locked", "--quiet"])?;
    build.args(["--manifest-path", MANIFEST, "--target", TRIPLE, "--target-dir"]).arg(&home);
    process::run(build.env("RUSTFLAGS", FLAGS))?;
    let kept = process::cache_dir()?.join("fuzz");
    let left = Mutex::new(targets()?.into_iter());
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
    let failed = Mutex::new(Vec::new());
    // One that fails keeps no other from its turn.
    let work = || {
        while let Some(name) = next() {
            if let Err(failure) = fuzz(&home, &kept, &name, each) {
                failed.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{failure:#}"));
            }
        }
    };
    let processors = thread::available_parallelism()?.get();
    thread::scope(|scope| (0..processors).for_each(|_| drop(scope.spawn(work))));
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    ensure!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
    Ok(())
}

/// Runs a target that was built in `home`, from what is `kept` of the last runs and from its seeds.
fn fuzz(home: &Path, kept: &Path, name: &str, long: Duration) -> Result<()> {
    let seeds = process::root().join("fuzz/seeds").join(name);
    ensure!(seeds.is_dir(), "{name} has no seeds: put small valid inputs into {}", seeds.display());
    let (corpus, failures) = (kept.join("corpus").join(name), kept.join("failures"));
    for directory in [&corpus, &failures] {
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    }
    let mut fuzzer = process::command(home.join(TRIPLE).join("release").join(name))?;
    fuzzer.args(LIMITS).args(["-verbosity=0", "-print_final_stats=1"]);
    fuzzer.arg(format!("-max_total_time={}", long.as_secs()));
    fuzzer.arg(format!("-artifact_prefix={}/{name}-", failures.display()));
    let output = fuzzer.arg(corpus).arg(seeds).output().with_context(|| format!("run {name}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}{name} ended with {}", output.status);
    let tried = said.lines().find_map(|line| line.strip_prefix(TRIED));
    println!("{name}: {} inputs", tried.context("libFuzzer tells no number of inputs")?.trim());
    Ok(())
}

/// The line that tells how many inputs were tried.
const TRIED: &str = "stat::number_of_executed_units:";

/// The names of all targets, sorted.
fn targets() -> Result<Vec<String>> {
    let directory = process::root().join("fuzz/fuzz_targets");
    let entries = fs::read_dir(&directory).with_context(|| format!("{}", directory.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fuzz_target_is_built_and_has_seeds() {
        let manifest = fs::read_to_string(process::root().join(MANIFEST)).unwrap();
        let targets = targets().unwrap();
        assert!(targets.len() > 5, "{targets:?}");
        for name in targets {
            assert!(manifest.contains(&format!("\"fuzz_targets/{name}.rs\"")), "{name}");
            let seeds = process::root().join("fuzz/seeds").join(&name);
            assert!(fs::read_dir(&seeds).unwrap().count() > 0, "{}", seeds.display());
        }
    }
}
