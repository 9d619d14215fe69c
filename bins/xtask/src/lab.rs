//! `cargo xtask lab`: a machine, or several, with Debian's full kernel, and what is run on them.
//!
//! Owns the command line; the machines are `elasticstack_lab`'s. Tests boot their own.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use elasticstack_lab::{Ended, Lab, Machine};

use crate::image::Kit;
use crate::{process, tools};

/// The command line of `cargo xtask lab`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many machines there are, on one network: 10.77.0.1 and on
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    hosts: u8,
    /// Open a shell on the first of them; its end is theirs
    #[arg(long, conflicts_with = "job")]
    shell: bool,
    /// What the first of them runs, such as a test binary and its arguments
    #[arg(last = true)]
    job: Vec<String>,
}

/// A shell that takes `/dev/ttyS1` for its terminal.
const SHELL: &str = "setsid --ctty --wait bash --login </dev/ttyS1 >/dev/ttyS1 2>&1";

/// Boots the machines, runs the job or the shell, and ends them.
///
/// # Errors
/// A machine does not come up, or the job does not end well.
pub(crate) fn run(args: &Args) -> Result<()> {
    tools::ensure_for_lab()?;
    Kit::LAB.ensure()?;
    let lab = if args.shell { Lab::new()?.with_terminal() } else { Lab::new()? };
    let mut machines =
        (1..=args.hosts).map(|number| lab.boot(number)).collect::<Result<Vec<_>>>()?;
    for machine in &machines {
        eprintln!("{} is up", machine.address());
    }
    let first = machines.first_mut().context("no machine")?;
    if args.shell {
        eprintln!("/lab is {}; the shell's end is the lab's", lab.directory(1).display());
        first.run(SHELL)?;
        return machines.into_iter().try_for_each(Machine::quit);
    }
    if args.job.is_empty() {
        return Ok(());
    }
    let words: Vec<_> = args.job.iter().map(|word| quoted(word)).collect();
    let job = format!("cd {} && {}", quoted(&shown(process::root())), words.join(" "));
    let Ended { status, .. } = first.run_aloud(&job, |printed| {
        // Nobody to read it is no reason to leave the job.
        let _ = std::io::stdout().write_all(printed);
    })?;
    if status == 0 { Ok(()) } else { bail!("the job ended with {status}") }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// The word as the shell takes it for one word.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stays_one_word_whatever_is_in_it() {
        for word in ["", "a b", "it's", "$(reboot)", "`;|&"] {
            let mut shell = process::command("sh").unwrap();
            let said = process::capture(shell.args(["-c", &format!("printf %s {}", quoted(word))]));
            assert_eq!(said.unwrap(), word);
        }
    }
}
