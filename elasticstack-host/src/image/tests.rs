//! Imaging between drives of a real store.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Mutex;

use elasticstack_core::block::{Attachment, BlockStore as _, DriveSpec};
use flate2::read::GzDecoder;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::store::{ArrayCapacity, DirectoryArray, DirectoryStore, KnownArrays};

pub(crate) const MIB: usize = 1 << 20;

/// Two drives on one array.
pub(crate) struct Pair {
    pub(crate) source: Arc<dyn Volume>,
    pub(crate) target: Arc<dyn Volume>,
    _root: TempDir,
}

impl Pair {
    /// A source of `source` bytes that begins with `content`, and a target of `target` bytes full
    /// of something else.
    pub(crate) async fn new(source: usize, content: &[u8], target: usize) -> Self {
        let root = tempfile::tempdir().unwrap();
        let array = "a77a0000-0000-4000-8000-000000000001".parse().unwrap();
        let config = DirectoryArray {
            array,
            name: "md1".to_owned(),
            path: root.path().join("md1"),
            capacity: ArrayCapacity::Fixed(Bytes::from_gib(64)),
        };
        let known = KnownArrays::read(root.path()).unwrap();
        let store = DirectoryStore::open(known, vec![config]).unwrap();
        let mut volumes = Vec::new();
        for (id, size) in [
            ("5b0e3c52-0000-4000-8000-000000000001", source),
            ("5b0e3c52-0000-4000-8000-000000000002", target),
        ] {
            let drive = id.parse().unwrap();
            let spec = DriveSpec {
                drive,
                array,
                account: "acc00000-0000-4000-8000-000000000001".parse().unwrap(),
                size: size_of(size),
                generation: Generation::new(Era(1), 1),
            };
            store.create(&spec).await.unwrap();
            volumes.push(store.open(drive, Epoch(1)).await.unwrap());
        }
        let [source, target] = volumes.try_into().unwrap_or_else(|_| panic!("two volumes"));
        source.write_at(Bytes::ZERO, content.to_vec().into()).await.unwrap();
        let stale = vec![0xee; usize::try_from(target.size().get()).unwrap().min(16 * MIB)];
        target.write_at(Bytes::ZERO, stale.into()).await.unwrap();
        Self { source, target, _root: root }
    }

    pub(crate) async fn image(&self, conversion: Conversion) -> Result<()> {
        image(self.source.clone(), self.target.clone(), conversion, &|_| {}).await
    }

    /// The sentence of a job that failed. Nothing half done may be left by it.
    pub(crate) async fn failure(&self, conversion: Conversion) -> String {
        let error = self.image(conversion).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::JobFailed, "{error:?}");
        let wiped = self.result().await.iter().all(|byte| *byte == 0);
        assert!(wiped || self.is_untouched().await, "{error}: half an image is left");
        error.to_string()
    }

    pub(crate) async fn result(&self) -> Vec<u8> {
        let mut bytes = vec![1; usize::try_from(self.target.size().get()).unwrap()];
        self.target.read_at(Bytes::ZERO, &mut bytes).await.unwrap();
        bytes
    }

    /// Whether the target still holds what it held at first.
    pub(crate) async fn is_untouched(&self) -> bool {
        self.result().await.iter().all(|byte| *byte == 0xee)
    }

    /// How much space the target occupies.
    pub(crate) fn occupied(&self) -> u64 {
        let Some(Attachment::File(path)) = self.target.attachment() else { panic!("no file") };
        std::fs::metadata(path).unwrap().blocks() * 512
    }
}

fn size_of(size: usize) -> Bytes {
    Bytes::try_from(u64::try_from(size).unwrap()).unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Bytes that don't compress, always the same.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
    .take(length)
    .collect()
}

/// `bytes`, then zeros up to `length`.
pub(crate) fn padded(bytes: &[u8], length: usize) -> Vec<u8> {
    let mut padded = bytes.to_vec();
    padded.resize(length, 0);
    padded
}

