//! The jobs of a machine: scripts that it runs as root, what they print and how they end.
//!
//! A job is a file in the directory that the machine shares with us; that it is there, and that it
//! has ended, is said at a port.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

/// What a machine runs once it has a root.
const BOOT: &str = include_str!("boot.sh");

/// How often the output of a job is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// How a job ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: i32,
    /// What it printed, on either output.
    pub output: String,
}

impl Ended {
    /// What it printed, if it ended well.
    ///
    /// # Errors
    /// It did not: with its status and what it printed.
    pub fn ok(self) -> Result<String> {
        let Self { status, output } = self;
        ensure!(status == 0, "the job ended with {status}:\n{output}");
        Ok(output)
    }
}

/// The port at which a machine hears of jobs and tells of their ends.
#[derive(Debug)]
pub(crate) struct Jobs {
    directory: PathBuf,
    port: BufReader<UnixStream>,
    count: u32,
}

impl Jobs {
    /// Lays out what machine `number` reads of `directory` when it boots.
    pub(crate) fn lay_out(directory: &Path, number: u8) -> Result<()> {
        let jobs = directory.join("jobs");
        let laid = fs::create_dir_all(&jobs)
            .and_then(|()| fs::write(jobs.join("boot"), BOOT))
            .and_then(|()| fs::write(directory.join("number"), format!("{number}\n")));
        laid.with_context(|| format!("write to {}", directory.display()))
    }

    /// Waits until the machine at the other end of `port` is up.
    pub(crate) fn open(directory: PathBuf, port: UnixStream, within: Duration) -> Result<Self> {
        port.set_read_timeout(Some(within))?;
        let mut jobs = Self { directory, port: BufReader::new(port), count: 0 };
        let mut line = String::new();
        let heard = jobs.port.read_line(&mut line);
        if heard.is_err() || line != "up\n" {
            bail!("the machine is not up; its console:\n{}", jobs.console());
        }
        jobs.port.get_ref().set_read_timeout(Some(LOOK))?;
        Ok(jobs)
    }

    /// Runs a script, waits for its end, and hands what it prints to `sink` meanwhile.
    pub(crate) fn run(&mut self, script: &str, mut sink: impl FnMut(&[u8])) -> Result<Ended> {
        self.count += 1;
        let job = self.count.to_string();
        let script_file = self.directory.join("jobs").join(&job);
        let output_file = script_file.with_added_extension("out");
        fs::write(&script_file, script).context("write a job")?;
        File::create(&output_file).context("make room for a job's output")?;
        writeln!(self.port.get_mut(), "{job}").context("hand over a job")?;
        let (mut line, mut told) = (String::new(), 0);
        loop {
            let heard = self.port.read_line(&mut line);
            let output = fs::read(&output_file).context("read a job's output")?;
            sink(output.get(told..).unwrap_or_default());
            told = output.len();
            match heard {
                Ok(0) => bail!("the machine is gone; its console:\n{}", self.console()),
                Ok(_) => {
                    let end = line.trim_end().split_once(' ');
                    let (ended, status) = end.with_context(|| format!("it says {line:?}"))?;
                    ensure!(ended == job, "job {ended} ended where job {job} was waited for");
                    let output = String::from_utf8_lossy(&output).into_owned();
                    return Ok(Ended { status: status.parse()?, output });
                }
                // What there is of a line stays in it.
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(error).context("listen to the machine"),
            }
        }
    }

    /// What the machine's kernel had to say, such as that it panicked.
    fn console(&self) -> String {
        let console = fs::read(self.directory.join("console")).unwrap_or_default();
        String::from_utf8_lossy(&console).into_owned()
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
