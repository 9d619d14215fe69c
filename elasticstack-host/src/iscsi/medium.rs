//! Commands on the blocks of a volume (SBC-3, section 5): how they read, write, compare and free
//! them.
//!
//! Each command tells how many bytes of data it means to transfer, which is not always how many the
//! initiator brings or takes.
//!
//! Nothing is cached: a command that writes answers once that is durable, so FUA and
//! SYNCHRONIZE CACHE have nothing to add. COMPARE AND WRITE and ORWRITE are atomic towards every
//! other write through the same target, by a turnstile that writers enter together and these alone.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use elasticstack_core::block::Volume;
use elasticstack_core::prelude::*;
use tokio::sync::RwLock;

use super::cdb::{CdbError, Compare, Extent, Same, unmap_descriptors};
use super::exchange::{Exchange, Stop};
use super::field::put;
use super::inquiry::{
    Geometry, LOGICAL_BLOCK, MAX_COMPARE_AND_WRITE, MAX_TRANSFER_BLOCKS, MAX_UNMAP_BLOCKS,
    MAX_UNMAP_DESCRIPTORS,
};
use super::sense::{Direction, Sense, Status};

/// The steps in which blocks are compared, in bytes. A command holds one beside its data, also when
/// the connection has no memory left.
pub(super) const STEP: u32 = 4 << 10;

/// The length of a logical block in memory.
const BLOCK: usize = 512;

/// The most descriptors in the answer to GET LBA STATUS.
const MAX_STATUS_DESCRIPTORS: u32 = 32;

/// The blocks of a target.
pub(super) struct Medium {
    volume: Arc<dyn Volume>,
    turnstile: RwLock<()>,
}

impl Medium {
    pub(super) fn new(volume: Arc<dyn Volume>) -> Self {
        Self { volume, turnstile: RwLock::default() }
    }

    pub(super) fn geometry(&self) -> Geometry {
        Geometry::of(self.volume.size(), self.volume.block_size())
    }

    /// READ.
    pub(super) async fn read(&self, x: &mut Exchange, extent: Extent) -> Result<u64, Stop> {
        let mut span = self.transfer(extent)?;
        let intended = span.length;
        span.length = intended.min(u64::from(x.still_takes()));
        while let Some((offset, length)) = span.next(x.piece()) {
            let mut buffer = x.buffer(length).await?;
            buffer.bytes.resize(length, 0);
            self.read_at(x, offset, &mut buffer.bytes).await?;
            x.send(buffer.freeze()).await?;
        }
        Ok(intended)
    }

    /// WRITE.
    pub(super) async fn write(&self, x: &mut Exchange, extent: Extent) -> Result<u64, Stop> {
        self.write_and_verify(x, extent, Compare::Nothing).await
    }

    /// WRITE AND VERIFY. With BYTCHK each piece is read back and compared. Of a block that the
    /// initiator brings in part, nothing is written.
    pub(super) async fn write_and_verify(
        &self,
        x: &mut Exchange,
        extent: Extent,
        compare: Compare,
    ) -> Result<u64, Stop> {
        if compare == Compare::OneBlock {
            return Err(Sense::INVALID_FIELD_IN_CDB.into());
        }
        let mut span = self.transfer(extent)?;
        let intended = span.length;
        let whole = x.brings() / LOGICAL_BLOCK * LOGICAL_BLOCK;
        span.length = intended.min(u64::from(whole));
        while span.length > 0 {
            let data = x.receive(span.most()).await?;
            let offset = span.advance(data.len())?;
            let _turn = self.turnstile.read().await;
            if span.length == 0 && compare == Compare::Nothing {
                self.write_through(x, offset, data).await?;
                return Ok(intended);
            }
            self.write_at(x, offset, data.clone()).await?;
            if compare == Compare::Blocks {
                self.compare(x, offset, &data, 0).await?;
            }
        }
        self.flush(x).await?;
        Ok(intended)
    }

