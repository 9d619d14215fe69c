//! The crate from outside: its golden files, and the kits on the simulated backends and on every
//! mutant of them, and how well the reference scheduler places.
#![expect(clippy::unwrap_used, reason = "mutants are tests, whose panic is their failure")]

mod golden;
mod hypervisor_mutants;
mod kits;
mod lend_mutants;
mod mutants;
mod optimum;
mod scheduler_mutants;
mod scheduler_quality;
mod snapshot_mutants;
mod store_mutants;
