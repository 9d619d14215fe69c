//! `api.toml`: what an operator says of the control plane.
//!
//! ```toml
//! state_dir = "/var/lib/elasticstack/api"   # the certificate authority and, unless told otherwise, the database
//! listen = "127.0.0.1:8440"                 # in clear, so on loopback, behind a TLS proxy
//! database = "postgres://elasticstack:PASSWORD@db.example.net/elasticstack"
//! legacy = ["image"]                        # calls that answer 204 as in older clouds: image, start
//! ```
//! Without `database` it is SQLite in `state_dir`, for one server. With PostgreSQL (15 is tested,
//! CockroachDB is not) any number of servers may share one: the first `init` makes the authority,
//! whose two files (`authority.key`, `authority.pem`) the others need in their own `state_dir`.
//! The database must exist; its tables are made. Ids compare fastest under the locale `C`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use elasticstack_api::http::LegacyCall;
use serde::Deserialize;

/// Where the file is unless told otherwise.
pub(crate) const DEFAULT_PATH: &str = "/etc/elasticstack/api.toml";

/// The configuration of the control plane. It may hold a password, so nothing prints it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Where the certificate authority is kept, and the database unless that is elsewhere.
    pub(crate) state_dir: PathBuf,
    database: Option<String>,
    /// Where the public API listens.
    #[serde(default = "default_listen")]
    pub(crate) listen: SocketAddr,
    /// The calls that answer 204 as in older clouds.
    #[serde(default)]
    pub(crate) legacy: Vec<LegacyCall>,
}

impl Config {
    /// Reads the file at `path`.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} can't be used", path.display()))
    }

    /// What is wrong is told by its line's number: the line itself may hold a password.
    fn parse(text: &str) -> anyhow::Result<Self> {
        toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            anyhow!("line {}: {}", before.matches('\n').count() + 1, error.message())
        })
    }

    /// The database's address.
    pub(crate) fn database(&self) -> String {
        self.database
            .clone()
            .unwrap_or_else(|| format!("sqlite:{}", self.state_dir.join("api.db").display()))
    }
}

fn default_listen() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 8440))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_is_a_file_in_the_state_directory_unless_it_is_named() {
        let alone = Config::parse("state_dir = '/s'").unwrap();
        assert_eq!(alone.database(), "sqlite:/s/api.db");
        let shared = Config::parse("state_dir = '/s'\ndatabase = 'postgres://db/cloud'").unwrap();
        assert_eq!(shared.database(), "postgres://db/cloud");
    }

    #[test]
    fn the_calls_that_answer_as_in_older_clouds_are_named_and_known() {
        let parsed = Config::parse("state_dir = '/s'\nlegacy = ['image', 'start']").unwrap();
        assert_eq!(parsed.legacy, [LegacyCall::Image, LegacyCall::Start]);
        assert!(Config::parse("state_dir = '/s'").unwrap().legacy.is_empty());
        assert!(Config::parse("state_dir = '/s'\nlegacy = ['stop']").is_err());
    }

    #[test]
    fn a_file_that_cannot_be_used_is_told_without_its_passwords() {
        for bad in [
            "state_dir = '/s'\ndatabase = postgres://u:hunter2@db/cloud",
            "state_dir = '/s'\ndatabase = 'postgres://u:hunter2@db/cloud",
            "state_dir = '/s'\ndatabase = ['postgres://u:hunter2@db/cloud']",
        ] {
            let Err(refused) = Config::parse(bad) else { panic!("{bad}") };
            let shown = format!("{refused:?}");
            assert!(shown.contains("line 2: ") && !shown.contains("hunter2"), "{shown}");
        }
    }
}
