//! `cargo xtask bench NAME`: a table of what was measured, beside a peer where there is one, from one
//! run on this machine. Owns the names and the building of what is measured, which is what users
//! run: the release profile.
//!
//! No part of the tests: a time depends on what else the machine does. The exit status says whether
//! the goals were met.

mod array;
mod boot;

use anyhow::Result;
use elasticstack_lab::Lab;

use crate::image::Kit;
use crate::product::Product;
use crate::up::Profile;
use crate::{image, process, tools};

#[derive(clap::Args)]
pub(crate) struct Args {
    name: Bench,
    /// What else the measuring program is told, such as `-- --small`
    #[arg(last = true)]
    options: Vec<String>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Bench {
    /// A mirror with checksums beside one without, on a machine of the lab
    Array,
    /// A container's way to its init beside QEMU's, on a machine of the lab
    Boot,
    /// Cloning drives on XFS: by size, by extents, and how long a guest's write waits meanwhile
    Clone,
    /// Starting a server beside QEMU by hand, creating drives, and doing nothing
    Start,
    /// Deciding where drives and servers go, on fleets of 10, 100 and 1,000 hosts, and the calls
    /// that do, on both databases
    Place,
    /// Our target of iSCSI beside tgt, and beside the kernel's on a machine of the lab, by operations a
    /// second of its processor time
    Iscsi,
    /// The control plane with 1,250 agents and 20,000 servers, on both databases
    Scale,
}

/// Starts the product, where one is measured, and measures; the table is the measuring program's own output.
pub(crate) fn run(args: &Args) -> Result<()> {
    match args.name {
        Bench::Array => array::run(),
        Bench::Boot => boot::run(&args.options),
        Bench::Clone => cloned(&args.options),
        Bench::Start => start(),
        Bench::Place => measured("place", &args.options),
        Bench::Iscsi => iscsi(&args.options),
        Bench::Scale => measured("scale", &args.options),
    }
}

/// What needs no product and brings up what it measures.
fn measured(name: &str, options: &[String]) -> Result<()> {
    tools::ensure_databases()?;
    process::run(benches("run")?.args(["--", name]).args(options))
}

fn cloned(options: &[String]) -> Result<()> {
    tools::ensure_for_lab()?;
    process::run(benches("run")?.args(["--", "clone"]).args(options))
}

/// Our target is the program as hosts run it.
fn iscsi(options: &[String]) -> Result<()> {
    tools::ensure_iscsi()?;
    tools::ensure_for_lab()?;
    let target = ["--release", "--locked", "-p", "elasticstack-bin-target"];
    process::run(process::cargo(["build", "--quiet"])?.args(target))?;
    process::run(&mut benches("build")?)?;
    Kit::LAB.ensure()?;
    let release = process::target_dir().join("release");
    let (bench, program) =
        (release.join("elasticstack-benches"), release.join("elasticstack-target"));
    let measure = format!(
        "{} iscsi --beside lio --directory /data --target {}",
        bench.display(),
        program.display()
    );
    // Before what is judged, so that a goal that is missed there leaves nothing out.
    println!("{}", Lab::new()?.boot(1)?.run(&measure)?.ok()?);
    process::run(benches("run")?.args(["--", "iscsi", "--target"]).arg(program).args(options))
}

fn start() -> Result<()> {
    tools::ensure_packages()?;
    let image = image::run(image::Args::default())?;
    // Before the product starts: nothing is compiled while it is measured.
    process::run(&mut benches("build")?)?;
    let product = Product::start(&image, Profile::Release)?;
    let mut measure = benches("run")?;
    measure.args(["--", "start", "--pid"]).arg(product.pid().to_string());
    measure.arg("--data-dir").arg(product.data_dir()).envs(product.environment()?);
    let measured = process::run(&mut measure);
    product.stop()?;
    measured
}

fn benches(verb: &str) -> Result<std::process::Command> {
    process::cargo([verb, "--quiet", "--release", "--locked", "-p", "elasticstack-benches"])
}
