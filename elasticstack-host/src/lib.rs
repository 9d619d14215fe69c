//! The agent of one host, as a library: runs servers, keeps drives, and does what the control
//! plane's documents say.

pub mod agent;
pub mod array;
mod driver;
pub mod fetch;
pub mod guests;
pub mod image;
pub mod iscsi;
pub mod kvm;
pub mod lend;
pub mod qemu;
mod reconcile;
pub mod store;
pub mod sys;
mod tool;
