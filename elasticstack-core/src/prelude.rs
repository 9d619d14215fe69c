//! The names nearly every file of an implementation needs.

pub use crate::clock::{Clock, Timestamp};
pub use crate::error::{Chain, Error, ErrorKind, Result};
pub use crate::generation::{Epoch, Era, Generation, Run};
pub use crate::id::{
    AccountId, ArrayId, ChangeId, DriveId, HostId, JobId, PoolId, ServerId, SnapshotId, StrayId,
    TokenId, VlanId,
};
pub use crate::name::Name;
pub use crate::secret::Secret;
pub use crate::units::{Bytes, MebiBytes, MegaHertz, VcpuCount};
