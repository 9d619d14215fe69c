//! What servers and drives have read and written, for `info/full`: asked of their hosts then, and kept
//! nowhere.
//!
//! ```text
//!  info, as ever ─▶ hosts where something runs ─▶ each asked once, all at a time ─▶ info with counters
//! ```
//! Invariants: no host is asked while anything of the database is held; what a host does not tell in
//! time lacks its counters and is otherwise as ever. A drive's counters are its owner's business.

use std::collections::BTreeMap;

use elasticstack_core::hypervisor::Device;
use elasticstack_core::prelude::*;
use elasticstack_core::wire::internal::{Counts, CountsOf, DriveCounts, IoCounts, ServerCounts};
use elasticstack_core::wire::record::Record;
use futures_util::future::join_all;

use super::access::{Wish, permitted};
use super::view::Listed;
use super::{App, Caller, Page, drive_record, drives, server_record};

impl App {
    /// One drive of the caller's with its counters, or one that it may read, and the version that it
    /// is at.
    ///
    /// # Errors
    /// As [`App::drive_info`].
    pub(crate) async fn drive_info_full(
        &self,
        caller: &Caller,
        drive: DriveId,
    ) -> Result<(Record, String)> {
        let mut reader = self.db.read().await?;
        let row = permitted(caller.account, reader.drive(drive).await?, Wish::See)?;
        if row.account != caller.account {
            return Ok((drive_record::info_for_readers(&row), row.version()));
        }
        let in_use = drives::use_of(&mut reader, drive).await?;
        drop(reader);
        let mut record = drive_record::info(&row, &in_use);
        let counted_by = drive_record::counted_by(&row, &in_use);
        let counts = self.counts_of_drives(counted_by.map(|host| (host, drive))).await;
        of_drive(counted_by, counts.get(&drive)).iter().for_each(|more| record.apply(more));
        Ok((record, row.version()))
    }

    /// The caller's drives with their counters.
    ///
    /// # Errors
    /// As [`App::drives_info`].
    pub(crate) async fn drives_info_full(&self, caller: &Caller, page: &Page) -> Result<Listed> {
        let list = self.drives_info(caller, page).await?;
        let asked = list.counted().map(|(host, id)| (host, DriveId::from_uuid(id)));
        let counts = self.counts_of_drives(asked).await;
        list.with(|id, counted_by| of_drive(counted_by, counts.get(&DriveId::from_uuid(id))))
    }

    /// One server of the caller's with its drives' counters, and the version that it is at.
    ///
    /// # Errors
    /// As [`App::server_info`].
    pub(crate) async fn server_info_full(
        &self,
        caller: &Caller,
        server: ServerId,
    ) -> Result<(Record, String)> {
        let row = self.db.glance().await?.server(server).await?;
        let row = permitted(caller.account, row, Wish::See)?;
        let asked = server_record::counted_by(&row).map(|host| (host, server));
        let counts = self.counts_of_servers(asked).await;
        let mut record = server_record::info(&row);
        counts.get(&server).into_iter().for_each(|devices| record.apply(&of_server(devices)));
        Ok((record, row.version()))
    }

    /// The caller's servers with their drives' counters.
    ///
    /// # Errors
    /// As [`App::servers_info`].
    pub(crate) async fn servers_info_full(&self, caller: &Caller, page: &Page) -> Result<Listed> {
        let list = self.servers_info(caller, page).await?;
        let asked = list.counted().map(|(host, id)| (host, ServerId::from_uuid(id)));
        let counts = self.counts_of_servers(asked).await;
        list.with(|id, _| counts.get(&ServerId::from_uuid(id)).map(of_server))
    }

    async fn counts_of_drives(
        &self,
        drives: impl IntoIterator<Item = (HostId, DriveId)>,
    ) -> BTreeMap<DriveId, IoCounts> {
        let mut asked = BTreeMap::<HostId, CountsOf>::new();
        for (host, drive) in drives {
            asked.entry(host).or_default().drives.push(drive);
        }
        let told = self.ask(asked).await.into_iter().flat_map(|counts| counts.drives);
        told.map(|DriveCounts { drive, counts }| (drive, counts)).collect()
    }

    async fn counts_of_servers(
        &self,
        servers: impl IntoIterator<Item = (HostId, ServerId)>,
    ) -> BTreeMap<ServerId, BTreeMap<Device, IoCounts>> {
        let mut asked = BTreeMap::<HostId, CountsOf>::new();
        for (host, server) in servers {
            asked.entry(host).or_default().servers.push(server);
        }
        let told = self.ask(asked).await.into_iter().flat_map(|counts| counts.servers);
        told.map(|ServerCounts { server, devices }| (server, devices)).collect()
    }

    /// What hosts answer, all asked at a time; nothing of those that do not.
    async fn ask(&self, asked: BTreeMap<HostId, CountsOf>) -> Vec<Counts> {
        let answers = asked.into_iter().map(|(host_id, of)| async move {
            let answer = self.data.counts(host_id, of).await;
            let unknown = |error: &Error| {
                tracing::debug!(%host_id, error = %Chain(error), "a host told no counters");
            };
            answer.inspect_err(unknown).ok()
        });
        join_all(answers).await.into_iter().flatten().collect()
    }
}

/// The counters of a drive; zeros if no host counts any, none if its host did not tell them.
fn of_drive(counted_by: Option<HostId>, told: Option<&IoCounts>) -> Option<Record> {
    let counts = match counted_by {
        None => IoCounts::default(),
        Some(_) => *told?,
    };
    let mut record = Record::new();
    note(&mut record, "", counts);
    Some(record)
}

/// The counters of a server, by its ports.
fn of_server(devices: &BTreeMap<Device, IoCounts>) -> Record {
    let mut record = Record::new();
    for (device, counts) in devices {
        note(&mut record, &format!("{device}:"), *counts);
    }
    record
}

fn note(record: &mut Record, prefix: &str, counts: IoCounts) {
    let IoCounts { read_bytes, read_requests, write_bytes, write_requests } = counts;
    for (key, count) in [
        ("read:bytes", read_bytes),
        ("read:requests", read_requests),
        ("write:bytes", write_bytes),
        ("write:requests", write_requests),
    ] {
        record.set(format!("{prefix}{key}"), count);
    }
}
