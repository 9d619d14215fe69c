//! Conformance kits: what a [`BlockStore`](crate::block::BlockStore), a [`Lend`](crate::block::Lend), a
//! [`Hypervisor`](crate::hypervisor::Hypervisor) or a [`Scheduler`]
//! owes, as tests that run on any implementation.
//!
//! Every numbered clause of a trait's contract has at least one check, which names the clause it
//! tests. A backend shows how to be set up, crashed and poked through a fixture, which a scheduler
//! is itself; one macro call then makes one `#[test]` of each check:
//!
//! ```
//! use elasticstack_core::prelude::Bytes;
//! use elasticstack_core::sim::SimStore;
//!
//! fn fixture() -> SimStore {
//!     SimStore::new(1, &[Bytes::from_mib(64), Bytes::from_mib(64)])
//! }
//!
//! // mod my_store { #[test] fn bs_1_create_survives_a_crash() {…} … }
//! elasticstack_core::blockstore_conformance! { my_store, fixture }
//! ```
//!
//! Attributes before the name go to each test, such as
//! `#[ignore = "needs QEMU: cargo xtask test"]`.
//!
//! Each test also prints its verdict, and [`collect`] makes a [`table`] of a whole run's output:
//! `cargo xtask kit-report` does so in this repository.
//!
//! A check of a capability that the backend does not have is skipped and says so; the checks to
//! run are chosen by the capability accessors, never by a flag. In this repository every check is
//! itself checked: for each there is a mutant, a backend with one defect, that fails it.
//!
//! The kits are not API-stable: they may gain checks in a minor release.

mod blockstore;
mod capability;
mod clause;
mod counters;
mod hypervisor;
mod lend;
mod macros;
mod report;
mod scheduler;
mod scheduler_worlds;
mod simulated;
mod snapshots;
mod volume;

use std::borrow::Cow;
use std::fmt;
use std::panic::Location;

use futures_core::future::BoxFuture;

pub use blockstore::BlockStoreFixture;
pub use clause::{Clause, clauses};
pub use hypervisor::{GuestAct, HypervisorFixture, MachineView};
pub use lend::LendFixture;
pub use report::{
    Verdict, blockstore_checks, blockstore_verdicts, collect, hypervisor_checks,
    hypervisor_verdicts, lend_checks, lend_verdicts, scheduler_checks, scheduler_verdicts, table,
};

use report::told;

use crate::error::{Chain, Error, ErrorKind, Result};
use crate::scheduler::Scheduler;

/// How a check went that found no violation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The contract was kept.
    Kept,
    /// Nothing was tested, for want of something optional.
    Skipped {
        /// What the backend or its fixture does not offer.
        missing: Cow<'static, str>,
    },
}

/// What a backend did against its contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    found: String,
    at: String,
}

impl Violation {
    /// The backend did `found`.
    #[must_use]
    #[track_caller]
    pub fn new(found: impl Into<String>) -> Self {
        Self { found: found.into(), at: Location::caller().to_string() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (found at {})", self.found, self.at)
    }
}

impl std::error::Error for Violation {}

impl From<Error> for Violation {
    /// A call failed that had no right to.
    #[track_caller]
    fn from(error: Error) -> Self {
        Self::new(format!("unexpected error: {}", Chain(&error)))
    }
}

/// One check of one clause, on a fixture `F`.
#[derive(Debug)]
pub struct Check<F: ?Sized> {
    name: &'static str,
    test: for<'a> fn(&'a F) -> BoxFuture<'a, Result<Outcome, Violation>>,
}

impl<F: ?Sized> Check<F> {
    /// The check's name: its clause and what holds, such as `bs_2_new_drives_are_zeros`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The clause it tests, such as `BS-2`.
    #[must_use]
    pub fn clause(&self) -> String {
        let mut words = self.name.splitn(3, '_');
        let (letters, number) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        format!("{}-{number}", letters.to_uppercase())
    }
}

/// Fails the check, with what was found, if something does not hold.
macro_rules! require {
    ($holds:expr, $($found:tt)+) => {
        if !$holds {
            return Err($crate::conformance::Violation::new(format!($($found)+)));
        }
    };
}
use require;

/// Requires that a call was refused with this kind of error.
#[track_caller]
fn refused<T>(call: &str, answer: Result<T>, kind: ErrorKind) -> Result<(), Violation> {
    let wanted = kind.code();
    match answer {
        Err(error) if error.kind() == kind => Ok(()),
        Err(error) => Err(Violation::new(format!("{call} is not {wanted} but {}", Chain(&error)))),
        Ok(_) => Err(Violation::new(format!("{call} succeeds and is not {wanted}"))),
    }
}

/// What the macros expand to, and nothing else.
#[doc(hidden)]
pub mod __private {
    use super::*;

    pub fn blockstore(module: &str, name: &str, fixture: &(dyn BlockStoreFixture + 'static)) {
        let check = blockstore_checks().iter().find(|check| check.name == name);
        settle(module, name, check.map(|check| check.run(fixture)));
    }

    pub fn hypervisor(module: &str, name: &str, fixture: &(dyn HypervisorFixture + 'static)) {
        let check = hypervisor_checks().iter().find(|check| check.name == name);
        settle(module, name, check.map(|check| check.run(fixture)));
    }

    pub fn lend(module: &str, name: &str, fixture: &(dyn LendFixture + 'static)) {
        let check = lend_checks().iter().find(|check| check.name == name);
        settle(module, name, check.map(|check| check.run(fixture)));
    }

    pub fn scheduler(module: &str, name: &str, scheduler: &(dyn Scheduler + 'static)) {
        let check = scheduler_checks().iter().find(|check| check.name == name);
        settle(module, name, check.map(|check| check.run(scheduler)));
    }

    fn settle(module: &str, name: &str, outcome: Option<Result<Outcome, Violation>>) {
        let outcome = outcome.unwrap_or_else(|| panic!("the kit has no check {name}"));
        println!("{}", told(module, name, &outcome));
        if let Err(violation) = outcome {
            panic!("{name} does not hold: {violation}");
        }
    }
}
