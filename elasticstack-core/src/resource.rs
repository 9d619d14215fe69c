//! Resources: static IPs and VLANs, and how each is named. The public API calls nothing else a
//! resource; drives and servers are their own objects.

use std::fmt;
use std::net::Ipv4Addr;

use crate::biller::{ChangeKind, Meter};
use crate::id::VlanId;

/// What a resource is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ResourceKind {
    /// A static IP: one server at a time may use it.
    Ip,
    /// A VLAN: servers of its owner share it.
    Vlan,
}

impl ResourceKind {
    /// The word for it, on wires and in databases.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Vlan => "vlan",
        }
    }

    /// The kind of this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Ip, Self::Vlan].into_iter().find(|kind| kind.as_str() == word)
    }

    /// What one of it is metered by, from its making to its end.
    #[must_use]
    pub const fn meter(self) -> Meter {
        match self {
            Self::Ip => Meter::Ip,
            Self::Vlan => Meter::Vlan,
        }
    }

    /// The change that making one is.
    #[must_use]
    pub const fn making(self) -> ChangeKind {
        match self {
            Self::Ip => ChangeKind::TakeIp,
            Self::Vlan => ChangeKind::MakeVlan,
        }
    }
}

/// A resource by its name: an address names itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ResourceId {
    /// A static IP.
    Ip(Ipv4Addr),
    /// A VLAN.
    Vlan(VlanId),
}

impl ResourceId {
    /// The resource of this kind and name, if the name is spelled as one.
    #[must_use]
    pub fn parse(kind: ResourceKind, name: &str) -> Option<Self> {
        match kind {
            ResourceKind::Ip => name.parse().ok().map(Self::Ip),
            ResourceKind::Vlan => name.parse().ok().map(Self::Vlan),
        }
    }

    /// The resource of this name, whose spelling tells its kind.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        [ResourceKind::Ip, ResourceKind::Vlan].into_iter().find_map(|kind| Self::parse(kind, name))
    }

    /// What it is.
    #[must_use]
    pub const fn kind(self) -> ResourceKind {
        match self {
            Self::Ip(_) => ResourceKind::Ip,
            Self::Vlan(_) => ResourceKind::Vlan,
        }
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Vlan(vlan) => vlan.fmt(f),
        }
    }
}
