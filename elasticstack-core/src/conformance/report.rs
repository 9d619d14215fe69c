//! Running a whole kit, and printing backend × clause.
//!
//! A kit's tests print a line each, which [`collect`] reads again:
//! `kit-verdict BACKEND CHECK kept`, `… skipped for want of WHAT` or `… FAILS WHAT (found at WHERE)`.

use std::borrow::Cow;

use super::{
    BlockStoreFixture, Check, Clause, HypervisorFixture, LendFixture, Outcome, Violation, clauses,
};
use crate::error::Result;
use crate::scheduler::Scheduler;
use crate::sim;

/// Every check of a block store.
#[must_use]
pub fn blockstore_checks() -> &'static [Check<dyn BlockStoreFixture>] {
    const CHECKS: &[Check<dyn BlockStoreFixture>] =
        crate::__blockstore_checks!(__conformance_table,);
    CHECKS
}

/// Every check of a hypervisor.
#[must_use]
pub fn hypervisor_checks() -> &'static [Check<dyn HypervisorFixture>] {
    const CHECKS: &[Check<dyn HypervisorFixture>] =
        crate::__hypervisor_checks!(__conformance_table,);
    CHECKS
}

/// Every check of a lender.
#[must_use]
pub fn lend_checks() -> &'static [Check<dyn LendFixture>] {
    const CHECKS: &[Check<dyn LendFixture>] = crate::__lend_checks!(__conformance_table,);
    CHECKS
}

/// Every check of a scheduler.
#[must_use]
pub fn scheduler_checks() -> &'static [Check<dyn Scheduler>] {
    const CHECKS: &[Check<dyn Scheduler>] = crate::__scheduler_checks!(__conformance_table,);
    CHECKS
}

/// The name and the clause of every check of every kit.
pub(super) fn every_check() -> impl Iterator<Item = (&'static str, String)> {
    let store = blockstore_checks().iter().map(|check| (check.name(), check.clause()));
    let hypervisor = hypervisor_checks().iter().map(|check| (check.name(), check.clause()));
    let scheduler = scheduler_checks().iter().map(|check| (check.name(), check.clause()));
    let lend = lend_checks().iter().map(|check| (check.name(), check.clause()));
    store.chain(hypervisor).chain(scheduler).chain(lend)
}

impl Check<dyn BlockStoreFixture> {
    /// Runs the check on a fixture that was not used before.
    ///
    /// # Errors
    /// The violation it found.
    pub fn run(&self, fixture: &(dyn BlockStoreFixture + 'static)) -> Result<Outcome, Violation> {
        fixture.block_on((self.test)(fixture))
    }
}

impl Check<dyn HypervisorFixture> {
    /// Runs the check on a fixture that was not used before.
    ///
    /// # Errors
    /// The violation it found.
    pub fn run(&self, fixture: &(dyn HypervisorFixture + 'static)) -> Result<Outcome, Violation> {
        fixture.block_on((self.test)(fixture))
    }
}

impl Check<dyn LendFixture> {
    /// Runs the check on a fixture that was not used before.
    ///
    /// # Errors
    /// The violation it found.
    pub fn run(&self, fixture: &(dyn LendFixture + 'static)) -> Result<Outcome, Violation> {
        fixture.block_on((self.test)(fixture))
    }
}

impl Check<dyn Scheduler> {
    /// Runs the check on a scheduler that was not asked before.
    ///
    /// # Errors
    /// The violation it found.
    pub fn run(&self, scheduler: &(dyn Scheduler + 'static)) -> Result<Outcome, Violation> {
        sim::block_on((self.test)(scheduler))
    }
}

/// How one backend did on one check.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The check's name.
    pub check: &'static str,
    /// The clause that was tested.
    pub clause: String,
    /// What the check found.
    pub outcome: Result<Outcome, Violation>,
}

impl Verdict {
    /// The line that [`collect`] reads, for a kit that runs in another way than as a test a check.
    #[must_use]
    pub fn told_of(&self, backend: &str) -> String {
        told(backend, self.check, &self.outcome)
    }
}

/// Runs the whole block store kit, each check on a fixture of its own.
pub fn blockstore_verdicts<F: BlockStoreFixture + 'static>(new: impl Fn() -> F) -> Vec<Verdict> {
    let verdict = |check: &Check<dyn BlockStoreFixture>| Verdict {
        check: check.name(),
        clause: check.clause(),
        outcome: check.run(&new()),
    };
    blockstore_checks().iter().map(verdict).collect()
}

/// Runs the whole hypervisor kit, each check on a fixture of its own.
pub fn hypervisor_verdicts<F: HypervisorFixture + 'static>(new: impl Fn() -> F) -> Vec<Verdict> {
    let verdict = |check: &Check<dyn HypervisorFixture>| Verdict {
        check: check.name(),
        clause: check.clause(),
        outcome: check.run(&new()),
    };
    hypervisor_checks().iter().map(verdict).collect()
}

/// Runs the whole lend kit, each check on a fixture of its own.
pub fn lend_verdicts<F: LendFixture + 'static>(new: impl Fn() -> F) -> Vec<Verdict> {
    let verdict = |check: &Check<dyn LendFixture>| Verdict {
        check: check.name(),
        clause: check.clause(),
        outcome: check.run(&new()),
    };
    lend_checks().iter().map(verdict).collect()
}

