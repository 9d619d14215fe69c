//! The running product, for whatever judges or measures it from outside: the all-in-one on a data
//! directory of its own, on free ports, stopped and gone at the end whatever came of it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::process;
use crate::up::{self, Profile};

/// A program of ours that is up: one that prints a line beginning with `READY` once it serves.
pub(crate) struct Program {
    child: Child,
}

impl Program {
    /// Starts it and waits until it says that it is ready.
    ///
    /// # Errors
    /// It ends before it is ready.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().context("the program has no output")?;
        let mut program = Self { child };
        let mut lines = BufReader::new(output).lines().map_while(std::result::Result::ok);
        if !lines.any(|line| line.starts_with("READY")) {
            bail!("the program ended before it was ready: {}", program.child.wait()?);
        }
        // Whatever else it says is read to the end, or it could not go on saying it.
        thread::spawn(move || lines.for_each(drop));
        Ok(program)
    }

    /// Asks it to stop, and waits.
    ///
    /// # Errors
    /// It does not end well.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.terminate()?;
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { bail!("the program ended with {status}") }
    }

    fn terminate(&self) -> Result<()> {
        process::run(process::command("kill")?.arg(self.child.id().to_string()))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // Asked, not killed: it stops its guests, which would outlive it otherwise.
            let ended = self.terminate().and_then(|()| Ok(self.child.wait()?));
            if let Err(error) = ended {
                eprintln!("the program could not be stopped: {error:#}");
            }
        }
    }
}

/// An all-in-one that is up.
pub(crate) struct Product {
    program: Program,
    data_dir: TempDir,
}

impl Product {
    /// Starts it and waits until it says that it is ready.
    ///
    /// # Errors
    /// It ends before it is ready.
    pub(crate) fn start(image: &Path, profile: Profile) -> Result<Self> {
        let data_dir = tempfile::Builder::new().prefix("elasticstack-").tempdir()?;
        // Port 0: the system picks a free one, and the product says which.
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let args = up::Args {
            data_dir: Some(data_dir.path().to_owned()),
            api: Some(free),
            panel: Some(free),
            ..up::Args::default()
        };
        let program = Program::start(&mut up::allinone(&args, profile, &[image])?)?;
        Ok(Self { program, data_dir })
    }

    /// Its process: `cargo run` became it.
    pub(crate) fn pid(&self) -> u32 {
        self.program.child.id()
    }

    /// Where it keeps everything.
    pub(crate) fn data_dir(&self) -> &Path {
        self.data_dir.path()
    }

    /// What the product tells its user to put in the environment.
    ///
    /// # Errors
    /// It wrote no `demo.env`.
    pub(crate) fn environment(&self) -> Result<Vec<(String, String)>> {
        let path = self.data_dir.path().join("demo.env");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// Asks it to stop, and waits.
    ///
    /// # Errors
    /// It does not end well.
    pub(crate) fn stop(self) -> Result<()> {
        self.program.stop()
    }
}
