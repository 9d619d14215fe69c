//! The directory of one server: what is known of its newest run when nothing else is left.
//!
//! ```text
//! SERVERID/lock           locked (flock) by the open file that is the guest process's standard
//!                         input: held exactly as long as that process lives, whoever its parent
//! SERVERID/run.json       the run and how far it came, replaced atomically
//! SERVERID/qmp            its socket for the agent
//! SERVERID/operator.qmp   another for an operator, QEMU's only
//! SERVERID/seed.iso       what the guest is told at its first boot, secrets included, if anything
//! SERVERID/serial.log     what the guest wrote to its first serial port
//! SERVERID/vmm.log        what that process itself has to say, the newest of it
//! ```
//! Invariants: `run.json` is durable before a process is spawned, and says so before the guest's
//! first instruction. A directory without `run.json` means nothing and may go.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use elasticstack_core::generation::Run;
use elasticstack_core::hypervisor::EndCause;
use elasticstack_core::id::ServerId;
use serde::{Deserialize, Serialize};

use super::QMP_SOCKET;
use crate::sys::process::Process;

const LOCK: &str = "lock";
const RECORD: &str = "run.json";
const LOG: &str = "vmm.log";
/// How long that log becomes before the older part of it goes, in bytes.
const LOG_LIMIT: u64 = 1 << 20;

/// The newest run of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// Which run.
    pub(super) run: Run,
    /// How far it came.
    pub(super) stage: Stage,
    /// The address of its screen.
    pub(super) screen: Option<Ipv4Addr>,
}

/// How far a run came: forward only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    /// No instruction of it was ever executed.
    Starting,
    /// From here on its first instruction may have been executed.
    Released,
    /// Its processors ran.
    Running,
    /// It is over.
    Ended(EndCause),
}

/// The open directory of one server.
#[derive(Debug)]
pub(super) struct ServerDir {
    path: PathBuf,
    /// Paths of sockets go through this descriptor: the kernel takes at most 108 bytes.
    open: File,
}

