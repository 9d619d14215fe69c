//! Rows of tickets to servers' screens.

use elasticstack_core::prelude::*;
use uuid::Uuid;

use super::dialect::Row;
use super::row::{column, failed, instant, number, parsed, parsed_if_any, stored};
use super::{Reader, Writer};
use crate::key_hash::KeyHash;

/// A ticket that was not used yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TicketRow {
    pub(crate) ticket: Uuid,
    pub(crate) account: AccountId,
    pub(crate) server: ServerId,
    /// Good for this run alone.
    pub(crate) run: Run,
    /// The token that it was asked with; `None` if that was the account's key.
    pub(crate) token: Option<TokenId>,
    /// Of the whole ticket.
    pub(crate) hash: KeyHash,
    pub(crate) expires: Timestamp,
}

fn ticket(row: &Row) -> Result<TicketRow> {
    Ok(TicketRow {
        ticket: parsed(row, "ticket")?,
        account: parsed(row, "account")?,
        server: parsed(row, "server")?,
        run: Run(number(row, "run")?),
        token: parsed_if_any(row, "token")?,
        hash: KeyHash::kept(column(row, "hash")?),
        expires: instant(row, "expires_us")?,
    })
}

impl Reader {
    /// The ticket of this id.
    pub(crate) async fn ticket(&mut self, id: Uuid) -> Result<Option<TicketRow>> {
        let row = self
            .statement("SELECT * FROM console_tickets WHERE ticket = $1")
            .bind(id.to_string())
            .fetch_optional()
            .await
            .map_err(failed("reading a ticket"))?;
        row.as_ref().map(ticket).transpose()
    }

    /// How many tickets of an account are good at `now`.
    pub(crate) async fn tickets_of(&mut self, account: AccountId, now: Timestamp) -> Result<u64> {
        let row = self
            .statement(
                "SELECT CAST(COUNT(*) AS BIGINT) AS tickets FROM console_tickets \
                 WHERE account = $1 AND expires_us > $2",
            )
            .bind(account.to_string())
            .bind(now.as_micros())
            .fetch_one()
            .await
            .map_err(failed("counting the tickets of an account"))?;
        number(&row, "tickets")
    }

    /// Whether any ticket is good no more at `now`.
    pub(crate) async fn has_tickets_ended(&mut self, now: Timestamp) -> Result<bool> {
        let row = self
            .statement("SELECT ticket FROM console_tickets WHERE expires_us <= $1 LIMIT 1")
            .bind(now.as_micros())
            .fetch_optional()
            .await
            .map_err(failed("looking for old tickets"))?;
        Ok(row.is_some())
    }
}

impl Writer<'_> {
    /// Adds a ticket.
    pub(crate) async fn insert_ticket(&mut self, row: &TicketRow) -> Result<()> {
        let TicketRow { ticket, account, server, run, token, hash, expires } = row;
        self.change(
            "INSERT INTO console_tickets (ticket, account, server, run, token, hash, expires_us) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(ticket.to_string())
        .bind(account.to_string())
        .bind(server.to_string())
        .bind(stored(run.0))
        .bind(token.map(|token| token.to_string()))
        .bind(hash.as_str())
        .bind(expires.as_micros())
        .execute()
        .await
        .map_err(failed("adding a ticket"))?;
        Ok(())
    }

    /// Takes a ticket away.
    pub(crate) async fn delete_ticket(&mut self, ticket: Uuid) -> Result<()> {
        self.change("DELETE FROM console_tickets WHERE ticket = $1")
            .bind(ticket.to_string())
            .execute()
            .await
            .map_err(failed("taking a ticket away"))?;
        Ok(())
    }

    /// Forgets the tickets that are good no more at `now`.
    pub(crate) async fn delete_tickets_ended(&mut self, now: Timestamp) -> Result<()> {
        self.change("DELETE FROM console_tickets WHERE expires_us <= $1")
            .bind(now.as_micros())
            .execute()
            .await
            .map_err(failed("forgetting old tickets"))?;
        Ok(())
    }
}