/// Runs the whole scheduler kit, each check on a scheduler of its own.
pub fn scheduler_verdicts<S: Scheduler + 'static>(new: impl Fn() -> S) -> Vec<Verdict> {
    let verdict = |check: &Check<dyn Scheduler>| Verdict {
        check: check.name(),
        clause: check.clause(),
        outcome: check.run(&new()),
    };
    scheduler_checks().iter().map(verdict).collect()
}

const MARK: &str = "kit-verdict ";
const SKIPPED: &str = "skipped for want of ";
const FAILS: &str = "FAILS ";
const FOUND_AT: &str = " (found at ";

/// The line that tells how the test `check` in `module` went; a backend's name is its module's.
pub(super) fn told(module: &str, check: &str, outcome: &Result<Outcome, Violation>) -> String {
    let backend = module.rsplit("::").next().unwrap_or(module);
    let verdict = match outcome {
        Ok(Outcome::Kept) => "kept".to_owned(),
        Ok(Outcome::Skipped { missing }) => format!("{SKIPPED}{missing}"),
        Err(violation) => format!("{FAILS}{violation}").replace('\n', " "),
    };
    format!("{MARK}{backend} {check} {verdict}")
}

/// The verdicts in the output of kit tests, by backend in the order in which each came first.
#[must_use]
pub fn collect(output: &str) -> Vec<(String, Vec<Verdict>)> {
    let mut backends: Vec<(String, Vec<Verdict>)> = Vec::new();
    for (backend, verdict) in output.lines().filter_map(heard) {
        match backends.iter_mut().find(|(name, _)| name == backend) {
            Some((_, verdicts)) => verdicts.push(verdict),
            None => backends.push((backend.to_owned(), vec![verdict])),
        }
    }
    backends
}

/// Reads one line of [`told`], which the test's own name may precede.
fn heard(line: &str) -> Option<(&str, Verdict)> {
    let (_, line) = line.split_once(MARK)?;
    let (backend, line) = line.split_once(' ')?;
    let (check, verdict) = line.split_once(' ')?;
    let (check, clause) = every_check().find(|(name, _)| *name == check)?;
    let outcome = if verdict == "kept" {
        Ok(Outcome::Kept)
    } else if let Some(missing) = verdict.strip_prefix(SKIPPED) {
        Ok(Outcome::Skipped { missing: Cow::Owned(missing.to_owned()) })
    } else {
        let violation = verdict.strip_prefix(FAILS)?.strip_suffix(')')?;
        let (found, at) = violation.rsplit_once(FOUND_AT)?;
        Err(Violation { found: found.to_owned(), at: at.to_owned() })
    };
    Some((backend, Verdict { check, clause, outcome }))
}

