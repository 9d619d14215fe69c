//! Backups of the control plane's database, and the new era that begins with one.
//!
//! ```text
//!  backup ─▶ FILE.part ─▶ on the disk ─▶ FILE      SQLite; on PostgreSQL pg_dump does this
//!  restore ─▶ DATABASE.part ─▶ schema, era, on the disk ─▶ DATABASE
//!                              └─ on PostgreSQL pg_restore has brought the data back before
//! ```
//! Invariants: what has its name is whole and durable, and nothing is ever written over; nobody but
//! its owner may read it; a database that was brought back is told apart from what it was copied
//! from by its era, so that no host takes its documents for old ones.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use elasticstack_core::prelude::*;

use crate::db::{self, Database};

/// Copies the database at `url` (`sqlite:PATH`) to `file`, as it is at one instant, while servers
/// may work on it.
///
/// # Errors
/// `NotOffered` for PostgreSQL, which has `pg_dump`; `InvalidValue` for another URL and for a file
/// that exists; `Internal` if the disk or the database fails, and then there is no file.
pub async fn backup(url: &str, file: &Path) -> Result<()> {
    let Some(database) = db::file_of(url)? else {
        return Err(Error::new(
            ErrorKind::NotOffered,
            "the database is on PostgreSQL, which makes its own backups: use pg_dump \
             --format=custom, as docs/backup.md says",
        ));
    };
    if !database.exists() {
        return Err(Error::new(
            ErrorKind::InvalidValue,
            format!("there is no database at {}: nothing can be backed up", database.display()),
        ));
    }
    let part = Part::beside(file)?;
    db::copy_into(&database, &part.path).await?;
    part.finish()
}

/// Begins a new era on the database at `url`, in which hosts are asked what they have before they
/// are told anything. With a `file`, which [`backup`] has made, that becomes the database; without
/// one it is there already, brought back by PostgreSQL's own means.
///
/// # Errors
/// `InvalidValue` where there is a database already, or none; `ServerBusy` while a server works on
/// it; `Internal` if it is no database of ours, or newer than this program, or the disk fails.
pub async fn restore(url: &str, file: Option<&Path>) -> Result<Era> {
    match (db::file_of(url)?, file) {
        (Some(database), Some(file)) => {
            let part = Part::beside(&database)?;
            let copied = fs::copy(file, &part.path).map_err(|error| {
                Error::internal(format!("reading the backup {}", file.display())).source(error)
            });
            copied?;
            let era = begin_era(&format!("sqlite:{}", part.path.display())).await?;
            part.finish()?;
            Ok(era)
        }
        (Some(database), None) => Err(Error::new(
            ErrorKind::MissingKey,
            format!("{} is restored from a file: name the backup", database.display()),
        )),
        (None, Some(_)) => Err(Error::new(
            ErrorKind::NotOffered,
            "the database is on PostgreSQL: bring the data back with pg_restore, as docs/backup.md \
             says, and repeat this without a file",
        )),
        (None, None) => begin_era(url).await,
    }
}

/// By the clock, so that an era which began later is newer, whichever backup it began from.
async fn begin_era(url: &str) -> Result<Era> {
    let now = Timestamp::from(SystemTime::now());
    let database = Database::open(url).await?;
    let seconds = u32::try_from(now.as_seconds()).unwrap_or_default();
    let era = Era(seconds.max(database.era().0.saturating_add(1)));
    let begun = database.write(|tx| {
        Box::pin(async move {
            if let Some(owner) = tx.owner_of_any_host(now).await? {
                return Err(Error::new(
                    ErrorKind::ServerBusy,
                    "a control plane works on this database, or did a moment ago: stop it, wait \
                     ten seconds, and repeat this",
                )
                .context(owner));
            }
            tx.begin_era(era, now).await
        })
    });
    begun.await?;
    database.close().await;
    Ok(era)
}

/// A file that has its name only once it is whole.
struct Part {
    path: PathBuf,
    whole: PathBuf,
}

