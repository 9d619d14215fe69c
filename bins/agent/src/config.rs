//! `agent.toml`: what an operator says of one host.
//!
//! ```toml
//! state_dir = "/var/lib/elasticstack/agent"
//! listen = "0.0.0.0:8444"
//! array_root = "/srv"           # below which the control plane may have arrays mounted
//!
//! [lend]                        # without it, drives are not lent to servers on other hosts
//! portal = "10.1.0.7:3260"      # an address on the storage network
//! by = "kernel"                 # or "process"
//!
//! [containers]                  # without it, this host runs no containers
//! kernel = "/usr/local/lib/elasticstack/container/kernel"
//! initial_disk = "/usr/local/lib/elasticstack/container/initrd.gz"
//! bridge = "br0"                # what their network cards are plugged into
//!
//! [fetch]                       # where files for drives may be fetched from
//! allow = ["10.20.0.0/16"]      # networks beside the public ones
//! refuse = ["198.45.0.0/16"]    # public ones that are yours
//!
//! [[array]]
//! name = "fast"
//! path = "/srv/fast"            # a directory on a file system of its own
//! reserve_bytes = 10737418240   # or capacity_bytes, which may over-commit
//!
//! [[array]]                     # as `array create` adds it
//! name = "slow"
//! path = "/srv/slow"
//! array = "0198c0de-0000-7000-8000-000000000001"
//! md = "5b1f4d3c-0000-4000-8000-000000000007"
//! filesystem = "19dbb1d4-7fb2-406a-9beb-09f580cceb24"
//! ```

use std::fs::{self, File};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use elasticstack_core::prelude::*;
use elasticstack_host::array::{ArrayConfig, ConfiguredArray, Integrity, MadeArray};
use elasticstack_host::fetch::{AUTHORITIES, Fetcher, Network, Networks};
use elasticstack_host::store::{ArrayCapacity, DirectoryArray, KnownArrays};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Where the file is unless told otherwise.
pub(crate) const DEFAULT_PATH: &str = "/etc/elasticstack/agent.toml";

/// The file, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawConfig {
    pub(crate) state_dir: PathBuf,
    #[serde(default = "default_listen")]
    listen: SocketAddr,
    #[serde(default = "default_array_root")]
    array_root: PathBuf,
    lend: Option<Lending>,
    containers: Option<Containers>,
    #[serde(default)]
    fetch: RawFetch,
    #[serde(default)]
    array: Vec<RawArray>,
}

/// How drives are lent to servers on other hosts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lending {
    /// Where borrowers connect: an address of this host on the storage network.
    pub(crate) portal: SocketAddr,
    #[serde(default)]
    pub(crate) by: LentBy,
    /// Who the process is that lends; `None` for whoever the agent is.
    pub(crate) user: Option<String>,
}

/// What serves the drives that are lent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LentBy {
    /// The kernel's target, LIO.
    #[default]
    Kernel,
    /// `elasticstack-target`, a process of its own.
    Process,
}

/// How containers are run.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Containers {
    /// The kernel of all of them.
    pub(crate) kernel: PathBuf,
    /// Its initial RAM disk.
    pub(crate) initial_disk: PathBuf,
    /// The bridge that their network cards are plugged into.
    pub(crate) bridge: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFetch {
    #[serde(default)]
    allow: Vec<String>,
    #[serde(default)]
    refuse: Vec<String>,
    /// Whose certificates are believed.
    authorities: Option<PathBuf>,
}

impl RawFetch {
    fn check(self) -> anyhow::Result<Fetcher> {
        let networks = |texts: Vec<String>| -> Result<Vec<Network>, _> {
            texts.iter().map(|text| text.parse()).collect()
        };
        let networks = Networks { allowed: networks(self.allow)?, refused: networks(self.refuse)? };
        Ok(Fetcher::new(networks, self.authorities.unwrap_or_else(|| AUTHORITIES.into())))
    }
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RawArray {
    name: String,
    path: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    array: Option<ArrayId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    md: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    filesystem: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    integrity: Option<Integrity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reserve_bytes: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    capacity_bytes: Option<Bytes>,
}

impl RawConfig {
    /// Reads the file at `path`.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text =
            fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} can't be used", path.display()))
    }
}

/// The file, as whoever makes arrays sees it.
#[derive(Debug)]
pub(crate) struct ConfigFile(pub(crate) PathBuf);

