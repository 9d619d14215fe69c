//! The hypervisor kit on real processes of `elasticstack-vmm`, each with a guest of some hundred bytes on the
//! `/dev/kvm` of this machine; and what else only whole processes show.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod guest_code;
mod kit;
mod linux;
mod linux_long;
mod linux_rig;
mod rig;
mod vmm_kit;
mod whole;
