//! Arrays of disks: made, put together, looked after by the kernel's md, with XFS on them.
//!
//! ```text
//!  disks, by serial ─▶ checksums ─▶ md (RAID 1, 10, 5, 6) ─▶ XFS with reflinks ─▶ mounted ─▶ a directory of `store`
//!     `disk`      `integrity`, if any  `plan`, `md`, `tend`               `made`
//!                                                                            `watch` tells the store how it is, and by
//!                                                     `signs` what may become of it: `smart`, `latency`, `fullness`
//! ```
//! The kernel does the work, and Debian's own tools tell it so. Here is what must not be got wrong:
//! which disks are taken, that nothing on them is lost unasked, and that what is mounted is the
//! array that was meant. The same array is told by its UUIDs, whatever its devices are called now.
//!
//! Whoever wants something done, a program on the host or the control plane, gives the `keeper` an `order`.

mod disk;
mod fullness;
mod integrity;
mod keeper;
mod latency;
mod made;
mod making;
mod md;
mod order;
mod place;
mod plan;
mod show;
mod signs;
mod smart;
mod tend;
mod watch;

use std::io;
use std::path::Path;

use elasticstack_core::error::Error;

use crate::tool;

pub use disk::{Disk, DiskName, Holding, serial_of_vpd};
pub use integrity::Integrity;
pub use keeper::{ArrayConfig, ConfiguredArray, Keeper, WARNINGS};
pub use made::MadeArray;
pub use md::{Activity, Health, Md, Member};
pub use order::{ArrayName, Creation, Order};
pub use plan::{ArrayPlan, Level};
pub use show::disks;
pub use smart::{Smart, is_there as smartctl_is_there};
pub use tend::Scrub;
pub use watch::watch;

fn looking_at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let what = format!("looking at {}", path.display());
    move |error| Error::internal(what).source(error)
}
