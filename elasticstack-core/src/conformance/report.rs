//! Running a whole kit and printing backend × clause.

use super::{BlockStoreFixture, Check, Clause, HypervisorFixture, Outcome, Violation, clauses};
use crate::error::Result;

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

/// A table with a row for each clause and a column for each backend: `kept`, `FAILS`, `skipped`
/// if no check of the clause could run, `partly` if some could not, and `-` where the clause is
/// not of that backend's trait.
#[must_use]
pub fn table(backends: &[(&str, Vec<Verdict>)]) -> String {
    let mut lines = vec![line("clause", backends.iter().map(|(name, _)| *name))];
    for Clause { id, .. } in clauses() {
        let cells = backends.iter().map(|(_, verdicts)| cell(id, verdicts));
        lines.push(line(id, cells));
    }
    lines.concat()
}

fn line<'a>(first: &str, cells: impl Iterator<Item = &'a str>) -> String {
    let cells: String = cells.map(|cell| format!(" {cell:<12}")).collect();
    format!("{}\n", format!("{first:<7}{cells}").trim_end())
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
    fn the_table_shows_the_worst_of_each_clause() {
        let verdict = |clause: &str, outcome| Verdict {
            check: "made up",
            clause: clause.to_owned(),
            outcome,
        };
        let skipped = Ok(Outcome::Skipped { missing: "hands" });
        let backends = [
            (
                "good",
                vec![
                    verdict("BS-1", Ok(Outcome::Kept)),
                    verdict("BS-1", Ok(Outcome::Kept)),
                    verdict("BS-3", Ok(Outcome::Kept)),
                    verdict("BS-3", skipped.clone()),
                    verdict("RS-1", skipped),
                ],
            ),
            (
                "bad",
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
