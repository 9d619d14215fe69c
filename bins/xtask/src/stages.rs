//! `cargo xtask test`: the named stages, in the order in which they are cheapest to fail. Owns the
//! table and the running of it; a stage is a function that fails with a reason.
//!
//! `nextest` is always last and replaces this process: its summary closes the output and its exit
//! status is the run's. The nightly stages come before it.

use std::fs::File;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::image::{self, Image, Kit};
use crate::layers::{self, graph};
use crate::{browser, fuzz, judge, process, storm, tools, up};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only these stages, separated by commas
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    only: Vec<String>,
    /// List the stages and run none
    #[arg(long)]
    list: bool,
    /// Run the nightly stages too, and the long form of each stage that has one
    #[arg(long)]
    nightly: bool,
}

struct Stage {
    name: &'static str,
    what: &'static str,
    when: When,
    run: fn() -> Result<()>,
    /// What `--nightly` runs in its place.
    long: Option<fn() -> Result<()>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Always,
    Nightly,
}

const STAGES: &[Stage] = &[
    always("tools", "packages and cargo tools that are missing are installed", tools::ensure),
    always("fmt", "every file is formatted", fmt),
    always("layers", "crate edges and house rules hold", layers::check),
    always("clippy", "no warning in any target", clippy),
    always("core", "elasticstack-core builds alone and without tokio", core),
    always("doc", "the documentation builds without a warning", doc),
    always("doctest", "the examples in the documentation run", doctest),
    always("image", "the small standard drives and the lab's kernel are there", image),
    always("smoke", "a guest boots, reads, writes and ends, through the public API", up::smoke),
    always(
        "debian-12",
        "a full Debian's cloud-init does its job on a real guest",
        up::smoke_debian,
    ),
    always("libcloud", "an old client is content, on a real guest", judge::libcloud),
    always("curl", "the old shell scripts' uploads, cuts and downloads hold", judge::curl),
    always("iscsi", "libiscsi's tests fail on no more of ours than of tgt", judge::iscsi)
        .or_by_night(judge::iscsi_and_lio),
    always("schemathesis", "what the API's description allows and forbids is so", judge::daily)
        .or_by_night(judge::nightly),
    always("panel", "a browser does the main job in the panel, on a real guest", browser::run),
    always("storm", "killed at any instant, nothing is lost, doubled or left", storm::daily)
        .or_by_night(storm::nightly),
    nightly("features", "every feature of every library builds alone", features),
    nightly("deny", "bans, licences and sources of all dependencies", deny),
    nightly(
        "crashes",
        "killed at any point of any call, the end is the same, in every way",
        crashes,
    ),
    nightly("fencing", "no write of a stale epoch is taken, on any path", fencing),
    nightly("power", "what a store confirmed outlives a power cut at every point", power),
    nightly("network", "a guest waits 10 minutes for the network to its drive", network),
    nightly("checksums", "of 1,000 corrupted blocks none is read wrong", checksums),
    nightly("slow", "what takes minutes on machines of the lab holds too", slow),
    nightly("fuzz", "no bytes from outside make a parser or a device fail", fuzz::run)
        .or_by_night(fuzz::long),
    always("lab", "what only a kernel does holds on machines of the lab", lab),
    always("nextest", "every other test, none skipped", nextest),
];

const fn always(name: &'static str, what: &'static str, run: fn() -> Result<()>) -> Stage {
    Stage { name, what, when: When::Always, run, long: None }
}

const fn nightly(name: &'static str, what: &'static str, run: fn() -> Result<()>) -> Stage {
    Stage { name, what, when: When::Nightly, run, long: None }
}

impl Stage {
    const fn or_by_night(self, long: fn() -> Result<()>) -> Self {
        Self { long: Some(long), ..self }
    }
}