impl ConfigFile {
    /// Adds an array at the end of the file, which is otherwise left as it stands there.
    fn append(&self, array: RawArray) -> anyhow::Result<()> {
        let path = &self.0;
        let mut text = fs::read_to_string(path)?;
        let table = toml::to_string(&toml::Table::from_iter([(
            "array".to_owned(),
            toml::Value::try_from([array])?,
        )]))?;
        text.push('\n');
        text.push_str(&table);
        let _: RawConfig = toml::from_str(&text).context("what would be written can't be read")?;
        let scratch = path.with_extension("toml.new");
        let write = || {
            let mut file = File::create(&scratch)?;
            file.set_permissions(fs::metadata(path)?.permissions())?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&scratch, path)?;
            // Of a path without a directory that is the present one.
            File::open(path.parent().unwrap_or(path).join("."))?.sync_all()
        };
        write().with_context(|| {
            format!("adding to {}: add this to it by hand:\n{table}", path.display())
        })
    }
}

impl ArrayConfig for ConfigFile {
    fn arrays(&self) -> Result<Vec<ConfiguredArray>> {
        let arrays = RawConfig::read(&self.0).map_err(|error| internal(&error))?.array.into_iter();
        arrays.map(|array| array.check().map_err(|error| internal(&error))).collect()
    }

    fn add(&self, array: &ConfiguredArray) -> Result<()> {
        self.append(RawArray::of(array.clone())).map_err(|error| internal(&error))
    }
}

fn internal(error: &anyhow::Error) -> Error {
    Error::internal(format!("{error:#}"))
}

impl RawArray {
    fn of(array: ConfiguredArray) -> Self {
        let ConfiguredArray { array, name, path, capacity, made } = array;
        let (reserve_bytes, capacity_bytes) = match capacity {
            ArrayCapacity::Disk { reserve } => (Some(reserve), None),
            ArrayCapacity::Fixed(capacity) => (None, Some(capacity)),
        };
        Self {
            name,
            path,
            array,
            md: made.map(|made| made.md),
            filesystem: made.map(|made| made.filesystem),
            integrity: made.and_then(|made| made.integrity),
            reserve_bytes: reserve_bytes.filter(|reserve| *reserve > Bytes::ZERO),
            capacity_bytes,
        }
    }

    fn check(self) -> anyhow::Result<ConfiguredArray> {
        let made = self.made_of()?;
        let Self { name, path, array, reserve_bytes, capacity_bytes, .. } = self;
        let capacity = match (reserve_bytes, capacity_bytes) {
            (None, Some(capacity)) => ArrayCapacity::Fixed(capacity),
            (reserve, None) => ArrayCapacity::Disk { reserve: reserve.unwrap_or(Bytes::ZERO) },
            (Some(_), Some(_)) => {
                bail!("array {name:?} has both reserve_bytes and capacity_bytes: give one of them")
            }
        };
        Ok(ConfiguredArray { array, name, path, capacity, made })
    }

    /// What is to be put together and mounted for it, unless it is a directory.
    fn made_of(&self) -> anyhow::Result<Option<MadeArray>> {
        match (self.md, self.filesystem, self.array) {
            (Some(md), Some(filesystem), Some(_)) => {
                Ok(Some(MadeArray { md, filesystem, integrity: self.integrity }))
            }
            (None, None, _) if self.integrity.is_none() => Ok(None),
            _ => bail!(
                "array {:?} has some of array, md, filesystem and integrity: give the first three, \
                 all three, as `elasticstack-agent array create` wrote them, or none",
                self.name
            ),
        }
    }
}

/// A configuration that holds together.
#[derive(Debug)]
pub(crate) struct Config {
    /// The agent's own state, the guests' run directories, and its certificate.
    pub(crate) state_dir: PathBuf,
    /// Where the internal API listens.
    pub(crate) listen: SocketAddr,
    /// Below which the control plane may have arrays mounted.
    pub(crate) array_root: PathBuf,
    /// How its drives are lent, if they are.
    pub(crate) lend: Option<Lending>,
    /// How containers are run, if they are.
    pub(crate) containers: Option<Containers>,
    /// What fetches files for drives.
    pub(crate) fetcher: Fetcher,
    /// The arrays of this host.
    pub(crate) arrays: Vec<LocalArray>,
    /// Those that it has had so far.
    pub(crate) known: KnownArrays,
}

/// An array of this host, of which it is known which it is.
#[derive(Debug)]
pub(crate) struct LocalArray {
    pub(crate) directory: DirectoryArray,
    /// What is to be put together and mounted for it, unless its directory is there anyway.
    pub(crate) made: Option<MadeArray>,
}

