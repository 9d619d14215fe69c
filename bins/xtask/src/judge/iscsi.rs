//! `cargo xtask judge iscsi`: libiscsi's `iscsi-test-cu`, as Debian ships it, with all of its tests on
//! our target and on tgt, each serving a file of its own. Ours may fail [`MOST_FAILURES`], none of
//! which tgt passes, and skip no more than tgt does; `iscsi.txt` beside this file says of each why.
//!
//! The tests run a suite at a time, so that one that hangs ends with its suite.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use elasticstack_lab::Lab;

use crate::image::Kit;
use crate::product::Program;
use crate::{process, tools};

const MOST_FAILURES: usize = 4;

/// How long each target's file is, in bytes: some tests skip what is smaller.
const FILE_LENGTH: u64 = 256 << 20;

/// How long a suite may take, in seconds. The slowest waits some times for 3 s.
const GUARD: &str = "60";

/// What a machine of the lab does to have the kernel's target judged.
const LIO: &str = include_str!("lio.sh");

const REASONS: &str = "bins/xtask/src/judge/iscsi.txt";

const OURS: &str = "iqn.2026-01.org.example:ours";
const TGT: &str = "iqn.2026-01.org.example:tgt";

/// As [`judge`], and the kernel's target beside them, on a machine of the lab. It is told and not
/// compared: what it can't is not ours to mend.
pub(crate) fn judge_and_lio() -> Result<()> {
    judge()?;
    tools::ensure_for_lab()?;
    Kit::LAB.ensure()?;
    let suites = suites(&process::capture(process::command(TEST)?.arg("--list"))?);
    println!("{}", judge_lio(&suites)?.report("lio"));
    Ok(())
}

/// Lets it judge both, and compares.
pub(crate) fn judge() -> Result<()> {
    tools::ensure_iscsi()?;
    let directory = tempfile::Builder::new().prefix("elasticstack-").tempdir()?;
    let suites = suites(&process::capture(process::command(TEST)?.arg("--list"))?);
    ensure!(!suites.0.is_empty(), "{TEST} lists no tests");

    let ours = judge_ours(directory.path(), &suites)?;
    let tgt = judge_tgt(directory.path(), &suites)?;
    println!("{}", ours.report("ours"));
    println!("{}", tgt.report("tgt"));
    let path = process::root().join(REASONS);
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let reasons = Reasons::parse(&text)?;
    println!("{}", reasons.report(&ours));
    check(&ours, &tgt, &reasons)
}

const TEST: &str = "iscsi-test-cu";

fn judge_ours(directory: &Path, suites: &Suites) -> Result<Tally> {
    let file = directory.join("ours.raw");
    File::create_new(&file)?.set_len(FILE_LENGTH)?;
    let address = format!("127.0.0.1:{}", free_port()?);
    let mut command = process::cargo([
        "run",
        "--quiet",
        "--locked",
        "-p",
        "elasticstack-examples",
        "--bin",
        "serve_a_file",
        "--",
        "--name",
        OURS,
        "--listen",
        &address,
    ])?;
    let program = Program::start(command.arg(&file))?;
    let tally = run_suites(suites, &format!("iscsi://{address}/{OURS}/0"))?;
    program.stop()?;
    Ok(tally)
}

