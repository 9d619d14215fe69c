//! What `up` tells its user: where things are and how to try them.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::cloud::PROMISE;
use crate::identity::{Identity, write_private};

/// Prints a line for the user. Nobody may be reading any more, which is no reason to stop.
pub fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Writes `demo.env`, to be sourced by a shell; readable by its owner only, for it has the key.
///
/// # Errors
/// If it can't be written.
pub fn write_env(data_dir: &Path, api: SocketAddr, identity: &Identity) -> anyhow::Result<()> {
    let (account, key) = (identity.account, identity.key.expose());
    let env = format!(
        "EHURI=http://{api}/\nEHAUTH={account}:{key}\nPANEL_USER={account}\nPANEL_PASSWORD={key}\n"
    );
    write_private(&data_dir.join("demo.env"), env.as_bytes())
}

/// What stands on the screen once everything runs.
#[must_use]
pub fn ready(data_dir: &Path, api: SocketAddr, accelerator: &str) -> String {
    let env = data_dir.join("demo.env");
    let env = env.display();
    format!(
        "READY  the API is at http://{api}/ and the demo account in {env}\n\
         try    . '{env}' && curl -su \"$EHAUTH\" \"${{EHURI}}drives/info/standard\"\n\
         guests run on {accelerator}; drives may sum up to {PROMISE}, more than this disk has\n\
         stop   Ctrl-C stops the guests and everything else; with --keep the guests go on"
    )
}

/// Where `up` keeps everything unless told otherwise (XDG base directories).
///
/// # Errors
/// If this user has no home.
pub fn default_data_dir() -> anyhow::Result<PathBuf> {
    let data = match std::env::var_os("XDG_DATA_HOME") {
        Some(data) => PathBuf::from(data),
        None => {
            let home = std::env::var_os("HOME").context("HOME is not set: give --data-dir")?;
            PathBuf::from(home).join(".local/share")
        }
    };
    Ok(data.join("elasticstack"))
}
