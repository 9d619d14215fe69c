//! The words of billing. Money itself is the biller's own business and does not appear here.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::id::{AccountId, ChangeId};

/// A change that is about to cost something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Names this wish, so that asking twice holds money once.
    pub change: ChangeId,
    /// Who pays.
    pub account: AccountId,
    /// What is wished.
    pub kind: ChangeKind,
}

/// What kind of change, with the quantities that will be metered from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangeKind {
    /// A drive is made or grows by so many bytes.
    GrowDrive {
        /// How many more bytes.
        bytes: u64,
    },
    /// A server is started.
    StartServer {
        /// Its processor time.
        mhz: u32,
        /// Its memory.
        mib: u32,
    },
    /// A snapshot is taken.
    TakeSnapshot {
        /// The size of its drive.
        bytes: u64,
    },
    /// A static IP is taken.
    TakeIp,
    /// A VLAN is made.
    MakeVlan,
}

/// A biller's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Go on; what was held for it lapses at `until`.
    Allow {
        /// When the hold lapses if no usage arrives.
        until: Timestamp,
    },
    /// No, with a sentence for the customer.
    Refuse {
        /// Why, and what to do.
        reason: String,
    },
}

/// What is counted, and in which unit per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Meter {
    /// Processor time of a running server, in MHz.
    Cpu,
    /// Memory of a running server, in MiB.
    Memory,
    /// Size of a drive, in bytes.
    Drive,
    /// Size of a snapshot, which is its drive's when it was taken, in bytes.
    Snapshot,
    /// A static IP, whether a server uses it or not; one each.
    Ip,
    /// A VLAN, whether a server uses it or not; one each.
    Vlan,
}

impl Meter {
    /// The word in databases and on wires.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Drive => "drive",
            Self::Snapshot => "snapshot",
            Self::Ip => "ip",
            Self::Vlan => "vlan",
        }
    }
}

/// The permanent id of one usage interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UsageId(pub i64);

/// One half-open interval [from, to) in which a quantity was used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Names the interval for good.
    pub id: UsageId,
    /// Who used it.
    pub account: AccountId,
    /// The UUID of the drive, snapshot, server or VLAN, or the static IP.
    pub resource: String,
    /// What was used.
    pub meter: Meter,
    /// How much of it, in the meter's unit.
    pub quantity: u64,
    /// When it began.
    pub from: Timestamp,
    /// When it ended; `None` while it goes on.
    pub to: Option<Timestamp>,
    /// The change that opened it.
    pub change: Option<ChangeId>,
}

/// Up to where usage was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// The items taken; anything delivered and not named here is delivered again.
    pub taken: Vec<UsageId>,
}

/// A half-open period [from, to).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// Its first instant.
    pub from: Timestamp,
    /// The first instant after it.
    pub to: Timestamp,
}

/// What an account used in a period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Whose.
    pub account: AccountId,
    /// When.
    pub period: Period,
    /// One line a meter, ordered by meter.
    pub lines: Vec<Line>,
}

/// The sum over one meter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// Which meter.
    pub meter: Meter,
    /// Σ quantity × microseconds, exact.
    pub quantity_micros: u128,
}
