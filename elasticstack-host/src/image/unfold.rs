//! Reads images of two levels of tables, qcow2 and VMDK, from front to back of the disk that they
//! are of.
//!
//! We read them ourselves rather than by `qemu-img` in a jail: what comes out is a drive in any case
//! of which no part is somebody else's file, as this code opens none; an uploaded image lies on a
//! drive that is longer than it, where `qemu-img` looks for VMDK's footer in vain; it works on any
//! volume, with progress, and needs neither root nor a tool. It is safe Rust over pure parsers.
//!
//! Its limits are by construction. Memory: a piece of a table of each level, and one cluster, packed
//! and not, which makes 8 MiB. Output: the disk's size, which is at most the drive's. Work: each
//! cluster of the disk costs one entry and one cluster at most, whatever tables share or point at.

use std::sync::Arc;

use elasticstack_core::block::Volume;
use elasticstack_core::prelude::*;
use flate2::{Decompress, FlushDecompress, Status};

use super::layout::{Cluster, HEAD, ImageError, Layout};
use super::sparse::{PIECE, Progress, Writer, bytes, is_zero, length_of};
use super::{busy, qcow2, refused, vmdk};

/// How much of a table is read at a time.
const PART: u64 = 64 << 10;

/// The layout of a source that is to be qcow2.
pub(super) async fn qcow2_in(source: &Arc<dyn Volume>) -> Result<Layout> {
    let head = read(source, 0, length_of(HEAD).min(source.size().get())).await?;
    qcow2::parse(&head, source.size().get()).map_err(refused)
}

/// The layout of a source that is to be VMDK.
pub(super) async fn vmdk_in(source: &Arc<dyn Volume>) -> Result<Layout> {
    let size = source.size().get();
    let head = read(source, 0, length_of(HEAD).min(size)).await?;
    match vmdk::parse(&head, size).map_err(refused)? {
        vmdk::Header::Whole(layout) => Ok(layout),
        vmdk::Header::WithFooter => {
            let footer = last_sector(source).await?;
            vmdk::finish(&head, &footer, size).map_err(refused)
        }
    }
}

/// The last sector that is not of zeros: of a file with a footer, which ends in a sector of zeros, it
/// is the footer, also if the drive is longer than the file.
async fn last_sector(source: &Arc<dyn Volume>) -> Result<Vec<u8>> {
    let size = source.size().get();
    let (mut start, mut end) = (0, 0);
    while end < size
        && let Some((next, length)) = source.next_data(bytes(end)?).await?
    {
        start = next.get() / vmdk::SECTOR * vmdk::SECTOR;
        end = next.get().saturating_add(length.get().max(1));
    }
    end = end.next_multiple_of(vmdk::SECTOR).min(size);
    while end > start {
        let begin = end.saturating_sub(length_of(PIECE)).max(start) / vmdk::SECTOR * vmdk::SECTOR;
        let piece = read(source, begin, end - begin).await?;
        let sector = usize::try_from(vmdk::SECTOR).unwrap_or(PIECE);
        if let Some(found) = piece.chunks(sector).rev().find(|sector| !is_zero(sector)) {
            return Ok(found.to_vec());
        }
        end = begin;
    }
    Ok(Vec::new())
}

/// Writes the disk that a source of this layout is of.
pub(super) async fn unfold(
    source: &Arc<dyn Volume>,
    layout: Layout,
    writer: Writer<'_>,
    mut progress: Progress<'_>,
) -> Result<()> {
    let mut to = Unfolding { source, layout, writer, run: (0, 0) };
    let mut top = Table::new(source, layout.top, layout.tables(), layout.entry());
    let mut position = 0;
    for table in 0..layout.tables() {
        let rest = layout.size.saturating_sub(position);
        let Some(at) = layout.table(top.entry(table).await?).map_err(refused)? else {
            to.skip(layout.span().min(rest)).await?;
            position = position.saturating_add(layout.span());
            progress.at(position, layout.size);
            continue;
        };
        let mut clusters = Table::new(source, at, layout.per_table, layout.entry());
        for cluster in 0..layout.per_table.min(rest.div_ceil(layout.cluster)) {
            let length = layout.cluster.min(layout.size.saturating_sub(position));
            let entry = clusters.entry(cluster).await?;
            match layout.cluster(entry, length).map_err(refused)? {
                Cluster::Zeros => to.skip(length).await?,
                Cluster::At(at) => to.copy(at, length).await?,
                Cluster::Deflate { at, length: packed } => {
                    to.unpack(at, packed, length, Packing::Deflate).await?;
                }
                Cluster::Grain(at) => to.unpack_grain(at, position, length).await?,
            }
            position = position.saturating_add(length);
            progress.at(position, layout.size);
        }
    }
    to.end_run().await
}

/// How a cluster is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    /// RFC 1951; what follows its end does not matter.
    Deflate,
    /// RFC 1950, with a checksum.
    Zlib,
}

