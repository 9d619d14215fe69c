//! Typed ids: a UUID that knows what it names, so that a drive's id cannot be passed for a server's.
//!
//! This module parses and prints ids; making new ones needs randomness and is done where ids are
//! given out. To add a kind, add one line to the list at the end, in alphabetical order.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// What an id names.
pub trait IdKind {
    /// The word used in messages, such as `drive`.
    const NAME: &'static str;
}

/// A UUID that names a `K`. Prints as lower-case 8-4-4-4-12.
pub struct TypedId<K> {
    uuid: Uuid,
    kind: PhantomData<fn() -> K>,
}

impl<K> TypedId<K> {
    /// The id with this UUID. There is no `From<Uuid>`, so that the kind is always written out.
    #[must_use]
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self { uuid, kind: PhantomData }
    }

    /// The UUID without its kind.
    #[must_use]
    pub const fn as_uuid(&self) -> &Uuid {
        &self.uuid
    }
}

impl<K> Clone for TypedId<K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for TypedId<K> {}

impl<K> PartialEq for TypedId<K> {
    fn eq(&self, other: &Self) -> bool {
        self.uuid == other.uuid
    }
}

impl<K> Eq for TypedId<K> {}

impl<K> PartialOrd for TypedId<K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K> Ord for TypedId<K> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.uuid.cmp(&other.uuid)
    }
}

impl<K> Hash for TypedId<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.uuid.hash(state);
    }
}

impl<K> fmt::Display for TypedId<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uuid.as_hyphenated().fmt(f)
    }
}

impl<K: IdKind> fmt::Debug for TypedId<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", K::NAME, self.uuid.as_hyphenated())
    }
}

/// Text that is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a {kind} is named by a UUID of 36 lower-case characters (8-4-4-4-12)")]
pub struct InvalidId {
    kind: &'static str,
}

impl<K: IdKind> FromStr for TypedId<K> {
    type Err = InvalidId;

    /// Accepts exactly what [`fmt::Display`] prints, so that one object has one name.
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = InvalidId { kind: K::NAME };
        let uuid = Uuid::try_parse(text).map_err(|_| invalid.clone())?;
        let mut canonical = Uuid::encode_buffer();
        if *text == *uuid.as_hyphenated().encode_lower(&mut canonical) {
            Ok(Self::from_uuid(uuid))
        } else {
            Err(invalid)
        }
    }
}

impl<K> Serialize for TypedId<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, K: IdKind> Deserialize<'de> for TypedId<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

macro_rules! typed_id {
    ($($(#[$doc:meta])* $kind:ident, $alias:ident, $name:literal;)*) => {$(
        #[doc = concat!("The kind of [`", stringify!($alias), "`].")]
        #[derive(Debug)]
        pub enum $kind {}

        impl IdKind for $kind {
            const NAME: &'static str = $name;
        }

        $(#[$doc])*
        pub type $alias = TypedId<$kind>;
    )*};
}

typed_id! {
    /// Names an account: who owns drives and servers, and who pays.
    AccountKind, AccountId, "account";
    /// Names an array: one independent set of disks of one host.
    ArrayKind, ArrayId, "array";
    /// Names one change asked for, so that a biller can recognise a repeated question.
    ChangeKind, ChangeId, "change";
    /// Names a drive.
    DriveKind, DriveId, "drive";
    /// Names a host.
    HostKind, HostId, "host";
    /// Names a job: one imaging of a drive.
    JobKind, JobId, "job";
    /// Names a pool: a range of addresses that static IPs are taken from.
    PoolKind, PoolId, "pool";
    /// Names a server.
    ServerKind, ServerId, "server";
    /// Names a snapshot: what a drive held at one instant.
    SnapshotKind, SnapshotId, "snapshot";
    /// Names a stray: what a host has and no intent knows.
    StrayKind, StrayId, "stray";
    /// Names a token: credentials of an account beside its key.
    TokenKind, TokenId, "token";
    /// Names a VLAN.
    VlanKind, VlanId, "vlan";
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_canonical_spelling_is_an_id() {
        let good = "5b0e3c52-0000-4000-8000-00000000d001";
        assert_eq!(good.parse::<DriveId>().unwrap().to_string(), good);
        for bad in [
            "",
            "5B0E3C52-0000-4000-8000-00000000D001",
            "5b0e3c520000400080000000 0000d001",
            "5b0e3c5200004000800000000000d001",
            "{5b0e3c52-0000-4000-8000-00000000d001}",
            "urn:uuid:5b0e3c52-0000-4000-8000-00000000d001",
            "../5b0e3c52-0000-4000-8000-00000000d0",
        ] {
            let refused = bad.parse::<DriveId>().unwrap_err().to_string();
            assert!(refused.contains("a drive is named by"), "{bad:?}: {refused}");
        }
    }

    proptest! {
        #[test]
        fn what_an_id_prints_it_parses(bits: u128) {
            let id = ServerId::from_uuid(Uuid::from_u128(bits));
            prop_assert_eq!(id.to_string().parse::<ServerId>(), Ok(id));
            let json = serde_json::to_string(&id).unwrap();
            prop_assert_eq!(serde_json::from_str::<ServerId>(&json).unwrap(), id);
        }

        #[test]
        fn no_text_panics_the_parser(text in ".*") {
            let _ = text.parse::<ServerId>();
        }
    }
}
