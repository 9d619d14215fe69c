//! Running servers: the contract between the agent and whatever runs guests.

mod types;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use async_trait::async_trait;
use futures_core::stream::BoxStream;

pub use types::{
    Access, Bus, Device, DriveSlot, EndCause, InvalidDevice, IoCounts, IoLimits, Media, Nic,
    NicModel, Observed, Phase, Seed, ServerKind, ServerSpec, Signal,
};

use crate::error::Result;
use crate::generation::Run;
use crate::id::ServerId;

/// Runs guests on one host.
///
/// The agent decides *whether* a server should run; an implementation makes it so and tells
/// what it sees. It keeps no intent of its own.
///
/// # Contract
/// - **HV-1** `ensure` returns once the guest's processors run. Repeating it for the same run
///   succeeds and starts nothing.
/// - **HV-2** A run that has ended and was not removed is never started again: `ensure` for it is
///   `Stale`. After `remove` nothing is remembered, so the caller first records durably that the
///   run ended.
/// - **HV-3** At most one run of a server exists at any time: `ensure` of a newer run while an
///   older one exists, running or ended, is `ServerBusy`.
/// - **HV-4** A guest's own ending is kept, with its cause, until `remove`; no crash of this
///   process loses it, and nothing restarts the guest.
/// - **HV-5** `remove` returns only when no instruction of the guest and no I/O of it can happen
///   any more. Repeating it, or removing what never was, succeeds.
/// - **HV-6** `observe` tells every run that exists, after a restart of this process too; a guest
///   that does not answer is `Unresponsive`, and is left alone.
/// - **HV-7** `events` yields the server's id after each change that `observe` would show. It may
///   yield too often, never too seldom.
/// - **HV-8** A failed `ensure` leaves nothing behind: no process, no file, no claim.
/// - **HV-9** `ensure` for the run of a [`ServerKind::Vm`] that goes on makes what is plugged in at [`Bus::is_hot`] what
///   the spec says, holds every drive to its limits, and changes nothing else of the guest. When it returns, nothing else is open
///   there, and no I/O of it can happen. While the guest does not let go of a drive it is
///   `Unavailable`: all else is done, and repeating it goes on.
#[async_trait]
pub trait Hypervisor: Send + Sync {
    /// Makes `run` of the server run, with these drives.
    ///
    /// # Errors
    /// `Stale` and `ServerBusy` by the contract; `JobFailed` if the guest can't be started or a
    /// drive can't be plugged in, with a sentence fit for its owner; `Unavailable` by HV-9, and while
    /// a drive that another host lends can't be reached; `Internal`.
    async fn ensure(&self, spec: &ServerSpec, run: Run) -> Result<()>;

    /// Sends a signal to the guest. That it arrived says nothing of what the guest makes of it.
    ///
    /// # Errors
    /// `NotFound` if it does not run; `Unavailable` if it does not answer.
    async fn signal(&self, server: ServerId, signal: Signal) -> Result<()>;

    /// Ends the server's run, whatever it is doing, as cutting the power does, and forgets it.
    ///
    /// # Errors
    /// `Unavailable` if it can't be seen to have ended: call again.
    async fn remove(&self, server: ServerId) -> Result<()>;

    /// Every run that exists here.
    ///
    /// # Errors
    /// `Internal` if the host can't be asked.
    async fn observe(&self) -> Result<Vec<Observed>>;

    /// The ids of servers of which something changed. Each call is a new subscription.
    fn events(&self) -> BoxStream<'static, ServerId>;

    /// The guests' consoles, if this hypervisor has any.
    fn console(&self) -> Option<&dyn Console> {
        None
    }

    /// What guests read and write, if this hypervisor counts it.
    fn counters(&self) -> Option<&dyn Counters> {
        None
    }
}

/// The consoles of running guests.
///
/// # Contract
/// - **CO-1** The serial log survives a restart of this process and the end of the run, until
///   `Hypervisor::remove`; it may lose its oldest part, and marks where something may be missing.
#[async_trait]
pub trait Console: Send + Sync {
    /// What the guest wrote to its first serial port, oldest first, at most 1 MiB.
    ///
    /// # Errors
    /// `NotFound` if no run exists.
    async fn serial(&self, server: ServerId) -> Result<Vec<u8>>;

    /// Where the guest's screen can be reached by VNC (RFC 6143) on this host.
    ///
    /// # Errors
    /// `NotFound` if no run exists.
    async fn screen(&self, server: ServerId) -> Result<Option<SocketAddr>>;
}

/// What guests read from their drives and write to them.
///
/// # Contract
/// - **CT-1** `counts` tells of every drive that is plugged in to a run that goes on, and of
///   nothing else.
/// - **CT-2** The counts of a drive begin at zero when it is plugged in, and none of them falls while
///   it is, whatever becomes of this process.
#[async_trait]
pub trait Counters: Send + Sync {
    /// What the server's run has read and written, by where the drives are plugged in.
    ///
    /// # Errors
    /// `NotFound` if no run goes on; `Unavailable` if the guest does not answer.
    async fn counts(&self, server: ServerId) -> Result<BTreeMap<Device, IoCounts>>;
}
