//! Amounts with their unit in the type: [`Bytes`], [`MebiBytes`], [`MegaHertz`], [`VcpuCount`].
//!
//! There are no operators: sums are `checked_add` or `saturating_sub`, so that every overflow is
//! somebody's decision.

use std::fmt;
use std::num::NonZeroU8;

use serde::{Deserialize, Serialize};

/// A number of bytes, at most [`i64::MAX`] so that every database can hold it.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(try_from = "u64", into = "u64")]
pub struct Bytes(u64);

/// A number of bytes above [`i64::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} bytes is more than the largest size, {max} bytes", max = i64::MAX)]
pub struct TooManyBytes(u64);

impl Bytes {
    /// None at all.
    pub const ZERO: Self = Self(0);

    /// `kib` × 2¹⁰ bytes.
    #[must_use]
    pub const fn from_kib(kib: u32) -> Self {
        Self((kib as u64) << 10)
    }

    /// `mib` × 2²⁰ bytes.
    #[must_use]
    pub const fn from_mib(mib: u32) -> Self {
        Self((mib as u64) << 20)
    }

    /// `gib` × 2³⁰ bytes.
    #[must_use]
    pub const fn from_gib(gib: u32) -> Self {
        Self((gib as u64) << 30)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number as databases store it.
    #[must_use]
    pub const fn to_i64(self) -> i64 {
        self.0.cast_signed()
    }

    /// The sum, if it is a size.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        Self::try_from(self.0.checked_add(other.0)?).ok()
    }

    /// The difference, zero if `other` is larger.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The next multiple of `unit` that is no smaller, if it is a size; `None` also for no unit.
    #[must_use]
    pub fn round_up_to(self, unit: Self) -> Option<Self> {
        Self::try_from(self.0.checked_next_multiple_of(unit.0)?).ok()
    }
}

impl TryFrom<u64> for Bytes {
    type Error = TooManyBytes;

    fn try_from(bytes: u64) -> Result<Self, TooManyBytes> {
        if i64::try_from(bytes).is_ok() { Ok(Self(bytes)) } else { Err(TooManyBytes(bytes)) }
    }
}

impl From<Bytes> for u64 {
    fn from(bytes: Bytes) -> Self {
        bytes.0
    }
}

impl fmt::Display for Bytes {
    /// In the largest binary unit that is exact, such as `3 GiB` or `1023 bytes`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if self.0 != 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{} {unit}", self.0 >> shift);
            }
        }
        write!(f, "{} bytes", self.0)
    }
}

/// An amount of memory in units of 2²⁰ bytes.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct MebiBytes(pub u32);

impl From<MebiBytes> for Bytes {
    fn from(memory: MebiBytes) -> Self {
        Self::from_mib(memory.0)
    }
}

impl fmt::Display for MebiBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0)
    }
}

/// An amount of processor time per second, a server's or a host's total. Never a core count.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct MegaHertz(pub u32);

impl fmt::Display for MegaHertz {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MHz", self.0)
    }
}

/// How many virtual CPUs a guest sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VcpuCount(pub NonZeroU8);

impl VcpuCount {
    /// The megahertz that one virtual CPU stands for when a server asks for `smp auto`.
    pub const MHZ_EACH: u32 = 2_500;

    /// The virtual CPUs of a server of `cpu` that leaves the choice to us: one per
    /// [`VcpuCount::MHZ_EACH`] begun.
    #[must_use]
    pub fn for_cpu(cpu: MegaHertz) -> Self {
        let count = u8::try_from(cpu.0.div_ceil(Self::MHZ_EACH)).unwrap_or(u8::MAX);
        Self(NonZeroU8::new(count).unwrap_or(NonZeroU8::MIN))
    }
}

impl fmt::Display for VcpuCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_print_in_the_largest_exact_unit() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1 KiB"),
            (4 << 20, "4 MiB"),
            (3 << 29, "1536 MiB"),
            (1 << 40, "1 TiB"),
        ] {
            assert_eq!(Bytes::try_from(bytes).unwrap().to_string(), text);
        }
    }

    #[test]
    fn smp_auto_gives_a_virtual_cpu_for_every_2500_mhz_begun() {
        for (mhz, count) in [(0, 1), (500, 1), (2_500, 1), (2_501, 2), (20_000, 8), (u32::MAX, 255)]
        {
            assert_eq!(VcpuCount::for_cpu(MegaHertz(mhz)).to_string(), count.to_string());
        }
    }

    proptest! {
        #[test]
        fn rounding_up_is_the_least_multiple_above(size in 0..=u64::MAX >> 1, mib in 1_u32..64) {
            let (size, unit) = (Bytes::try_from(size).unwrap(), Bytes::from_mib(mib));
            if let Some(rounded) = size.round_up_to(unit) {
                prop_assert!(rounded >= size && rounded.get() - size.get() < unit.get());
                prop_assert_eq!(rounded.get() % unit.get(), 0);
            }
        }
    }
}
