//! A volume as a qcow2 image (version 3), from front to back: it names no other file, and has nothing of
//! where the volume holds no data.
//!
//! ```text
//!  header │ table of tables │ table of counts │ counts │ tables │ the clusters that hold data
//! ```
//! Which clusters these are is asked first. So all is known before the first byte is told, the length
//! too, and nothing is kept anywhere but one bit a cluster. Whoever exports sees to it that nobody
//! writes meanwhile.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes as Data;
use elasticstack_core::block::Volume;
use elasticstack_core::prelude::*;

use super::sparse::{PIECE, bytes, length_of};

/// The shortest clusters, as `qemu-img` makes them, and the longest that there are; as bits.
const BITS: Range<u32> = 16..22;

/// The most clusters that a disk is cut into, where longer ones will do.
const CLUSTERS: u64 = 1 << 25;

/// Marks an entry whose cluster is used once, by it.
const USED_ONCE: u64 = 1 << 63;

/// An image that is read piece by piece.
pub struct Export {
    volume: Arc<dyn Volume>,
    plan: Plan,
    /// The next cluster of the file.
    at: u64,
    /// The first part of the table of tables that may have a table to be told.
    part: u64,
    /// How many tables the table of tables has told of.
    tables: u64,
    /// How many clusters the tables have told of.
    told: u64,
    /// The first cluster of the disk that may have data to be read.
    read: u64,
}

impl Export {
    /// Finds out what there is to be told of the volume.
    ///
    /// # Errors
    /// `NotOffered` for a volume that no image can be of; as the volume says.
    pub async fn of(volume: Arc<dyn Volume>) -> Result<Self> {
        let size = volume.size().get();
        let mut held = Held::none_of(size)?;
        let mut at = 0;
        while at < size
            && let Some((start, length)) = volume.next_data(bytes(at)?).await?
        {
            at = start.get().saturating_add(length.get()).max(at + 1);
            held.add(start.get()..at.min(size));
        }
        let plan = Plan::of(size, held);
        Ok(Self { volume, plan, at: 0, part: 0, tables: 0, told: 0, read: 0 })
    }

    /// The length of the image in bytes.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.plan.clusters << self.plan.held.bits
    }

    /// The next piece, of at most 2 MiB; `None` at the end.
    ///
    /// # Errors
    /// As the volume says.
    pub async fn next(&mut self) -> Result<Option<Data>> {
        if self.at >= self.plan.clusters {
            return Ok(None);
        }
        if self.at < self.plan.data() {
            let cluster = self.described();
            self.at += 1;
            return Ok(Some(cluster.into()));
        }
        let held = &self.plan.held;
        let Some(first) = (self.read..held.clusters()).find(|cluster| held.has(*cluster)) else {
            return Ok(None);
        };
        let most = (length_of(PIECE) >> held.bits).max(1);
        let run = (first..first + most).take_while(|cluster| held.has(*cluster)).count();
        let run = length_of(run);
        let (start, end) = (first << held.bits, (first + run) << held.bits);
        let within = end.min(self.plan.size) - start;
        let usize_of = |length: u64| usize::try_from(length).unwrap_or(PIECE);
        let mut piece = vec![0; usize_of(end - start)];
        let data = piece.get_mut(..usize_of(within)).unwrap_or_default();
        self.volume.read_at(bytes(start)?, data).await?;
        (self.read, self.at) = (first + run, self.at + run);
        Ok(Some(piece.into()))
    }

    /// The cluster of the file that is to be told now, which is none of the disk's.
    fn described(&mut self) -> Vec<u8> {
        let Plan { at, .. } = self.plan;
        let index = self.at;
        match at.iter().rposition(|start| *start <= index) {
            None | Some(0) => self.plan.header(),
            Some(1) => self.table_of_tables(index - at[1]),
            Some(2) => self.plan.table_of_counts(index - at[2]),
            Some(3) => self.plan.counts(index - at[3]),
            Some(_) => self.table(),
        }
    }

    fn table_of_tables(&mut self, nth: u64) -> Vec<u8> {
        let entries = self.plan.held.entries();
        let mut told = self.tables;
        let parts = (nth * entries)..((nth + 1) * entries);
        let cluster = self.plan.cluster(parts, |part| {
            self.plan.held.has_part(part).then(|| {
                told += 1;
                (self.plan.at[4] + told - 1) << self.plan.held.bits | USED_ONCE
            })
        });
        self.tables = told;
        cluster
    }

    fn table(&mut self) -> Vec<u8> {
        let held = &self.plan.held;
        let parts = held.clusters().div_ceil(held.entries());
        let part = (self.part..parts).find(|part| held.has_part(*part)).unwrap_or(parts);
        let mut told = self.told;
        let cluster = self.plan.cluster(held.part(part), |cluster| {
            held.has(cluster).then(|| {
                told += 1;
                (self.plan.data() + told - 1) << held.bits | USED_ONCE
            })
        });
        (self.part, self.told) = (part + 1, told);
        cluster
    }
}

impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Export").field("length", &self.length()).finish_non_exhaustive()
    }
}

/// Where everything lies in the file.
struct Plan {
    /// Of the disk, in bytes.
    size: u64,
    held: Held,
    /// The first cluster of the header, the table of tables, the table of counts, the counts, and the
    /// tables.
    at: [u64; 5],
    tables: u64,
    clusters: u64,
}

impl Plan {
    fn of(size: u64, held: Held) -> Self {
        let entries = held.entries();
        let parts = held.clusters().div_ceil(entries);
        let tables = (0..parts).map(|part| u64::from(held.has_part(part))).sum::<u64>();
        let data = (0..held.clusters()).map(|cluster| u64::from(held.has(cluster))).sum::<u64>();
        let tops = parts.div_ceil(entries).max(1);
        // The counts are counted too: a few more may be needed for themselves.
        let (mut counts, mut tops_of_counts) = (1, 1);
        let clusters = loop {
            let clusters = 1 + tops + tops_of_counts + counts + tables + data;
            // An entry has eight bytes, a count two.
            let needed = clusters.div_ceil(entries * 4);
            if needed <= counts && needed.div_ceil(entries) <= tops_of_counts {
                break clusters;
            }
            (counts, tops_of_counts) = (needed.max(counts), needed.div_ceil(entries));
        };
        let counted = 1 + tops + tops_of_counts;
        let at = [0, 1, 1 + tops, counted, counted + counts];
        Self { size, held, at, tables, clusters }
    }

    /// The first cluster of the file that is one of the disk's.
    const fn data(&self) -> u64 {
        self.at[4] + self.tables
    }

    fn header(&self) -> Vec<u8> {
        let Self { held, at, .. } = self;
        let place = |cluster: u64| (cluster << held.bits).to_be_bytes();
        let short = |number: u64| u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes();
        let parts = held.clusters().div_ceil(held.entries());
        let mut header = vec![0; 1 << held.bits];
        for (offset, field) in [
            (0, &b"QFI\xfb"[..]),
            (4, &short(3)),
            (20, &held.bits.to_be_bytes()),
            (24, &self.size.next_multiple_of(512).to_be_bytes()),
            (36, &short(parts)),
            (40, &place(at[1])),
            (48, &place(at[2])),
            (56, &short(at[3] - at[2])),
            // Counts have 2⁴ bits; the header ends behind this.
            (96, &short(4)),
            (100, &short(104)),
        ] {
            if let Some(place) = header.get_mut(offset..offset + field.len()) {
                place.copy_from_slice(field);
            }
        }
        header
    }

    fn table_of_counts(&self, nth: u64) -> Vec<u8> {
        let entries = self.held.entries();
        let (from, to) = (self.at[3], self.at[4]);
        self.cluster((nth * entries)..((nth + 1) * entries), |entry| {
            (from + entry < to).then_some((from + entry) << self.held.bits)
        })
    }

    /// Each cluster is used once, and there is none behind the last.
    fn counts(&self, nth: u64) -> Vec<u8> {
        let per = self.held.entries() * 4;
        let counted = (nth * per)..((nth + 1) * per);
        counted.flat_map(|cluster| u16::from(cluster < self.clusters).to_be_bytes()).collect()
    }

    /// A cluster of entries; what there is none of is 0.
    fn cluster(&self, of: Range<u64>, mut entry: impl FnMut(u64) -> Option<u64>) -> Vec<u8> {
        let mut cluster: Vec<u8> =
            of.flat_map(|index| entry(index).unwrap_or(0).to_be_bytes()).collect();
        cluster.resize(1 << self.held.bits, 0);
        cluster
    }
}

/// Which clusters of a disk hold data.
struct Held {
    /// Of a cluster's length.
    bits: u32,
    count: u64,
    words: Vec<u64>,
}

impl Held {
    fn none_of(size: u64) -> Result<Self> {
        let enough = |bits: &u32| size.div_ceil(1 << bits) <= CLUSTERS;
        let bits = BITS.into_iter().find(enough).ok_or_else(|| {
            let message = format!("a disk of {size} bytes is too large for an image of qcow2");
            Error::new(ErrorKind::NotOffered, message)
        })?;
        let count = size.div_ceil(1 << bits);
        let words = usize::try_from(count.div_ceil(64)).unwrap_or_default();
        Ok(Self { bits, count, words: vec![0; words] })
    }