/// A table with a row for each clause and a column for each backend: `kept`, `FAILS`, `skipped`
/// if no check of the clause could run, `partly` if some could not, and `-` where the clause is
/// not of that backend's trait.
#[must_use]
pub fn table(backends: &[(String, Vec<Verdict>)]) -> String {
    let widths: Vec<_> = backends.iter().map(|(name, _)| name.len().max(FULL)).collect();
    let names = backends.iter().map(|(name, _)| name.as_str());
    let mut lines = vec![line("clause", names, &widths)];
    for Clause { id, .. } in clauses() {
        let cells = backends.iter().map(|(_, verdicts)| cell(id, verdicts));
        lines.push(line(id, cells, &widths));
    }
    lines.concat()
}

/// The length of the longest cell.
const FULL: usize = "skipped".len();

fn line<'a>(first: &str, cells: impl Iterator<Item = &'a str>, widths: &[usize]) -> String {
    let cells: String =
        cells.zip(widths).map(|(cell, width)| format!("  {cell:<width$}")).collect();
    format!("{}\n", format!("{first:<6}{cells}").trim_end())
}

fn cell(clause: &str, verdicts: &[Verdict]) -> &'static str {
    let of_clause = || verdicts.iter().filter(|verdict| verdict.clause == clause);
    let count = |wanted: fn(&Verdict) -> bool| of_clause().filter(|it| wanted(it)).count();
    let failed = count(|verdict| verdict.outcome.is_err());
    let kept = count(|verdict| verdict.outcome == Ok(Outcome::Kept));
    match (of_clause().count(), failed, kept) {
        (0, _, _) => "-",
        (_, 1.., _) => "FAILS",
        (_, _, 0) => "skipped",
        (all, _, kept) if kept < all => "partly",
        _ => "kept",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_tests_tell_is_collected_by_backend() {
        let outcomes = [
            Ok(Outcome::Kept),
            Ok(Outcome::Skipped { missing: Cow::Borrowed("array of gold") }),
            Err(Violation::new("lies (found at night), twice")),
        ];
        let line = |module, outcome| {
            format!("test x ... {}\nok\n", told(module, "bs_2_new_drives_are_zeros", outcome))
        };
        let mut output = "running 4 tests\n".to_owned();
        output.extend(outcomes.iter().map(|outcome| line("it::kits::one", outcome)));
        output += &line("two", &Ok(Outcome::Kept));
        let [(one, verdicts), (two, others)] = &*collect(&output) else { panic!("{output}") };
        assert_eq!((one.as_str(), two.as_str(), others.len()), ("one", "two", 1));
        assert!(verdicts.iter().all(|verdict| verdict.clause == "BS-2"));
        assert!(verdicts.iter().map(|verdict| &verdict.outcome).eq(&outcomes), "{verdicts:#?}");
    }

    #[test]
    fn the_table_shows_the_worst_of_each_clause() {
        let verdict = |clause: &str, outcome| Verdict {
            check: "made up",
            clause: clause.to_owned(),
            outcome,
        };
        let skipped = Ok(Outcome::Skipped { missing: Cow::Borrowed("hands") });
        let backends = [
            (
                "good".to_owned(),
                vec![
                    verdict("BS-1", Ok(Outcome::Kept)),
                    verdict("BS-1", Ok(Outcome::Kept)),
                    verdict("BS-3", Ok(Outcome::Kept)),
                    verdict("BS-3", skipped.clone()),
                    verdict("RS-1", skipped),
                ],
            ),
            (
                "bad".to_owned(),
                vec![
                    verdict("BS-1", Ok(Outcome::Kept)),
                    verdict("BS-1", Err(Violation::new("it lies"))),
                ],
            ),
        ];
        let table = table(&backends);
        let row = |clause: &str| {
            let line = table.lines().find(|line| line.starts_with(clause)).unwrap();
            line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(row("clause"), ["good", "bad"]);
        assert_eq!(row("BS-1"), ["kept", "FAILS"]);
        assert_eq!(row("BS-3"), ["partly", "-"]);
        assert_eq!(row("RS-1"), ["skipped", "-"]);
        assert_eq!(table.lines().count(), clauses().len() + 1);
    }
}
