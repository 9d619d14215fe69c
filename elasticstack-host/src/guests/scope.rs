//! Where the process of a guest belongs, and every other that outlives the agent: outside the agent's
//! own unit or group, so that whoever ends those ends no guest.
//!
//! Owns how a guest's process gets there and what is left there of it. Sets no limits: it is only
//! the place where limits can be set. A pure function decides from what this machine has.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::Command;

use elasticstack_core::id::ServerId;
use rustix::fs::Access;

use crate::sys::process::Process;

/// Where each guest's process is put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// In a scope unit of its own, in `elasticstack.slice`, which systemd makes and collects.
    Systemd,
    /// In a control group (v2) of its own, in this directory.
    Cgroup(PathBuf),
    /// In a session of its own, and otherwise where this process is.
    Session,
}

impl Scope {
    /// The best that this machine offers to this process.
    #[must_use]
    pub fn detect() -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        decide(Found {
            systemd: Path::new("/run/systemd/system").is_dir(),
            root: rustix::process::geteuid().is_root(),
            hierarchy: hierarchy(&mounts)
                .filter(|path| rustix::fs::access(path, Access::WRITE_OK).is_ok()),
        })
    }

    /// In words, for an operator.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Systemd => "a systemd scope each".to_owned(),
            Self::Cgroup(parent) => format!("a control group each in {}", parent.display()),
            Self::Session => "a session each".to_owned(),
        }
    }

    /// What the program of the process that is described so is to be an argument of. Everything here
    /// becomes that program in place, with its pid, its standard input and its files.
    pub(crate) fn command(&self, description: &str) -> Command {
        // A session of its own, so that no terminal's hang-up reaches it. `setsid` forks only as
        // the leader of a process group.
        match self {
            Self::Cgroup(_) | Self::Session => Command::new("setsid"),
            Self::Systemd => {
                let mut command = Command::new("systemd-run");
                // The unit's name is systemd's choice: a run that is started again must not meet
                // what is just being collected of its first start.
                command
                    .args(["--scope", "--quiet", "--collect", "--no-ask-password"])
                    .args(["--slice=elasticstack.slice", "--description"])
                    .arg(format!("ElasticStack {description}"))
                    .args(["--", "setsid"]);
                command
            }
        }
    }

    /// Puts a process that was just spawned where it belongs, under this name. Before its guest's
    /// first instruction.
    pub(crate) fn enclose(&self, name: &str, process: &Process) -> io::Result<()> {
        let Self::Cgroup(parent) = self else { return Ok(()) };
        let group = parent.join(name);
        DirBuilder::new().recursive(true).create(&group)?;
        fs::write(group.join("cgroup.procs"), process.pid().to_string())
    }

    /// Removes what [`Scope::enclose`] made; `false` while a process in it is still ending.
    pub(super) fn dissolve(&self, server: ServerId) -> io::Result<bool> {
        let Self::Cgroup(parent) = self else { return Ok(true) };
        match fs::remove_dir(parent.join(server.to_string())) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            Err(error) if error.kind() == ErrorKind::ResourceBusy => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// What there is on a machine to keep processes apart with.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    /// systemd is its init.
    systemd: bool,
    /// This process may ask for units.
    root: bool,
    /// Where control groups (v2) are mounted and may be made.
    hierarchy: Option<PathBuf>,
}

/// Under systemd every control group is systemd's: whoever may not ask it for one makes none.
fn decide(Found { systemd, root, hierarchy }: Found) -> Scope {
    match hierarchy {
        _ if systemd && root => Scope::Systemd,
        Some(hierarchy) if !systemd => Scope::Cgroup(hierarchy.join("elasticstack")),
        Some(_) | None => Scope::Session,
    }
}

/// Where control groups (v2) are mounted, from `/proc/self/mountinfo`.
fn hierarchy(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        // The kernel writes a space in a name as an escape: nobody mounts this at such a name.
        let point = mount.split(' ').nth(4).filter(|point| !point.contains('\\'))?;
        filesystem.starts_with("cgroup2 ").then(|| point.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_machine_has_decides_where_guests_belong() {
        let here = || Some(PathBuf::from("/cg"));
        for (systemd, root, hierarchy, scope) in [
            (true, true, here(), Scope::Systemd),
            (true, true, None, Scope::Systemd),
            (true, false, here(), Scope::Session),
            (true, false, None, Scope::Session),
            (false, true, here(), Scope::Cgroup("/cg/elasticstack".into())),
            (false, false, here(), Scope::Cgroup("/cg/elasticstack".into())),
            (false, true, None, Scope::Session),
            (false, false, None, Scope::Session),
        ] {
            let found = Found { systemd, root, hierarchy };
            assert_eq!(decide(found.clone()), scope, "{found:?}");
        }
    }

    #[test]
    fn only_the_second_version_of_control_groups_is_found() {
        let v1 = "40 31 0:37 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
        let v2 = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 none rw\n";
        let odd = "41 31 0:38 / /my\\040groups rw,relatime - cgroup2 cgroup2 rw\n";
        assert_eq!(hierarchy(&[v1, odd, v2].concat()), Some("/sys/fs/cgroup/unified".into()));
        for none in ["", v1, odd, " - cgroup2 ", "cgroup2"] {
            assert_eq!(hierarchy(none), None, "{none}");
        }
    }

    #[test]
    fn systemd_is_asked_in_place_and_for_nothing_that_waits_for_a_person() {
        let command = Scope::Systemd.command("server 5b0e.3");
        let line: Vec<_> = command.get_args().map(|argument| argument.to_str().unwrap()).collect();
        assert_eq!(command.get_program(), "systemd-run");
        assert_eq!(
            line,
            [
                "--scope",
                "--quiet",
                "--collect",
                "--no-ask-password",
                "--slice=elasticstack.slice",
                "--description",
                "ElasticStack server 5b0e.3",
                "--",
                "setsid"
            ]
        );
    }
}
