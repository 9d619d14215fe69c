//! Placement: which host and array something new goes to.

mod fit;
mod headroom;
mod reference;
mod types;

pub use headroom::{Headroom, ServerSize};
pub use reference::ReferenceScheduler;
pub use types::{
    ArrayRoom, Constraint, DriveDemand, HostRoom, Inventory, Placement, Refusal, Request,
    ServerDemand, Tier,
};

/// Decides where a drive or a server goes. Pure, so that a caller may ask again inside a
/// transaction that is rerun.
///
/// [`Inventory::arrays_for`] and [`Inventory::hosts_for`] keep the hard half of the contract for an
/// implementation, which then only chooses among what fits.
///
/// # Contract
/// - **SC-1** A placement names a host of the inventory; a drive's names also an array of that
///   host, a server's none.
/// - **SC-2** What is placed fits: its array has that many bytes free, or its host that much memory
///   and processor time. No amount is too large to be compared.
/// - **SC-3** Nothing goes to a host that does not accept placements, and no drive to an array that
///   does not accept drives or is of another tier than asked for, and no container to a host that runs
///   none.
/// - **SC-4** A drive never goes to an array it avoids, and to another array of the same host only
///   if it fits on no other host; a server never goes to a host it avoids.
/// - **SC-5** A server goes only where each of its drives is or can be lent to, and of the hosts
///   where it fits to one that needs the fewest lends.
/// - **SC-6** Whatever fits somewhere is placed.
/// - **SC-7** A refusal names a constraint that binds, and by how much: with that one lifted, or the
///   amount lowered to `available`, the answer is a placement or names another constraint; with any
///   amount above `available` it stays.
/// - **SC-8** The same arguments give the same answer, whatever was asked before and in whatever
///   order the inventory lists hosts and arrays.
pub trait Scheduler: Send + Sync {
    /// Places `request` on the free room of `inventory`.
    ///
    /// # Errors
    /// A [`Refusal`] that names what was short.
    fn place(&self, inventory: &Inventory, request: &Request) -> Result<Placement, Refusal>;
}
