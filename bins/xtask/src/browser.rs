//! The panel in a real browser, on a real guest. Owns how the browser's driver is brought here, at
//! a pinned version, into the cache; what the browser does is in the script.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::product::Product;
use crate::up::Profile;
use crate::{image, process, tools};

const SCRIPT: &str = "bins/panel/tests/browser.mjs";
const PLAYWRIGHT: &str = "playwright-core@1.65.1";
/// Taken where the system's node is older than [`OLDEST_NODE`], which playwright asks for.
const NODE: &str = "node@22.23.3";
const OLDEST_NODE: u32 = 20;

/// Starts the product and lets a browser do the main job in its panel.
pub(crate) fn run() -> Result<()> {
    tools::ensure_packages()?;
    tools::ensure_browser()?;
    let image = image::run(image::Args::default())?;
    let node = node()?;
    let playwright = npm_package(PLAYWRIGHT)?;
    let product = Product::start(&image, Profile::Dev)?;
    let mut browser = process::command(node)?;
    browser.arg(SCRIPT).envs(product.environment()?).env("PLAYWRIGHT", playwright);
    let verdict = process::run(&mut browser).context("the panel does not do its job");
    product.stop()?;
    verdict
}

/// A node that is new enough: the system's, or one of npm's.
fn node() -> Result<PathBuf> {
    let system = process::command("node")?.arg("--version").output();
    let version = system.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    if version.is_ok_and(|version| major(&version).is_some_and(|major| major >= OLDEST_NODE)) {
        return Ok(PathBuf::from("node"));
    }
    Ok(npm_package(NODE)?.join("node_modules/node/bin/node"))
}

/// The first number of a version such as `v20.20.2`.
fn major(version: &str) -> Option<u32> {
    version.trim().strip_prefix('v')?.split('.').next()?.parse().ok()
}

/// A directory of the cache in whose `node_modules` the package is.
fn npm_package(package: &str) -> Result<PathBuf> {
    let directory = process::cache_dir()?.join("npm").join(package.replace('@', "-"));
    let stamp = directory.join("complete");
    if !stamp.exists() {
        println!("installing {package} into the cache, once");
        install(package, &directory)?;
        std::fs::write(&stamp, "").with_context(|| format!("write {}", stamp.display()))?;
    }
    Ok(directory)
}

fn install(package: &str, directory: &Path) -> Result<()> {
    let made = std::fs::create_dir_all(directory);
    made.with_context(|| format!("make {}", directory.display()))?;
    let mut npm = process::command("npm")?;
    npm.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"]).arg(directory);
    process::run(npm.arg(package))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_of_node_has_a_major_number() {
        for (version, number) in
            [("v20.20.2\n", Some(20)), ("v9.1", Some(9)), ("", None), ("20.1", None)]
        {
            assert_eq!(major(version), number, "{version:?}");
        }
    }
}
