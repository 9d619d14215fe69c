//! What a machine's hardware is told while it runs, over QEMU's monitor protocol (QMP).

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

/// The monitor of one machine.
#[derive(Debug)]
pub(crate) struct Qmp {
    lines: BufReader<UnixStream>,
    /// Events that came while an answer was waited for.
    events: Vec<Value>,
}

impl Qmp {
    /// Takes it out of its negotiation mode.
    pub(crate) fn open(monitor: UnixStream) -> Result<Self> {
        let mut qmp = Self { lines: BufReader::new(monitor), events: Vec::new() };
        qmp.line()?;
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Runs a command.
    ///
    /// # Errors
    /// QEMU refuses it, in its own words.
    pub(crate) fn execute(&mut self, command: &str, arguments: &Value) -> Result<()> {
        let mut request = json!({ "execute": command, "arguments": arguments }).to_string();
        request.push('\n');
        self.events.clear();
        self.lines.get_mut().write_all(request.as_bytes()).context("talk to the monitor")?;
        loop {
            let answer = self.line()?;
            if let Some(error) = answer.get("error") {
                bail!("{command} was refused: {}", error["desc"]);
            }
            if answer.get("return").is_some() {
                return Ok(());
            }
            self.events.push(answer);
        }
    }

    /// Waits for an event of this name about this device, since the last command was given.
    pub(crate) fn wait_for(&mut self, event: &str, device: &str) -> Result<()> {
        let is_it = |line: &Value| line["event"] == event && line["data"]["device"] == device;
        while !self.events.iter().any(is_it) {
            let line = self.line()?;
            self.events.push(line);
        }
        Ok(())
    }

    /// What is left to hear of a QEMU that has ended.
    pub(crate) fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        // What can't be heard any more is not needed.
        let _ = self.lines.read_to_end(&mut rest);
        String::from_utf8_lossy(&rest).into_owned()
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        let read = self.lines.read_line(&mut line).context("listen to the monitor")?;
        if read == 0 {
            bail!("the machine is gone");
        }
        serde_json::from_str(&line).with_context(|| format!("read {line:?} of the monitor"))
    }
}