impl Part {
    /// An empty one that its owner alone can read.
    fn beside(whole: &Path) -> Result<Self> {
        let mut name = whole.file_name().ok_or_else(|| exists(whole, "it is no file"))?.to_owned();
        if whole.try_exists().unwrap_or(true) {
            return Err(exists(whole, "it exists, and nothing is written over"));
        }
        name.push(".part");
        let path = whole.with_file_name(name);
        // What an earlier attempt left behind.
        for left in [path.clone(), with(&path, "-wal"), with(&path, "-shm")] {
            match fs::remove_file(&left) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(broken("clearing", &left, error));
                }
                _ => {}
            }
        }
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        made.map_err(|error| broken("making", &path, error))?;
        Ok(Self { path, whole: whole.to_owned() })
    }

    /// Makes it durable and gives it its name, if nobody has that meanwhile.
    fn finish(self) -> Result<()> {
        let synced = File::open(&self.path).and_then(|file| file.sync_all());
        synced.map_err(|error| broken("writing", &self.path, error))?;
        fs::hard_link(&self.path, &self.whole).map_err(|error| {
            if error.kind() == io::ErrorKind::AlreadyExists {
                exists(&self.whole, "it exists, and nothing is written over")
            } else {
                broken("naming", &self.whole, error)
            }
        })?;
        fs::remove_file(&self.path).map_err(|error| broken("naming", &self.whole, error))?;
        let folder = self.whole.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|error| broken("naming", &self.whole, error))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Whoever looks at the folder next sees it otherwise.
        let _ = fs::remove_file(&self.path);
    }
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn exists(path: &Path, why: &str) -> Error {
    let shown = path.display();
    let sentence = format!("{shown} can't be made: {why}: name another file, or move it away");
    Error::new(ErrorKind::InvalidValue, sentence)
}

fn broken(doing: &str, path: &Path, error: io::Error) -> Error {
    Error::internal(format!("{doing} {}", path.display())).source(error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    struct Scratch {
        directory: tempfile::TempDir,
        url: String,
    }

    impl Scratch {
        async fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let url = format!("sqlite:{}", directory.path().join("api.db").display());
            Database::open(&url).await.unwrap().close().await;
            Self { directory, url }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn files(&self) -> Vec<String> {
            let files = fs::read_dir(self.directory.path()).unwrap();
            let mut names: Vec<_> =
                files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    #[tokio::test]
    async fn a_backup_is_its_owners_alone_and_is_written_over_nothing() {
        let scratch = Scratch::new().await;
        let file = scratch.path("backup");
        fs::write(scratch.path("backup.part"), "left behind").unwrap();
        backup(&scratch.url, &file).await.unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        let whole = fs::read(&file).unwrap();
        let refused = backup(&scratch.url, &file).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidValue, "{refused:?}");
        assert_eq!(fs::read(&file).unwrap(), whole);
        let nothing = format!("sqlite:{}", scratch.path("nothing").display());
        let refused = backup(&nothing, &scratch.path("other")).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidValue, "{refused:?}");
        assert_eq!(scratch.files(), ["api.db", "backup"]);
    }

    #[tokio::test]
    async fn every_restore_begins_an_era_above_all_before_it() {
        let scratch = Scratch::new().await;
        let file = scratch.path("backup");
        backup(&scratch.url, &file).await.unwrap();
        let mut last = Era(1);
        for _ in 0..2 {
            fs::remove_file(scratch.path("api.db")).unwrap();
            // The next second is a newer era from the same backup.
            while u64::from(last.0) >= seconds() {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            let era = restore(&scratch.url, Some(&file)).await.unwrap();
            let database = Database::open(&scratch.url).await.unwrap();
            assert_eq!(database.era(), era);
            assert!(era > last, "{era:?} after {last:?}");
            let horizon = database.read().await.unwrap().horizon().await.unwrap();
            assert!(horizon > i64::from(era.0), "marks go on above all that were given out");
            database.close().await;
            last = era;
        }
        assert_eq!(scratch.files(), ["api.db", "backup"]);
        let mode = fs::metadata(scratch.path("api.db")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        let refused = restore(&scratch.url, Some(&file)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidValue, "{refused:?}");
    }

    fn seconds() -> u64 {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
    }

    #[tokio::test]
    async fn what_is_no_backup_becomes_no_database() {
        let scratch = Scratch::new().await;
        fs::remove_file(scratch.path("api.db")).unwrap();
        fs::write(scratch.path("backup"), "not a database, but long enough to be one").unwrap();
        for file in ["backup", "nowhere"] {
            restore(&scratch.url, Some(&scratch.path(file))).await.unwrap_err();
            assert_eq!(scratch.files(), ["backup"], "{file}");
        }
        let unnamed = restore(&scratch.url, None).await.unwrap_err();
        assert_eq!(unnamed.kind(), ErrorKind::MissingKey);
        let elsewhere = "postgres://root:hunter2@localhost/cloud?host=/nowhere/at/all";
        let refused = backup(elsewhere, &scratch.path("other")).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NotOffered);
        assert!(!format!("{refused:?}").contains("hunter2"));
    }
}
