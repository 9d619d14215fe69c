//! `cargo xtask judge schemathesis`: Schemathesis reads the API's own description from the running
//! product and sends whatever that allows and forbids, as an operator who owns objects. `judge.toml`
//! is its configuration; the hooks beside this file say what valid data means.
//!
//! Its own checks must hold, no 5xx among them, and enough of what it sends must be served: a judge
//! whose calls are all refused has judged nothing.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result, ensure};

use super::{python_with, with_product};
use crate::process;

const SCHEMATHESIS: &str = "schemathesis==4.32.5";
const CONFIGURATION: &str = "judge.toml";

const SEED: u32 = 3;

/// How many of a hundred calls must reach a 2xx.
const ENOUGH: u64 = 60;

/// As a stage of the tests: two minutes, with the same calls each time.
pub(crate) fn daily() -> Result<()> {
    judge(120, Some(SEED))
}

/// As a stage of the night: twenty minutes, with other calls each time.
pub(crate) fn nightly() -> Result<()> {
    judge(1200, None)
}

fn judge(seconds: u32, seed: Option<u32>) -> Result<()> {
    let schemathesis = python_with(SCHEMATHESIS)?.join("st");
    with_product(|product| {
        let environment: BTreeMap<_, _> = product.environment()?.into_iter().collect();
        let of = |name: &str| environment.get(name).with_context(|| format!("no {name}"));
        let (user, key) = of("OPERATOR_AUTH")?.split_once(':').context("no UUID:KEY")?;
        let document = format!("{}/openapi.json", of("EHURI")?.trim_end_matches('/'));
        let counts = product.data_dir().join("judge-counts.json");
        let mut judge = process::command(&schemathesis)?;
        judge.args(["--config-file", CONFIGURATION, "run", "--max-time"]);
        judge.args([&seconds.to_string(), &document]);
        if let Some(seed) = seed {
            judge.args(["--seed", &seed.to_string()]);
        }
        judge.envs(&environment).env("JUDGE_COUNTS", &counts);
        judge.env("HYPOTHESIS_STORAGE_DIRECTORY", product.data_dir().join("hypothesis"));
        let verdict = process::run(judge.envs([("JUDGE_USER", user), ("JUDGE_KEY", key)]));
        let text = fs::read_to_string(&counts).context("schemathesis left no counts")?;
        let tally = Tally::of(&serde_json::from_str(&text)?)?;
        println!("{}", tally.report());
        verdict.context("schemathesis is not content")?;
        tally.check()
    })
}

/// How calls were answered.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    /// For every operation that was called with valid data: calls, and 2xx among them.
    valid: BTreeMap<String, (u64, u64)>,
    invalid: u64,
    server_errors: u64,
}

impl Tally {
    /// Reads counts by `valid|invalid STATUS OPERATION`.
    fn of(counts: &BTreeMap<String, u64>) -> Result<Self> {
        let mut tally = Self::default();
        for (what, count) in counts {
            let mut words = what.splitn(3, ' ');
            let (Some(kind), Some(status), Some(operation)) =
                (words.next(), words.next(), words.next())
            else {
                anyhow::bail!("{what:?} counts nothing");
            };
            let status: u16 = status.parse().with_context(|| format!("{what:?} has no status"))?;
            if status >= 500 {
                tally.server_errors += count;
            }
            if kind == "valid" {
                let (calls, served) = tally.valid.entry(operation.to_owned()).or_default();
                *calls += count;
                *served += if (200..300).contains(&status) { *count } else { 0 };
            } else {
                tally.invalid += count;
            }
        }
        Ok(tally)
    }

    /// Of a hundred calls with valid data, how many were served; and of a hundred operations.
    fn served(&self) -> (u64, u64) {
        let percent = |part: u64, whole: u64| (part * 100).checked_div(whole).unwrap_or(0);
        let calls = self.valid.values().map(|(calls, _)| calls).sum();
        let served = self.valid.values().map(|(_, served)| served).sum();
        let reached = self.valid.values().map(|(_, served)| u64::from(*served > 0)).sum();
        (percent(served, calls), percent(reached, self.valid.len().try_into().unwrap_or(u64::MAX)))
    }

    fn report(&self) -> String {
        let mut lines = String::new();
        for (operation, (calls, served)) in &self.valid {
            lines += &format!("  {served:>6} of {calls:>6} served  {operation}\n");
        }
        let (calls, operations) = self.served();
        let (invalid, broken) = (self.invalid, self.server_errors);
        format!(
            "{lines}with valid data {calls} % of calls and {operations} % of operations reached a \
             2xx; {invalid} calls with invalid data; {broken} answers were 5xx"
        )
    }

    fn check(&self) -> Result<()> {
        let (calls, operations) = self.served();
        ensure!(self.server_errors == 0, "{} answers were 5xx, none may be", self.server_errors);
        for (percent, what) in [(calls, "calls"), (operations, "operations")] {
            ensure!(percent >= ENOUGH, "{percent} % of {what} reached a 2xx, {ENOUGH} % must");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(counts: &[(&str, u64)]) -> Tally {
        Tally::of(&counts.iter().map(|(what, count)| ((*what).to_owned(), *count)).collect())
            .unwrap()
    }

    #[test]
    fn a_judge_whose_calls_are_refused_or_break_the_server_has_no_verdict() {
        let good = [("valid 200 GET /a", 6), ("valid 404 GET /a", 4), ("invalid 400 GET /a", 90)];
        assert_eq!(tally(&good).served(), (60, 100));
        tally(&good).check().unwrap();
        for bad in [
            &[("valid 200 GET /a", 5), ("valid 404 GET /a", 5)][..],
            &[("valid 200 GET /a", 90), ("valid 404 GET /b", 1)],
            &[("valid 200 GET /a", 90), ("invalid 500 GET /a", 1)],
            &[("invalid 400 GET /a", 90)],
            &[],
        ] {
            assert!(tally(bad).check().is_err(), "{bad:?}");
        }
    }
}
