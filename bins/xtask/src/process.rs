//! Other programs, run from the repository's root. Owns the root, the search path and the wording of
//! a failure; knows no particular program but cargo.
//!
//! Every command sees the tools that xtask installed, behind the caller's own `PATH`: what is
//! installed already is used.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, anyhow, bail};

/// The directory of the workspace's Cargo.toml.
pub(crate) fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().nth(2).unwrap_or(package)
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> PathBuf {
    let given = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    root().join(given.unwrap_or_else(|| "target".into()))
}

/// Where xtask keeps whatever is made once and used again: `~/.cache/elasticstack`.
pub(crate) fn cache_dir() -> Result<PathBuf> {
    let home = env::var_os("HOME").context("HOME is not set: set it to a directory you own")?;
    Ok(Path::new(&home).join(".cache/elasticstack"))
}

/// Where xtask keeps the programs it installs for itself.
pub(crate) fn tools_dir() -> Result<PathBuf> {
    Ok(cache_dir()?.join("tools"))
}

/// `program`, to be run at the root.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Result<Command> {
    let mut command = Command::new(program);
    command.current_dir(root()).env("PATH", search_path()?);
    Ok(command)
}

/// `cargo` with `args`, to be run at the root.
///
/// It is not told of the package that `cargo xtask` runs: build scripts that watch those variables
/// would run again, and half of the workspace be built again, at every change between xtask and
/// plain cargo.
pub(crate) fn cargo<const N: usize>(args: [&str; N]) -> Result<Command> {
    let mut command = command("cargo")?;
    command.args(args);
    for (name, _) in env::vars_os().filter(|(name, _)| is_of_the_package_run(name)) {
        command.env_remove(name);
    }
    Ok(command)
}

fn is_of_the_package_run(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b"CARGO_PKG_") || name.starts_with(b"CARGO_MANIFEST_")
}

/// Runs to the end with our own input and output.
///
/// # Errors
/// The command cannot be started, or does not exit with 0.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = shown(command);
    let status = command.status().with_context(|| format!("`{line}` cannot be started"))?;
    if status.success() { Ok(()) } else { bail!("`{line}` ended with {status}") }
}

/// Runs to the end and answers its standard output; its standard error is ours.
///
/// # Errors
/// As [`run`], and when the output is not UTF-8.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let line = shown(command);
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("`{line}` cannot be started"))?;
    if !output.status.success() {
        bail!("`{line}` ended with {}", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{line}` printed no UTF-8"))
}

/// Becomes the command: its output is our last, its exit status is ours, signals go straight to it.
///
/// # Errors
/// Returns only if the command cannot be started.
pub(crate) fn become_command(command: &mut Command) -> Result<()> {
    let line = shown(command);
    Err(anyhow!(command.exec()).context(format!("`{line}` cannot be started")))
}

/// Whether `program` is found on the search path.
pub(crate) fn is_installed(program: &str) -> Result<bool> {
    Ok(env::split_paths(&search_path()?).any(|dir| dir.join(program).is_file()))
}

fn search_path() -> Result<OsString> {
    let mut dirs: Vec<PathBuf> =
        env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default();
    dirs.push(tools_dir()?.join("bin"));
    env::join_paths(dirs).context("PATH cannot be extended by xtask's own tools")
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_is_named_with_its_arguments_and_status() {
        let error = run(command("sh").unwrap().args(["-c", "exit 3"])).unwrap_err();
        assert_eq!(error.to_string(), "`sh -c exit 3` ended with exit status: 3");
    }

    #[test]
    fn cargo_is_not_told_of_the_package_that_is_run() {
        assert!(env::var_os("CARGO_PKG_NAME").is_some(), "set by whoever runs the tests");
        let cargo = cargo(["--version"]).unwrap();
        let hidden: Vec<_> = cargo.get_envs().filter(|(_, value)| value.is_none()).collect();
        for name in ["CARGO_PKG_NAME", "CARGO_MANIFEST_DIR"] {
            assert!(hidden.contains(&(OsStr::new(name), None)), "{name} is not among {hidden:?}");
        }
    }

    #[test]
    fn commands_run_at_the_root_of_the_workspace() {
        let listed = capture(command("cat").unwrap().arg("rust-toolchain.toml")).unwrap();
        assert!(listed.starts_with("[toolchain]"), "got {listed:?}");
    }
}