/// Runs the stages that `args` selects and stops at the first that fails.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.list {
        for stage in STAGES {
            let mark = if stage.when == When::Nightly { " (nightly)" } else { "" };
            println!("{:<12} {}{mark}", stage.name, stage.what);
        }
        return Ok(());
    }
    let selected = select(args)?;
    let count = selected.len();
    for (at, stage) in selected.iter().enumerate() {
        println!("── stage {}/{count} {}: {}", at + 1, stage.name, stage.what);
        let started = Instant::now();
        let run = stage.long.filter(|_| args.nightly).unwrap_or(stage.run);
        run().with_context(|| {
            let name = stage.name;
            let long = if args.nightly { " --nightly" } else { "" };
            let seconds = started.elapsed().as_secs_f64();
            format!(
                "stage {name} failed after {seconds:.1} s; \
                 repeat it with `cargo xtask test --only {name}{long}`"
            )
        })?;
        println!("── {} passed in {:.1} s", stage.name, started.elapsed().as_secs_f64());
    }
    Ok(())
}

/// The stages to run, always in the table's order.
fn select(args: &Args) -> Result<Vec<&'static Stage>> {
    if let Some(unknown) = args.only.iter().find(|only| STAGES.iter().all(|s| s.name != **only)) {
        let known: Vec<_> = STAGES.iter().map(|stage| stage.name).collect();
        bail!("there is no stage {unknown:?}: the stages are {}", known.join(", "));
    }
    let wanted = |stage: &&Stage| {
        if args.only.is_empty() {
            args.nightly || stage.when == When::Always
        } else {
            args.only.iter().any(|only| only == stage.name)
        }
    };
    Ok(STAGES.iter().filter(wanted).collect())
}

fn fmt() -> Result<()> {
    process::run(&mut process::cargo(["fmt", "--all", "--check"])?)
}

fn clippy() -> Result<()> {
    let mut clippy = process::cargo(["clippy", "--workspace", "--all-targets", "--locked"])?;
    process::run(clippy.args(["--", "-D", "warnings"]))
}

fn core() -> Result<()> {
    if let Some(violation) = graph::runtime_in_core()? {
        bail!("{violation}");
    }
    process::run(&mut process::cargo(["build", "--locked", "-p", "elasticstack-core"])?)
}

fn doc() -> Result<()> {
    let mut doc = process::cargo(["doc", "--workspace", "--no-deps", "--locked"])?;
    process::run(doc.env("RUSTDOCFLAGS", "-D warnings"))
}

fn doctest() -> Result<()> {
    process::run(&mut process::cargo(["test", "--workspace", "--doc", "--locked"])?)
}

fn image() -> Result<()> {
    for image in [Image::Tiny, Image::TinyRoot, Image::Ipxe, Image::IpxeDisk] {
        image::run(image::Args { image, cache: None })?;
    }
    Kit::CONTAINER.ensure()?;
    Kit::LAB.ensure()?;
    Ok(())
}

fn features() -> Result<()> {
    for package in graph::members()?.iter().filter(|package| package.is_library()) {
        for feature in std::iter::once("").chain(package.features()) {
            println!(
                "checking {} with {}",
                package.name,
                if feature.is_empty() { "none" } else { feature }
            );
            let mut check =
                process::cargo(["check", "--quiet", "--locked", "--no-default-features"])?;
            check.args(["-p", &package.name, "--features", feature]);
            process::run(&mut check)?;
        }
    }
    Ok(())
}

fn deny() -> Result<()> {
    tools::ensure_deny()?;
    process::run(&mut process::cargo([
        "deny",
        "--locked",
        "check",
        "--hide-inclusion-graph",
        "bans",
        "licenses",
        "sources",
    ])?)
}

fn crashes() -> Result<()> {
    long_form(&["-p", "elasticstack-bin-allinone", "--test", "simulated"])
}

fn checksums() -> Result<()> {
    tools::ensure_for_lab()?;
    Kit::LAB.ensure()?;
    long_form(&["-p", "elasticstack-bin-agent", "-E", "test(never_gives_wrong_bytes)"])
}

