//! Small Linux guests, by KVM's ioctls and without QEMU: the provider's kernel on the customer's drive.
//!
//! A [`Machine`] has no firmware, no PCI and no legacy devices but a serial port: Linux is put into its
//! memory and jumped into, and finds virtio devices over MMIO by ACPI tables.

mod acpi;
mod block;
mod block_request;
mod bus;
mod entropy;
mod kernel;
mod layout;
mod machine;
mod mmio;
mod news;
mod power;
mod processor;
mod serial;
mod stall;
mod worker;

pub use machine::{Drive, Machine, Spec};
pub use news::News;
