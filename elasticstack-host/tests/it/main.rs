//! The host crate against the real thing. A test that needs a program that may be absent is
//! ignored here and run by `cargo xtask test`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod borrow;
mod fencing;
mod fencing_judge;
mod fencing_lio;
mod fencing_model;
mod fencing_paths;
mod guest_code;
mod guest_kit;
mod initiator;
mod iscsi;
mod kvm;
mod lab_kits;
mod lend_kit;
mod lent_faults;
mod lent_guest;
mod linux_initiator;
mod lio;
mod other_initiators;
mod power_loss;
mod qemu;
mod qemu_rig;
mod snapshots;
mod vmm_kit;
mod write_log;
