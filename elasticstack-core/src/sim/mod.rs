//! A host that exists in memory only: every trait that touches a machine, simulated.
//!
//! The simulated backends implement the same traits as the real ones and pass the same kits; no
//! trait is only for tests. They do no I/O, read no clock and need no runtime: their futures are
//! ready at once, and [`block_on`] runs them. Time moves when a test advances a [`SimClock`].
//! What is random comes from a seed, which a failing test prints.
//!
//! | to simulate | use |
//! |---|---|
//! | drives, and cutting the power on unflushed writes | [`SimStore`] |
//! | guests that power off, panic, hang or lose their process | [`SimHypervisor`] |
//! | drives that hosts lend each other, and a target that crashes | [`SimLend`], [`SimNetwork`] |
//! | any backend, real or simulated, that fails now and then | [`Faulty`] |
//!
//! # Example
//! ```
//! use elasticstack_core::prelude::*;
//! use elasticstack_core::block::{BlockStore, DriveSpec};
//! use elasticstack_core::sim::{SimStore, block_on};
//!
//! # fn main() -> Result<()> {
//! block_on(async {
//!     let store = SimStore::new(1, &[Bytes::from_gib(1)]);
//!     let array = store.capacity().await?[0].array;
//!     let spec = DriveSpec {
//!         drive: store.id(),
//!         array,
//!         account: store.id(),
//!         size: Bytes::from_mib(1),
//!         generation: Generation::new(Era(1), 1),
//!     };
//!     store.create(&spec).await?;
//!     let volume = store.open(spec.drive, Epoch(1)).await?;
//!     volume.write_at(Bytes::ZERO, bytes::Bytes::from_static(b"kept")).await?;
//!     volume.flush().await?;
//!
//!     store.crash();
//!
//!     let mut found = [0; 4];
//!     store.open(spec.drive, Epoch(2)).await?.read_at(Bytes::ZERO, &mut found).await?;
//!     assert_eq!(&found, b"kept");
//!     Ok(())
//! })
//! # }
//! ```

mod block;
mod clock;
mod events;
mod executor;
mod fault;
mod hypervisor;
mod lend;
mod medium;
mod rng;
mod snapshots;

pub use block::SimStore;
pub use clock::SimClock;
pub use executor::block_on;
pub use fault::{Call, Fault, Faulty, Plan, When};
pub use hypervisor::SimHypervisor;
pub use lend::{SimLend, SimNetwork};
pub use rng::SimRng;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, also after a test's panic elsewhere: simulated state is changed in whole steps only.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
