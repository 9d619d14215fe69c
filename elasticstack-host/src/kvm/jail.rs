//! What the threads of a guest's process may ask of the kernel (seccomp, seccomp(2)): who breaks out of the guest
//! into one of them opens no file, runs no program and becomes nobody else. A call that is not in a list ends the
//! process, and with it the guest.

use std::collections::BTreeMap;

use elasticstack_core::error::{Error, Result};
use nix::libc;
use nix::sys::prctl;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

/// Whether a machine's threads are held to what they need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confinement {
    /// They may do what whoever makes the machine may: its volumes may need that.
    None,
    /// Those of processors run the guest and ring bells, and nothing else.
    Strict,
}

/// What a thread is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The process as a whole, once all is open; its other threads begin with the same.
    Process,
    /// A virtual processor.
    Processor,
}

/// `KVM_RUN` (linux/kvm.h).
const KVM_RUN: u64 = 0xae80;

/// What every thread does: memory, waiting, its own end.
const ALWAYS: [libc::c_long; 24] = [
    libc::SYS_futex,
    libc::SYS_write,
    libc::SYS_close,
    // By which the standard library makes sure of what it closes.
    libc::SYS_fcntl,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
    libc::SYS_sched_yield,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_tgkill,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rseq,
];

/// What the process does beside it: its drives, its sockets, its threads, a new machine.
const PROCESS: [libc::c_long; 37] = [
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_readv,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_writev,
    libc::SYS_lseek,
    libc::SYS_fallocate,
    libc::SYS_fdatasync,
    libc::SYS_fsync,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_ioctl,
    libc::SYS_eventfd2,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_rt_sigaction,
    libc::SYS_set_robust_list,
    libc::SYS_sched_getaffinity,
];

impl Confinement {
    /// Holds the calling thread, and those that it will start, to what their kind needs. There is no way back.
    ///
    /// # Errors
    /// `Internal` if the kernel has no seccomp.
    pub(super) fn enter(self, kind: Kind) -> Result<()> {
        if self == Self::None {
            return Ok(());
        }
        if kind == Kind::Process {
            let refused = |error| Error::internal("giving up privileges").source(error);
            prctl::set_no_new_privs().map_err(refused)?;
            prctl::set_dumpable(false).map_err(refused)?;
            apply(without_clone3())?;
        }
        apply(SeccompFilter::new(
            rules(kind)?,
            SeccompAction::KillProcess,
            SeccompAction::Allow,
            TargetArch::x86_64,
        ))
    }
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn rules(kind: Kind) -> Result<Rules> {
    let whole = |calls: &[libc::c_long]| calls.iter().map(|call| (*call, Vec::new())).collect();
    let mut rules: Rules = whole(&ALWAYS);
    match kind {
        Kind::Processor => {
            rules.insert(libc::SYS_ioctl, vec![only(1, KVM_RUN)?]);
        }
        Kind::Process => {
            rules.extend(whole(&PROCESS));
            let thread = u64::try_from(libc::CLONE_THREAD).unwrap_or(0);
            rules.insert(libc::SYS_clone, vec![with(0, thread)?]);
            rules.insert(libc::SYS_clone3, Vec::new());
            let name = u64::try_from(libc::PR_SET_NAME).unwrap_or(0);
            let seccomp = u64::try_from(libc::PR_SET_SECCOMP).unwrap_or(0);
            let privileges = u64::try_from(libc::PR_SET_NO_NEW_PRIVS).unwrap_or(0);
            let prctl = [only(0, name)?, only(0, seccomp)?, only(0, privileges)?];
            rules.insert(libc::SYS_prctl, prctl.to_vec());
            rules.insert(libc::SYS_seccomp, Vec::new());
            let families = [libc::AF_INET, libc::AF_INET6];
            let families = families.map(|family| u64::try_from(family).unwrap_or(0));
            rules.insert(libc::SYS_socket, vec![only(0, families[0])?, only(0, families[1])?]);
        }
    }
    Ok(rules)
}

/// Only with this argument.
fn only(argument: u8, value: u64) -> Result<SeccompRule> {
    rule(argument, SeccompCmpOp::Eq, value)
}

/// Only with these bits in this argument.
fn with(argument: u8, bits: u64) -> Result<SeccompRule> {
    rule(argument, SeccompCmpOp::MaskedEq(bits), bits)
}

fn rule(argument: u8, how: SeccompCmpOp, value: u64) -> Result<SeccompRule> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, how, value);
    condition.and_then(|condition| SeccompRule::new(vec![condition])).map_err(failed)
}

/// `clone3` is given its flags in memory, which no filter reads: without it the C library takes `clone`.
fn without_clone3() -> Result<SeccompFilter, seccompiler::BackendError> {
    SeccompFilter::new(
        [(libc::SYS_clone3, Vec::new())].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(u32::try_from(libc::ENOSYS).unwrap_or(0)),
        TargetArch::x86_64,
    )
}

fn apply(filter: Result<SeccompFilter, seccompiler::BackendError>) -> Result<()> {
    let filter = filter.map_err(failed)?;
    let program: BpfProgram = filter.try_into().map_err(failed)?;
    apply_filter(&program)
        .map_err(|error| Error::internal("entering a seccomp filter").source(error))
}

fn failed(error: seccompiler::BackendError) -> Error {
    Error::internal("making a seccomp filter").source(error)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::process::Command;

    use super::*;

    /// A process that enters this and then opens a file, which it must not live to tell.
    const TRIES: &str = "kvm::jail::tests::whoever_is_held_opens_no_file_and_is_ended_if_it_tries";

    #[test]
    fn whoever_is_held_opens_no_file_and_is_ended_if_it_tries() {
        use std::os::unix::process::ExitStatusExt as _;
        for kind in [Kind::Process, Kind::Processor] {
            let word = format!("{kind:?}");
            if std::env::var("ELASTICSTACK_JAIL").as_ref() == Ok(&word) {
                Confinement::Strict.enter(kind).unwrap();
                drop(File::open("/etc/passwd"));
                return;
            }
            if std::env::var_os("ELASTICSTACK_JAIL").is_none() {
                let own = std::env::current_exe().unwrap();
                let mut tries = Command::new(own);
                tries.args(["--exact", TRIES]).env("ELASTICSTACK_JAIL", word);
                let status = tries.output().unwrap().status;
                assert_eq!(status.signal(), Some(libc::SIGSYS), "{kind:?}: {status}");
            }
        }
    }
}