    const fn clusters(&self) -> u64 {
        self.count
    }

    /// How many entries a cluster has room for.
    const fn entries(&self) -> u64 {
        (1 << self.bits) / 8
    }

    /// Notes data in this range of bytes.
    fn add(&mut self, range: Range<u64>) {
        for cluster in (range.start >> self.bits)..range.end.div_ceil(1 << self.bits) {
            let word = usize::try_from(cluster / 64).ok().and_then(|at| self.words.get_mut(at));
            if let Some(word) = word {
                *word |= 1 << (cluster % 64);
            }
        }
    }

    fn has(&self, cluster: u64) -> bool {
        let word = usize::try_from(cluster / 64).ok().and_then(|at| self.words.get(at));
        word.is_some_and(|word| word >> (cluster % 64) & 1 == 1)
    }

    /// The clusters that one table is of.
    fn part(&self, part: u64) -> Range<u64> {
        (part * self.entries())..((part + 1) * self.entries())
    }

    fn has_part(&self, part: u64) -> bool {
        // A table is of a whole number of words.
        let Range { start, end } = self.part(part);
        let within = |at: u64| usize::try_from(at / 64).unwrap_or(usize::MAX).min(self.words.len());
        let words = self.words.get(within(start)..within(end)).unwrap_or_default();
        words.iter().any(|word| *word != 0)
    }
}

#[cfg(test)]
mod tests {
    use elasticstack_core::wire::internal::Conversion;
    use proptest::prelude::*;

    use super::super::image;
    use super::super::tests::{MIB, Pair, noise};
    use super::*;

    async fn exported(volume: &Arc<dyn Volume>) -> Vec<u8> {
        let mut export = Export::of(Arc::clone(volume)).await.unwrap();
        let length = export.length();
        let mut file = Vec::new();
        while let Some(piece) = export.next().await.unwrap() {
            file.extend_from_slice(&piece);
        }
        assert_eq!(length_of(file.len()), length);
        file
    }

    /// What comes of a disk with data at these places, and how long its image is.
    async fn round_trip(size: usize, parts: &[(usize, usize)]) -> usize {
        let pair = Pair::new(size, b"", MIB).await;
        let mut disk = vec![0; size];
        for (at, length) in parts {
            let part = noise(*length);
            disk[*at..at + length].copy_from_slice(&part);
            pair.source.write_at(bytes(length_of(*at)).unwrap(), part.into()).await.unwrap();
        }
        let file = exported(&pair.source).await;
        let back = Pair::new(file.len(), &file, size).await;
        let target = Arc::clone(&back.target);
        image(Arc::clone(&back.source), target, Conversion::Qcow2, &|_| {}).await.unwrap();
        assert!(back.result().await == disk);
        file.len()
    }

    #[tokio::test]
    async fn what_is_exported_is_the_disk_and_holes_take_nothing() {
        let empty = round_trip(600 * MIB, &[]).await;
        assert_eq!(empty, 4 << 16, "a header, a table of tables, counts and their table");
        // In two of its tables, at both ends of the disk, and less than a cluster.
        let parts = [(0, 3 * MIB), (5 * MIB + 4096, 4096), (600 * MIB - 4096, 4096)];
        assert_eq!(round_trip(600 * MIB, &parts).await, empty + (2 << 16) + (50 << 16));
    }

    #[test]
    fn counts_count_themselves_and_long_disks_have_long_clusters() {
        for (size, bits) in [(1_u64 << 30, 16), (1 << 41, 16), ((1 << 41) + 1, 17), (1 << 46, 21)] {
            let held = Held::none_of(size).unwrap();
            assert_eq!(held.bits, bits);
            for full in [false, size <= 1 << 32] {
                let mut held = Held::none_of(size).unwrap();
                if full {
                    held.add(0..size);
                }
                let plan = Plan::of(size, held);
                let counted = (plan.at[4] - plan.at[3]) * plan.held.entries() * 4;
                assert!(counted >= plan.clusters && plan.data() <= plan.clusters);
            }
        }
        assert!(Held::none_of((1 << 46) + 1).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]
        #[test]
        fn whatever_a_drive_holds_is_in_its_image(
            places in proptest::collection::vec((0_usize..2_000, 1_usize..40), 0..12),
        ) {
            let parts: Vec<_> = places.iter().map(|(at, long)| (at * 4096, long * 4096)).collect();
            tokio::runtime::Runtime::new().unwrap().block_on(round_trip(8 * MIB, &parts));
        }
    }
}
