//! `cargo xtask judge NAME`: an outside program's verdict on the running product. Owns the names
//! and how each outside program is brought here, at a pinned version, into the cache.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::product::Product;
use crate::up::Profile;
use crate::{image, process, tools};

const LIBCLOUD: &str = "apache-libcloud==3.6.1";
const LIBCLOUD_SCRIPT: &str = "bins/xtask/src/judge/with_libcloud.py";

#[derive(clap::Args)]
pub(crate) struct Args {
    name: Judge,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Judge {
    /// Apache libcloud's drivers for ElasticHosts, ServerLove and SkaliCloud, on a real guest
    Libcloud,
}

/// Lets the outside program judge; its own output is the report.
pub(crate) fn run(args: &Args) -> Result<()> {
    match args.name {
        Judge::Libcloud => libcloud(),
    }
}

/// Starts the product, and runs libcloud against it.
pub(crate) fn libcloud() -> Result<()> {
    tools::ensure_packages()?;
    let image = image::run(image::Args::default())?;
    let python = python_with(LIBCLOUD)?;
    let product = Product::start(&image, Profile::Dev)?;
    let mut judge = process::command(python)?;
    judge.arg(LIBCLOUD_SCRIPT).envs(product.environment()?);
    let verdict = process::run(&mut judge).context("libcloud is not content");
    product.stop()?;
    verdict
}

/// A Python interpreter that has `package`, in a virtual environment of the cache.
fn python_with(package: &str) -> Result<PathBuf> {
    let environment = process::cache_dir()?.join("python").join(package.replace("==", "-"));
    let python = environment.join("bin/python");
    let stamp = environment.join("complete");
    if !stamp.exists() {
        println!("installing {package} into the cache, once");
        process::run(
            process::command("python3")?.args(["-m", "venv", "--clear"]).arg(&environment),
        )?;
        process::run(
            process::command(&python)?.args(["-m", "pip", "install", "--quiet", package]),
        )?;
        std::fs::write(&stamp, "").with_context(|| format!("write {}", stamp.display()))?;
    }
    Ok(python)
}
