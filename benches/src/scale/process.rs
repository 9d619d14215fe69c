//! The processes of a rig: this program again, in other roles.
//!
//! Each says on its standard output when it is ready, and ends when its standard input does, so that
//! none outlives the process that started it, however that ends.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

/// The word that has a fleet serve over TLS too.
pub(super) const TLS: &str = "tls";

/// How the line begins by which a process says that it is ready.
const READY: &str = "READY ";

/// What a command is begun with, to be run on the processors that all of a rig runs on.
pub(super) const CONFINED: [&str; 3] = ["taskset", "--cpu-list", "0,1"];

/// Says to whoever started this process that it is ready.
pub(super) fn ready(with: impl std::fmt::Display) {
    println!("{READY}{with}");
    // Nobody listens only once nobody waits.
    let _ = std::io::stdout().flush();
}

/// Blocks until standard input ends.
pub(super) fn input_ends() {
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
}

/// This program in the role `name`.
pub(super) fn role(name: &str) -> Result<Command> {
    let [launcher, arguments @ ..] = CONFINED;
    let mut command = Command::new(launcher);
    command.args(arguments).arg(std::env::current_exe().context("finding this program")?).arg(name);
    Ok(command)
}

/// A process of a rig, which ends with this.
pub(super) struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Starts it, waits until it is ready, and tells with what.
    pub(super) fn start(command: &mut Command) -> Result<(Self, String)> {
        let shown = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {shown}"))?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("a process without output")?);
        let mut process = Self { child, input, output };
        let with = process.wait()?;
        Ok((process, with))
    }

    /// Its number.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Says a word to it and waits until it is ready for the next.
    pub(super) fn tell(&mut self, word: &str) -> Result<()> {
        let input = self.input.as_mut().context("a process without input")?;
        writeln!(input, "{word}").context("talking to a process")?;
        self.wait().map(|_| ())
    }

    /// Ends it and waits until it has ended.
    ///
    /// # Errors
    /// It did not end well.
    pub(super) fn end(mut self) -> Result<()> {
        self.input = None;
        let status = self.child.wait().context("waiting for a process")?;
        ensure!(status.success(), "a process of the rig ended with {status}");
        Ok(())
    }

    fn wait(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line).context("listening to a process")?;
        match line.strip_prefix(READY) {
            Some(with) => Ok(with.trim().to_owned()),
            None => bail!("a process of the rig ended, or said {line:?}"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.input.take().is_some() {
            // Not told to end in order, so something failed: what it would still do is of no use.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
