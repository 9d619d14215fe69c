//! The hypervisor kit on real processes of `elasticstack-vmm`, each with a guest of some hundred bytes on the
//! `/dev/kvm` of this machine; and what else only whole processes show.

mod guest_code;
mod kit;
mod rig;
