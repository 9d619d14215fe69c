//! The counters that put an order on intent, access and life: [`Generation`], [`Epoch`], [`Run`].
//!
//! Each only ever grows. What carries a smaller one is old and is refused or ignored.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A life of the control plane's database. Restoring a backup begins a new era, so that every
/// document written after the restore is newer than any written before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Era(pub u32);

/// The version of an object's desired document, ordered by era first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Generation {
    /// The era it was written in.
    pub era: Era,
    /// Counts the changes of one object, from 1.
    pub number: u64,
}

impl Generation {
    /// Generation `number` of `era`.
    #[must_use]
    pub const fn new(era: Era, number: u64) -> Self {
        Self { era, number }
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.era.0, self.number)
    }
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The one after this.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter! {
    /// The right of access that one claim gives to one drive. A higher epoch fences every lower one.
    /// 0 means that nobody ever had access.
    Epoch
}

counter! {
    /// Counts the starts of one server. A run ends once; only a newer one starts the server again.
    /// 0 means that it never ran.
    Run
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_era_outranks_every_number_of_the_old_one() {
        assert!(Generation::new(Era(2), 1) > Generation::new(Era(1), u64::MAX));
        assert!(Generation::new(Era(1), 2) > Generation::new(Era(1), 1));
    }
}