fn slow() -> Result<()> {
    tools::ensure_for_lab()?;
    image()?;
    image::run(image::Args { image: Image::Debian12, cache: None })?;
    let packages = ["-p", "elasticstack-bin-agent", "-p", "elasticstack-bin-vmm"];
    long_form(&[&packages[..], &["-E", "test(by_night)"]].concat())
}

fn power() -> Result<()> {
    tools::ensure_for_lab()?;
    Kit::LAB.ensure()?;
    long_form(&["-p", "elasticstack-host", "-E", "test(power_loss)"])
}

fn network() -> Result<()> {
    image()?;
    long_form(&["-p", "elasticstack-host", "-E", "test(lent_faults)"])
}

fn fencing() -> Result<()> {
    long_form(&["-p", "elasticstack-host", "-p", "elasticstack-bin-target", "-E", "test(fencing)"])
}

/// The tests that `which` selects, in the long form that they have.
fn long_form(which: &[&str]) -> Result<()> {
    tools::ensure_nextest()?;
    let mut nextest = process::cargo(["nextest", "run", "--locked"])?;
    nextest.args(which).args(["--profile", "nightly", "--run-ignored", "all"]);
    process::run(nextest.env("ELASTICSTACK_LONG_TESTS", "1"))
}

/// The tests on machines of the lab, apart from the others: beside those they would take longer. What
/// says `by_night` in its name is run by a nightly stage alone.
fn lab() -> Result<()> {
    image()?;
    println!("the tests with `by_night` in their names are left to --nightly");
    process::run(&mut tests("test(_lab_) and not test(by_night)")?)
}

/// All tests that are not on machines of the lab; where no `/dev/kvm` opens, all but those that need
/// one, which are then named.
fn nextest() -> Result<()> {
    let which = match File::options().read(true).write(true).open("/dev/kvm") {
        Ok(_) => "not test(_lab_)",
        Err(error) => {
            println!(
                "/dev/kvm does not open ({error}): the tests with `by_dev_kvm` in their names are left out"
            );
            "not test(_lab_) and not test(by_dev_kvm)"
        }
    };
    process::become_command(&mut tests(which)?)
}

/// Runs those of all tests that `which` selects.
fn tests(which: &str) -> Result<Command> {
    tools::ensure_nextest()?;
    let mut nextest = process::cargo(["nextest", "run", "--workspace", "--locked"])?;
    nextest.args(["--profile", "ci", "--run-ignored", "all", "-E", which]);
    Ok(nextest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(only: &[&str], nightly: bool) -> Result<Vec<&'static str>> {
        let only = only.iter().map(ToString::to_string).collect();
        let selected = select(&Args { only, list: false, nightly })?;
        Ok(selected.iter().map(|stage| stage.name).collect())
    }

    #[test]
    fn nextest_is_last_and_nightly_only_adds() {
        let (daily, nightly) = (names(&[], false).unwrap(), names(&[], true).unwrap());
        assert_eq!(daily.last(), Some(&"nextest"));
        assert_eq!(nightly.last(), Some(&"nextest"));
        assert!(daily.iter().all(|name| nightly.contains(name)));
        assert!(nightly.contains(&"deny") && !daily.contains(&"deny"));
    }

    #[test]
    fn chosen_stages_run_in_the_tables_order_and_nightly_ones_need_no_flag() {
        assert_eq!(names(&["deny", "fmt"], false).unwrap(), ["fmt", "deny"]);
    }

    #[test]
    fn an_unknown_stage_is_refused_with_the_known_ones() {
        let error = names(&["fmt", "lint"], false).unwrap_err().to_string();
        assert!(
            error.starts_with("there is no stage \"lint\": the stages are tools, fmt,"),
            "{error}"
        );
    }

    #[test]
    fn stage_names_are_unique() {
        for (at, stage) in STAGES.iter().enumerate() {
            assert!(
                STAGES[..at].iter().all(|earlier| earlier.name != stage.name),
                "{}",
                stage.name
            );
        }
    }
}
