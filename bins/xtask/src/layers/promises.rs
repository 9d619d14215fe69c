//! SPECIFICATION.md: each promise in its table has a number of its own and names a test that exists.

use std::collections::BTreeSet;

use super::Violation;

const FILE: &str = "SPECIFICATION.md";

/// Checks the rows `| number | promise | tests |` against the names of all tests in the tree.
pub(crate) fn check(text: &str, tests: &BTreeSet<String>) -> Vec<Violation> {
    let mut numbers = BTreeSet::new();
    let mut violations = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let Some((number, named)) = row(line) else { continue };
        let mut broken = |remedy| {
            violations.push(Violation::new(format!("{FILE}:{}", at + 1), "promises", remedy));
        };
        if !numbers.insert(number) {
            broken(format!("promise {number} stands twice: give this one the next free number"));
        }
        if named.is_empty() {
            broken(format!("promise {number} names no test: name one in backticks"));
        }
        for name in named.iter().filter(|name| !tests.contains(**name)) {
            broken(format!(
                "no test is called `{name}`: write it, or name the one that replaced it"
            ));
        }
    }
    if numbers.is_empty() {
        let remedy = "no row `| number | promise | tests |` was found: keep the table's shape";
        violations.push(Violation::new(FILE, "promises", remedy));
    }
    violations
}

/// The number and the names in backticks of the last column.
fn row(line: &str) -> Option<(u32, Vec<&str>)> {
    let cells: Vec<&str> = line.trim().strip_prefix('|')?.strip_suffix('|')?.split('|').collect();
    let number = cells.first()?.trim().parse().ok()?;
    let named = cells.last()?.split('`').skip(1).step_by(2).collect();
    Some((number, named))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(rows: &str) -> Vec<String> {
        let tests = ["a_test", "another"].map(str::to_owned).into();
        let text = format!("# Promises\n\n| # | promise | tests |\n|---|---|---|\n{rows}");
        check(&text, &tests).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn promises_with_real_tests_are_kept() {
        assert!(
            found("| 1 | the `X` holds | `a_test` |\n| 2 | so | `a_test`, `another` |\n")
                .is_empty()
        );
    }

    #[test]
    fn a_promise_without_a_real_test_is_a_violation() {
        assert_eq!(
            found("| 1 | p | `gone` |\n"),
            [
                "SPECIFICATION.md:5: promises: no test is called `gone`: write it, or name the one that replaced it"
            ]
        );
        assert_eq!(found("| 1 | p with `a_test` in it | later |\n").len(), 1);
        assert_eq!(found("| 1 | p | `a_test` |\n| 1 | q | `another` |\n").len(), 1);
        assert_eq!(found("").len(), 1, "a table that is not read must not pass");
    }
}
