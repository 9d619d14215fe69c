//! The wire between the API server and an agent. No semver promise: both ends are ours, and speak
//! [`PROTOCOL`] or the one before it.
//!
//! ```text
//! GET  /v1/host                                → HostReport
//! GET  /v1/stock                               → Stock
//! POST /v1/documents        Documents          → Accepted, once the documents are durable there
//! POST /v1/reports          ReportsAfter       → Reports, soon after there is something newer
//! POST /v1/counts           CountsOf           → Counts, of what can be told within a second
//! GET  /v1/disks                               → HostDisks
//! GET  /v1/arrays                              → HostArrays
//! POST /v1/arrays           OrderArray         → OrderStatus, soon after its end
//! GET  /v1/drives/ID/data?offset=N&length=N    → the bytes
//! POST /v1/drives/ID/data?offset=N   bytes     → nothing, once they are durable
//! GET  /v1/drives/ID/qcow2                     → the drive as a qcow2 image; it breaks off if somebody gets the drive
//! GET  /v1/servers/ID/serial                   → the bytes
//! CONNECT /v1/servers/ID/screen?run=N          ⇄ the screen's bytes (RFC 6143), until either side ends
//! ```
//! A failure answers with a [`Fault`]. Desired state goes down as whole documents, each with a
//! generation; observed state comes up as whole statuses, each of which replaces the object's
//! last. Repeating anything is harmless. What is about disks and how arrays are made of them is in
//! [`arrays`](super::arrays).
//!
//! Sizes here are bytes, memory is MiB, processor time MHz, instants microseconds since 1970.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::block::{ArrayState, Disks, Warning};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind};
use crate::generation::{Epoch, Generation, Run};
pub use crate::hypervisor::{Access, IoCounts, IoLimits};
use crate::hypervisor::{Device, EndCause, Media, Nic, Seed, ServerKind};
use crate::id::{AccountId, ArrayId, DriveId, JobId, ServerId, SnapshotId};
use crate::secret::Secret;
use crate::state::RunPhase;

/// The version of this wire.
pub const PROTOCOL: u32 = 1;

/// The most bytes that one write to a drive has, in both APIs.
pub const MAX_WRITE: usize = 64 << 20;

/// What an extended CONNECT (RFC 8441) to a screen names as its protocol.
pub const SCREEN_PROTOCOL: &str = "rfb";

/// What a host is and can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostReport {
    /// The [`PROTOCOL`] the agent speaks.
    pub protocol: u32,
    /// The kernel's boot id: another one means that the host restarted.
    pub boot: String,
    /// Processor time in all, in MHz.
    pub cpu_mhz: u32,
    /// Memory for guests in all, in MiB.
    pub memory_mib: u32,
    /// What runs guests, such as `kvm` or `software cpu`, and why.
    pub accelerator: String,
    /// How processor time is limited, or `none`.
    pub cpu_limits: String,
    /// Its arrays.
    pub arrays: Vec<ArrayStatus>,
    /// Where it lends drives to servers on other hosts; `None` if it does not.
    #[serde(default)]
    pub portal: Option<SocketAddr>,
    /// Whether it runs containers.
    #[serde(default)]
    pub containers: bool,
}

/// One array and the room on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArrayStatus {
    /// Which.
    pub array: ArrayId,
    /// What the operator calls it.
    pub name: String,
    /// The most that drives and snapshots may sum up to.
    pub capacity: u64,
    /// Σ sizes of the drives and snapshots on it.
    pub promised: u64,
    /// Whether it can be used.
    #[serde(default)]
    pub state: ArrayState,
    /// How its disks are, if it is made of some and that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disks: Option<Disks>,
    /// What an operator should look at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
}

/// All that a host has at one moment, whether a document of it is known there or not. It is asked
/// for where the other side has to find out what there is: after it was restored from a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stock {
    /// The newest document of everything that it was ever told of and has not forgotten.
    pub documents: Vec<Document>,
    /// Every drive and snapshot on its arrays and every server that has a document or a guest. What
    /// no document is known of is of generation 0.0, or of the one that lies with the drive.
    pub objects: Vec<ObjectStatus>,
}

