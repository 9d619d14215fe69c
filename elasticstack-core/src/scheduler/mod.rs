//! Placement: which host and array something new goes to.

mod reference;
mod types;

pub use reference::ReferenceScheduler;
pub use types::{
    ArrayRoom, Constraint, DriveDemand, HostRoom, Inventory, Placement, Refusal, Request,
    ServerDemand,
};

/// Decides where a drive or a server goes. Pure: the answer depends on the arguments only, so a
/// caller may ask again inside a transaction that is rerun.
///
/// # Contract
/// - **SC-1** A placement fits: its host and array are in the inventory, accept placements, and
///   have at least the room asked for.
/// - **SC-2** A server goes to the host that holds its drives; a drive asked to avoid an array
///   never lands there.
/// - **SC-3** If anything fits, the answer is a placement; if nothing does, it is a refusal that
///   names the constraint binding on the host that came nearest, and how far off that was.
/// - **SC-4** The same arguments give the same answer.
pub trait Scheduler: Send + Sync {
    /// Places `request` on the free room of `inventory`.
    ///
    /// # Errors
    /// A [`Refusal`] that names what was short.
    fn place(&self, inventory: &Inventory, request: &Request) -> Result<Placement, Refusal>;
}