struct Unfolding<'a> {
    source: &'a Arc<dyn Volume>,
    layout: Layout,
    writer: Writer<'a>,
    /// Where clusters begin that follow each other in the source too, and how long they are
    /// together: they are read at once.
    run: (u64, u64),
}

impl Unfolding<'_> {
    async fn skip(&mut self, length: u64) -> Result<()> {
        self.end_run().await?;
        self.writer.skip(length);
        Ok(())
    }

    async fn copy(&mut self, at: u64, length: u64) -> Result<()> {
        let (start, run) = self.run;
        if run == 0 || start.saturating_add(run) != at || run >= length_of(PIECE) {
            self.end_run().await?;
            self.run = (at, length);
        } else {
            self.run.1 = run.saturating_add(length);
        }
        Ok(())
    }

    async fn end_run(&mut self) -> Result<()> {
        let (mut at, mut left) = std::mem::take(&mut self.run);
        while left > 0 {
            let length = left.min(length_of(PIECE));
            let data = read(self.source, at, length).await?;
            self.writer.write(data.into()).await?;
            at = at.saturating_add(length);
            left = left.saturating_sub(length);
        }
        Ok(())
    }

    async fn unpack_grain(&mut self, at: u64, position: u64, length: u64) -> Result<()> {
        let mut marker = [0; 12];
        self.source.read_at(bytes(at)?, &mut marker).await?;
        let packed = vmdk::marked(marker, position, self.layout.cluster).map_err(refused)?;
        let at = at.saturating_add(vmdk::MARKER);
        let at = self.layout.inside("a grain", at, packed).map_err(refused)?;
        self.unpack(at, packed, length, Packing::Zlib).await
    }

    async fn unpack(&mut self, at: u64, packed: u64, length: u64, packing: Packing) -> Result<()> {
        self.end_run().await?;
        let packed = read(self.source, at, packed).await?;
        let room = size_of(self.layout.cluster)?;
        let mut cluster = busy(move || inflate(&packed, room, packing)).await?;
        let format = self.layout.format();
        let what = "a packed cluster does not unpack to one";
        let damaged = || refused(ImageError::Damaged { format, what });
        let length = size_of(length)?;
        let cluster = cluster.as_mut().filter(|data| data.len() >= length).ok_or_else(damaged)?;
        for piece in cluster.get(..length).unwrap_or_default().chunks(PIECE) {
            self.writer.write(piece.to_vec().into()).await?;
        }
        Ok(())
    }
}

/// What these bytes unpack to; `None` if they can't be unpacked or it is more than `room`.
fn inflate(packed: &[u8], room: usize, packing: Packing) -> Option<Vec<u8>> {
    let mut inflate = Decompress::new(packing == Packing::Zlib);
    let mut plain = vec![0; room];
    let total = |total: u64| usize::try_from(total).ok();
    loop {
        let before = (total(inflate.total_in())?, total(inflate.total_out())?);
        let (input, output) = (packed.get(before.0..)?, plain.get_mut(before.1..)?);
        let status = inflate.decompress(input, output, FlushDecompress::None).ok()?;
        let after = (total(inflate.total_in())?, total(inflate.total_out())?);
        let ended = status == Status::StreamEnd;
        if ended || (packing == Packing::Deflate && after.1 == room) {
            plain.truncate(after.1);
            return Some(plain);
        }
        if after == before {
            return None;
        }
    }
}

/// A table, read a part at a time.
struct Table<'a> {
    source: &'a Arc<dyn Volume>,
    at: u64,
    /// In bytes.
    length: u64,
    entry: u64,
    /// From here on in the table …
    start: u64,
    /// … these bytes of it.
    part: Vec<u8>,
}

impl<'a> Table<'a> {
    fn new(source: &'a Arc<dyn Volume>, at: u64, entries: u64, entry: u64) -> Self {
        let length = entries.saturating_mul(entry);
        Self { source, at, length, entry, start: 0, part: Vec::new() }
    }

    /// The bytes of an entry. They are asked for in order.
    async fn entry(&mut self, index: u64) -> Result<&[u8]> {
        let offset = index.saturating_mul(self.entry);
        if offset >= self.start.saturating_add(length_of(self.part.len())) {
            let length = PART.min(self.length.saturating_sub(offset));
            self.part = read(self.source, self.at.saturating_add(offset), length).await?;
            self.start = offset;
        }
        let here = size_of(offset.saturating_sub(self.start))?;
        Ok(self.part.get(here..).unwrap_or_default())
    }
}

async fn read(source: &Arc<dyn Volume>, at: u64, length: u64) -> Result<Vec<u8>> {
    let mut buffer = vec![0; size_of(length)?];
    source.read_at(bytes(at)?, &mut buffer).await?;
    Ok(buffer)
}

fn size_of(length: u64) -> Result<usize> {
    usize::try_from(length).map_err(|error| Error::internal("imaging").source(error))
}
