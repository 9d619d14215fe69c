//! skeleton: the agreed interface between http, hosts and app. Bodies come with the app branch.
#![allow(missing_docs, clippy::todo, unused_variables, dead_code, missing_debug_implementations)]

use std::sync::Arc;

use async_trait::async_trait;
use elasticstack_core::biller::Biller;
use elasticstack_core::prelude::*;
use elasticstack_core::scheduler::Scheduler;
use elasticstack_core::wire::internal::{Conversion, Cursor, Document, HostReport, Reports};
use elasticstack_core::wire::record::Record;
use tokio::sync::watch;

/// Who asks, once authenticated.
#[derive(Debug, Clone)]
pub struct Caller {
    pub account: AccountId,
}

/// Whether a new server is started at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnCreate {
    Start,
    LeaveStopped,
}

/// The way to a host's bytes, which `hosts` implements over the internal API.
#[async_trait]
pub trait DataPath: Send + Sync {
    async fn read(
        &self,
        host: HostId,
        drive: DriveId,
        offset: Bytes,
        length: Bytes,
    ) -> Result<bytes::Bytes>;
    async fn write(
        &self,
        host: HostId,
        drive: DriveId,
        offset: Bytes,
        data: bytes::Bytes,
    ) -> Result<()>;
    async fn serial(&self, host: HostId, server: ServerId) -> Result<bytes::Bytes>;
}

/// A host as the follower needs it.
#[derive(Debug, Clone)]
pub struct HostRecord {
    pub host: HostId,
    pub name: Name,
    pub address: String,
}

pub struct App;

impl App {
    /// Opens (and migrates) the database at `url` (`sqlite:PATH` or `postgres://…`).
    pub async fn open(
        url: &str,
        scheduler: Arc<dyn Scheduler>,
        biller: Arc<dyn Biller>,
        clock: Arc<dyn Clock>,
        data: Arc<dyn DataPath>,
    ) -> Result<Arc<Self>> {
        todo!()
    }

    // accounts
    pub async fn account_create(
        &self,
        account: AccountId,
        name: &Name,
        email: &str,
        key: &Secret,
    ) -> Result<()> {
        todo!()
    }
    pub async fn authenticate(&self, account: AccountId, key: &Secret) -> Result<Caller> {
        todo!()
    }
    pub async fn profile_info(&self, caller: &Caller) -> Result<Record> {
        todo!()
    }

    // drives
    pub async fn drive_ids(&self, caller: &Caller) -> Result<Vec<DriveId>> {
        todo!()
    }
    pub async fn drives_info(&self, caller: &Caller) -> Result<Vec<Record>> {
        todo!()
    }
    pub async fn standard_ids(&self) -> Result<Vec<DriveId>> {
        todo!()
    }
    pub async fn standard_info(&self) -> Result<Vec<Record>> {
        todo!()
    }
    pub async fn drive_create(&self, caller: &Caller, record: &Record) -> Result<Record> {
        todo!()
    }
    pub async fn drive_info(&self, caller: &Caller, drive: DriveId) -> Result<Record> {
        todo!()
    }
    pub async fn drive_set(
        &self,
        caller: &Caller,
        drive: DriveId,
        record: &Record,
    ) -> Result<Record> {
        todo!()
    }
    pub async fn drive_destroy(&self, caller: &Caller, drive: DriveId) -> Result<()> {
        todo!()
    }
    pub async fn drive_image(
        &self,
        caller: &Caller,
        target: DriveId,
        source: DriveId,
        conversion: Conversion,
    ) -> Result<Record> {
        todo!()
    }
    pub async fn drive_read(
        &self,
        caller: &Caller,
        drive: DriveId,
        offset: Bytes,
        length: Bytes,
    ) -> Result<bytes::Bytes> {
        todo!()
    }
    pub async fn drive_write(
        &self,
        caller: &Caller,
        drive: DriveId,
        offset: Bytes,
        data: bytes::Bytes,
    ) -> Result<()> {
        todo!()
    }

    // servers
    pub async fn server_ids(&self, caller: &Caller) -> Result<Vec<ServerId>> {
        todo!()
    }
    pub async fn servers_info(&self, caller: &Caller) -> Result<Vec<Record>> {
        todo!()
    }
    pub async fn server_create(
        &self,
        caller: &Caller,
        record: &Record,
        on_create: OnCreate,
    ) -> Result<Record> {
        todo!()
    }
    pub async fn server_info(&self, caller: &Caller, server: ServerId) -> Result<Record> {
        todo!()
    }
    pub async fn server_set(
        &self,
        caller: &Caller,
        server: ServerId,
        record: &Record,
    ) -> Result<Record> {
        todo!()
    }
    pub async fn server_start(&self, caller: &Caller, server: ServerId) -> Result<Record> {
        todo!()
    }
    pub async fn server_stop(&self, caller: &Caller, server: ServerId) -> Result<()> {
        todo!()
    }
    pub async fn server_shutdown(&self, caller: &Caller, server: ServerId) -> Result<()> {
        todo!()
    }
    pub async fn server_reset(&self, caller: &Caller, server: ServerId) -> Result<()> {
        todo!()
    }
    pub async fn server_destroy(&self, caller: &Caller, server: ServerId) -> Result<()> {
        todo!()
    }
    pub async fn server_serial(&self, caller: &Caller, server: ServerId) -> Result<bytes::Bytes> {
        todo!()
    }

    // standard drives: made with a fixed id, written through the data path, published when whole
    pub async fn publish_standard(&self, image: &StandardImage) -> Result<()> {
        todo!()
    }

    // hosts: intent out, reports in
    pub async fn host_create(&self, host: HostId, name: &Name, address: &str) -> Result<()> {
        todo!()
    }
    pub async fn hosts(&self) -> Result<Vec<HostRecord>> {
        todo!()
    }
    /// The documents that the host has not confirmed, oldest first, at most `limit`.
    pub async fn outbox(&self, host: HostId, limit: u32) -> Result<Vec<Document>> {
        todo!()
    }
    /// The host has these documents durably: their outbox rows go unless a newer generation waits.
    pub async fn delivered(&self, host: HostId, documents: &[Document]) -> Result<()> {
        todo!()
    }
    pub async fn cursor(&self, host: HostId) -> Result<Option<Cursor>> {
        todo!()
    }
    /// Applies the statuses and stores the cursor in the same transaction.
    pub async fn ingest(&self, host: HostId, reports: &Reports) -> Result<()> {
        todo!()
    }
    pub async fn host_answered(&self, host: HostId, report: &HostReport) -> Result<()> {
        todo!()
    }
    /// Applies every deadline that has passed (core::state::DEADLINES). Called about once a second.
    pub async fn deadlines(&self) -> Result<()> {
        todo!()
    }
    /// Hands usage over to the biller. Called about once a second.
    pub async fn forward_usage(&self) -> Result<()> {
        todo!()
    }
    /// One number that grows with every committed change of this process; waiters and pushers watch it.
    pub fn changes(&self) -> watch::Receiver<u64> {
        todo!()
    }
}

/// An image to publish as a standard drive.
#[derive(Debug, Clone)]
pub struct StandardImage {
    pub drive: DriveId,
    pub name: Name,
    pub media: String,
    pub format: Option<String>,
    pub rawsize: Option<Bytes>,
    pub sha256: String,
    pub path: std::path::PathBuf,
}
