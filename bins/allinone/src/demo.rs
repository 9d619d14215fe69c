//! What `up` tells its user: where things are and how to try them.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::cloud::{Cloud, PROMISE};
use crate::identity::{Identity, write_private};

/// Prints a line for the user. Nobody may be reading any more, which is no reason to stop.
pub fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// A running all-in-one, as its user meets it.
#[derive(Debug)]
pub struct Demo<'a> {
    /// What runs.
    pub cloud: &'a Cloud,
    /// Where it keeps everything.
    pub data_dir: &'a Path,
    /// Where the public API listens.
    pub api: SocketAddr,
    /// Where the panel listens.
    pub panel: SocketAddr,
}

impl Demo<'_> {
    fn env_file(&self) -> PathBuf {
        self.data_dir.join("demo.env")
    }

    /// Writes `demo.env`, to be sourced by a shell; readable by its owner only, for it has keys.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn write_env(&self) -> anyhow::Result<()> {
        let Self { cloud, api, panel, .. } = self;
        let (identity, operator) = (cloud.identity(), cloud.operator());
        let (account, key) = (identity.account, identity.key.expose());
        let env = format!(
            "EHURI=http://{api}/\n\
             EHAUTH={account}:{key}\n\
             PANEL_URL=http://{panel}\n\
             PANEL_USER={account}\n\
             PANEL_PASSWORD={key}\n\
             OPERATOR_AUTH={}:{}\n",
            operator.account,
            operator.key.expose()
        );
        write_private(&self.env_file(), env.as_bytes())
    }

    /// What stands on the screen once everything runs. It has the demo account's key: the screen
    /// is the user's own.
    #[must_use]
    pub fn ready(&self) -> String {
        let Self { cloud, api, panel, .. } = self;
        let Identity { account, key, .. } = cloud.identity();
        let env = self.env_file();
        format!(
            "READY  the API is at http://{api}/ and the demo account in {env}\n\
             panel  http://{panel}/  user {account}  password {key}\n\
             curl   (. '{env}'; curl -su \"$EHAUTH\" \"${{EHURI}}drives/info/standard\")\n\
             CLI    (set -a; . '{env}'; cargo run -qp elasticstack-bin-cli -- drive standard)\n\
             guests run on {accelerator}; drives may sum up to {PROMISE}, more than this disk has\n\
             stop   Ctrl-C stops the guests and everything else; with --keep the guests go on",
            env = env.display(),
            key = key.expose(),
            accelerator = cloud.accelerator(),
        )
    }
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