#[tokio::test]
async fn a_copy_is_the_source_then_zeros_and_takes_no_space_for_them() {
    let content = [noise(10_000), vec![0; 2 * MIB], noise(5000)].concat();
    let pair = Pair::new(4 * MIB, &content, 6 * MIB).await;
    pair.image(Conversion::None).await.unwrap();
    assert!(pair.result().await == padded(&content, 6 * MIB));
    assert!(pair.occupied() < 100_000, "{}", pair.occupied());
}

#[tokio::test]
async fn a_larger_source_fits_if_only_zeros_are_cut_off() {
    let content = padded(&noise(MIB), 3 * MIB);
    let pair = Pair::new(3 * MIB, &content, 3 * MIB / 2).await;
    pair.image(Conversion::None).await.unwrap();
    assert!(pair.result().await == content[..3 * MIB / 2]);

    let pair = Pair::new(3 * MIB, &noise(2 * MIB), MIB).await;
    let said = pair.failure(Conversion::None).await;
    assert_eq!(
        said,
        "the source has 3 MiB and holds data beyond the drive's 1 MiB: make a drive of 3 MiB"
    );
    assert!(pair.is_untouched().await);
}

#[tokio::test]
async fn gzip_is_unpacked_whatever_its_members_and_its_padding() {
    let image = [noise(MIB + 4097), vec![0; 5 * MIB], noise(77)].concat();
    let packed = [gzip(&image[..MIB]), gzip(&image[MIB..])].concat();
    let pair = Pair::new(4 * MIB, &packed, 8 * MIB).await;
    pair.image(Conversion::Gunzip).await.unwrap();
    assert!(pair.result().await == padded(&image, 8 * MIB));
    assert!(pair.occupied() < 2 * 1024 * 1024, "{}", pair.occupied());
}

#[tokio::test]
async fn an_image_of_exactly_the_drives_size_fits_and_one_byte_more_does_not() {
    for more in [0, 1] {
        let packed = gzip(&vec![7; 2 * MIB + more]);
        let pair = Pair::new(MIB, &packed, 2 * MIB).await;
        if more == 0 {
            pair.image(Conversion::Gunzip).await.unwrap();
            assert!(pair.result().await == vec![7; 2 * MIB]);
        } else {
            let said = pair.failure(Conversion::Gunzip).await;
            let expected = "the image unpacks to more than the drive's 2 MiB: make a larger drive";
            assert_eq!(said, expected);
        }
    }
}

#[tokio::test]
async fn a_gzip_bomb_stops_at_the_drives_end() {
    // What follows the first member is damaged; that would be the error if it were reached.
    let mut bomb = gzip(&vec![0; 64 * MIB]);
    bomb.extend([0x1f, 0x8b, 0xff]);
    let pair = Pair::new(MIB, &bomb, 4 * MIB).await;
    let said = pair.failure(Conversion::Gunzip).await;
    assert_eq!(said, "the image unpacks to more than the drive's 4 MiB: make a larger drive");
}

#[tokio::test]
async fn what_is_no_whole_gzip_is_told_in_a_sentence() {
    let good = gzip(&noise(100_000));
    let mut corrupt = good.clone();
    corrupt[50_000..50_100].fill(0xff);
    let cut = padded(&good[..60_000], MIB);
    let mut wrong_sum = good.clone();
    let sum = wrong_sum.len() - 8;
    wrong_sum[sum] ^= 1;
    for (content, size, expected) in [
        (b"QFI\xfb".to_vec(), MIB, "the source is not gzip: it does not begin with"),
        (vec![], MIB, "the source is not gzip"),
        (vec![0x1f], 1, "the source is not gzip"),
        (corrupt, MIB, "the gzip data is "),
        (cut, MIB, "the gzip data is "),
        (
            good[..60_000].to_vec(),
            60_000,
            "the gzip data is cut off: it ends in the middle, at byte",
        ),
        (wrong_sum, MIB, "the checksum of the bytes up to 100000 of the image is wrong"),
        ([good.clone(), b"rest".to_vec()].concat(), MIB, "follow bytes that are not gzip"),
        (
            [padded(&good, MIB), b"rest".to_vec()].concat(),
            2 * MIB,
            "follow bytes that are not gzip",
        ),
    ] {
        let pair = Pair::new(size, &content, MIB).await;
        let said = pair.failure(Conversion::Gunzip).await;
        assert!(said.contains(expected), "{said:?} instead of {expected:?}");
        assert_eq!(pair.is_untouched().await, said.starts_with("the source is not gzip"));
    }
}

