//! QEMU, which runs guests of any operating system: how it is started. What follows is
//! [`crate::guests`]'s.
//!
//! Networks are QEMU's user networking: guests reach out through this host's own addresses, its
//! loopback services among them, and nothing reaches in.

mod command;

use std::net::Ipv4Addr;
use std::path::PathBuf;

use elasticstack_core::error::Result;
use elasticstack_core::generation::Run;
use elasticstack_core::hypervisor::ServerSpec;

use self::command::command_line;
use crate::guests::{Launch, Vmm};
use crate::sys::kvm::{self, Kvm, Paging};

/// How QEMU's initiator (libiscsi) finds its way back to what is lent. A network that loses all is
/// noticed by unanswered pings after 20 s; from then on it logs in anew, again and again, with at most
/// 30 s in between. As the kernel is by itself, one try alone could take minutes to be given up: a
/// SYN is sent again 1 s after the first and given up on after 3 s, what is not acknowledged after
/// 20 s (in ms), and whoever is silent in the middle of a login after as long.
const RECONNECTING: [(&str, &str); 5] = [
    ("LIBISCSI_TCP_SYNCNT", "1"),
    ("LIBISCSI_TCP_USER_TIMEOUT", "20000"),
    ("LIBISCSI_TCP_KEEPIDLE", "5"),
    ("LIBISCSI_TCP_KEEPINTVL", "5"),
    ("LIBISCSI_TCP_KEEPCNT", "3"),
];

/// What runs the guests' processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor itself, through Linux.
    Kvm,
    /// QEMU's translation (TCG): any machine can do it, some twenty times slower.
    SoftwareCpu,
}

impl Accelerator {
    /// The best that this machine can do, and why, in words for an operator.
    #[must_use]
    pub fn detect() -> (Self, String) {
        match kvm::probe() {
            Ok(Kvm { paging: Paging::Nested }) => (Self::Kvm, "kvm, nested paging".to_owned()),
            Ok(Kvm { paging: Paging::Shadow }) => (Self::Kvm, "kvm, no nested paging".to_owned()),
            Err(reason) => (Self::SoftwareCpu, format!("software cpu: {reason}")),
        }
    }
}

/// QEMU as it is run here.
#[derive(Debug, Clone)]
pub struct Qemu {
    /// The program, such as `qemu-system-x86_64`.
    pub program: PathBuf,
    /// What runs the guests' processors.
    pub accelerator: Accelerator,
}

impl Vmm for Qemu {
    fn launch(&self, spec: &ServerSpec, run: Run, screen: Option<Ipv4Addr>) -> Result<Launch> {
        Ok(Launch {
            program: self.program.clone(),
            arguments: command_line(spec, run, self.accelerator, screen)?,
            environment: RECONNECTING.to_vec(),
            files: Vec::new(),
        })
    }

    fn reason(&self, last_words: &str) -> Option<&'static str> {
        let reasons = [
            ("Cannot allocate memory", "its host has not enough free memory: try again later"),
            ("cannot set up guest memory", "its host has not enough free memory: try again later"),
            ("Failed to get ", "one of its drives is in use by another server"),
            ("Could not open ", "one of its drives cannot be opened"),
            ("failed to initialize kvm", "its host cannot run guests now"),
        ];
        reasons.into_iter().find(|(word, _)| last_words.contains(word)).map(|(_, reason)| reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_learns_the_reason_and_no_path() {
        let qemu = Qemu { program: "qemu".into(), accelerator: Accelerator::SoftwareCpu };
        for (log, expected) in [
            (
                "qemu: -blockdev {..}: Could not open '/a/b': No such file or directory",
                Some("opened"),
            ),
            (
                "qemu: Failed to get \"write\" lock\nIs another process using the image?",
                Some("in use"),
            ),
            ("qemu: cannot set up guest memory 'pc.ram': Cannot allocate memory", Some("memory")),
            ("setsid: failed to execute qemu: No such file or directory", None),
            ("", None),
        ] {
            let reason = qemu.reason(log);
            assert_eq!(reason.is_some(), expected.is_some(), "{log}");
            assert!(reason.unwrap_or_default().contains(expected.unwrap_or_default()), "{log}");
        }
    }
}
