//! `api.toml`: what an operator says of the control plane.
//!
//! ```toml
//! state_dir = "/var/lib/elasticstack/api"   # the database and the certificate authority
//! listen = "127.0.0.1:8440"                 # in clear, so on loopback, behind a TLS proxy
//! ```

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize;

/// Where the file is unless told otherwise.
pub(crate) const DEFAULT_PATH: &str = "/etc/elasticstack/api.toml";

/// The configuration of the control plane.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Where the database and the certificate authority are kept.
    pub(crate) state_dir: PathBuf,
    /// Where the public API listens.
    #[serde(default = "default_listen")]
    pub(crate) listen: SocketAddr,
}

impl Config {
    /// Reads the file at `path`.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} can't be used", path.display()))
    }

    /// The database's address.
    pub(crate) fn database(&self) -> String {
        format!("sqlite:{}", self.state_dir.join("api.db").display())
    }
}

fn default_listen() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 8440))
}
