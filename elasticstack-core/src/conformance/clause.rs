//! The clauses of the contracts, read from the traits' own documentation.
//!
//! The source is the only list: a clause that is added to a trait exists here at once, and the
//! tests then ask for its check and its mutant.

/// One clause of a contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clause {
    /// Its name, such as `BS-1`.
    pub id: &'static str,
    /// What it says, in one line.
    pub text: String,
}

/// Every clause that a kit tests, in the order of the documentation.
#[must_use]
pub fn clauses() -> Vec<Clause> {
    let sources = [
        include_str!("../block/mod.rs"),
        include_str!("../block/snapshots.rs"),
        include_str!("../block/lend.rs"),
        include_str!("../hypervisor/mod.rs"),
        include_str!("../scheduler/mod.rs"),
    ];
    sources.into_iter().flat_map(parse).collect()
}

fn parse(source: &'static str) -> Vec<Clause> {
    let mut clauses: Vec<Clause> = Vec::new();
    let mut within = false;
    for line in source.lines() {
        if let Some((id, text)) = line.strip_prefix("/// - **").and_then(|it| it.split_once("** "))
        {
            clauses.push(Clause { id, text: text.to_owned() });
            within = true;
        } else if let Some(more) = line.strip_prefix("///   ").filter(|_| within)
            && let Some(clause) = clauses.last_mut()
        {
            clause.text = format!("{} {}", clause.text, more.trim());
        } else {
            within = false;
        }
    }
    clauses
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::conformance::report::every_check;

    #[test]
    fn a_clause_is_a_list_item_with_a_bold_name_and_its_indented_lines() {
        let source = "/// - **XY-1** one\n///   two\n/// - **XY-2** three\n///\n///   not it\n";
        let clause = |id, text: &str| Clause { id, text: text.to_owned() };
        assert_eq!(parse(source), [clause("XY-1", "one two"), clause("XY-2", "three")]);
    }

    #[test]
    fn every_clause_has_a_check_and_every_check_a_clause() {
        let ids: Vec<_> = clauses().iter().map(|clause| clause.id.to_owned()).collect();
        let clauses: BTreeSet<_> = ids.iter().cloned().collect();
        assert_eq!(clauses.len(), ids.len(), "a clause is named twice: {ids:?}");
        let checks: Vec<_> = every_check().collect();
        for (name, clause) in &checks {
            assert!(clauses.contains(clause), "the check {name} names no clause of a trait");
        }
        for clause in clauses {
            assert!(checks.iter().any(|(_, of)| *of == clause), "{clause} has no check");
        }
    }
}
