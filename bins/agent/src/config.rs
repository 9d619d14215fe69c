//! `agent.toml`: what an operator says of one host.
//!
//! ```toml
//! state_dir = "/var/lib/elasticstack/agent"
//! listen = "0.0.0.0:8444"
//!
//! [[array]]
//! name = "fast"
//! path = "/srv/fast"            # a directory on a file system of its own
//! reserve_bytes = 10737418240   # or capacity_bytes, which may over-commit
//! ```

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use elasticstack_core::prelude::*;
use elasticstack_host::store::{ArrayCapacity, DirectoryArray, KnownArrays};
use serde::Deserialize;
use uuid::Uuid;

/// Where the file is unless told otherwise.
pub(crate) const DEFAULT_PATH: &str = "/etc/elasticstack/agent.toml";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    state_dir: PathBuf,
    #[serde(default = "default_listen")]
    listen: SocketAddr,
    #[serde(default)]
    array: Vec<RawArray>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawArray {
    name: String,
    path: PathBuf,
    reserve_bytes: Option<Bytes>,
    capacity_bytes: Option<Bytes>,
}

/// A configuration that holds together.
#[derive(Debug)]
pub(crate) struct Config {
    /// The agent's own state, the guests' run directories, and its certificate.
    pub(crate) state_dir: PathBuf,
    /// Where the internal API listens.
    pub(crate) listen: SocketAddr,
    /// The arrays of this host.
    pub(crate) arrays: Vec<DirectoryArray>,
    /// Those that it has had so far.
    pub(crate) known: KnownArrays,
}

impl Config {
    /// Reads and checks the file at `path`.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} can't be used", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let RawConfig { state_dir, listen, array } = toml::from_str(text)?;
        let known = KnownArrays::read(&state_dir)?;
        let mut arrays = Vec::with_capacity(array.len());
        for RawArray { name, path, reserve_bytes, capacity_bytes } in array {
            let capacity = match (reserve_bytes, capacity_bytes) {
                (None, Some(capacity)) => ArrayCapacity::Fixed(capacity),
                (reserve, None) => ArrayCapacity::Disk { reserve: reserve.unwrap_or(Bytes::ZERO) },
                (Some(_), Some(_)) => bail!(
                    "array {name:?} has both reserve_bytes and capacity_bytes: give one of them"
                ),
            };
            // A new directory gets an id; from then on its label says which array it is.
            let array = match known.identify(&path)? {
                Some(array) => array,
                None => ArrayId::from_uuid(Uuid::now_v7()),
            };
            arrays.push(DirectoryArray { array, name, path, capacity });
        }
        if arrays.is_empty() {
            bail!("there is no [[array]]: a host without one can keep no drive");
        }
        Ok(Self { state_dir, listen, arrays, known })
    }
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 8444))
}
