//! Small Linux guests, by KVM's ioctls and without QEMU: the provider's kernel on the customer's drive.
//!
//! A [`Machine`] has no firmware, no PCI and no legacy devices but a serial port: Linux is put into its
//! memory and jumped into, and finds virtio devices over MMIO by ACPI tables.

mod acpi;
mod ask;
mod base;
mod bell;
mod block;
mod block_request;
mod board;
mod borrowed;
mod bus;
mod bzimage;
mod drives;
mod entropy;
mod jail;
mod kernel;
mod layout;
mod machine;
mod memory;
mod meter;
mod mmio;
mod monitor;
mod net;
mod news;
mod order;
mod power;
mod process;
mod processor;
mod pvh;
mod ring;
mod serial;
mod stall;
#[cfg(test)]
mod test_driver;
mod vmm;
mod worker;

pub use base::Base;
pub use board::{Board, Devices, Raise, Space};
pub use jail::Confinement;
pub use machine::{Drive, Machine, Spec};
pub use net::Card;
pub use news::News;
pub use process::serve;
pub use vmm::Kvm;