/// Desired documents, pushed down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Documents {
    /// In any order; each stands alone.
    pub documents: Vec<Document>,
}

/// The answer to [`Documents`]: all of them are durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// How many were ignored because the host had a newer generation.
    pub ignored: u64,
}

/// What one object should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "object", rename_all = "snake_case")]
pub enum Document {
    /// A drive.
    Drive(DriveDocument),
    /// A job.
    Job(JobDocument),
    /// A server.
    Server(ServerDocument),
    /// A snapshot.
    Snapshot(SnapshotDocument),
}

/// What a drive should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriveDocument {
    /// Which drive.
    pub drive: DriveId,
    /// The version of this document.
    pub generation: Generation,
    /// A tombstone: destroy it. Only this destroys, absence never does.
    pub gone: bool,
    /// Its owner.
    pub account: AccountId,
    /// The array it lies on.
    pub array: ArrayId,
    /// Its size in bytes.
    pub size: u64,
    /// To whom it is lent. What is not here is lent no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lends: Vec<LentDrive>,
}

/// The claim on a drive of a server that runs on another host, or of a job that images there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LentDrive {
    /// Who borrows; a job as [`borrower_of`](crate::block::borrower_of) says.
    pub server: ServerId,
    /// The claim's epoch; the drive is opened and lent under it.
    pub epoch: Epoch,
    /// Whether the claim keeps everybody else out.
    pub access: Access,
    /// As what the server has it: a CD is lent for reading only.
    pub media: Media,
    /// What the borrower proves itself with.
    pub secret: Secret,
}

/// One imaging of a drive: the target becomes what the source holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobDocument {
    /// Which job.
    pub job: JobId,
    /// The version of this document.
    pub generation: Generation,
    /// Forget it: its end was read.
    pub gone: bool,
    /// Read from here.
    pub source: DriveId,
    /// The claim on the source.
    pub source_epoch: Epoch,
    /// Write to here.
    pub target: DriveId,
    /// The claim on the target.
    pub target_epoch: Epoch,
    /// What to do to the bytes on the way.
    pub conversion: Conversion,
    /// Read from here and from no drive; the target is named as the source too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download: Option<Download>,
    /// Who lends the source, if it lies on another host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lender: Option<Lender>,
    /// Only sum the target up, and write nothing; the target is named as the source too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sum: Option<Sum>,
}

/// A SHA-256 that is to be made of what a drive holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// Of so many bytes from the drive's beginning on.
    pub length: u64,
    /// What it is to be, in hexadecimal digits.
    pub expected: Option<String>,
}

/// A file elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Download {
    /// Where it is, by HTTP or HTTPS. Who knows it can often read the file.
    pub url: Secret,
    /// The SHA-256 that it is to have, in hexadecimal digits.
    pub sha256: Option<String>,
}

/// What imaging does to the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conversion {
    /// Nothing.
    None,
    /// Compresses to gzip (RFC 1952).
    Gzip,
    /// Decompresses gzip (RFC 1952).
    Gunzip,
    /// Reads the disk that a qcow2 image is of.
    Qcow2,
    /// Reads the disk that a VMDK image is of.
    Vmdk,
}

/// What a server should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerDocument {
    /// Which server.
    pub server: ServerId,
    /// The version of this document.
    pub generation: Generation,
    /// A tombstone: stop it and forget it. Its drives stay.
    pub gone: bool,
    /// The newest run asked for; 0 if it was never started.
    pub run: Run,
    /// Whether that run should go on. A run that ended stays ended.
    pub powered: bool,
    /// The newest reset asked for, counted over all runs.
    pub reset: u64,
    /// The newest shutdown asked for, counted over all runs.
    pub shutdown: u64,
    /// What the newest run is to look like. Of a run that goes on only its drives change, where
    /// they come and go.
    pub hardware: Hardware,
}

/// What a snapshot should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotDocument {
    /// Which snapshot.
    pub snapshot: SnapshotId,
    /// The version of this document.
    pub generation: Generation,
    /// A tombstone: destroy it. Its drive stays.
    pub gone: bool,
    /// The drive that it is of. It is taken once, when the host first hears of it.
    pub drive: DriveId,
    /// The array it lies on, which is its drive's.
    pub array: ArrayId,
    /// The newest restore asked for, counted from 1; 0 if none was.
    pub restore: u64,
    /// The claim on the drive for that restore.
    pub epoch: Epoch,
}

