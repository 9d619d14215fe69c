//! Which monitor runs which kind of server.

use std::net::Ipv4Addr;

use elasticstack_core::error::{Error, ErrorKind, Result};
use elasticstack_core::generation::Run;
use elasticstack_core::hypervisor::{ServerKind, ServerSpec};

use super::vmm::{Launch, Vmm};

/// Virtual machines by one, and containers by another where there is one.
#[derive(Debug)]
pub struct ByKind {
    /// What runs virtual machines.
    pub vm: Box<dyn Vmm>,
    /// What runs containers, if this host runs any.
    pub container: Option<Box<dyn Vmm>>,
}

impl Vmm for ByKind {
    fn launch(&self, spec: &ServerSpec, run: Run, screen: Option<Ipv4Addr>) -> Result<Launch> {
        let vmm = match spec.kind {
            ServerKind::Vm => Some(&self.vm),
            ServerKind::Container => self.container.as_ref(),
        };
        let vmm = vmm.ok_or_else(|| {
            Error::new(ErrorKind::JobFailed, "its host runs no containers: start it again")
        })?;
        vmm.launch(spec, run, screen)
    }

    fn reason(&self, last_words: &str) -> Option<&'static str> {
        let container = || self.container.as_ref()?.reason(last_words);
        self.vm.reason(last_words).or_else(container)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kvm::Kvm;
    use crate::qemu::{Accelerator, Qemu};

    #[test]
    fn a_process_that_ended_at_once_is_understood_whichever_it_was() {
        let qemu = Qemu { program: "qemu".into(), accelerator: Accelerator::Kvm };
        let (kernel, bridge) = ("/kernel".into(), "lan".to_owned());
        let kvm = Kvm { program: "vmm".into(), kernel, initial_disk: None, bridge };
        let vmm = ByKind { vm: Box::new(qemu.clone()), container: Some(Box::new(kvm)) };
        let of_qemu = "qemu: cannot set up guest memory 'pc.ram': Cannot allocate memory";
        assert!(vmm.reason(of_qemu).is_some_and(|reason| reason.contains("memory")));
        let of_ours = "plugging a card into lan: No such device";
        assert!(vmm.reason(of_ours).is_some_and(|reason| reason.contains("network")));
        let vmm = ByKind { vm: Box::new(qemu), container: None };
        assert_eq!(vmm.reason(of_ours), None);
    }
}
