//! `api.toml`: what an operator says of the control plane.
//!
//! ```toml
//! state_dir = "/var/lib/elasticstack/api"   # the database and the certificate authority
//! listen = "127.0.0.1:8440"                 # in clear, so on loopback, behind a TLS proxy
//! proxies = ["127.0.0.1"]                   # whose X-Forwarded-For is believed; none by default
//! calls_in_a_row = 10000                    # of one account
//! calls_per_second = 2000
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use elasticstack_api::http::Limits;
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
    /// The proxies whose `X-Forwarded-For` is believed.
    #[serde(default)]
    pub(crate) proxies: Vec<IpAddr>,
    /// The calls that an account may make in a row, if not the default.
    pub(crate) calls_in_a_row: Option<u32>,
    /// The calls that an account is granted each second, if not the default.
    pub(crate) calls_per_second: Option<u32>,
}

impl Config {
    /// Reads the file at `path`.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} can't be used", path.display()))
    }

    /// What is granted to callers.
    pub(crate) fn limits(&self) -> Limits {
        let Limits { burst, per_second, .. } = Limits::default();
        Limits {
            burst: self.calls_in_a_row.unwrap_or(burst),
            per_second: self.calls_per_second.unwrap_or(per_second),
            proxies: self.proxies.clone(),
        }
    }

    /// The database's address.
    pub(crate) fn database(&self) -> String {
        format!("sqlite:{}", self.state_dir.join("api.db").display())
    }
}

fn default_listen() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 8440))
}
