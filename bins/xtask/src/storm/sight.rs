//! What can be seen of processes and files from outside the product: `/proc`, directories, and the
//! operator's socket of a guest.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use serde_json::Value;

/// A process that works under a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) directory: PathBuf,
}

/// Every living process whose working directory lies under `root`: the guests, since each QEMU
/// works in the directory of its server.
pub(crate) fn processes_under(root: &Path) -> Result<Vec<Process>> {
    let mut found: Vec<Process> = pids()?
        .filter_map(|pid| {
            // A zombie has no working directory any more.
            let directory = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
            directory.starts_with(root).then_some(Process { pid, directory })
        })
        .collect();
    found.sort();
    Ok(found)
}

/// What lies in `directory`; nothing if it is not there.
pub(crate) fn entries_of(directory: &Path) -> Result<Vec<PathBuf>> {
    let Ok(entries) = fs::read_dir(directory) else { return Ok(Vec::new()) };
    let mut found: Vec<PathBuf> = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()
        .context("list a directory")?;
    found.sort();
    Ok(found)
}

/// What QEMU says that the guest in `directory` is doing, such as `running` or `shutdown`.
pub(crate) fn guest_status(directory: &Path) -> Result<String> {
    let mut socket = UnixStream::connect(directory.join("operator.qmp"))
        .context("connect to the operator's socket of a guest")?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut answers = BufReader::new(socket.try_clone()?).lines();
    socket.write_all(b"{\"execute\":\"qmp_capabilities\"}{\"execute\":\"query-status\"}\n")?;
    loop {
        let line = answers.next().context("QEMU ended the conversation")??;
        let answer: Value = serde_json::from_str(&line).context("QEMU spoke no JSON")?;
        if let Some(status) = answer.pointer("/return/status").and_then(Value::as_str) {
            return Ok(status.to_owned());
        }
    }
}

/// Looks at every process's arguments, again and again.
#[derive(Debug)]
pub(crate) struct CommandLines {
    stop: Arc<AtomicBool>,
    watcher: JoinHandle<BTreeSet<String>>,
}

impl CommandLines {
    /// Begins to look.
    pub(crate) fn watch() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let watcher = std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !stopped.load(Ordering::Relaxed) {
                for pid in pids().into_iter().flatten() {
                    if let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) {
                        seen.insert(String::from_utf8_lossy(&line).replace('\0', " "));
                    }
                }
            }
            seen
        });
        Self { stop, watcher }
    }

    /// Stops looking; answers all that was seen.
    pub(crate) fn finish(self) -> Result<BTreeSet<String>> {
        self.stop.store(true, Ordering::Relaxed);
        self.watcher.join().map_err(|_| anyhow!("the watcher of command lines panicked"))
    }
}

fn pids() -> Result<impl Iterator<Item = u32>> {
    let entries = fs::read_dir("/proc").context("list /proc")?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}