/// What a guest sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    /// What the server is.
    #[serde(default)]
    pub kind: ServerKind,
    /// Processor time in MHz.
    pub cpu_mhz: u32,
    /// Virtual CPUs, at least 1.
    pub vcpus: u8,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Its drives.
    pub drives: Vec<ClaimedDrive>,
    /// The boot order; empty for the firmware's.
    pub boot: Vec<Device>,
    /// Its network cards.
    pub nics: Vec<Nic>,
    /// The VNC password; no screen without one.
    pub screen: Option<Secret>,
    /// What the guest is told at its first boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<Seed>,
}

/// A drive that a server has claimed for its run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimedDrive {
    /// Which drive.
    pub drive: DriveId,
    /// The claim's epoch; the drive is opened under it.
    pub epoch: Epoch,
    /// Whether the claim keeps everybody else out.
    pub access: Access,
    /// Where it is plugged in.
    pub device: Device,
    /// As what.
    pub media: Media,
    /// Who lends it, if it lies on another host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lender: Option<Lender>,
    /// The most that the server gets from it, whoever lends it.
    #[serde(default, skip_serializing_if = "IoLimits::is_none")]
    pub limits: IoLimits,
}

/// The host that lends a drive, as the one that borrows it has to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lender {
    /// Where it serves its targets.
    pub portal: SocketAddr,
    /// What the borrower proves itself with.
    pub secret: Secret,
}

/// Asks for the statuses that changed after a cursor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportsAfter {
    /// The cursor of the last answer; `None` for everything.
    pub after: Option<Cursor>,
    /// How long to wait for something newer, in milliseconds, at most 60,000.
    pub wait_ms: u32,
}

/// A place in an agent's stream of statuses. Whoever sends it says that all up to here is durable
/// on his side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Names one life of the agent's process; a cursor of another life counts as none.
    pub life: String,
    /// Counts changes within that life.
    pub sequence: u64,
}

/// The newest status of every object that changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reports {
    /// Where to go on from.
    pub next: Cursor,
    /// Each replaces what was known of its object.
    pub objects: Vec<ObjectStatus>,
}

/// Asks what servers and drives have read and written. It is no status: it changes all the time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountsOf {
    /// These servers, by where their drives are plugged in.
    pub servers: Vec<ServerId>,
    /// These drives.
    pub drives: Vec<DriveId>,
}

/// The answer to [`CountsOf`]. What the host can't tell now is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Of servers that run, since each drive was plugged in.
    pub servers: Vec<ServerCounts>,
    /// Of drives, summed over the servers that run with them now.
    pub drives: Vec<DriveCounts>,
}

/// What one server has read and written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerCounts {
    /// Which server.
    pub server: ServerId,
    /// By where its drives are plugged in.
    pub devices: BTreeMap<Device, IoCounts>,
}

/// What was read from one drive and written to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriveCounts {
    /// Which drive.
    pub drive: DriveId,
    /// By all servers together.
    pub counts: IoCounts,
}

/// What one object is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "object", rename_all = "snake_case")]
pub enum ObjectStatus {
    /// A drive.
    Drive(DriveStatus),
    /// A job.
    Job(JobStatus),
    /// A server.
    Server(ServerStatus),
    /// A snapshot.
    Snapshot(SnapshotStatus),
}

/// What a drive is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriveStatus {
    /// Which drive.
    pub drive: DriveId,
    /// The document that this is the outcome of, or of which the drive itself says so.
    pub generation: Generation,
    /// It does not exist (any more).
    pub gone: bool,
    /// Its size in bytes.
    pub size: u64,
    /// The highest epoch that had access.
    pub epoch: Epoch,
    /// Why the document could not be made true; it is tried again.
    pub fault: Option<Fault>,
    /// What the drive says of itself, if it is there.
    #[serde(default)]
    pub home: Option<DriveHome>,
}