impl Config {
    /// Reads and checks the file at `path`.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let config = RawConfig::read(path)?;
        Self::check(config).with_context(|| format!("{} can't be used", path.display()))
    }

    fn check(config: RawConfig) -> anyhow::Result<Self> {
        let RawConfig { state_dir, listen, array_root, lend, containers, fetch, array } = config;
        if let Some(Lending { portal, .. }) = &lend
            && (portal.ip().is_unspecified() || portal.port() == 0)
        {
            bail!(
                "lend.portal is {portal}, where no other host can connect to: give an address of \
                 this host on the storage network, and a port such as 3260"
            );
        }
        let mut known = KnownArrays::read(&state_dir)?;
        let mut arrays = Vec::with_capacity(array.len());
        for raw in array {
            let ConfiguredArray { array, name, path, capacity, made } = raw.check()?;
            // What was made before has its label: its mount point without it is no new array.
            if let Some(array) = array {
                known.remember(&path, array)?;
            }
            // A new directory gets an id; from then on its label says which array it is.
            let identified = array.map_or_else(|| known.identify(&path), |array| Ok(Some(array)));
            let array = identified?.unwrap_or_else(|| ArrayId::from_uuid(Uuid::now_v7()));
            let directory = DirectoryArray { array, name, path, capacity };
            arrays.push(LocalArray { directory, made });
        }
        if arrays.is_empty() {
            tracing::warn!("there is no [[array]]: until one is made, this host can keep no drive");
        }
        let fetcher = fetch.check().context("[fetch]")?;
        Ok(Self { state_dir, listen, array_root, lend, containers, fetcher, arrays, known })
    }
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 8444))
}

fn default_array_root() -> PathBuf {
    PathBuf::from("/srv")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MADE: &str = r#"
        [[array]]
        name = "fast"
        path = "/srv/fast"
        array = "0198c0de-0000-7000-8000-000000000001"
        md = "5b1f4d3c-0000-4000-8000-000000000007"
        filesystem = "19dbb1d4-7fb2-406a-9beb-09f580cceb24"
    "#;

    fn in_file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.toml");
        let state = directory.path().join("state");
        fs::write(&path, format!("state_dir = {state:?} # ours\n{text}")).unwrap();
        (directory, path)
    }

    #[test]
    fn an_array_that_was_made_is_added_and_the_rest_of_the_file_stays() {
        let (_directory, path) = in_file("[[array]]\nname = \"old\"\npath = \"/srv/old\"");
        let before = fs::read_to_string(&path).unwrap();
        let file = ConfigFile(path.clone());
        let made = MadeArray {
            md: Uuid::from_u128(1),
            filesystem: Uuid::from_u128(2),
            integrity: Some(Integrity::Crc32c),
        };
        let array = ArrayId::from_uuid(Uuid::from_u128(3));
        let mut listed = file.arrays().unwrap();
        let new = ConfiguredArray {
            array: Some(array),
            name: "fa\"st".to_owned(),
            path: "/srv/fast".into(),
            capacity: ArrayCapacity::Disk { reserve: Bytes::ZERO },
            made: Some(made),
        };
        file.add(&new).unwrap();
        listed.push(new);
        assert_eq!(file.arrays().unwrap(), listed);
        assert!(fs::read_to_string(&path).unwrap().starts_with(&before));
        let config = Config::read(&path).unwrap();
        let [old, fast] = &config.arrays[..] else { panic!("{config:?}") };
        assert_eq!((&*old.directory.name, old.made), ("old", None));
        assert_eq!((&*fast.directory.name, fast.directory.array), ("fa\"st", array));
        assert_eq!(fast.made, Some(made));
    }

    #[test]
    fn the_mount_point_of_an_array_that_was_made_is_no_new_array() {
        let (_directory, path) = in_file(MADE);
        let config = Config::read(&path).unwrap();
        let [LocalArray { directory: array, made: Some(_) }] = &config.arrays[..] else {
            panic!("{config:?}")
        };
        assert_eq!(array.array.to_string(), "0198c0de-0000-7000-8000-000000000001");
        assert_eq!(config.known.identify("/srv/fast".as_ref()).unwrap(), Some(array.array));
    }

    #[test]
    fn an_array_is_given_whole_or_as_a_directory() {
        for key in ["array", "md", "filesystem"] {
            let without = MADE.lines().filter(|line| !line.trim().starts_with(&format!("{key} =")));
            let (_directory, path) = in_file(&without.collect::<Vec<_>>().join("\n"));
            let error = Config::read(&path).unwrap_err();
            let error = format!("{error:#}");
            assert!(error.contains("\"fast\"") && error.contains("all three"), "{error}");
        }
    }
}
