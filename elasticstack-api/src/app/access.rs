//! Who may do what to which object. Every access of a customer goes through [`permitted`].
//!
//! Invariant: an object that the caller may not touch looks exactly like one that is not there.

use elasticstack_core::prelude::*;
use elasticstack_core::state::{DriveState, ServerState, SnapshotState};

use crate::db::{DriveRow, ResourceRow, ServerRow, SnapshotRow, TokenRow};

/// What the caller wants with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// Read what is said about it, or image another drive from it.
    See,
    /// Change it, use it as a disk, read or write its bytes.
    Own,
    /// Put it into a server as a CD-ROM.
    Insert,
}

/// An object that belongs to somebody.
pub(super) trait Guarded {
    /// The word for it in messages.
    const OBJECT: &'static str;

    fn owner(&self) -> AccountId;

    /// Whether it is on its way out and no longer shown.
    fn is_hidden(&self) -> bool;

    /// Whether others than its owner may do this.
    fn is_open_to(&self, account: AccountId, wish: Wish) -> bool;
}

/// The object, if it is there and `account` may do this to it.
///
/// # Errors
/// `NotFound` for both.
pub(super) fn permitted<T: Guarded>(
    account: AccountId,
    object: Option<T>,
    wish: Wish,
) -> Result<T> {
    object
        .filter(|object| {
            !object.is_hidden() && (object.owner() == account || object.is_open_to(account, wish))
        })
        .ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("the {0} could not be found: see the list of your {0}s", T::OBJECT),
            )
        })
}

/// The account that stands for everybody among a drive's readers.
pub(super) const EVERYBODY: &str = "ffffffff-ffff-ffff-ffff-ffffffffffff";

impl Guarded for DriveRow {
    const OBJECT: &'static str = "drive";

    fn owner(&self) -> AccountId {
        self.account
    }

    fn is_hidden(&self) -> bool {
        matches!(self.state, DriveState::Destroying | DriveState::Gone)
    }

    fn is_open_to(&self, account: AccountId, wish: Wish) -> bool {
        match wish {
            Wish::Own => false,
            Wish::Insert => {
                self.standard.as_ref().is_some_and(|standard| standard.media == "cdrom")
            }
            Wish::See => {
                let account = account.to_string();
                let mut readers = self.config.value("readers").unwrap_or_default().split(' ');
                self.standard.is_some()
                    || readers.any(|reader| reader == EVERYBODY || reader == account)
            }
        }
    }
}

impl Guarded for ResourceRow {
    const OBJECT: &'static str = "resource";

    fn owner(&self) -> AccountId {
        self.account
    }

    fn is_hidden(&self) -> bool {
        false
    }

    fn is_open_to(&self, _account: AccountId, _wish: Wish) -> bool {
        false
    }
}

impl Guarded for TokenRow {
    const OBJECT: &'static str = "token";

    fn owner(&self) -> AccountId {
        self.account
    }

    fn is_hidden(&self) -> bool {
        false
    }

    fn is_open_to(&self, _account: AccountId, _wish: Wish) -> bool {
        false
    }
}

impl Guarded for ServerRow {
    const OBJECT: &'static str = "server";

    fn owner(&self) -> AccountId {
        self.account
    }

    fn is_hidden(&self) -> bool {
        matches!(self.state, ServerState::Destroying | ServerState::Gone)
    }

    fn is_open_to(&self, _account: AccountId, _wish: Wish) -> bool {
        false
    }
}

impl Guarded for SnapshotRow {
    const OBJECT: &'static str = "snapshot";

    fn owner(&self) -> AccountId {
        self.account
    }

    fn is_hidden(&self) -> bool {
        !SnapshotState::IS_THERE.contains(&self.state)
    }

    fn is_open_to(&self, _account: AccountId, _wish: Wish) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// Statements that read customers' objects and ask nobody: the file, how many, why.
    const UNASKED: &[(&str, usize, &str)] = &[
        ("console.rs", 2, "the ticket that is presented, and the token that it was asked with"),
        ("drives.rs", 2, "an id that was drawn just now, and what its owner waits for"),
        ("fleet.rs", 3, "what hosts are told"),
        ("imaging.rs", 2, "what a host reports of its job; the sum of a drive that was asked for"),
        ("ingest.rs", 2, "what hosts report of drives and servers"),
        ("nics.rs", 1, "whose cards are noted, of all servers, when the database is opened"),
        ("once.rs", 1, "what its owner waits for, and is asked about afterwards"),
        ("plugs.rs", 1, "the servers that have a drive which was asked for"),
        ("power.rs", 2, "what its owner waits for"),
        ("quarantine.rs", 4, "what a host has and an operator decides about"),
        ("snapshots.rs", 2, "what its owner waits for, and what a host reports"),
        ("standard.rs", 3, "standard drives, by the operator who publishes them"),
        ("stock.rs", 6, "what a host tells that it has after a restore"),
        ("tokens.rs", 1, "the token that is presented, to whoever has its secret"),
    ];

    /// The statements of a file that read an object by its id, each with the one behind it.
    fn reads(source: &str) -> Vec<String> {
        let production = source.split("#[cfg(test)]").next().unwrap_or_default();
        let plain: String = production.split_whitespace().collect();
        let statements: Vec<&str> = plain.split(';').collect();
        let read = |statement: &&[&str]| {
            let readers = ["tx", "reader", "glance().await?"];
            let objects = ["drive", "server", "snapshot", "resource", "token", "ticket"];
            readers.iter().any(|reader| {
                objects.iter().any(|object| statement[0].contains(&format!("{reader}.{object}(")))
            })
        };
        let padded: Vec<&str> = statements.iter().copied().chain([""]).collect();
        padded.windows(2).filter(read).map(<[&str]>::concat).collect()
    }

    #[test]
    fn every_object_that_is_read_is_asked_for_by_the_one_function() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/app");
        let mut found = 0;
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let reads = reads(&fs::read_to_string(&path).unwrap());
            let unasked: Vec<_> =
                reads.iter().filter(|read| !read.contains("permitted(")).collect();
            let expected = UNASKED.iter().find(|(file, ..)| *file == name);
            let expected = expected.map_or(0, |(_, count, _)| *count);
            assert_eq!(unasked.len(), expected, "{name}: {unasked:#?}");
            found += reads.len();
        }
        assert!(found > 30, "only {found} reads are found: they are written another way now");
    }

    #[test]
    fn a_read_that_asks_nobody_is_found() {
        let asked = "let row = permitted(account, tx.drive(id).await?, Wish::Own)?;";
        let later =
            "let row = self.db.glance().await?.server(id).await?;\nOk(permitted(a, row, w)?)";
        let never = "let row = tx\n    .drive(id).await?; Ok(row)";
        for (source, unasked) in [(asked, 0), (later, 0), (never, 1)] {
            let reads = reads(source);
            assert_eq!(reads.len(), 1, "{source}");
            let found = reads.iter().filter(|read| !read.contains("permitted(")).count();
            assert_eq!(found, unasked, "{source}");
        }
    }
}