/// What a drive says of itself, whether or not a document knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriveHome {
    /// The array it lies on.
    pub array: ArrayId,
    /// Its owner when it was last changed.
    pub account: AccountId,
}

/// What a job is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatus {
    /// Which job.
    pub job: JobId,
    /// The document that this is the outcome of.
    pub generation: Generation,
    /// It is forgotten.
    pub gone: bool,
    /// How far it is.
    pub state: JobProgress,
}

/// How far a job is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobProgress {
    /// Waits its turn.
    Queued,
    /// So many hundredths of the source are read.
    Running(u8),
    /// The target is whole and durable.
    Done,
    /// The SHA-256 that was asked for, in hexadecimal digits.
    Summed(String),
    /// It ended without success; the target's content is undefined.
    Failed(Fault),
}

/// What a server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Which server.
    pub server: ServerId,
    /// The document that this is the outcome of.
    pub generation: Generation,
    /// It is stopped and forgotten.
    pub gone: bool,
    /// The newest run that was begun here; 0 if none.
    pub run: Run,
    /// What that run does; [`RunPhase::Ended`] also if none was begun.
    pub phase: RunPhase,
    /// When its processors began to run.
    pub started: Option<Stamp>,
    /// When and how it ended.
    pub ended: Option<Ended>,
    /// The newest reset carried out.
    pub reset: u64,
    /// The newest shutdown passed on to the guest.
    pub shutdown: u64,
    /// Where its screen is served.
    pub screen: Option<SocketAddr>,
    /// Whether the drives of a run are what the document says; `None` without one, and from an
    /// agent that can't tell.
    #[serde(default)]
    pub plugged: Option<Plugged>,
}

/// How far the drives of a run that goes on are what its document says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Plugged {
    /// They are: what is not in the document is open no more.
    AsAsked,
    /// They are not, for this reason; it is tried again.
    NotYet(Fault),
}

/// What a snapshot is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotStatus {
    /// Which snapshot.
    pub snapshot: SnapshotId,
    /// The document that this is the outcome of.
    pub generation: Generation,
    /// It does not exist (any more).
    pub gone: bool,
    /// Its size in bytes; 0 until it is taken.
    pub size: u64,
    /// The newest restore that is over.
    pub restored: u64,
    /// Why that restore left the drive as it was, if it did.
    pub refused: Option<Fault>,
    /// Why the document could not be made true; it is tried again.
    pub fault: Option<Fault>,
    /// What the snapshot says of itself, if it is there.
    #[serde(default)]
    pub home: Option<SnapshotHome>,
}

/// What a snapshot says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotHome {
    /// The drive that it is of.
    pub drive: DriveId,
    /// The array that it lies on.
    pub array: ArrayId,
    /// Its owner.
    pub account: AccountId,
}

/// The end of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// When, as the host saw it.
    pub at: Stamp,
    /// Why.
    pub cause: EndCause,
    /// The reason for its owner, if it could not be started or broke.
    pub fault: Option<Fault>,
}

/// An instant as one host saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// By its wall clock.
    pub wall: Timestamp,
    /// Microseconds since that boot, which no one sets back.
    pub monotonic_us: u64,
    /// The kernel's boot id that `monotonic_us` counts from.
    pub boot: String,
}

/// A failure as it crosses the wire: an [`Error`] without its context and source, which stay in
/// the log of the side where it happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// [`ErrorKind::code`].
    pub code: String,
    /// The sentence for the client.
    pub message: String,
    /// The key or parameter to blame.
    pub field: Option<String>,
}

impl From<&Error> for Fault {
    fn from(error: &Error) -> Self {
        Self {
            code: error.kind().code().to_owned(),
            message: error.public_message().to_owned(),
            field: error.blamed_field().map(str::to_owned),
        }
    }
}

impl From<Fault> for Error {
    fn from(Fault { code, message, field }: Fault) -> Self {
        let error = match ErrorKind::from_code(&code) {
            Some(kind) => Self::new(kind, message),
            None => Self::internal(format!("the other side says {code:?}: {message}")),
        };
        match field {
            Some(field) => error.field(field),
            None => error,
        }
    }
}
