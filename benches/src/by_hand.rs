//! The peer: plain QEMU, started by hand with the very command line of a guest of the product, and
//! with nothing around it.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::qmp::Qmp;

/// The agent's socket on that command line, relative to where QEMU runs.
const QMP_SOCKET: &str = "qmp";

/// How long QEMU may take to run.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a socket is looked for.
const POLL: Duration = Duration::from_millis(1);

/// A command line, taken from a process.
pub(crate) struct ByHand {
    program: OsString,
    arguments: Vec<OsString>,
}

impl ByHand {
    /// The command line of the guest that runs `server` now.
    pub(crate) fn of_guest(server: &str) -> Result<Self> {
        let (_, line) = process_with(server)?;
        let mut words = line.into_iter().map(OsString::from_vec);
        let program = words.next().unwrap_or_default();
        Ok(Self { program, arguments: words.collect() })
    }

    /// Starts it, lets it run, and ends it; answers how long it took until QMP said `running`.
    pub(crate) fn time_to_running(&self) -> Result<Duration> {
        let directory = tempfile::Builder::new().prefix("by-hand-").tempdir()?;
        let socket = directory.path().join(QMP_SOCKET);
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).current_dir(directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::null());

        let began = Instant::now();
        let mut guest = Guest(command.spawn().context("start QEMU by hand")?);
        let mut qmp = loop {
            match Qmp::connect(&socket)? {
                Some(qmp) => break qmp,
                None => guest.wait_a_moment(began)?,
            }
        };
        qmp.execute("cont")?;
        while !qmp.is_running()? {
            guest.wait_a_moment(began)?;
        }
        Ok(began.elapsed())
    }
}

/// The process that has this argument, and its command line.
pub(crate) fn process_with(argument: &str) -> Result<(u32, Vec<Vec<u8>>)> {
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // One that ends meanwhile is not the one.
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = line.strip_suffix(b"\0").unwrap_or(&line).split(|&byte| byte == 0);
        let line: Vec<_> = line.map(<[u8]>::to_vec).collect();
        if line.iter().skip(1).any(|word| word == argument.as_bytes()) {
            return Ok((pid, line));
        }
    }
    bail!("no process has the argument {argument}");
}

/// A process that is ended with this value.
struct Guest(Child);

impl Guest {
    fn wait_a_moment(&mut self, began: Instant) -> Result<()> {
        if let Some(status) = self.0.try_wait()? {
            bail!("QEMU ended with {status}");
        }
        if began.elapsed() > PATIENCE {
            bail!("QEMU does not run after {} s", PATIENCE.as_secs());
        }
        thread::sleep(POLL);
        Ok(())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let ended = self.0.kill().and_then(|()| self.0.wait());
        if let Err(error) = ended {
            eprintln!("the QEMU that was started by hand could not be ended: {error}");
        }
    }
}