    /// VERIFY.
    pub(super) async fn verify(
        &self,
        x: &mut Exchange,
        extent: Extent,
        compare: Compare,
    ) -> Result<u64, Stop> {
        let mut span = self.transfer(extent)?;
        let all = span.length;
        match compare {
            Compare::Nothing => {
                let mut step = BytesMut::zeroed(usize::try_from(STEP).unwrap_or(0));
                while let Some((offset, length)) = span.next(STEP) {
                    let (now, _) = step.split_at_mut(length);
                    self.read_at(x, offset, now).await?;
                }
                Ok(0)
            }
            Compare::Blocks => {
                span.length = all.min(u64::from(x.brings()));
                let mut compared = 0;
                while span.length > 0 {
                    let data = x.receive(span.most()).await?;
                    let offset = span.advance(data.len())?;
                    self.compare(x, offset, &data, compared).await?;
                    compared = compared.saturating_add(data.len());
                }
                Ok(all)
            }
            Compare::OneBlock => {
                let block = self.one_block(x).await?;
                while let Some((offset, _)) = span.next(LOGICAL_BLOCK) {
                    self.compare(x, offset, &block, 0).await?;
                }
                Ok(u64::from(LOGICAL_BLOCK))
            }
        }
    }

    /// PRE-FETCH, which only says whether the blocks exist.
    pub(super) fn prefetch(&self, extent: Extent) -> Result<u64, Stop> {
        self.span(extent).map(|_| 0)
    }

    /// SYNCHRONIZE CACHE.
    pub(super) async fn synchronize(&self, x: &mut Exchange, extent: Extent) -> Result<u64, Stop> {
        self.span(extent)?;
        self.flush(x).await?;
        Ok(0)
    }

    /// UNMAP, with a parameter list of this length.
    pub(super) async fn unmap(&self, x: &mut Exchange, length: u32) -> Result<u64, Stop> {
        const HEADER: u32 = 8;
        const DESCRIPTOR: u32 = 16;
        if length == 0 {
            return Ok(0);
        }
        if length < HEADER {
            return Err(Sense::PARAMETER_LIST_LENGTH_ERROR.into());
        }
        let most = HEADER + DESCRIPTOR * MAX_UNMAP_DESCRIPTORS;
        let parameters = x.receive_all(length.min(most)).await?;
        let extents = match unmap_descriptors(&parameters.bytes) {
            Ok(extents) if length <= most => extents,
            Ok(_) | Err(CdbError::InvalidField | CdbError::InvalidOperationCode) => {
                return Err(Sense::INVALID_FIELD_IN_PARAMETER_LIST.into());
            }
        };
        drop(parameters);
        let blocks: u64 = extents.iter().map(|extent| u64::from(extent.blocks)).sum();
        if blocks > u64::from(MAX_UNMAP_BLOCKS) {
            return Err(Sense::INVALID_FIELD_IN_PARAMETER_LIST.into());
        }
        let spans: Result<Vec<_>, _> = extents.iter().map(|extent| self.span(*extent)).collect();
        for span in spans? {
            let _turn = self.turnstile.read().await;
            self.discard(x, span).await?;
        }
        self.flush(x).await?;
        Ok(u64::from(length))
    }

    /// WRITE SAME. With UNMAP, zeros are freed.
    pub(super) async fn write_same(
        &self,
        x: &mut Exchange,
        extent: Extent,
        same: Same,
    ) -> Result<u64, Stop> {
        if extent.blocks == 0 {
            return Err(Sense::INVALID_FIELD_IN_CDB.into());
        }
        let mut span = self.transfer(extent)?;
        let (block, intended) = if same.has_data {
            (self.one_block(x).await?, u64::from(LOGICAL_BLOCK))
        } else {
            (Bytes::from_static(&[0; BLOCK]), 0)
        };
        if same.unmap && block.iter().all(|byte| *byte == 0) {
            let _turn = self.turnstile.read().await;
            self.discard(x, span).await?;
        } else {
            let most = span.most().min(x.piece() / LOGICAL_BLOCK * LOGICAL_BLOCK);
            let mut buffer = x.buffer(usize::try_from(most).unwrap_or(usize::MAX)).await?;
            for _ in 0..most / LOGICAL_BLOCK {
                buffer.bytes.extend_from_slice(&block);
            }
            let pattern = buffer.freeze();
            while let Some((offset, length)) = span.next(most) {
                let _turn = self.turnstile.read().await;
                self.write_at(x, offset, pattern.slice(..length)).await?;
            }
        }
        self.flush(x).await?;
        Ok(intended)
    }

