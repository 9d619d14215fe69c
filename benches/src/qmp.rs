//! As much of QMP as it takes to let a guest run and to see that it does. Blocks.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(30);

/// A connection that takes commands.
pub(crate) struct Qmp {
    stream: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects to the socket at `path`; `None` if nobody listens there yet.
    pub(crate) fn connect(path: &Path) -> Result<Option<Self>> {
        let stream = match UnixStream::connect(path) {
            Ok(stream) => stream,
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => return Ok(None),
                _ => return Err(error).with_context(|| format!("connect to {}", path.display())),
            },
        };
        stream.set_read_timeout(Some(ANSWER))?;
        let mut qmp = Self { stream: BufReader::new(stream) };
        if qmp.message()?.get("QMP").is_none() {
            bail!("{} does not greet as QMP does", path.display());
        }
        qmp.execute("qmp_capabilities")?;
        Ok(Some(qmp))
    }

    /// Has a command carried out and answers what it returns.
    pub(crate) fn execute(&mut self, command: &str) -> Result<Value> {
        let line = format!("{}\n", json!({ "execute": command }));
        self.stream.get_mut().write_all(line.as_bytes())?;
        loop {
            let mut message = self.message()?;
            if let Some(value) = message.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = message.get("error") {
                bail!("QEMU refuses {command}: {error}");
            }
        }
    }

    /// Whether the guest's processors run.
    pub(crate) fn is_running(&mut self) -> Result<bool> {
        Ok(self.execute("query-status")?.get("status").is_some_and(|status| status == "running"))
    }

    fn message(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).context("read from QEMU")? == 0 {
            bail!("QEMU closed the connection");
        }
        serde_json::from_str(&line).with_context(|| format!("QEMU said {line:?}"))
    }
}
