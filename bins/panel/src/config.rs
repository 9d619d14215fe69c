//! `panel.toml`, and the flags that win over it.
//!
//! ```toml
//! api = "http://127.0.0.1:8440"       # the API server
//! listen = "127.0.0.1:8441"
//! brand = "/etc/elasticstack/brand"   # may be left out
//! https = false                       # true behind a proxy that speaks TLS
//! proxies = []                        # addresses whose X-Forwarded-For is believed
//! ```

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::Scheme;

/// The command line of the panel.
#[derive(Debug, Default, clap::Parser)]
#[command(name = "elasticstack-panel", version, about = "Pages for customers over the public API")]
pub struct Flags {
    /// A configuration file, such as /etc/elasticstack/panel.toml; flags win over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The API server, such as http://127.0.0.1:8440
    #[arg(long, value_name = "URL")]
    api: Option<String>,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// A directory with brand.toml, logo.svg and templates
    #[arg(long, value_name = "DIR")]
    brand: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawConfig {
    api: Option<String>,
    listen: Option<SocketAddr>,
    brand: Option<PathBuf>,
    https: bool,
    proxies: Vec<IpAddr>,
}

/// What the program runs with.
#[derive(Debug, PartialEq, Eq)]
pub struct Config {
    /// The API server's address.
    pub api: String,
    /// Where to listen.
    pub listen: SocketAddr,
    /// The brand's directory; the project's own brand without one.
    pub brand: Option<PathBuf>,
    /// How browsers reach the panel.
    pub scheme: Scheme,
    /// The proxies that are believed.
    pub proxies: Vec<IpAddr>,
}

impl Config {
    /// The file that the flags name, with the flags over it.
    ///
    /// # Errors
    /// A file that can't be read or is no configuration.
    pub fn load(flags: Flags) -> Result<Self> {
        let raw = match &flags.config {
            Some(path) => {
                let what = || format!("reading {}", path.display());
                toml::from_str(&fs::read_to_string(path).with_context(what)?).with_context(what)?
            }
            None => RawConfig::default(),
        };
        Ok(Self::of(flags, raw))
    }

    fn of(flags: Flags, raw: RawConfig) -> Self {
        let default = SocketAddr::from((Ipv4Addr::LOCALHOST, 8441));
        let listen = flags.listen.or(raw.listen).unwrap_or(default);
        let scheme = if raw.https { Scheme::Https } else { Scheme::Http };
        Self {
            api: flags.api.or(raw.api).unwrap_or_else(|| "http://127.0.0.1:8440".to_owned()),
            listen,
            brand: flags.brand.or(raw.brand),
            scheme,
            proxies: raw.proxies,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file_and_the_file_over_the_defaults() {
        let raw = || toml::from_str("listen = \"127.0.0.1:1\"\nbrand = \"/b\"").unwrap();
        let config = Config::of(Flags::default(), raw());
        assert_eq!(config.listen.port(), 1);
        assert_eq!(config.api, "http://127.0.0.1:8440");
        let flags = Flags { listen: Some(([127, 0, 0, 1], 2).into()), ..Flags::default() };
        assert_eq!(Config::of(flags, raw()).listen.port(), 2);
        assert!(toml::from_str::<RawConfig>("lissten = 1").is_err());
    }
}