#[tokio::test]
async fn packing_fits_or_fails_and_unpacks_to_the_whole_source() {
    let content = [noise(100_000), vec![0; MIB], noise(5)].concat();
    let pair = Pair::new(3 * MIB, &content, MIB).await;
    pair.image(Conversion::Gzip).await.unwrap();
    let mut unpacked = Vec::new();
    GzDecoder::new(pair.result().await.as_slice()).read_to_end(&mut unpacked).unwrap();
    assert!(unpacked == padded(&content, 3 * MIB));

    let pair = Pair::new(3 * MIB, &noise(3 * MIB), 2 * MIB).await;
    let said = pair.failure(Conversion::Gzip).await;
    assert_eq!(said, "the image packs to more than the drive's 2 MiB: make a larger drive");
}

#[tokio::test]
async fn progress_is_told_on_change_and_ends_at_a_hundred() {
    for (conversion, content) in [
        (Conversion::None, noise(4 * MIB)),
        (Conversion::Gzip, vec![]),
        (Conversion::Gunzip, gzip(&noise(3 * MIB))),
    ] {
        let pair = Pair::new(200 * MIB, &content, 16 * MIB).await;
        let told = Mutex::new(Vec::new());
        let progress = |hundredths| told.lock().unwrap().push(hundredths);
        image(pair.source.clone(), pair.target.clone(), conversion, &progress).await.unwrap();
        let told = told.into_inner().unwrap();
        assert!(told.len() > 2 && told.is_sorted_by(|a, b| a < b), "{told:?}");
        assert_eq!(told.last(), Some(&100));
    }
}

#[tokio::test]
async fn holes_of_an_enormous_source_are_not_read() {
    let pair = Pair::new(1 << 35, b"beginning", 4 * MIB).await;
    pair.image(Conversion::None).await.unwrap();
    assert!(pair.result().await == padded(b"beginning", 4 * MIB));
    let pair = Pair::new(1 << 35, &gzip(b"beginning"), 4 * MIB).await;
    pair.image(Conversion::Gunzip).await.unwrap();
    assert!(pair.result().await == padded(b"beginning", 4 * MIB));
}

#[tokio::test]
async fn a_fenced_target_ends_the_job_as_what_it_is() {
    let root = tempfile::tempdir().unwrap();
    let array = "a77a0000-0000-4000-8000-000000000001".parse().unwrap();
    let capacity = ArrayCapacity::Fixed(Bytes::from_mib(8));
    let path = root.path().join("md1");
    let config = DirectoryArray { array, name: "md1".to_owned(), path, capacity };
    let known = KnownArrays::read(root.path()).unwrap();
    let store = DirectoryStore::open(known, vec![config]).unwrap();
    let drive = "5b0e3c52-0000-4000-8000-000000000001".parse().unwrap();
    let account = "acc00000-0000-4000-8000-000000000001".parse().unwrap();
    let generation = Generation::new(Era(1), 1);
    let size = Bytes::from_mib(1);
    store.create(&DriveSpec { drive, array, account, size, generation }).await.unwrap();
    let volume = store.open(drive, Epoch(1)).await.unwrap();
    store.fence(drive, Epoch(2)).await.unwrap();
    let job = async move { image(volume.clone(), volume, Conversion::Gzip, &|_| {}).await };
    let error = tokio::spawn(job).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn packing_and_unpacking_gives_the_image_back(
        parts in proptest::collection::vec((0..400_000_usize, any::<bool>()), 0..8),
    ) {
        let parts = parts.into_iter().map(|(length, zeros)| {
            if zeros { vec![0; length] } else { noise(length) }
        });
        let content = parts.collect::<Vec<_>>().concat();
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let packed = Pair::new(4 * MIB, &content, 5 * MIB).await;
            packed.image(Conversion::Gzip).await.unwrap();
            let again = Pair::new(5 * MIB, &packed.result().await, 4 * MIB).await;
            again.image(Conversion::Gunzip).await.unwrap();
            assert!(again.result().await == padded(&content, 4 * MIB));
        });
    }
}
