//! The bytes of one simulated drive: what lies on the medium, and what only the cache holds.
//!
//! Invariants: an absent block reads as zeros; a durable block is never all zeros; nothing but
//! [`Medium::flush`] and [`Medium::crash`] moves bytes from the cache to the medium. Ranges are
//! checked by the caller. Memory grows with the data, not with the drive's size.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::SimRng;

/// The unit in which a crash keeps or loses.
pub(super) const BLOCK: u64 = 4096;

type Block = Box<[u8]>;

#[derive(Debug, Clone, Default)]
pub(super) struct Medium {
    durable: BTreeMap<u64, Block>,
    cached: BTreeMap<u64, Block>,
}

/// A part of a range that lies within one block.
struct Piece {
    block: u64,
    start: usize,
    length: usize,
}

impl Medium {
    pub(super) fn read(&self, offset: u64, mut buffer: &mut [u8]) {
        for Piece { block, start, length } in pieces(offset, buffer.len() as u64) {
            let (head, rest) = buffer.split_at_mut(length);
            match self.block(block) {
                Some(bytes) => head.copy_from_slice(&bytes[start..start + length]),
                None => head.fill(0),
            }
            buffer = rest;
        }
    }

    pub(super) fn write(&mut self, offset: u64, mut data: &[u8]) {
        for Piece { block, start, length } in pieces(offset, data.len() as u64) {
            let (head, rest) = data.split_at(length);
            self.cache(block)[start..start + length].copy_from_slice(head);
            data = rest;
        }
    }

    /// Zeros a range, in time that grows with the data in it and not with its length.
    pub(super) fn discard(&mut self, offset: u64, length: u64) {
        let end = offset.saturating_add(length);
        let touched = offset / BLOCK..end.div_ceil(BLOCK);
        let mut blocks: Vec<u64> = self.durable.range(touched.clone()).map(|(n, _)| *n).collect();
        blocks.extend(self.cached.range(touched).map(|(n, _)| *n));
        for block in blocks {
            let first = block * BLOCK;
            let start = within(offset.max(first) - first);
            let stop = within(end.min(first + BLOCK) - first);
            self.cache(block)[start..stop].fill(0);
        }
    }

    /// The first block at or after `offset` that is not all zeros, as (start, end).
    pub(super) fn next_data(&self, offset: u64) -> Option<(u64, u64)> {
        let from = offset / BLOCK..;
        let durable = self.durable.range(from.clone());
        let mut blocks: Vec<u64> =
            durable.chain(self.cached.range(from)).map(|(n, _)| *n).collect();
        blocks.sort_unstable();
        let holds_data = |block: &u64| self.block(*block).is_some_and(|bytes| !is_zero(bytes));
        let block = blocks.into_iter().find(holds_data)?;
        Some((offset.max(block * BLOCK), (block + 1) * BLOCK))
    }

    pub(super) fn flush(&mut self) {
        for (block, bytes) in std::mem::take(&mut self.cached) {
            if is_zero(&bytes) {
                self.durable.remove(&block);
            } else {
                self.durable.insert(block, bytes);
            }
        }
    }

    /// What a power cut leaves: of the cached blocks, some.
    pub(super) fn crash(&mut self, rng: &mut SimRng) {
        self.cached.retain(|_, _| rng.one_in(2));
        self.flush();
    }

    fn block(&self, block: u64) -> Option<&[u8]> {
        self.cached.get(&block).or_else(|| self.durable.get(&block)).map(|bytes| &**bytes)
    }

    fn cache(&mut self, block: u64) -> &mut [u8] {
        match self.cached.entry(block) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let durable = self.durable.get(&block).cloned();
                entry.insert(durable.unwrap_or_else(|| vec![0; within(BLOCK)].into()))
            }
        }
    }
}

/// Whether a block is all zeros.
fn is_zero(block: &[u8]) -> bool {
    static ZEROS: [u8; 4096] = [0; 4096];
    ZEROS.starts_with(block)
}

fn pieces(offset: u64, length: u64) -> impl Iterator<Item = Piece> {
    let end = offset + length;
    let mut at = offset;
    std::iter::from_fn(move || {
        let stop = end.min((at / BLOCK + 1) * BLOCK);
        let piece = Piece {
            block: at / BLOCK,
            start: within(at % BLOCK),
            length: within(stop.checked_sub(at).filter(|length| *length > 0)?),
        };
        at = stop;
        Some(piece)
    })
}

/// An offset in a block as an index.
fn within(offset: u64) -> usize {
    usize::try_from(offset.min(BLOCK)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: u64 = 5 * BLOCK / 2;

    #[derive(Debug, Clone)]
    enum Op {
        Write(u64, Vec<u8>),
        Discard(u64, u64),
        Flush,
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let write = (0..SIZE, proptest::collection::vec(any::<u8>(), 0..6000));
        proptest::collection::vec(
            prop_oneof![
                write.prop_map(|(at, mut data)| {
                    data.truncate(usize::try_from(SIZE - at).unwrap());
                    Op::Write(at, data)
                }),
                (0..SIZE, 0..SIZE).prop_map(|(at, length)| Op::Discard(at, length.min(SIZE - at))),
                Just(Op::Flush),
            ],
            0..12,
        )
    }

    fn contents(medium: &Medium) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(SIZE).unwrap()];
        medium.read(0, &mut bytes);
        bytes
    }

    proptest! {
        #[test]
        fn a_medium_is_a_row_of_bytes_whose_flushed_part_survives(ops in ops(), seed: u64) {
            let mut medium = Medium::default();
            let mut model = vec![0; usize::try_from(SIZE).unwrap()];
            for op in ops {
                match op {
                    Op::Write(at, data) => {
                        medium.write(at, &data);
                        let at = usize::try_from(at).unwrap();
                        model[at..at + data.len()].copy_from_slice(&data);
                    }
                    Op::Discard(at, length) => {
                        medium.discard(at, length);
                        let at = usize::try_from(at).unwrap();
                        model[at..at + usize::try_from(length).unwrap()].fill(0);
                    }
                    Op::Flush => {
                        medium.flush();
                        medium.crash(&mut SimRng::new(seed));
                    }
                }
                prop_assert!(contents(&medium) == model);
            }
            let data = medium.next_data(0).map_or(SIZE, |(start, _)| start);
            let passed = &model[..usize::try_from(data.min(SIZE)).unwrap()];
            prop_assert!(passed.iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn a_crash_loses_unflushed_blocks_and_no_others() {
        let mut medium = Medium::default();
        let all = vec![1; 64 * usize::try_from(BLOCK).unwrap()];
        medium.write(0, &all);
        medium.flush();
        medium.write(64 * BLOCK, &all);
        medium.crash(&mut SimRng::new(1));
        let kept = (0..128).filter(|block| medium.block(*block).is_some()).count();
        assert!((65..128).contains(&kept), "{kept} of 128 blocks survived");
        assert!((0..64).all(|block| medium.block(block).is_some()));
    }

    #[test]
    fn discarding_a_huge_range_costs_what_lies_in_it() {
        let mut medium = Medium::default();
        medium.write(1 << 50, b"far away");
        medium.discard(0, 1 << 62);
        assert_eq!(medium.next_data(0), None);
    }
}
