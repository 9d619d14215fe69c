//! Rows of usage intervals.

use elasticstack_core::biller::{Meter, Usage, UsageId};
use elasticstack_core::prelude::*;

use super::dialect::Row;
use super::row::{column, failed, instant, number, parsed, parsed_if_any, stored, word};
use super::{Reader, Writer, among, numbers};

/// One end of an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Breakpoint {
    /// The instant that counts.
    pub(crate) at: Timestamp,
    /// The instant as the host stamped it, if it was its to say.
    pub(crate) stamped: Option<Timestamp>,
}

/// What intervals there are of a resource and meter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SoFar {
    pub(crate) goes_on: bool,
    /// When the last one that ended did.
    pub(crate) last_end: Option<Timestamp>,
}

fn meter_from_word(word: &str) -> Option<Meter> {
    [Meter::Cpu, Meter::Memory, Meter::Drive, Meter::Snapshot, Meter::Ip, Meter::Vlan]
        .into_iter()
        .find(|meter| meter.as_str() == word)
}

fn usage(row: &Row) -> Result<Usage> {
    let to: Option<i64> = column(row, "to_us")?;
    Ok(Usage {
        id: UsageId(column(row, "id")?),
        account: parsed(row, "account")?,
        resource: column(row, "resource")?,
        meter: word(row, "meter", meter_from_word)?,
        quantity: number(row, "quantity")?,
        from: instant(row, "from_us")?,
        to: to.map(Timestamp::from_micros),
        change: parsed_if_any(row, "change_id")?,
    })
}

impl Reader {
    /// What there is of a resource and meter.
    pub(crate) async fn usage_so_far(&mut self, resource: &str, meter: Meter) -> Result<SoFar> {
        let row = self
            .statement(
                "SELECT (SELECT COUNT(*) FROM usage_intervals \
                 WHERE resource = $1 AND meter = $2 AND to_us IS NULL) AS open, \
                 (SELECT CAST(MAX(to_us) AS BIGINT) FROM usage_intervals \
                 WHERE resource = $1 AND meter = $2) AS ended_us",
            )
            .bind(resource)
            .bind(meter.as_str())
            .fetch_one()
            .await
            .map_err(failed("reading the usage of a resource"))?;
        let ended: Option<i64> = column(&row, "ended_us")?;
        Ok(SoFar {
            goes_on: number(&row, "open")? > 0,
            last_end: ended.map(Timestamp::from_micros),
        })
    }

    /// Usage of an account, or of all if that is empty, that touches the period [from, to), in
    /// the order of its ids.
    pub(crate) async fn usage_in(
        &mut self,
        account: &str,
        from: Option<Timestamp>,
        to: Option<Timestamp>,
        after: i64,
        limit: i64,
    ) -> Result<Vec<Usage>> {
        let rows = self
            .statement(
                "SELECT * FROM usage_intervals WHERE ($1 = '' OR account = $1) AND id > $2 \
                 AND from_us < $3 AND (to_us IS NULL OR to_us > $4) ORDER BY id LIMIT $5",
            )
            .bind(account)
            .bind(after)
            .bind(to.map_or(i64::MAX, Timestamp::as_micros))
            .bind(from.map_or(i64::MIN, Timestamp::as_micros))
            .bind(limit)
            .fetch_all()
            .await
            .map_err(failed("reading usage"))?;
        rows.iter().map(usage).collect()
    }

    /// Usage that was not delivered, or not with its end, in order, at most `limit`.
    pub(crate) async fn undelivered_usage(&mut self, limit: u32) -> Result<Vec<Usage>> {
        let rows = self
            .statement(
                "SELECT * FROM usage_intervals \
             WHERE delivered = 0 OR (delivered = 1 AND to_us IS NOT NULL) ORDER BY id LIMIT $1",
            )
            .bind(i64::from(limit))
            .fetch_all()
            .await
            .map_err(failed("reading undelivered usage"))?;
        rows.iter().map(usage).collect()
    }
}

impl Writer<'_> {
    /// Opens an interval. The caller has seen to it that none is open.
    pub(crate) async fn insert_usage(
        &mut self,
        account: AccountId,
        (resource, meter): (&str, Meter),
        quantity: u64,
        from: Breakpoint,
        change: Option<ChangeId>,
    ) -> Result<()> {
        loop {
            let inserted = self
                .change(
                    "INSERT INTO usage_intervals (id, account, resource, meter, quantity, \
                     from_us, stamped_from_us, change_id, delivered) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0) ON CONFLICT (id) DO NOTHING",
                )
                .bind(numbers::draw()?)
                .bind(account.to_string())
                .bind(resource)
                .bind(meter.as_str())
                .bind(stored(quantity))
                .bind(from.at.as_micros())
                .bind(from.stamped.map(Timestamp::as_micros))
                .bind(change.map(|change| change.to_string()))
                .execute()
                .await
                .map_err(failed("opening a usage interval"))?;
            if inserted > 0 {
                return Ok(());
            }
        }
    }

    /// Ends the interval of a resource and meter that goes on, if there is one: not before it began.
    pub(crate) async fn end_usage(
        &mut self,
        resource: &str,
        meter: Meter,
        to: Breakpoint,
    ) -> Result<()> {
        self.change(
            "UPDATE usage_intervals SET to_us = CASE WHEN from_us > $3 THEN from_us ELSE $3 END, \
             stamped_to_us = $4 WHERE resource = $1 AND meter = $2 AND to_us IS NULL",
        )
        .bind(resource)
        .bind(meter.as_str())
        .bind(to.at.as_micros())
        .bind(to.stamped.map(Timestamp::as_micros))
        .execute()
        .await
        .map_err(failed("ending a usage interval"))?;
        Ok(())
    }

    /// The biller has taken these as they stand there.
    pub(crate) async fn mark_usage_delivered(&mut self, items: &[&Usage]) -> Result<()> {
        for (delivered, is_over) in [(1_i64, false), (2, true)] {
            let of_that = items.iter().filter(|item| item.to.is_some() == is_over);
            let ids: Vec<i64> = of_that.map(|item| item.id.0).collect();
            if ids.is_empty() {
                continue;
            }
            let ids = serde_json::to_string(&ids)
                .map_err(|error| Error::internal("writing numbers as JSON").source(error))?;
            self.change_either(among!(
                "UPDATE usage_intervals SET delivered = $2 WHERE delivered < $2 AND id"
            ))
            .bind(ids)
            .bind(delivered)
            .execute()
            .await
            .map_err(failed("marking usage delivered"))?;
        }
        Ok(())
    }
}
