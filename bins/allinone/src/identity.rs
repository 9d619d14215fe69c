//! Who this all-in-one is: ids and the keys of its accounts, made once for a data directory.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use elasticstack_api::app::secret_key;
use elasticstack_core::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

const FILE: &str = "allinone.json";
const OPERATOR_FILE: &str = "operator.json";

/// The ids and the secret of one data directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Identity {
    /// The one host.
    pub host: HostId,
    /// Its one array.
    pub array: ArrayId,
    /// The demo account.
    pub account: AccountId,
    /// The demo account's secret key.
    pub key: Secret,
}

impl Identity {
    /// Who `data_dir` is.
    ///
    /// # Errors
    /// If the file can't be read or written.
    pub fn of(data_dir: &Path) -> anyhow::Result<Self> {
        kept(&data_dir.join(FILE), || {
            Ok(Self {
                host: HostId::from_uuid(Uuid::now_v7()),
                array: ArrayId::from_uuid(Uuid::now_v7()),
                account: AccountId::from_uuid(Uuid::now_v7()),
                key: secret_key()?,
            })
        })
    }
}

/// The operator's account.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Operator {
    /// Its id.
    pub account: AccountId,
    /// Its secret key.
    pub key: Secret,
}

impl Operator {
    /// The operator of `data_dir`.
    ///
    /// # Errors
    /// If the file can't be read or written.
    pub fn of(data_dir: &Path) -> anyhow::Result<Self> {
        kept(&data_dir.join(OPERATOR_FILE), || {
            Ok(Self { account: AccountId::from_uuid(Uuid::now_v7()), key: secret_key()? })
        })
    }
}

/// Reads what is at `path`, or makes it up and keeps it, readable by its owner only.
fn kept<T: Serialize + DeserializeOwned>(
    path: &Path,
    make_up: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is damaged: move it away to begin anew", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let made = make_up()?;
            write_private(path, &serde_json::to_vec_pretty(&made)?)?;
            Ok(made)
        }
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// Writes a file that only its owner may read, whole or not at all.
///
/// # Errors
/// If it can't be written.
pub fn write_private(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let new = path.with_extension("new");
    let doing = || format!("writing {}", path.display());
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .with_context(doing)?;
    file.write_all(content).and_then(|()| file.sync_all()).with_context(doing)?;
    fs::rename(&new, path).with_context(doing)?;
    let parent = path.parent().context("a file has a directory")?;
    File::open(parent).and_then(|directory| directory.sync_all()).with_context(doing)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_data_directory_keeps_its_identity_and_shows_its_keys_to_nobody_else() {
        let directory = tempfile::tempdir().unwrap();
        let first = Identity::of(directory.path()).unwrap();
        let again = Identity::of(directory.path()).unwrap();
        assert_eq!((first.host, first.account), (again.host, again.account));
        assert_eq!(first.key, again.key);
        let operator = Operator::of(directory.path()).unwrap();
        assert_eq!(operator.key, Operator::of(directory.path()).unwrap().key);
        assert_ne!(operator.key, first.key);
        for file in [FILE, OPERATOR_FILE] {
            let mode = fs::metadata(directory.path().join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
    }
}
