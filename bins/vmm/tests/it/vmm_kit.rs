//! The kit of [`Vmm`] on `elasticstack-vmm`.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use elasticstack_core::hypervisor::{EndCause, ServerSpec};
use elasticstack_host::guests::Vmm;
use elasticstack_host::guests::conformance::{VmmFixture, findings};

use crate::guest_code::{self, Command};
use crate::rig::Rig;

struct KvmFixture {
    rig: Rig,
    server: ServerSpec,
}

impl KvmFixture {
    fn new() -> Self {
        let rig = Rig::new();
        fs::create_dir(rig.runtime_dir()).unwrap();
        Self { server: rig.server(1), rig }
    }
}

impl VmmFixture for KvmFixture {
    fn vmm(&self) -> Arc<dyn Vmm> {
        Arc::new(self.rig.vmm())
    }

    fn server(&self) -> ServerSpec {
        self.server.clone()
    }

    fn greeting(&self) -> &str {
        "hello\r\n"
    }

    fn runtime_dir(&self) -> PathBuf {
        self.rig.runtime_dir()
    }

    fn end(&self, cause: EndCause) -> io::Result<()> {
        let command = if cause == EndCause::Guest { Command::PowerOff } else { Command::Panic };
        guest_code::command(&self.rig.drive("1"), command)
    }
}

#[tokio::test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
async fn ours_keeps_the_contract_of_a_vmm() {
    let findings = findings(KvmFixture::new).await;
    assert!(findings.is_empty(), "{findings:#?}");
}
