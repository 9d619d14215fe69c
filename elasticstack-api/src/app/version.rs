//! Versions of objects: who asks for a change may say which version he has seen, and nothing is
//! changed if that is not the one it is.
//!
//! A version is about intent: it changes with what owners and operators want of the object, not
//! with what its host reports of it, nor with the bytes that a drive holds.

use elasticstack_core::prelude::*;
use elasticstack_core::wire::record::Record;
use sha2::{Digest as _, Sha256};

use super::access::{Wish, permitted};
use super::drive_record::claim_type;
use super::{App, Caller};
use crate::db::{DriveRow, Reader, ServerRow, SnapshotRow, Subject};

impl Caller {
    /// The same caller, who changes an object only if it is at one of these versions.
    pub(crate) fn matching(mut self, versions: Vec<String>) -> Self {
        self.matching = Some(versions);
        self
    }
}

impl App {
    /// Refuses a caller who saw the object at another version than it is at.
    ///
    /// # Errors
    /// `PreconditionFailed`.
    pub(crate) async fn expect_version(&self, caller: &Caller, subject: Subject) -> Result<()> {
        if caller.matching.is_none() {
            return Ok(());
        }
        expect(&mut self.db.read().await?, caller, subject).await
    }
}

/// As [`App::expect_version`], from within a transaction. What is not there is not the caller's
/// to hear of here.
pub(super) async fn expect(reader: &mut Reader, caller: &Caller, subject: Subject) -> Result<()> {
    let Some(wanted) = &caller.matching else { return Ok(()) };
    match version(reader, caller, subject).await? {
        Some(found) if !wanted.contains(&found) => Err(Error::new(
            ErrorKind::PreconditionFailed,
            "the object is no longer at the version that If-Match names: look at it again",
        )
        .field("If-Match")),
        _ => Ok(()),
    }
}

async fn version(reader: &mut Reader, caller: &Caller, subject: Subject) -> Result<Option<String>> {
    Ok(match subject {
        Subject::Drive(drive) => {
            let row = permitted(caller.account, reader.drive(drive).await?, Wish::See).ok();
            row.map(|row| row.version())
        }
        Subject::Server(server) => {
            let row = permitted(caller.account, reader.server(server).await?, Wish::See).ok();
            row.map(|row| row.version())
        }
        Subject::Snapshot(snapshot) => {
            let row = permitted(caller.account, reader.snapshot(snapshot).await?, Wish::See).ok();
            row.map(|row| row.version())
        }
        Subject::Account(_)
        | Subject::Array(_)
        | Subject::Host(_)
        | Subject::Pool(_)
        | Subject::Resource(_)
        | Subject::Token(_) => None,
    })
}

impl DriveRow {
    /// The version that it is at.
    pub(super) fn version(&self) -> String {
        tag(self.generation, &self.config.clone().with("claim:type", claim_type(self.access)))
    }
}

impl ServerRow {
    /// The version that it is at.
    pub(super) fn version(&self) -> String {
        tag(self.generation, &self.config)
    }
}

impl SnapshotRow {
    /// The version that it is at.
    pub(super) fn version(&self) -> String {
        tag(self.generation, &self.config)
    }
}

/// The same for the same intent, and for no other.
fn tag(generation: u64, config: &Record) -> String {
    let hash = Sha256::digest(format!("{generation}\n{}", config.to_text()));
    hash.iter().take(12).map(|byte| format!("{byte:02x}")).collect()
}
