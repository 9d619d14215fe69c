//! The kits on the simulated backends, and on every mutant of them.

mod hypervisor_mutants;
mod kits;
mod mutants;
mod store_mutants;