    /// COMPARE AND WRITE.
    pub(super) async fn compare_and_write(
        &self,
        x: &mut Exchange,
        extent: Extent,
    ) -> Result<u64, Stop> {
        if extent.blocks > u32::from(MAX_COMPARE_AND_WRITE) {
            return Err(Sense::INVALID_FIELD_IN_CDB.into());
        }
        let mut span = self.span(extent)?;
        let half = span.most();
        if x.brings() != half * 2 {
            return Err(Sense::INVALID_FIELD_IN_CDB.into());
        }
        if half == 0 {
            return Ok(0);
        }
        let mut expected = x.receive_all(half * 2).await?.freeze();
        let new = expected.split_off(expected.len() / 2);
        let offset = span.advance(new.len())?;
        let _turn = self.turnstile.write().await;
        self.compare(x, offset, &expected, 0).await?;
        self.write_at(x, offset, new).await?;
        self.flush(x).await?;
        Ok(u64::from(half) * 2)
    }

    /// ORWRITE.
    pub(super) async fn or_write(&self, x: &mut Exchange, extent: Extent) -> Result<u64, Stop> {
        let mut span = self.transfer(extent)?;
        let intended = span.length;
        let whole = x.brings() / LOGICAL_BLOCK * LOGICAL_BLOCK;
        span.length = intended.min(u64::from(whole));
        while span.length > 0 {
            let mut data = x.receive(span.most()).await?;
            while !data.is_empty() {
                let now = data.split_to(data.len().min(usize::try_from(STEP).unwrap_or(0)));
                let offset = span.advance(now.len())?;
                let mut old = BytesMut::zeroed(now.len());
                let _turn = self.turnstile.write().await;
                self.read_at(x, offset, &mut old).await?;
                for (bits, more) in old.iter_mut().zip(&now) {
                    *bits |= more;
                }
                self.write_at(x, offset, old.freeze()).await?;
            }
        }
        self.flush(x).await?;
        Ok(intended)
    }

    /// GET LBA STATUS: what may hold data is mapped, the rest is deallocated.
    pub(super) async fn lba_status(
        &self,
        x: &mut Exchange,
        lba: u64,
        allocation: u32,
    ) -> Result<Vec<u8>, Stop> {
        const MAPPED: u8 = 0;
        const DEALLOCATED: u8 = 1;
        let blocks = self.geometry().blocks;
        if lba >= blocks {
            return Err(Sense::LBA_OUT_OF_RANGE.into());
        }
        let wanted = (allocation.saturating_sub(8) / 16).clamp(1, MAX_STATUS_DESCRIPTORS);
        let unit = u64::from(LOGICAL_BLOCK);
        let mut ranges: Vec<(u64, u64, u8)> = Vec::new();
        let mut at = lba;
        while at < blocks && ranges.len() < usize::try_from(wanted).unwrap_or(1) {
            let from = size(at.saturating_mul(unit))?;
            x.check()?;
            let found = self.volume.next_data(from).await.map_err(failed(Direction::Read))?;
            let (start, end) = found.map_or((blocks, blocks), |(start, length)| {
                let end = start.get().saturating_add(length.get()).div_ceil(unit);
                ((start.get() / unit).max(at), end.min(blocks))
            });
            if start > at {
                ranges.push((at, start, DEALLOCATED));
            }
            if end > start {
                ranges.push((start, end, MAPPED));
            }
            at = end.max(start);
        }
        let mut answer = vec![0; 8];
        for (start, end, state) in ranges {
            let mut descriptor = [0; 16];
            let count = u32::try_from(end.saturating_sub(start)).unwrap_or(u32::MAX);
            put(&mut descriptor, 0, start.to_be_bytes());
            put(&mut descriptor, 8, count.to_be_bytes());
            put(&mut descriptor, 12, [state]);
            answer.extend(descriptor);
        }
        let length = u32::try_from(answer.len().saturating_sub(4)).unwrap_or(u32::MAX);
        put(&mut answer, 0, length.to_be_bytes());
        Ok(answer)
    }

    /// The one block of data that a command brings.
    async fn one_block(&self, x: &mut Exchange) -> Result<Bytes, Stop> {
        if x.brings() != LOGICAL_BLOCK {
            return Err(Sense::INVALID_FIELD_IN_CDB.into());
        }
        let block = x.receive_all(LOGICAL_BLOCK).await?;
        // Copied, so that it holds none of the connection's memory while more is asked for.
        Ok(Bytes::copy_from_slice(&block.bytes))
    }