impl ServerDir {
    /// Makes the directory, durably and readable by nobody else; an existing one is kept.
    pub(super) fn create(root: &Path, server: ServerId) -> io::Result<Self> {
        match DirBuilder::new().mode(0o700).create(root.join(server.to_string())) {
            Ok(()) => File::open(root)?.sync_all()?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        Self::open(root, server)
    }

    /// Opens the directory.
    pub(super) fn open(root: &Path, server: ServerId) -> io::Result<Self> {
        let path = root.join(server.to_string());
        Ok(Self { open: File::open(&path)?, path })
    }

    /// Where the directory is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The serial log's place.
    pub(super) fn serial_log(&self) -> PathBuf {
        self.path.join("serial.log")
    }

    /// The agent's QMP socket, by a short path that is good in this process.
    pub(super) fn qmp_socket(&self) -> PathBuf {
        format!("/proc/self/fd/{}/{QMP_SOCKET}", self.open.as_raw_fd()).into()
    }

    /// Takes the lock; `None` while a process of the server lives.
    pub(super) fn lock(&self) -> io::Result<Option<File>> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(self.path.join(LOCK))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Whether a process of the server lives.
    pub(super) fn is_held(&self) -> io::Result<bool> {
        Ok(self.lock()?.is_none())
    }

    /// The process that lives here under `name`; `None` also while it is just becoming one.
    pub(super) fn process(&self, name: &str) -> io::Result<Option<Process>> {
        Process::with_stdin(&fs::metadata(self.path.join(LOCK))?, name)
    }

    /// What is known of the newest run.
    ///
    /// Fails for a record that can't be understood: guessing could start a guest twice.
    pub(super) fn record(&self) -> io::Result<Option<Record>> {
        match fs::read(self.path.join(RECORD)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces what is known of the newest run, durably.
    pub(super) fn write_record(&self, record: &Record) -> io::Result<()> {
        let fresh = self.path.join("run.new");
        let mut file = File::create(&fresh)?;
        file.write_all(&serde_json::to_vec(record)?)?;
        file.sync_all()?;
        fs::rename(fresh, self.path.join(RECORD))?;
        self.open.sync_all()
    }

    /// A new, empty log for the process's own output. Whatever is written goes to its end, wherever that is.
    pub(super) fn create_log(&self) -> io::Result<File> {
        self.create_private(LOG)?;
        OpenOptions::new().append(true).open(self.path.join(LOG))
    }

    /// Drops the older part of the log if it has become long: a guest may have its process say the
    /// same again and again.
    pub(super) fn trim_log(&self) -> io::Result<()> {
        let path = self.path.join(LOG);
        // A run that an older agent started may have none.
        if !fs::metadata(&path).is_ok_and(|log| log.len() > LOG_LIMIT) {
            return Ok(());
        }
        let tail = self.log_tail()?;
        let mut log = OpenOptions::new().append(true).open(path)?;
        log.set_len(0)?;
        writeln!(log, "[elasticstack: what was said before is gone]\n{tail}")
    }

    /// Writes a file that nobody else may read.
    pub(super) fn write_private(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.create_private(name)?.write_all(content)
    }

    /// A new, empty file that nobody else may read.
    fn create_private(&self, name: &str) -> io::Result<File> {
        OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(self.path.join(name))
    }

    /// The last 2 KiB of the process's own output.
    pub(super) fn log_tail(&self) -> io::Result<String> {
        const TAIL: u64 = 2048;
        let mut file = File::open(self.path.join(LOG))?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut tail = Vec::new();
        file.take(TAIL).read_to_end(&mut tail)?;
        Ok(String::from_utf8_lossy(&tail).trim_end().to_owned())
    }

    /// Deletes the directory with all that is in it. Only once no process lives there.
    pub(super) fn delete(&self) -> io::Result<()> {
        let absent_is_fine = |result: io::Result<()>| match result {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            result => result,
        };
        // First what gives the rest its meaning, so that a crash leaves nothing to be mistaken.
        absent_is_fine(fs::remove_file(self.path.join(RECORD)))?;
        self.open.sync_all()?;
        absent_is_fine(fs::remove_dir_all(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> ServerId {
        "5b0e3c52-0000-4000-8000-00000000d001".parse().unwrap()
    }

    #[test]
    fn the_record_survives_and_delete_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let dir = ServerDir::create(root.path(), server()).unwrap();
        assert_eq!(dir.record().unwrap(), None);
        for stage in [Stage::Starting, Stage::Running, Stage::Ended(EndCause::Panicked)] {
            let record = Record { run: Run(7), stage, screen: Some([127, 64, 0, 1].into()) };
            dir.write_record(&record).unwrap();
            let reopened = ServerDir::open(root.path(), server()).unwrap();
            assert_eq!(reopened.record().unwrap(), Some(record));
        }
        dir.delete().unwrap();
        dir.delete().unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_record_that_cannot_be_understood_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let dir = ServerDir::create(root.path(), server()).unwrap();
        for text in ["", "{}", "{\"run\":1,\"stage\":\"later\",\"screen\":null}"] {
            fs::write(dir.path().join(RECORD), text).unwrap();
            assert!(dir.record().is_err(), "{text}");
        }
    }

    #[test]
    fn the_log_of_a_process_that_says_more_and_more_keeps_the_newest() {
        let root = tempfile::tempdir().unwrap();
        let dir = ServerDir::create(root.path(), server()).unwrap();
        let mut log = dir.create_log().unwrap();
        for number in 0..100_000 {
            writeln!(log, "the guest's driver broke queue {number}").unwrap();
            if number % 1_000 == 0 {
                dir.trim_log().unwrap();
                assert!(fs::metadata(dir.path().join(LOG)).unwrap().len() <= LOG_LIMIT);
            }
        }
        let kept = fs::read_to_string(dir.path().join(LOG)).unwrap();
        assert!(kept.starts_with("[elasticstack: what was said before is gone]\n"));
        assert!(kept.ends_with("broke queue 99999\n") && !kept.contains('\0'));
    }

    #[test]
    fn the_lock_is_held_by_whoever_has_it_open() {
        let root = tempfile::tempdir().unwrap();
        let dir = ServerDir::create(root.path(), server()).unwrap();
        let lock = dir.lock().unwrap().expect("nobody else has it");
        assert!(dir.is_held().unwrap());
        let inherited = lock.try_clone().unwrap();
        drop(lock);
        assert!(dir.is_held().unwrap());
        drop(inherited);
        assert!(!dir.is_held().unwrap());
    }
}
