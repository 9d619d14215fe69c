//! `cargo xtask judge NAME`: an outside program's verdict on the running product. Owns the names
//! and how each outside program is brought here, at a pinned version, into the cache.

mod iscsi;
mod schemathesis;

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::product::Product;
use crate::up::Profile;
use crate::{image, process, tools};

pub(crate) use self::iscsi::{judge as iscsi, judge_and_lio as iscsi_and_lio};
pub(crate) use self::schemathesis::{daily, nightly};

const LIBCLOUD: &str = "apache-libcloud==3.6.1";
const LIBCLOUD_SCRIPT: &str = "bins/xtask/src/judge/with_libcloud.py";
const CURL_SCRIPT: &str = "bins/xtask/src/judge/curl.sh";

#[derive(clap::Args)]
pub(crate) struct Args {
    name: Judge,
    /// Take the long form of a judge that has one
    #[arg(long)]
    nightly: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Judge {
    /// The API as the shell scripts of older clouds use it: chunks of gzip, cuts, resumption
    Curl,
    /// libiscsi's test suite: the target of iSCSI that drives are lent by, beside another one
    Iscsi,
    /// Apache libcloud's drivers for ElasticHosts, ServerLove and SkaliCloud, on a real guest
    Libcloud,
    /// Schemathesis: whatever the API's own description allows and forbids
    Schemathesis,
}

/// Lets the outside program judge; its own output is the report.
pub(crate) fn run(args: &Args) -> Result<()> {
    match args.name {
        Judge::Curl => curl(),
        Judge::Iscsi if args.nightly => iscsi_and_lio(),
        Judge::Iscsi => iscsi(),
        Judge::Libcloud => libcloud(),
        Judge::Schemathesis if args.nightly => nightly(),
        Judge::Schemathesis => daily(),
    }
}

/// Starts the product, and runs libcloud against it.
pub(crate) fn libcloud() -> Result<()> {
    let python = python_with(LIBCLOUD)?.join("python");
    with_product(|product| {
        let mut judge = process::command(python)?;
        process::run(judge.arg(LIBCLOUD_SCRIPT).envs(product.environment()?))
            .context("libcloud is not content")
    })
}

/// Starts the product, and runs the suite of shell and curl against it.
pub(crate) fn curl() -> Result<()> {
    with_product(|product| {
        let mut judge = process::command("bash")?;
        process::run(judge.arg(CURL_SCRIPT).envs(product.environment()?))
            .context("curl is not content")
    })
}

/// Runs a judge against the product and stops that, whatever the verdict.
fn with_product(judge: impl FnOnce(&Product) -> Result<()>) -> Result<()> {
    tools::ensure_packages()?;
    let image = image::run(image::Args::default())?;
    let product = Product::start(&image, Profile::Dev)?;
    let verdict = judge(&product);
    product.stop()?;
    verdict
}

/// The programs of a virtual environment of the cache that has `package`.
fn python_with(package: &str) -> Result<PathBuf> {
    let environment = process::cache_dir()?.join("python").join(package.replace("==", "-"));
    let programs = environment.join("bin");
    let stamp = environment.join("complete");
    if !stamp.exists() {
        println!("installing {package} into the cache, once");
        process::run(
            process::command("python3")?.args(["-m", "venv", "--clear"]).arg(&environment),
        )?;
        process::run(
            process::command(programs.join("python"))?
                .args(["-m", "pip", "install", "--quiet", package]),
        )?;
        std::fs::write(&stamp, "").with_context(|| format!("write {}", stamp.display()))?;
    }
    Ok(programs)
}