    /// Compares what is at `offset` with `data`, which is this far into the command's data.
    async fn compare(
        &self,
        x: &mut Exchange,
        offset: u64,
        data: &[u8],
        into: usize,
    ) -> Result<(), Stop> {
        let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
        let mut span = Span { offset, length };
        let mut rest = data;
        let mut step = BytesMut::zeroed(data.len().min(usize::try_from(STEP).unwrap_or(0)));
        let mut compared = into;
        while let Some((offset, length)) = span.next(STEP) {
            let (now, _) = step.split_at_mut(length);
            self.read_at(x, offset, now).await?;
            let (expected, after) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            if let Some(at) = now.iter().zip(expected).position(|(is, should)| is != should) {
                return Err(Sense::miscompare(compared.saturating_add(at)).into());
            }
            rest = after;
            compared = compared.saturating_add(length);
        }
        Ok(())
    }

    async fn read_at(&self, x: &Exchange, offset: u64, into: &mut [u8]) -> Result<(), Stop> {
        x.check()?;
        let read = self.volume.read_at(size(offset)?, into).await;
        read.map_err(failed(Direction::Read))
    }

    async fn write_at(&self, x: &Exchange, offset: u64, data: Bytes) -> Result<(), Stop> {
        x.check()?;
        let written = self.volume.write_at(size(offset)?, data).await;
        written.map_err(failed(Direction::Write))
    }

    async fn write_through(&self, x: &Exchange, offset: u64, data: Bytes) -> Result<(), Stop> {
        x.check()?;
        let written = self.volume.write_through(size(offset)?, data).await;
        written.map_err(failed(Direction::Write))
    }

    async fn discard(&self, x: &Exchange, span: Span) -> Result<(), Stop> {
        x.check()?;
        let done = self.volume.discard(size(span.offset)?, size(span.length)?).await;
        done.map_err(failed(Direction::Write))
    }

    async fn flush(&self, x: &Exchange) -> Result<(), Stop> {
        x.check()?;
        self.volume.flush().await.map_err(failed(Direction::Write))
    }

    /// The bytes of blocks that are all read, written or compared.
    fn transfer(&self, extent: Extent) -> Result<Span, Stop> {
        let span = self.span(extent)?;
        if extent.blocks > MAX_TRANSFER_BLOCKS {
            return Err(Sense::INVALID_FIELD_IN_CDB.into());
        }
        Ok(span)
    }

    fn span(&self, extent: Extent) -> Result<Span, Stop> {
        let end = extent.lba.checked_add(u64::from(extent.blocks));
        if end.is_none_or(|end| end > self.geometry().blocks) {
            return Err(Sense::LBA_OUT_OF_RANGE.into());
        }
        // Blocks that exist are at offsets that do.
        let unit = u64::from(LOGICAL_BLOCK);
        let (offset, length) =
            (extent.lba.saturating_mul(unit), u64::from(extent.blocks).saturating_mul(unit));
        Ok(Span { offset, length })
    }
}

/// Bytes of the volume in a row, yet to be dealt with.
#[derive(Debug, Clone, Copy)]
struct Span {
    offset: u64,
    length: u64,
}

impl Span {
    /// The next bytes, at most `most` of them, as (offset, length).
    fn next(&mut self, most: u32) -> Option<(u64, usize)> {
        let length = usize::try_from(self.most().min(most)).ok().filter(|length| *length > 0)?;
        self.advance(length).ok().map(|offset| (offset, length))
    }

    /// How much is left, as far as a task's data can be long.
    fn most(&self) -> u32 {
        u32::try_from(self.length).unwrap_or(u32::MAX)
    }

    /// Passes over the next `length` bytes and tells where they begin. None at all is the end of
    /// what the initiator brings before what it announced.
    fn advance(&mut self, length: usize) -> Result<u64, Stop> {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        if length == 0 || length > self.length {
            return Err(Sense::INVALID_FIELD_IN_CDB.into());
        }
        let offset = self.offset;
        self.offset = self.offset.saturating_add(length);
        self.length = self.length.saturating_sub(length);
        Ok(offset)
    }
}

fn size(bytes: u64) -> Result<elasticstack_core::units::Bytes, Stop> {
    bytes.try_into().map_err(|_| Stop::from(Sense::LBA_OUT_OF_RANGE))
}

fn failed(direction: Direction) -> impl Fn(Error) -> Stop {
    move |error| {
        if error.kind() != ErrorKind::Fenced {
            tracing::warn!(error = %Chain(&error), ?direction, "a lent drive failed a command");
        }
        Stop::Status(Status::of_error(&error, direction))
    }
}
