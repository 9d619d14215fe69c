//! Servers' screens: the tickets that open them, and until when what was opened stands.
//!
//! Invariants: of a ticket only its hash is kept; it is taken away in the transaction that opens the
//! screen, so that of two at once one finds it gone, whichever servers they ask; it opens the screen
//! of the run that it was asked for, and no more than what it was asked with still opens.

use std::time::Duration;

use elasticstack_core::prelude::*;
use elasticstack_core::state::ServerState;
use elasticstack_core::wire::record::Record;
use uuid::Uuid;

use super::access::{Wish, permitted};
use super::accounts::secret_key;
use super::{App, Caller, Screen};
use crate::db::{Reader, ServerRow, Subject, TicketRow};
use crate::key_hash::KeyHash;

/// How long a ticket is good.
pub const TICKET: Duration = Duration::from_secs(60);

/// What every ticket begins with.
const PREFIX: &str = "ec_";

/// The most tickets of an account that wait to be used.
const MOST: u64 = 100;

/// The id that a ticket says it has; `None` if it is no ticket.
pub(crate) fn ticket_id(secret: &Secret) -> Option<Uuid> {
    let id = secret.expose().strip_prefix(PREFIX)?.get(..32)?;
    Uuid::try_parse(id).ok()
}

/// What an open screen stands on.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) account: AccountId,
    pub(crate) server: ServerId,
    run: Run,
    token: Option<TokenId>,
    /// The hash of its account's key when it was opened.
    key: KeyHash,
}

impl App {
    /// A ticket to the screen of a running server.
    ///
    /// # Errors
    /// `NotFound`; `ServerBusy` if it does not run, or runs without a screen;
    /// `QuotaExceeded` while a hundred tickets wait.
    pub async fn server_console(&self, caller: &Caller, server: ServerId) -> Result<Record> {
        let id = Uuid::new_v4();
        let secret = format!("{PREFIX}{}{}", id.simple(), secret_key()?.expose());
        let now = self.now();
        let expires = now.plus(TICKET);
        let answer = Record::new()
            .with("path", format!("/console/{secret}"))
            .with("ticket", &secret)
            .with("expires", expires.as_seconds());
        let (kept, hash) = (&answer, &KeyHash::of(&Secret::new(secret)));
        self.intend(caller, Subject::Server(server), |tx| {
            Box::pin(async move {
                let row = permitted(caller.account, tx.server(server).await?, Wish::Own)?;
                shown(&row)?;
                if tx.tickets_of(caller.account, now).await? >= MOST {
                    return Err(Error::new(
                        ErrorKind::QuotaExceeded,
                        format!(
                            "an account has at most {MOST} unused tickets: use one, or wait a \
                             minute"
                        ),
                    ));
                }
                tx.insert_ticket(&TicketRow {
                    ticket: id,
                    account: caller.account,
                    server,
                    run: row.run,
                    token: caller.token,
                    hash: hash.clone(),
                    expires,
                })
                .await?;
                self.answer_at_once(tx, caller, kept).await
            })
        })
        .await?;
        Ok(answer)
    }

    /// Whose a ticket is. It stays good.
    ///
    /// # Errors
    /// `NotFound`, whatever is wrong with it.
    pub(crate) async fn ticket_holder(&self, ticket: &Secret) -> Result<AccountId> {
        let mut reader = self.db.read().await?;
        Ok(fitting(&mut reader, ticket, &KeyHash::of(ticket), self.now()).await?.account)
    }

    /// Uses a ticket up and opens the screen that it is for.
    ///
    /// # Errors
    /// `NotFound`, whatever is wrong with it; `ServerBusy` if the server does not run any more;
    /// `AccountSuspended`;
    /// `Unavailable` if its host does not answer: the ticket is used up all the same.
    pub(crate) async fn open_screen(&self, ticket: &Secret) -> Result<(Box<dyn Screen>, Grant)> {
        let (hash, now) = (&KeyHash::of(ticket), self.now());
        let (host, grant) = self
            .db
            .write(|tx| {
                Box::pin(async move {
                    let row = fitting(tx, ticket, hash, now).await?;
                    tx.delete_ticket(row.ticket).await?;
                    let TicketRow { account, server, run, token, .. } = row;
                    let holder = tx.account(account).await?.ok_or_else(no_console)?;
                    let grant = Grant { account, server, run, token, key: holder.key_hash };
                    Ok((host_of(tx, &grant, now).await?, grant))
                })
            })
            .await?;
        let screen = self.data.screen(host, grant.server, grant.run).await?;
        Ok((screen, grant))
    }

    /// Whether an open screen may stay open.
    ///
    /// # Errors
    /// `NotFound`, `ServerBusy` or `AccountSuspended` if not; `Unavailable` or `Internal` if that can't be said now.
    pub(crate) async fn screen_stands(&self, grant: &Grant) -> Result<()> {
        let mut reader = self.db.read().await?;
        host_of(&mut reader, grant, self.now()).await.map(|_| ())
    }

    /// Forgets tickets that nobody can use any more.
    pub(super) async fn forget_tickets(&self) -> Result<()> {
        let now = self.now();
        if !self.db.glance().await?.has_tickets_ended(now).await? {
            return Ok(());
        }
        self.db.write(|tx| Box::pin(tx.delete_tickets_ended(now))).await
    }
}

/// The row of a ticket, if it is one and good at `now`.
async fn fitting(
    reader: &mut Reader,
    ticket: &Secret,
    given: &KeyHash,
    now: Timestamp,
) -> Result<TicketRow> {
    let id = ticket_id(ticket).ok_or_else(no_console)?;
    let row = reader.ticket(id).await?;
    let fits = given.is(row.as_ref().map(|row| &row.hash));
    row.filter(|row| fits && now < row.expires).ok_or_else(no_console)
}

fn no_console() -> Error {
    Error::new(
        ErrorKind::NotFound,
        "there is no such console: the ticket is wrong, was used or is too old: ask for another",
    )
}

/// The host of what is granted, if what it was asked with still opens it.
async fn host_of(reader: &mut Reader, grant: &Grant, now: Timestamp) -> Result<HostId> {
    let account = reader.account(grant.account).await?.ok_or_else(no_console)?;
    account.standing.check()?;
    let stands = match grant.token {
        None => account.key_hash == grant.key,
        Some(token) => {
            let token = reader.token(token).await?;
            token.is_some_and(|row| row.expires.is_none_or(|expires| now < expires))
        }
    };
    if !stands {
        return Err(no_console());
    }
    let row = permitted(grant.account, reader.server(grant.server).await?, Wish::Own)?;
    let host = shown(&row)?;
    if row.run == grant.run { Ok(host) } else { Err(no_console()) }
}

/// Where the screen of a server is, if it runs with one.
fn shown(row: &ServerRow) -> Result<HostId> {
    let runs =
        matches!(row.state, ServerState::Running | ServerState::Paused | ServerState::Unresponsive);
    let Some(host) = row.host.filter(|_| runs) else {
        return Err(Error::new(
            ErrorKind::ServerBusy,
            "the server does not run and shows nothing: start it first",
        ));
    };
    let has_screen = row.hardware.as_ref().is_some_and(|hardware| hardware.screen.is_some());
    if !has_screen {
        return Err(Error::new(
            ErrorKind::ServerBusy,
            "the server runs without a screen: set vnc to auto and a password, then start it again",
        )
        .field("vnc"));
    }
    Ok(host)
}
