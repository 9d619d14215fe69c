//! What the kernel tells and does, one file a facility: clocks, extents, the machine, KVM, processes,
//! io_uring, taps.
//!
//! The only `unsafe` of this crate is below this folder.

pub mod clock;
pub mod extents;
pub mod host;
pub mod kvm;
pub mod process;
pub mod ring;
pub mod tap;
