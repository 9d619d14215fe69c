//! The kits tested: each mutant, a backend with one defect, fails exactly the checks it declares.

use std::collections::BTreeSet;
use std::fmt::Debug;

use elasticstack_core::conformance::{
    Verdict, blockstore_checks, blockstore_verdicts, clauses, hypervisor_checks,
    hypervisor_verdicts, lend_checks, lend_verdicts, scheduler_checks, scheduler_verdicts,
};

use crate::hypervisor_mutants::{self, MutantHypervisor};
use crate::lend_mutants::{self, MutantLend};
use crate::scheduler_mutants::{self, MutantScheduler};
use crate::snapshot_mutants::{self, MutantSnapshots};
use crate::store_mutants::{self, MutantStore};

/// One way to break a contract, and what the kit says to it.
pub(crate) struct Mutant<D: 'static> {
    pub(crate) defect: D,
    /// The clause it breaks.
    pub(crate) breaks: &'static str,
    /// Every check that fails, in the kit's order; one at least is of the broken clause.
    pub(crate) fails: &'static [&'static str],
}

fn fail_as_declared<D: Debug + Copy>(mutants: &[Mutant<D>], kit: impl Fn(D) -> Vec<Verdict>) {
    let mut wrong = String::new();
    for Mutant { defect, breaks, fails } in mutants {
        let failed: Vec<_> = kit(*defect).into_iter().filter(|it| it.outcome.is_err()).collect();
        let names: Vec<_> = failed.iter().map(|verdict| verdict.check).collect();
        if names != *fails {
            wrong += &format!("{defect:?} declares {fails:#?} and fails {failed:#?}\n");
        }
        if !failed.iter().any(|verdict| verdict.clause == *breaks) {
            wrong += &format!("{defect:?} fails no check of {breaks}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn every_store_mutant_fails_exactly_what_it_declares() {
    fail_as_declared(store_mutants::MUTANTS, |defect| {
        blockstore_verdicts(|| MutantStore::new(defect))
    });
}

#[test]
fn every_snapshot_mutant_fails_exactly_what_it_declares() {
    fail_as_declared(snapshot_mutants::MUTANTS, |defect| {
        blockstore_verdicts(|| MutantSnapshots::new(defect))
    });
}

#[test]
fn every_hypervisor_mutant_fails_exactly_what_it_declares() {
    fail_as_declared(hypervisor_mutants::MUTANTS, |defect| {
        hypervisor_verdicts(|| MutantHypervisor::new(defect))
    });
}

#[test]
fn every_lend_mutant_fails_exactly_what_it_declares() {
    fail_as_declared(lend_mutants::MUTANTS, |defect| lend_verdicts(|| MutantLend::new(defect)));
}

#[test]
fn every_scheduler_mutant_fails_exactly_what_it_declares() {
    fail_as_declared(scheduler_mutants::MUTANTS, |defect| {
        scheduler_verdicts(|| MutantScheduler::new(defect))
    });
}

#[test]
fn every_clause_and_every_check_has_a_mutant() {
    let stores = store_mutants::MUTANTS.iter().map(|mutant| (mutant.breaks, mutant.fails));
    let snapshots = snapshot_mutants::MUTANTS.iter().map(|mutant| (mutant.breaks, mutant.fails));
    let hypervisors =
        hypervisor_mutants::MUTANTS.iter().map(|mutant| (mutant.breaks, mutant.fails));
    let schedulers = scheduler_mutants::MUTANTS.iter().map(|mutant| (mutant.breaks, mutant.fails));
    let lends = lend_mutants::MUTANTS.iter().map(|mutant| (mutant.breaks, mutant.fails));
    let mutants = stores.chain(snapshots).chain(hypervisors).chain(schedulers).chain(lends);
    let mutants: Vec<_> = mutants.collect();
    let broken: BTreeSet<_> = mutants.iter().map(|(clause, _)| *clause).collect();
    let unbroken: Vec<_> = clauses().into_iter().filter(|it| !broken.contains(it.id)).collect();
    assert!(unbroken.is_empty(), "no mutant breaks {unbroken:#?}");

    let failed: BTreeSet<_> = mutants.iter().flat_map(|(_, fails)| *fails).copied().collect();
    let stores = blockstore_checks().iter().map(|check| check.name());
    let hypervisors = hypervisor_checks().iter().map(|check| check.name());
    let schedulers = scheduler_checks().iter().map(|check| check.name());
    let lends = lend_checks().iter().map(|check| check.name());
    let checks = stores.chain(hypervisors).chain(schedulers).chain(lends);
    let idle: Vec<_> = checks.filter(|name| !failed.contains(name)).collect();
    assert!(idle.is_empty(), "no mutant fails {idle:#?}");
}
