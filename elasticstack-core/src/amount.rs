//! Amounts as people write them: `2GHz`, `1GiB`, `10G`. Owns the units and their words; the numbers
//! come out as the API takes them. Only whole results are taken: `1.5GHz` is 1500 MHz, `1.0001GHz`
//! is an error, and nothing is rounded.

use crate::units::{Bytes, MebiBytes, MegaHertz};

/// Text that is not an amount of what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidAmount {
    /// No processor time.
    #[error("give whole megahertz, such as 2000, 2000MHz or 2GHz")]
    Cpu,
    /// No memory.
    #[error("give whole mebibytes, such as 1024, 1024MiB or 1GiB")]
    Memory,
    /// No size.
    #[error("give whole bytes, such as 12582912, 512MiB or 10GiB")]
    Size,
}

/// Reads processor time: `2000`, `2000MHz` or `2GHz`.
///
/// # Errors
/// What is taken instead.
pub fn cpu(text: &str) -> Result<MegaHertz, InvalidAmount> {
    whole(text, &[("mhz", 1), ("ghz", 1_000), ("", 1)])
        .and_then(|mhz| u32::try_from(mhz).ok())
        .map(MegaHertz)
        .ok_or(InvalidAmount::Cpu)
}

/// Reads memory: `1024`, `1024MiB` or `1GiB`.
///
/// # Errors
/// What is taken instead.
pub fn memory(text: &str) -> Result<MebiBytes, InvalidAmount> {
    whole(text, &[("mib", 1), ("gib", 1 << 10), ("m", 1), ("g", 1 << 10), ("", 1)])
        .and_then(|mib| u32::try_from(mib).ok())
        .map(MebiBytes)
        .ok_or(InvalidAmount::Memory)
}

/// Reads a size in bytes: `12582912`, `512MiB`, `10GiB`, `2TiB`, or the API's own `10G`.
///
/// # Errors
/// What is taken instead.
pub fn size(text: &str) -> Result<Bytes, InvalidAmount> {
    const UNITS: &[(&str, u64)] = &[
        ("kib", 1 << 10),
        ("mib", 1 << 20),
        ("gib", 1 << 30),
        ("tib", 1 << 40),
        ("k", 1 << 10),
        ("m", 1 << 20),
        ("g", 1 << 30),
        ("t", 1 << 40),
        ("", 1),
    ];
    whole(text, UNITS).and_then(|bytes| Bytes::try_from(bytes).ok()).ok_or(InvalidAmount::Size)
}

/// `bytes` with one decimal in a unit that leaves it short, such as `1.5 GiB`; for people, so it
/// is rounded down.
#[must_use]
pub fn shown(bytes: Bytes) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.into_iter().find(|(shift, _)| bytes.get() >> shift > 0) {
        None => format!("{} B", bytes.get()),
        Some((shift, unit)) => {
            let (whole, rest) = (bytes.get() >> shift, bytes.get() & ((1 << shift) - 1));
            match (rest * 10) >> shift {
                0 => format!("{whole} {unit}"),
                tenth => format!("{whole}.{tenth} {unit}"),
            }
        }
    }
}

/// The number in `text` times its unit, the first that `text` ends with; `None` if that is not
/// whole or too much.
fn whole(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let (number, factor) =
        units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))?;
    let (integer, fraction) = number.trim_end().split_once('.').unwrap_or((number.trim_end(), "0"));
    let integer = digits(integer)?.checked_mul(factor)?;
    let scale = 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let fraction = digits(fraction)?.checked_mul(factor)?;
    if fraction % scale == 0 { integer.checked_add(fraction / scale) } else { None }
}

fn digits(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_are_taken_in_the_units_people_write() {
        for text in ["2GHz", "2000MHz", "2000", "2.0ghz", "2 GHz", " 2000 mhz "] {
            assert_eq!(cpu(text), Ok(MegaHertz(2000)), "{text}");
        }
        assert_eq!(cpu("1.5GHz"), Ok(MegaHertz(1500)));
        for text in ["1GiB", "1024MiB", "1024", "1g", "1024M"] {
            assert_eq!(memory(text), Ok(MebiBytes(1024)), "{text}");
        }
        for text in ["10GiB", "10G", "10240MiB", "10737418240"] {
            assert_eq!(size(text), Ok(Bytes::from_gib(10)), "{text}");
        }
    }

    #[test]
    fn what_is_no_whole_amount_is_refused() {
        for text in ["", "GHz", "-1", "+1", "1.0001GHz", "2GiB", "1e3", "99999999GHz", "1.2.3", "."]
        {
            assert!(cpu(text).is_err(), "{text}");
        }
        for text in ["1GHz", "0.5MiB", "18446744073709551616"] {
            assert!(memory(text).is_err(), "{text}");
        }
        for text in ["8388608T", "1.5", "1GB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1 << 20, "1 MiB"),
            (3 << 29, "1.5 GiB"),
            ((1 << 30) - 1, "1023.9 MiB"),
            (i64::MAX.unsigned_abs(), "8388607.9 TiB"),
        ] {
            assert_eq!(shown(Bytes::try_from(bytes).unwrap()), text);
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_every_number_reads_back(text in ".{0,30}", number in 0..u32::MAX) {
            let _ = (cpu(&text), memory(&text), size(&text));
            prop_assert_eq!(memory(&format!("{number}MiB")), Ok(MebiBytes(number)));
        }
    }
}
