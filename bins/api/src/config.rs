//! `api.toml`: what an operator says of the control plane.
//!
//! ```toml
//! state_dir = "/var/lib/elasticstack/api"   # the certificate authority and, unless told otherwise, the database
//! listen = "127.0.0.1:8440"                 # in clear, so on loopback, behind a TLS proxy
//! database = "postgres://elasticstack:PASSWORD@db.example.net/elasticstack"
//! legacy = ["image"]                        # calls that answer 204 as in older clouds: image, start
//! proxies = ["127.0.0.1"]                   # whose X-Forwarded-For is believed; none by default
//! calls_in_a_row = 10000                    # of one account
//! calls_per_second = 2000
//!
//! [quotas]                                  # of customers for whom an operator set no other; none by default
//! cpu = 20000                               # MHz running; mem: MiB running; disk: bytes
//! servers = 10                              # drives, ip, vlan: so many
//! ```
//! Without `database` it is SQLite in `state_dir`, for one server. With PostgreSQL (15 is tested,
//! CockroachDB is not) any number of servers may share one: the first `init` makes the authority,
//! whose two files (`authority.key`, `authority.pem`) the others need in their own `state_dir`.
//! The database must exist; its tables are made. Ids compare fastest under the locale `C`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use elasticstack_api::app::Quota;
use elasticstack_api::http::{LegacyCall, Limits};
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
    /// The proxies whose `X-Forwarded-For` is believed.
    #[serde(default)]
    pub(crate) proxies: Vec<IpAddr>,
    /// The calls that an account may make in a row, if not the default.
    pub(crate) calls_in_a_row: Option<u32>,
    /// The calls that an account is granted each second, if not the default.
    pub(crate) calls_per_second: Option<u32>,
    /// What customers may have, unless an operator says otherwise.
    #[serde(default)]
    pub(crate) quotas: BTreeMap<Quota, u64>,
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

    /// What is granted to callers.
    pub(crate) fn limits(&self) -> Limits {
        let Limits { burst, per_second, .. } = Limits::default();
        Limits {
            burst: self.calls_in_a_row.unwrap_or(burst),
            per_second: self.calls_per_second.unwrap_or(per_second),
            proxies: self.proxies.clone(),
            ..Limits::default()
        }
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
    fn quotas_are_named_and_known() {
        let parsed = Config::parse("state_dir = '/s'\n[quotas]\ncpu = 2000\ndisk = 0").unwrap();
        let quotas = BTreeMap::from([(Quota::Cpu, 2_000), (Quota::Disk, 0)]);
        assert_eq!(parsed.quotas, quotas);
        assert!(Config::parse("state_dir = '/s'").unwrap().quotas.is_empty());
        for bad in ["gpu = 1", "cpu = -1", "cpu = '2G'"] {
            assert!(Config::parse(&format!("state_dir = '/s'\n[quotas]\n{bad}")).is_err(), "{bad}");
        }
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
