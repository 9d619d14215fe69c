//! Big-endian fields of headers, descriptors and parameter data. Bytes past the end read as zero
//! and are not written: whoever cares for the length checks it first.

/// The byte at `at`.
pub(super) fn u8_at(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

/// The two bytes from `at` on.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(array_at(bytes, at))
}

/// The three bytes from `at` on.
pub(super) fn u24_at(bytes: &[u8], at: usize) -> u32 {
    let [high, middle, low] = array_at(bytes, at);
    u32::from_be_bytes([0, high, middle, low])
}

/// The four bytes from `at` on.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array_at(bytes, at))
}

/// The eight bytes from `at` on.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(array_at(bytes, at))
}

/// The `N` bytes from `at` on.
pub(super) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    for (to, from) in array.iter_mut().zip(bytes.iter().skip(at)) {
        *to = *from;
    }
    array
}

/// Writes `value` from `at` on.
pub(super) fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    for (to, from) in bytes.iter_mut().skip(at).zip(value) {
        *to = from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_past_the_end_reads_as_zero_and_is_not_written() {
        let bytes = [1, 2, 3];
        assert_eq!((u8_at(&bytes, 2), u8_at(&bytes, 3)), (3, 0));
        assert_eq!((u16_at(&bytes, 1), u16_at(&bytes, 2)), (0x0203, 0x0300));
        assert_eq!((u24_at(&bytes, 0), u32_at(&bytes, 0)), (0x01_0203, 0x0102_0300));
        assert_eq!(u64_at(&bytes, usize::MAX), 0);
        let mut bytes = [0; 3];
        put(&mut bytes, 1, 0x0102_0304_u32.to_be_bytes());
        assert_eq!(bytes, [0, 1, 2]);
    }
}
