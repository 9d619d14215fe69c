//! Who may do what to which object. Every access of a customer goes through [`permitted`].
//!
//! Invariant: an object that the caller may not touch looks exactly like one that is not there.

use elasticstack_core::prelude::*;
use elasticstack_core::state::{DriveState, ServerState};

use crate::db::{DriveRow, ResourceRow, ServerRow};

/// What the caller wants with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// Read what is said about it.
    See,
    /// Change it, use it as a disk, read or write its bytes.
    Own,
    /// Image another drive from it.
    ImageFrom,
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
            Wish::See => self.standard.is_some(),
            Wish::Insert => {
                self.standard.as_ref().is_some_and(|standard| standard.media == "cdrom")
            }
            Wish::ImageFrom => {
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
