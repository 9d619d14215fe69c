//! Processes held by pidfd, so that a signal never hits a stranger who got a recycled pid.
//!
//! Owns finding a process, killing it and waiting for its end. A process is known by what it
//! holds, not by a number in a file: its standard input and one of its arguments are looked at
//! both before and after its pidfd is opened, and so is its start time.

use std::fs::{self, Metadata};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::process::Child;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use tokio::time::sleep;

/// How often a process's end is looked for. It is waited for only after a SIGKILL.
const POLL: Duration = Duration::from_millis(2);

/// One process, for as long as this value lives and also after that process's end.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    fd: OwnedFd,
}

impl Process {
    /// The process that was just spawned; it is not reaped yet, so its pid is still its own.
    ///
    /// # Errors
    /// If the kernel gives no pidfd.
    pub fn of_child(child: &Child) -> io::Result<Self> {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        Self::hold(pid.ok_or_else(|| io::Error::other("a child without a pid"))?)
    }

    /// The process whose standard input is `file` and one of whose arguments is `argument`.
    /// `None` also for one that is not ours to look at.
    ///
    /// # Errors
    /// If `/proc` can't be read or the kernel gives no pidfd.
    pub fn with_stdin(file: &Metadata, argument: &str) -> io::Result<Option<Self>> {
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) =
                name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw)
            else {
                continue;
            };
            let Some(started) = identify(pid, file, argument) else { continue };
            let process = match Self::hold(pid) {
                Ok(process) => process,
                Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => continue,
                Err(error) => return Err(error),
            };
            if identify(pid, file, argument) == Some(started) {
                return Ok(Some(process));
            }
        }
        Ok(None)
    }

    fn hold(pid: Pid) -> io::Result<Self> {
        Ok(Self { pid, fd: rustix::process::pidfd_open(pid, PidfdFlags::empty())? })
    }

    /// Its number, for logs.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Kills it (SIGKILL). Killing one that has ended succeeds.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn kill(&self) -> io::Result<()> {
        match rustix::process::pidfd_send_signal(&self.fd, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether none of its threads runs any more. Reaps it then, if it is a child of ours.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn has_exited(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        if poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? == 0 {
            return Ok(false);
        }
        // An error means not a child, or reaped already: its parent's business.
        let _ = rustix::process::waitid(
            WaitId::PidFd(self.fd.as_fd()),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
        );
        Ok(true)
    }

    /// Returns once it [has exited](Self::has_exited). Cancel safe.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub async fn exited(&self) -> io::Result<()> {
        while !self.has_exited()? {
            sleep(POLL).await;
        }
        Ok(())
    }
}

/// The start time of `pid`, if it is the process looked for.
fn identify(pid: Pid, stdin: &Metadata, argument: &str) -> Option<u64> {
    let folder = format!("/proc/{}", pid.as_raw_nonzero());
    let found = fs::metadata(format!("{folder}/fd/0")).ok()?;
    if (found.dev(), found.ino()) != (stdin.dev(), stdin.ino()) {
        return None;
    }
    let arguments = fs::read(format!("{folder}/cmdline")).ok()?;
    if !arguments.split(|&byte| byte == 0).any(|found| found == argument.as_bytes()) {
        return None;
    }
    start_time(&fs::read(format!("{folder}/stat")).ok()?)
}

/// Field 22 of `/proc/PID/stat`, in clock ticks since boot. The name in field 2 may hold anything,
/// parentheses and spaces too, so fields are counted from the last `)`.
fn start_time(stat: &[u8]) -> Option<u64> {
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    let fields = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    fields.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_start_time_is_found_behind_any_name() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20 21";
        for name in ["qemu", "a b", "x) S 1 (", "\u{1f980}"] {
            let stat = format!("77 ({name}) {rest}\n");
            assert_eq!(start_time(stat.as_bytes()), Some(4242), "{stat}");
        }
        assert_eq!(start_time(b"77 (qemu) S 1 2"), None);
    }

    proptest! {
        #[test]
        fn no_stat_line_panics_the_parser(line: Vec<u8>) {
            let _ = start_time(&line);
        }
    }

    #[tokio::test]
    async fn a_process_is_found_by_its_input_and_argument_killed_and_reaped() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let stdin = || Stdio::from(file.reopen().unwrap());
        let metadata = file.as_file().metadata().unwrap();
        let mut other = Command::new("sleep").arg("3001").stdin(stdin()).spawn().unwrap();
        let mut wanted = Command::new("sleep").arg("3002").stdin(stdin()).spawn().unwrap();

        let found = loop {
            // Until the child has executed `sleep`, its arguments are still this test's.
            if let Some(found) = Process::with_stdin(&metadata, "3002").unwrap() {
                break found;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(u32::try_from(found.pid()), Ok(wanted.id()));
        found.kill().unwrap();
        found.exited().await.unwrap();
        assert!(wanted.wait().is_err(), "it is reaped already");
        assert!(Process::with_stdin(&metadata, "3002").unwrap().is_none());
        assert!(other.try_wait().unwrap().is_none(), "the other one still runs");

        let other_process = Process::of_child(&other).unwrap();
        other_process.kill().unwrap();
        other_process.exited().await.unwrap();
        other_process.kill().unwrap();
        assert!(other.wait().is_err());
    }
}