fn judge_tgt(directory: &Path, suites: &Suites) -> Result<Tally> {
    let file = directory.join("tgt.raw");
    File::create_new(&file)?.set_len(FILE_LENGTH)?;
    let address = format!("127.0.0.1:{}", free_port()?);
    let socket = directory.join("tgtd");
    let mut command = process::command("/usr/sbin/tgtd")?;
    command.args(["--foreground", "--iscsi", &format!("portal={address}")]);
    command.env("TGT_IPC_SOCKET", &socket).stderr(Stdio::null());
    let _tgtd = Killed(command.stdout(Stdio::null()).spawn().context("start tgtd")?);
    let admin = |args: &str| -> Result<Command> {
        let mut admin = process::command("/usr/sbin/tgtadm")?;
        admin.args(["--lld", "iscsi"]).args(args.split(' ')).env("TGT_IPC_SOCKET", &socket);
        Ok(admin)
    };
    let make = format!("--op new --mode target --tid 1 --targetname {TGT}");
    for attempt in 0.. {
        match process::run(&mut admin(&make)?) {
            Ok(()) => break,
            Err(error) if attempt == 50 => return Err(error.context("tgtd does not come up")),
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
    let lun = "--op new --mode logicalunit --tid 1 --lun 1 --backing-store";
    process::run(admin(lun)?.arg(&file))?;
    process::run(&mut admin("--op bind --mode target --tid 1 --initiator-address ALL")?)?;
    run_suites(suites, &format!("iscsi://{address}/{TGT}/1"))
}

fn judge_lio(suites: &Suites) -> Result<Tally> {
    let names: Vec<_> = suites.0.keys().map(String::as_str).collect();
    let set = format!("LENGTH={FILE_LENGTH} GUARD={GUARD}; set -- {}\n", names.join(" "));
    let lab = Lab::new()?;
    let said = lab.boot(1)?.run(&(set + LIO))?.ok()?;
    let mut tally = Tally::default();
    for told in said.split("== suite ") {
        let (suite, said) = told.split_once('\n').unwrap_or_default();
        if let Some(tests) = suites.0.get(suite) {
            tally.take(suite, tests, said);
        }
    }
    ensure!(!tally.verdicts.is_empty(), "no suite ran on a machine of the lab:\n{said}");
    Ok(tally)
}

/// A program that ends with this value.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            eprintln!("a program could not be ended: {error}");
        }
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// The tests of each suite, such as `SCSI.Read10`, by their short names.
struct Suites(BTreeMap<String, Vec<String>>);

/// Reads `iscsi-test-cu --list`, of which the families `ALL` and `LINUX` repeat the two others.
fn suites(list: &str) -> Suites {
    let mut suites: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in list.lines() {
        let names: Vec<&str> = line.trim().split('.').collect();
        if let [family @ ("SCSI" | "iSCSI"), suite, test] = names.as_slice() {
            suites.entry(format!("{family}.{suite}")).or_default().push((*test).to_owned());
        }
    }
    Suites(suites)
}

fn run_suites(suites: &Suites, url: &str) -> Result<Tally> {
    let mut tally = Tally::default();
    for (suite, tests) in &suites.0 {
        let mut command = process::command("timeout")?;
        command.args(["--kill-after=5", GUARD, TEST, "--dataloss", "--test", suite, url]);
        let output = command.output().with_context(|| format!("{TEST} cannot be started"))?;
        tally.take(suite, tests, &String::from_utf8_lossy(&output.stdout));
    }
    Ok(tally)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed,
    Skipped,
}

/// Reads what one suite said, by test.
fn verdicts(said: &str) -> BTreeMap<String, Verdict> {
    let mut verdicts = BTreeMap::new();
    let mut current: Option<(String, bool)> = None;
    for line in said.lines() {
        let mut rest = line;
        if let Some((name, after)) =
            line.strip_prefix("  Test: ").and_then(|line| line.split_once(" ..."))
        {
            current = Some((name.to_owned(), false));
            rest = after;
        }
        let Some((name, skipped)) = &mut current else { continue };
        *skipped |= rest.contains("[SKIPPED]");
        // What a test says of itself may follow in the line of its verdict.
        let verdict = match rest {
            _ if rest.starts_with("passed") && *skipped => Verdict::Skipped,
            _ if rest.starts_with("passed") => Verdict::Passed,
            _ if rest.starts_with("FAILED") => Verdict::Failed,
            _ => continue,
        };
        verdicts.insert(name.clone(), verdict);
        current = None;
    }
    verdicts
}

/// The verdicts on one target, by the tests' full names.
#[derive(Debug, Default)]
struct Tally {
    verdicts: BTreeMap<String, Verdict>,
}

impl Tally {
    /// Takes down what the tests of a suite came to.
    fn take(&mut self, suite: &str, tests: &[String], said: &str) {
        let mut verdicts = verdicts(said);
        for test in tests {
            // A test that hung, or that those before it took down, is no pass.
            let verdict = verdicts.remove(test).unwrap_or(Verdict::Failed);
            self.verdicts.insert(format!("{suite}.{test}"), verdict);
        }
    }

    fn of(&self, wanted: Verdict) -> impl Iterator<Item = &str> {
        let of = self.verdicts.iter().filter(move |(_, verdict)| **verdict == wanted);
        of.map(|(name, _)| name.as_str())
    }

    fn report(&self, whose: &str) -> String {
        let count = |verdict| self.of(verdict).count();
        format!(
            "{whose} total {} passed {} failed {} skipped {}",
            self.verdicts.len(),
            count(Verdict::Passed),
            count(Verdict::Failed),
            count(Verdict::Skipped)
        )
    }
}

/// Why tests fail or are skipped: lines of `NAME REASON`, a name ending in `*` for all that begin
/// so.
#[derive(Debug)]
struct Reasons<'a> {
    lines: Vec<(&'a str, &'a str)>,
}

impl<'a> Reasons<'a> {
    fn parse(text: &'a str) -> Result<Self> {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let lines: Result<_> = lines
            .map(|line| {
                let (name, reason) =
                    line.split_once(' ').with_context(|| format!("{line:?} gives no reason"))?;
                Ok((name, reason.trim()))
            })
            .collect();
        Ok(Self { lines: lines? })
    }

