//! Whether this machine's KVM can run ordinary guests. Some machines have a `/dev/kvm` that opens
//! and still cannot: their processor shows neither VMX nor SVM.
#![expect(unsafe_code, reason = "asking KVM its version is an ioctl")]

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;

/// The only version of the KVM API there ever was since it became stable.
const API_VERSION: i32 = 12;

/// A KVM that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kvm {
    /// How guests' memory is translated.
    pub paging: Paging,
}

/// How KVM translates guests' memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paging {
    /// By the processor (EPT, NPT).
    Nested,
    /// By shadow page tables, which is slow.
    Shadow,
}

/// Why KVM cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NoKvm {
    /// The device can't be opened.
    #[error("/dev/kvm does not open ({0})")]
    Device(#[source] io::Error),
    /// The device does not tell its version.
    #[error("/dev/kvm does not tell its version ({0})")]
    Silent(#[source] io::Error),
    /// The device speaks another version.
    #[error("/dev/kvm speaks version {0} of its API, not {API_VERSION}")]
    Version(i32),
    /// The processor's flags can't be read.
    #[error("/proc/cpuinfo cannot be read ({0})")]
    Flags(#[source] io::Error),
    /// The processor does not offer virtualisation.
    #[error("the processor shows neither vmx nor svm")]
    Processor,
}

/// Looks whether KVM can be used here.
///
/// # Errors
/// [`NoKvm`] says why it can't.
pub fn probe() -> Result<Kvm, NoKvm> {
    let device =
        OpenOptions::new().read(true).write(true).open("/dev/kvm").map_err(NoKvm::Device)?;
    let version = api_version(&device).map_err(NoKvm::Silent)?;
    if version != API_VERSION {
        return Err(NoKvm::Version(version));
    }
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").map_err(NoKvm::Flags)?;
    of_processor(&cpuinfo).ok_or(NoKvm::Processor)
}

fn of_processor(cpuinfo: &str) -> Option<Kvm> {
    let flag = |wanted: &[&str]| {
        cpuinfo
            .lines()
            .filter(|line| line.starts_with("flags") || line.starts_with("vmx flags"))
            .flat_map(str::split_ascii_whitespace)
            .any(|flag| wanted.contains(&flag))
    };
    let paging = if flag(&["ept", "npt"]) { Paging::Nested } else { Paging::Shadow };
    flag(&["vmx", "svm"]).then_some(Kvm { paging })
}

mod ioctl {
    nix::ioctl_none!(kvm_get_api_version, 0xAE, 0x00);
}

fn api_version(device: &File) -> io::Result<i32> {
    // JUSTIFICATION: no safe call asks KVM its version.
    // SAFETY: KVM_GET_API_VERSION takes no argument and touches no memory of ours; the descriptor
    // is open as long as `device` is borrowed. On another device than KVM it fails with ENOTTY.
    Ok(unsafe { ioctl::kvm_get_api_version(device.as_raw_fd()) }?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_needs_vmx_or_svm_and_may_have_nested_paging() {
        for (cpuinfo, expected) in [
            ("flags\t\t: fpu vme vmmcall", None),
            ("flags\t\t: fpu svm npt\n", Some(Paging::Nested)),
            ("flags\t\t: fpu svm\n", Some(Paging::Shadow)),
            ("flags : fpu vmx\nvmx flags : vnmi ept vpid\n", Some(Paging::Nested)),
            ("model name : svm\n", None),
            ("", None),
        ] {
            let found = of_processor(cpuinfo).map(|kvm| kvm.paging);
            assert_eq!(found, expected, "{cpuinfo:?}");
        }
    }

    #[test]
    fn a_device_that_is_not_kvm_tells_no_version() {
        assert!(api_version(&File::open("/dev/null").unwrap()).is_err());
    }
}
