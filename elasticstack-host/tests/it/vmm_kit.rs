//! The kit of [`Vmm`] on QEMU, and the kit itself tested: each mutant, a QEMU that is started
//! wrong in one way, fails exactly the checks that it declares.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use elasticstack_core::error::Result;
use elasticstack_core::generation::Run;
use elasticstack_core::hypervisor::{EndCause, ServerSpec};
use elasticstack_host::guests::conformance::{VmmFixture, checks, findings};
use elasticstack_host::guests::{Launch, Vmm, process_name};
use elasticstack_host::qemu::Qemu;
use futures_util::future::join_all;

use crate::guest_code::{self, Command};
use crate::qemu_rig::Machine;

/// One thing that is wrong about a process.
#[derive(Debug, Clone, Copy)]
enum Defect {
    StartsAtOnce,
    LetsGoOfItsLock,
    SharesItsLock,
    EndsWithItsGuest,
    EndsByAPanic,
    HasNoName,
    TellsASecret,
}

const MUTANTS: [(Defect, &[&str]); 7] = [
    (Defect::StartsAtOnce, &["vm_1_nothing_of_the_guest_runs_until_it_is_told_to"]),
    (
        Defect::LetsGoOfItsLock,
        &[
            "vm_2_the_lock_is_held_as_long_as_the_process_lives",
            "vm_3_a_guest_that_powers_itself_off_waits",
            "vm_3_a_guest_that_panics_waits",
            "vm_4_the_process_is_found_by_its_name",
        ],
    ),
    (Defect::SharesItsLock, &["vm_2_the_lock_is_free_once_the_process_is_gone"]),
    (Defect::EndsWithItsGuest, &["vm_3_a_guest_that_powers_itself_off_waits"]),
    (Defect::EndsByAPanic, &["vm_3_a_guest_that_panics_waits"]),
    (Defect::HasNoName, &["vm_4_the_process_is_found_by_its_name"]),
    (Defect::TellsASecret, &["vm_4_no_secret_is_an_argument"]),
];

impl Defect {
    /// How QEMU is started.
    fn script(self) -> &'static str {
        match self {
            Self::LetsGoOfItsLock => "exec qemu-system-x86_64 \"$@\" </dev/null",
            // The shell gives what it runs beside itself no standard input, so it is another descriptor.
            Self::SharesItsLock => {
                "exec 3<&0; sleep 60 </dev/null & exec qemu-system-x86_64 \"$@\" 3<&-"
            }
            _ => "exec qemu-system-x86_64 \"$@\"",
        }
    }

    fn spoil(self, arguments: &mut Vec<String>, spec: &ServerSpec, run: Run) {
        match self {
            Self::StartsAtOnce => arguments.retain(|argument| argument != "-S"),
            Self::LetsGoOfItsLock | Self::SharesItsLock => {}
            Self::EndsWithItsGuest => {
                arguments.extend(["-action", "shutdown=poweroff"].map(Into::into))
            }
            Self::EndsByAPanic => {
                arguments.extend(["-action", "panic=exit-failure"].map(Into::into))
            }
            Self::HasNoName => arguments
                .iter_mut()
                .filter(|argument| **argument == process_name(spec.server, run))
                .for_each(|name| "somebody".clone_into(name)),
            Self::TellsASecret => {
                let secret = spec.seed.as_ref().and_then(|seed| seed.user_data.as_ref());
                let secret = secret.map_or("none", |secret| secret.expose());
                arguments.extend(["-fw_cfg".to_owned(), format!("name=opt/it,string={secret}")]);
            }
        }
    }
}

/// QEMU, with a defect or none.
#[derive(Debug)]
struct Mutant {
    qemu: Qemu,
    defect: Option<Defect>,
}

impl Vmm for Mutant {
    fn launch(&self, spec: &ServerSpec, run: Run, screen: Option<Ipv4Addr>) -> Result<Launch> {
        let mut launch = self.qemu.launch(spec, run, screen)?;
        if let Some(defect) = self.defect {
            defect.spoil(&mut launch.arguments, spec, run);
        }
        Ok(launch)
    }

    fn reason(&self, last_words: &str) -> Option<&'static str> {
        self.qemu.reason(last_words)
    }
}

struct QemuFixture {
    machine: Machine,
    server: ServerSpec,
    defect: Option<Defect>,
}

impl QemuFixture {
    fn new(defect: Option<Defect>) -> Self {
        let script = defect.map_or("exec qemu-system-x86_64 \"$@\"", Defect::script);
        let machine = Machine::with_program(&format!("#!/bin/sh\n{script}\n"));
        fs::create_dir(machine.runtime_dir()).unwrap();
        Self { server: machine.spec("1"), machine, defect }
    }
}

impl VmmFixture for QemuFixture {
    fn vmm(&self) -> Arc<dyn Vmm> {
        Arc::new(Mutant { qemu: self.machine.vmm.clone(), defect: self.defect })
    }

    fn server(&self) -> ServerSpec {
        self.server.clone()
    }

    fn greeting(&self) -> &str {
        "hello\r\n"
    }

    fn runtime_dir(&self) -> PathBuf {
        self.machine.runtime_dir().to_owned()
    }

    fn end(&self, cause: EndCause) -> io::Result<()> {
        let command = if cause == EndCause::Guest { Command::PowerOff } else { Command::Panic };
        guest_code::command(&self.machine.disk("1"), command)
    }
}

#[tokio::test]
#[ignore = "needs QEMU: cargo xtask test"]
async fn qemu_keeps_the_contract_of_a_vmm() {
    let findings = findings(|| QemuFixture::new(None)).await;
    assert!(findings.is_empty(), "{findings:#?}");
}

#[tokio::test]
#[ignore = "needs QEMU: cargo xtask test"]
async fn every_vmm_mutant_fails_exactly_what_it_declares() {
    // Most of the time they wait.
    let kits = MUTANTS.map(|(defect, _)| findings(move || QemuFixture::new(Some(defect))));
    for (findings, (defect, fails)) in join_all(kits).await.into_iter().zip(MUTANTS) {
        let failed: Vec<_> = findings.iter().map(|finding| finding.check).collect();
        assert_eq!(failed, fails, "{defect:?}: {findings:#?}");
    }
    let failed: BTreeSet<_> = MUTANTS.iter().flat_map(|(_, fails)| *fails).copied().collect();
    assert_eq!(failed, checks().collect(), "each check has a mutant");
}
