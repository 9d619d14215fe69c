//! What operators see of arrays, whether anything new is placed on one, and how much more fits on all.

use elasticstack_core::block::{DiskReport, Disks, Warning, Work, WorkKind};
use elasticstack_core::prelude::*;
use elasticstack_core::scheduler::ServerSize;
use elasticstack_core::wire::keys::{self, Moment, Object};
use elasticstack_core::wire::record::Record;

use super::drive_record::GRANULE;
use super::hosts::placements_in;
use super::{App, Caller, Page};
use crate::db::{ArrayHealth, ArrayRow, Promised, Reader, Subject};

impl App {
    /// The ids of arrays.
    ///
    /// # Errors
    /// `Internal`.
    pub async fn array_ids(&self, page: &Page) -> Result<Vec<ArrayId>> {
        let rows = self.db.glance().await?.arrays().await?;
        Ok(wanted(rows, page).map(|row| row.array).collect())
    }

    /// Arrays, of all hosts.
    ///
    /// # Errors
    /// `Internal`.
    pub async fn arrays_info(&self, page: &Page) -> Result<Vec<Record>> {
        let mut reader = self.db.read().await?;
        let promised = reader.promised().await?;
        let rows = reader.arrays().await?;
        let of = |row: &ArrayRow| promised.get(&row.array).copied().unwrap_or_default();
        Ok(wanted(rows, page).map(|row| record_with(&row, of(&row))).collect())
    }

    /// How many more servers of one size fit, by the scheduler's own choices on a copy of the free
    /// room, where, and what keeps the next one out.
    ///
    /// # Errors
    /// `Internal`.
    pub async fn capacity_info(&self, mut size: ServerSize) -> Result<Record> {
        let granule = size.drive.round_up_to(GRANULE);
        size.drive = granule.ok_or_else(|| {
            Error::new(ErrorKind::InvalidValue, "size is more than any drive has: ask for less")
                .field("size")
        })?;
        let inventory = self.rooms.look(&self.db).await?;
        let headroom = inventory.headroom(self.scheduler.as_ref(), &size);
        let binds = headroom.binds;
        let mut told = Record::new()
            .with("servers", headroom.servers())
            .with("binds", binds.constraint)
            .with("binds:wanted", binds.wanted)
            .with("binds:available", binds.available);
        for (host, servers) in &headroom.hosts {
            told.set(format!("host:{host}"), servers);
        }
        Ok(told)
    }

    /// One array.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn array_info(&self, array: ArrayId) -> Result<Record> {
        let mut reader = self.db.read().await?;
        let row = known(&mut reader, array).await?;
        Ok(record_with(&row, promised(&mut reader, &row).await?))
    }

    /// Changes whether anything new is placed on an array.
    ///
    /// # Errors
    /// `NotFound`; those of a record's check.
    pub async fn array_set(
        &self,
        caller: &Caller,
        array: ArrayId,
        change: &Record,
    ) -> Result<Record> {
        keys::check(Object::Array, Moment::SetStopped, change)?;
        self.intend(caller, Subject::Array(array), |tx| {
            Box::pin(async move {
                let before = known(tx, array).await?;
                let mut row = before.clone();
                row.placements = placements_in(change).unwrap_or(row.placements);
                if row != before {
                    tx.save_array(&row).await?;
                }
                Ok(record_with(&row, promised(tx, &row).await?))
            })
        })
        .await
    }
}

/// The part of a list that is asked for.
fn wanted(rows: Vec<ArrayRow>, page: &Page) -> impl Iterator<Item = ArrayRow> {
    let after = page.after.clone().unwrap_or_default();
    let most = page.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    rows.into_iter().filter(move |row| row.array.to_string() > after).take(most)
}

async fn known(reader: &mut Reader, array: ArrayId) -> Result<ArrayRow> {
    reader.array(array).await?.ok_or_else(|| {
        let sentence = "the array could not be found: see the list of arrays";
        Error::new(ErrorKind::NotFound, sentence)
    })
}

async fn promised(reader: &mut Reader, row: &ArrayRow) -> Result<Promised> {
    let arrays = reader.arrays_with_promised(row.host).await?;
    Ok(arrays.get(&row.array).map(|(_, promised)| *promised).unwrap_or_default())
}

fn record_with(row: &ArrayRow, promised: Promised) -> Record {
    record(row)
        .with("promised", promised.bytes.get())
        .with("free", row.capacity.saturating_sub(promised.bytes).get())
        .with("drives", promised.drives)
}

/// What the row alone tells.
pub(super) fn record(row: &ArrayRow) -> Record {
    let ArrayRow { array, host, name, health: _, placements, capacity, disks, warnings } = row;
    let mut told = Record::new()
        .with("array", array)
        .with("host", host)
        .with("name", name)
        .with("status", row.status())
        // No array tells its tier yet.
        .with("tier", "disk")
        .with("placements", placements.as_str())
        .with("capacity", capacity.get());
    for (number, Warning { kind, disk, sentence }) in warnings.iter().enumerate() {
        told.set(format!("warning:{number}"), kind.as_str());
        told.set(format!("warning:{number}:sentence"), sentence);
        if let Some(disk) = disk {
            told.set(format!("warning:{number}:disk"), disk);
        }
    }
    let Some(Disks { count, missing, work, mismatches, each }) = disks else { return told };
    told.set("disks", count);
    told.set("disks:missing", missing);
    told.set("mismatches", mismatches);
    if let Some(Work { kind, percent }) = work {
        told.set("work", kind.as_str());
        told.set("work:progress", percent);
    }
    for (number, DiskReport { name, state, corrected }) in each.iter().enumerate() {
        told.set(format!("disk:{number}"), name);
        told.set(format!("disk:{number}:status"), state.as_str());
        told.set(format!("disk:{number}:corrected"), corrected);
    }
    told
}

impl ArrayRow {
    /// What it is, in one word.
    fn status(&self) -> &'static str {
        let (ArrayHealth::Online, Some(disks)) = (self.health, &self.disks) else {
            return self.health.as_str();
        };
        match (disks.work.as_ref().map(|work| work.kind), disks.missing) {
            (Some(WorkKind::Rebuild), _) => "rebuilding",
            (_, 1..) => "degraded",
            (Some(WorkKind::Resync | WorkKind::Check | WorkKind::Repair), 0) => "checking",
            (Some(WorkKind::Reshape), 0) => "reshaping",
            (None, 0) => "online",
        }
    }

    /// As it was when its disks' work was last at a whole number of tenths: more is no event.
    pub(super) fn in_steps(&self) -> Self {
        let mut row = self.clone();
        if let Some(work) = row.disks.as_mut().and_then(|disks| disks.work.as_mut()) {
            work.percent -= work.percent % 10;
        }
        row
    }
}