    fn of(&self, test: &str) -> Option<&'a str> {
        self.lines.iter().find(|(name, _)| names(name, test)).map(|(_, reason)| *reason)
    }

    fn report(&self, tally: &Tally) -> String {
        let mut lines = Vec::new();
        for (verdict, word) in [(Verdict::Failed, "failed"), (Verdict::Skipped, "skipped")] {
            for test in tally.of(verdict) {
                lines.push(format!("  {word} {test}: {}", self.of(test).unwrap_or("NO REASON")));
            }
        }
        lines.join("\n")
    }
}

fn names(name: &str, test: &str) -> bool {
    name.strip_suffix('*').map_or(name == test, |start| test.starts_with(start))
}

fn check(ours: &Tally, tgt: &Tally, reasons: &Reasons<'_>) -> Result<()> {
    let failed: Vec<_> = ours.of(Verdict::Failed).collect();
    ensure!(failed.len() <= MOST_FAILURES, "{} tests failed: {}", failed.len(), failed.join(", "));
    if let Some(test) = tgt.of(Verdict::Passed).find(|test| failed.contains(test)) {
        bail!("{test} fails on ours and passes on tgt");
    }
    let skipped = |tally: &Tally| tally.of(Verdict::Skipped).count();
    ensure!(
        skipped(ours) <= skipped(tgt),
        "ours skips {} tests, tgt {}",
        skipped(ours),
        skipped(tgt)
    );
    let skipped: Vec<_> = ours.of(Verdict::Skipped).collect();
    if let Some(test) = failed.iter().chain(&skipped).find(|test| reasons.of(test).is_none()) {
        bail!("{test} did not pass, and {REASONS} does not say why");
    }
    let stale = |name: &str| !failed.iter().chain(&skipped).any(|test| names(name, test));
    if let Some((name, _)) = reasons.lines.iter().find(|(name, _)| stale(name)) {
        bail!("{name} passed: take it out of {REASONS}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\
Suite: Reserve6
  Test: Simple ...passed
  Test: Two ...    Take out a RESERVE6
    [FAILED] it should have failed
FAILED
    1. test.c:70  - CU_ASSERT_EQUAL(_r,0)
  Test: Cold ...    [SKIPPED] not implemented

passed
  Test: Reset ...passed    [FAILED] said afterwards
  Test: Hangs ...
";

    fn tally(verdicts: &[(&str, Verdict)]) -> Tally {
        let verdicts = verdicts.iter().map(|(name, verdict)| ((*name).to_owned(), *verdict));
        Tally { verdicts: verdicts.collect() }
    }

    #[test]
    fn the_verdict_on_a_test_is_found_behind_what_it_says() {
        let found = verdicts(SAID);
        let of = |name: &str| found.get(name).copied();
        assert_eq!(of("Simple"), Some(Verdict::Passed));
        assert_eq!(of("Two"), Some(Verdict::Failed));
        assert_eq!(of("Cold"), Some(Verdict::Skipped));
        assert_eq!(of("Reset"), Some(Verdict::Passed));
        assert_eq!(of("Hangs"), None);
    }

    #[test]
    fn suites_are_those_of_scsi_and_iscsi_once_each() {
        let list =
            "ALL\nALL.Read6\nALL.Read6.Simple\nSCSI.Read6\nSCSI.Read6.Simple\niSCSI.TMF.Abort\n";
        let found = suites(list);
        assert_eq!(found.0.keys().collect::<Vec<_>>(), ["SCSI.Read6", "iSCSI.TMF"]);
    }

    #[test]
    fn ours_is_held_to_what_tgt_passes_and_to_a_reason_for_the_rest() {
        use Verdict::{Failed, Passed, Skipped};
        let reasons = Reasons::parse("# why\nA because\nB.* so\n").unwrap();
        let tgt = tally(&[("A", Failed), ("B.1", Skipped), ("C", Passed)]);
        let judge = |ours: &[(&str, Verdict)]| check(&tally(ours), &tgt, &reasons);
        judge(&[("A", Failed), ("B.1", Skipped), ("C", Passed)]).unwrap();
        for (ours, why) in [
            (&[("A", Failed), ("B.1", Skipped), ("C", Failed)][..], "fails on ours and passes"),
            (&[("A", Skipped), ("B.1", Skipped)], "ours skips 2"),
            (&[("A", Failed), ("B.1", Passed), ("D", Skipped)], "does not say why"),
            (&[("A", Passed), ("B.1", Skipped)], "take it out"),
            (
                &[("1", Failed), ("2", Failed), ("3", Failed), ("4", Failed), ("5", Failed)],
                "5 tests failed",
            ),
        ] {
            let error = judge(ours).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        assert!(Reasons::parse("A\n").is_err());
    }
}
