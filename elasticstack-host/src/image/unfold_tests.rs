//! qcow2 and VMDK: what our own makers of images, and `qemu-img`, make of a disk comes back whole, and
//! what is not to be trusted is refused.

use std::path::Path;
use std::process::Command;

use flate2::write::{DeflateEncoder, ZlibEncoder};

use super::layout::Kind;
use super::tests::{MIB, Pair, noise, padded};
use super::*;

/// A qcow2 image of a disk, in clusters of 2 to the power of `bits` bytes; every second cluster is
/// packed if asked for, and those of zeros are left out.
fn qcow2(disk: &[u8], bits: u32, packs: bool) -> Vec<u8> {
    let cluster = 1_usize << bits;
    let per_table = cluster / 8;
    let clusters: Vec<_> = disk.chunks(cluster).collect();
    let tables = clusters.len().div_ceil(per_table);
    let mut image = vec![0; cluster + (tables * 8).next_multiple_of(cluster)];
    let put = |image: &mut Vec<u8>, at: usize, bytes: &[u8]| {
        image[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(&mut image, 0, b"QFI\xfb");
    for (at, number) in [(4, 3), (20, bits), (36, u32::try_from(tables).unwrap()), (100, 104)] {
        put(&mut image, at, &number.to_be_bytes());
    }
    put(&mut image, 24, &disk.len().to_be_bytes());
    put(&mut image, 40, &cluster.to_be_bytes());
    for (index, group) in clusters.chunks(per_table).enumerate() {
        let table = image.len();
        put(&mut image, cluster + index * 8, &(table as u64 | 1 << 63).to_be_bytes());
        image.resize(table + cluster, 0);
        for (entry, data) in group.iter().enumerate() {
            let at = image.len();
            let value = if is_zero(data) {
                (entry % 2) as u64
            } else if packs && entry % 2 == 0 {
                let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(&padded(data, cluster)).unwrap();
                image.extend(encoder.finish().unwrap());
                let sectors = (image.len() - 1) / 512 - at / 512;
                image.resize(image.len().next_multiple_of(cluster), 0);
                1 << 62 | (sectors as u64) << (62 - (bits - 8)) | at as u64
            } else {
                image.extend(padded(data, cluster));
                at as u64 | 1 << 63
            };
            put(&mut image, table + entry * 8, &value.to_be_bytes());
        }
    }
    image
}

/// How a VMDK image is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Sparse,
    Stream,
}

/// The descriptor of a disk of so many sectors.
fn descriptor(kind: &str, sectors: usize) -> String {
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=a1b2c3d4\nparentCID=ffffffff\ncreateType=\"{kind}\"\n\n\
         # Extent description\nRW {sectors} SPARSE \"a disk.vmdk\"\n\nddb.adapterType = \"ide\"\n"
    )
}

/// A VMDK image of a disk of whole sectors, in grains of 64 KiB.
fn vmdk(disk: &[u8], sort: Sort) -> Vec<u8> {
    let kind = if sort == Sort::Sparse { "monolithicSparse" } else { "streamOptimized" };
    vmdk_of(disk, sort, &descriptor(kind, disk.len() / 512))
}

fn vmdk_of(disk: &[u8], sort: Sort, descriptor: &str) -> Vec<u8> {
    let grain = 64 << 10;
    let mut header = vec![0; 512];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"KDMV");
    let (version, flags) = if sort == Sort::Sparse { (1_u32, 3_u32) } else { (3, 0x3_0001) };
    put(4, &version.to_le_bytes());
    put(8, &flags.to_le_bytes());
    for (at, number) in [(12, disk.len() / 512), (20, 128), (28, 1), (36, 20), (64, 128)] {
        put(at, &number.to_le_bytes());
    }
    put(44, &512_u32.to_le_bytes());
    put(56, &u64::MAX.to_le_bytes());
    put(73, b"\n \r\n");
    put(77, &[u8::from(sort == Sort::Stream), 0]);
    let mut image = padded(&[&header, descriptor.as_bytes()].concat(), 128 * 512);
    let sector = |image: &[u8]| u32::try_from(image.len() / 512).unwrap().to_le_bytes();
    let marker = |image: &mut Vec<u8>, sectors: u64, kind: u32| {
        if sort == Sort::Stream {
            let marker = [&sectors.to_le_bytes()[..], &[0; 4], &kind.to_le_bytes()].concat();
            image.extend(padded(&marker, 512));
        }
    };
    let mut directory = Vec::new();
    for (index, group) in disk.chunks(grain * 512).enumerate() {
        let mut table = Vec::new();
        for (entry, data) in group.chunks(grain).enumerate() {
            if is_zero(data) {
                table.extend([0; 4]);
                continue;
            }
            table.extend(sector(&image));
            if sort == Sort::Sparse {
                image.extend(padded(data, grain));
                continue;
            }
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(data).unwrap();
            let packed = encoder.finish().unwrap();
            image.extend(((index * 512 + entry) * 128).to_le_bytes());
            image.extend(u32::try_from(packed.len()).unwrap().to_le_bytes());
            image.extend(packed);
            image.resize(image.len().next_multiple_of(512), 0);
        }
        marker(&mut image, 4, 1);
        directory.extend(sector(&image));
        image.extend(padded(&table, 2048));
    }
    directory.resize(directory.len().next_multiple_of(512), 0);
    marker(&mut image, (directory.len() / 512) as u64, 2);
    let place = image.len() / 512;
    image.extend(directory);
    header[56..64].copy_from_slice(&place.to_le_bytes());
    if sort == Sort::Sparse {
        image[..512].copy_from_slice(&header);
    } else {
        marker(&mut image, 1, 3);
        image.extend(header);
        image.extend([0; 512]);
    }
    image
}

/// A disk with holes, and a cluster that ends in the middle of one.
fn disk() -> Vec<u8> {
    [noise(300_000), vec![0; MIB], vec![7; 200_000], vec![0; 40_000_000], noise(24_192)].concat()
}

async fn imaged(image: &[u8], conversion: Conversion, size: usize) -> Pair {
    let pair = Pair::new(image.len().next_multiple_of(4 * MIB), image, size).await;
    pair.image(conversion).await.unwrap();
    pair
}

async fn refusal(image: &[u8], conversion: Conversion) -> String {
    let pair = Pair::new(image.len().next_multiple_of(4 * MIB), image, 4 * MIB).await;
    pair.failure(conversion).await
}

#[tokio::test]
async fn the_disk_comes_out_of_qcow2_whole_whatever_its_clusters() {
    for (bits, packs) in [(9, false), (9, true), (12, true), (16, false), (16, true), (21, true)] {
        let image = qcow2(&disk(), bits, packs);
        let pair = imaged(&image, Conversion::Qcow2, 44 * MIB).await;
        assert!(pair.result().await == padded(&disk(), 44 * MIB), "{bits} {packs}");
        assert!(pair.occupied() < 2 * 1024 * 1024, "{}", pair.occupied());
    }
}

#[tokio::test]
async fn the_disk_comes_out_of_vmdk_whole_also_if_its_tables_are_told_in_a_footer() {
    let mut disk = disk();
    disk.truncate(disk.len() / 512 * 512);
    for sort in [Sort::Sparse, Sort::Stream] {
        let image = vmdk(&disk, sort);
        let pair = imaged(&image, Conversion::Vmdk, 44 * MIB).await;
        assert!(pair.result().await == padded(&disk, 44 * MIB), "{sort:?}");
        // The drive may be much longer than the file, and no hole.
        let pair = Pair::new(80 * MIB, &padded(&image, image.len() + 20 * MIB), 44 * MIB).await;
        pair.image(Conversion::Vmdk).await.unwrap();
        assert!(pair.result().await == padded(&disk, 44 * MIB), "{sort:?}");
    }
    let image = vmdk(&disk, Sort::Stream);
    let said = refusal(&image[..image.len() - 1024], Conversion::Vmdk).await;
    assert_eq!(said, "the VMDK image is damaged: it does not end in a footer: upload all of it");
}

/// `image` with other bytes at `at`.
fn with(image: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut changed = image.to_vec();
    changed[at..at + bytes.len()].copy_from_slice(bytes);
    changed
}

#[tokio::test]
async fn qcow2_that_names_a_file_or_lies_is_refused_and_the_target_left_alone() {
    let good = qcow2(&noise(100_000), 16, false);
    let be = |at, number: u64| with(&good, at, &number.to_be_bytes());
    let be32 = |at, number: u32| with(&good, at, &number.to_be_bytes());
    let extension =
        |kind: u32, length: u32| with(&good, 104, &[kind, length].map(u32::to_be_bytes).concat());
    let names = "names another file";
    for (image, expected) in [
        (b"KDMV".to_vec(), "the source is not qcow2: it begins as VMDK"),
        (be32(4, 1), "a version that is neither 2 nor 3"),
        (be(8, 512), names),
        (be32(16, 9), names),
        (be(72, 1 << 2), names),
        (extension(0x4441_5441, 8), names),
        (extension(0x0537_be77, 16), "is encrypted"),
        (extension(1, 1 << 20), "an extension of its header is longer"),
        (extension(1, u32::MAX), "an extension of its header is longer"),
        (be32(32, 1), "is encrypted"),
        (be(72, 1 << 1), "it is marked as such"),
        (be(72, 1 << 3), "another compression than deflate"),
        (be(72, 1 << 4), "extended L2 entries"),
        (be(72, 1 << 63), "a feature that is not known"),
        (be32(20, 8), "its clusters are of no length"),
        (be32(20, 22), "its clusters are of no length"),
        (be32(20, u32::MAX), "its clusters are of no length"),
        (be32(100, 96), "its header is of no length"),
        (be32(100, 109), "its header is of no length"),
        (be32(100, 1 << 17), "its header is of no length"),
        (be(24, u64::MAX), "no disk is as large as it says"),
        (be(24, 1 << 62), "its table of tables is too long"),
        (be(24, 1 << 40), "its table of tables is shorter than the disk needs"),
        (be(24, 5 << 20), "of a disk of 5 MiB, more than the drive's 4 MiB: make a drive of 5 MiB"),
        (be(40, u64::MAX), "the table of tables at byte 18446744073709551615 lies outside"),
        (be(40, 1 << 30), "the table of tables at byte 1073741824 lies outside"),
        (be(40, 512), "does not begin where a cluster does"),
        (good[..100].to_vec(), "its header is of no length"),
    ] {
        let pair = Pair::new(4 * MIB, &image, 4 * MIB).await;
        let said = pair.failure(Conversion::Qcow2).await;
        assert!(said.contains(expected), "{said:?} instead of {expected:?}");
        assert!(pair.is_untouched().await, "{said}");
    }
    // A dirty image has only reference counts that are not true.
    let pair = Pair::new(4 * MIB, &be(72, 1), 4 * MIB).await;
    pair.image(Conversion::Qcow2).await.unwrap();
}

#[tokio::test]
async fn vmdk_that_names_a_file_or_lies_is_refused_and_the_target_left_alone() {
    let disk = noise(100_352);
    let good = vmdk(&disk, Sort::Sparse);
    let text = descriptor("monolithicSparse", 196);
    let told = |from: &str, to: &str| {
        assert!(text.contains(from));
        vmdk_of(&disk, Sort::Sparse, &text.replace(from, to))
    };
    let le = |at, number: u64| with(&good, at, &number.to_le_bytes());
    let le32 = |at, number: u32| with(&good, at, &number.to_le_bytes());
    let names = "names another file";
    for (image, expected) in [
        (b"QFI\xfb".to_vec(), "the source is not VMDK: it begins as qcow2"),
        (text.clone().into_bytes(), names),
        (b"COWD".to_vec(), names),
        (told("parentCID=ffffffff", "parentCID=00000001"), names),
        (told("parentCID=ffffffff", "ParentCid = \"0\""), names),
        (told("ddb", "parentFileNameHint=\"/etc/passwd\"\nddb"), names),
        (told("RW 196 SPARSE \"a disk.vmdk\"", "RW 196 FLAT \"a.bin\" 0"), names),
        (told("RW 196 SPARSE \"a disk.vmdk\"", "RW 196 SPARSE \"../a disk.vmdk\""), names),
        (told("RW 196 SPARSE \"a disk.vmdk\"", "RW 196 SPARSE \"C:\\a.vmdk\""), names),
        (told("RW 196 SPARSE", "RW 98 SPARSE \"b\"\nRW 98 SPARSE"), "tell two sizes"),
        (told("ddb", "RW 196 SPARSE \"b.vmdk\"\nddb"), names),
        (told("ddb", "RW 4 ZERO\nddb"), names),
        (told("monolithicSparse", "monolithicFlat"), names),
        (told("monolithicSparse", "twoGbMaxExtentSparse"), names),
        (told("monolithicSparse", "fullDevice"), names),
        (told("RW 196", "# RW 196"), "its descriptor tells of no extent"),
        (told("createType", "# createType"), "does not tell what it is of"),
        (told("RW 196", "RW 197"), "tell two sizes"),
        (le(28, 0), "it is one extent of several"),
        (le(28, u64::MAX), "its descriptor is not behind its header"),
        (le(36, u64::MAX), "its descriptor is not behind its header"),
        (le(36, 4096), "its descriptor is not behind its header"),
        (le32(4, 4), "a version that is not from 1 to 3"),
        (le32(44, 1024), "its tables are of no length"),
        (le(20, 0), "its grains are of no length"),
        (le(20, 100), "its grains are of no length"),
        (le(20, 1 << 63), "its grains are of no length"),
        (with(&good, 77, &[1]), "a way of packing that is not known"),
        (le32(8, 3 | 1 << 16), "a way of packing that is not known"),
        (with(&good, 73, b"\n \n\n"), "as if they were text"),
        (le(56, 1 << 40), "the table of tables at byte"),
        (le(56, u64::MAX - 1), "no disk is as large as it says"),
    ] {
        let pair = Pair::new(4 * MIB, &image, 4 * MIB).await;
        let said = pair.failure(Conversion::Vmdk).await;
        assert!(said.contains(expected), "{said:?} instead of {expected:?}");
        assert!(pair.is_untouched().await, "{said}");
    }
    let huge = vmdk_of(&disk, Sort::Sparse, &text.replace("196", "18014398509481984"));
    let huge = with(&huge, 12, &(1_u64 << 54).to_le_bytes());
    assert!(refusal(&huge, Conversion::Vmdk).await.contains("no disk is as large as it says"));
}

#[tokio::test]
async fn entries_that_lie_end_the_job_and_leave_no_half_an_image() {
    let good = qcow2(&noise(300_000), 16, false);
    let table = 2 << 16;
    let entry = |number: u64| with(&good, table + 16, &number.to_be_bytes());
    for (image, expected) in [
        (entry(1 << 40), "a cluster at byte 1099511627776 lies outside"),
        (entry(512), "points into the middle of a cluster"),
        (entry(1 << 57), "has bits that none has"),
        (entry(1 << 62 | 1 << 40), "a cluster at byte 1099511627776 lies outside"),
        (entry(1 << 62 | 3 << 16), "a packed cluster does not unpack to one"),
        (with(&good, 1 << 16, &(1_u64 << 40).to_be_bytes()), "a table at byte 1099511627776"),
        (with(&good, 1 << 16, &(1_u64 << 60).to_be_bytes()), "has bits that none has"),
    ] {
        let said = refusal(&image, Conversion::Qcow2).await;
        assert!(said.contains(expected), "{said:?} instead of {expected:?}");
    }
    let good = vmdk(&noise(102_400), Sort::Stream);
    let grain = 128 * 512;
    let le = |at: usize, number: u32| with(&good, grain + at, &number.to_le_bytes());
    for (image, expected) in [
        (le(0, 1), "a grain is of another place than its entry"),
        (le(8, 0), "a grain is of no length"),
        (le(8, u32::MAX), "a grain is of no length"),
        (le(8, 40), "a packed cluster does not unpack to one"),
        (le(40, 7), "a packed cluster does not unpack to one"),
    ] {
        let said = refusal(&image, Conversion::Vmdk).await;
        assert!(said.contains(expected), "{said:?} instead of {expected:?}");
    }
}

#[tokio::test]
async fn a_bomb_or_a_loop_makes_no_more_than_the_disk_that_it_tells_of() {
    // All tables are one, which is the table of tables too, and all its clusters are one.
    let mut image = qcow2(&vec![1; 65 * 512], 9, false);
    let looped = (512_u64 | 1 << 63).to_be_bytes().repeat(64);
    image[512..1024].copy_from_slice(&looped);
    let image = with(&image, 24, &(4 * MIB).to_be_bytes());
    let image = with(&image, 36, &128_u32.to_be_bytes());
    let pair = Pair::new(MIB, &image, 4 * MIB).await;
    let ended = pair.image(Conversion::Qcow2).await;
    assert!(ended.is_err_and(|error| error.kind() == ErrorKind::JobFailed));

    // One packed cluster of 64 KiB, and 512 entries that say it.
    let mut image = qcow2(&vec![5; 32 * MIB], 16, true);
    let table = 2 << 16;
    let first = image[table..table + 8].to_vec();
    image[table..table + 8 * 512].copy_from_slice(&first.repeat(512));
    let pair = imaged(&image[..table + (2 << 16)], Conversion::Qcow2, 32 * MIB).await;
    assert!(pair.result().await == vec![5; 32 * MIB]);
}

#[test]
fn what_an_image_is_is_told_by_its_first_bytes() {
    for (head, kind) in [
        (&b"QFI\xfb\0\0\0\x03"[..], Kind::Qcow2),
        (b"QFI\xfb", Kind::Qcow2),
        (b"QFI", Kind::Raw),
        (b"KDMV\x01", Kind::Vmdk),
        (b"COWD\x01", Kind::VmdkOfFiles),
        (b"# Disk DescriptorFile\r\n", Kind::VmdkOfFiles),
        (b"\x1f\x8b\x08", Kind::Gzip),
        (b"\xeb\x63\x90", Kind::Raw),
        (b"", Kind::Raw),
    ] {
        assert_eq!(Kind::of(head), kind, "{head:?}");
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic_the_parsers(
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..700),
        size in proptest::prelude::any::<u64>(),
    ) {
        for magic in [&b"QFI\xfb\0\0\0\x03"[..], b"QFI\xfb\0\0\0\x02", b"KDMV\x01\0\0\0", b""] {
            let head = [magic, &bytes].concat();
            let layouts = [
                qcow2::parse(&head, size).ok(),
                vmdk::finish(&head, &head, size).ok(),
                vmdk::parse(&head, size).ok().and_then(|header| match header {
                    vmdk::Header::Whole(layout) => Some(layout),
                    vmdk::Header::WithFooter => None,
                }),
            ];
            for layout in layouts.into_iter().flatten() {
                for entry in bytes.chunks(8) {
                    let _ = (layout.table(entry), layout.cluster(entry, layout.cluster));
                }
            }
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(16))]
    #[test]
    fn a_changed_byte_of_an_image_ends_in_an_image_or_a_reason(
        parts in proptest::collection::vec((1..300_usize, proptest::bool::ANY), 1..6),
        at: proptest::sample::Index,
        byte in proptest::prelude::any::<u8>(),
        in_tables in proptest::bool::ANY,
    ) {
        let disk: Vec<u8> = parts.iter().flat_map(|&(sectors, zeros)| {
            if zeros { vec![0; sectors * 512] } else { noise(sectors * 512) }
        }).collect();
        let images = [
            (qcow2(&disk, 12, true), Conversion::Qcow2),
            (vmdk(&disk, Sort::Sparse), Conversion::Vmdk),
            (vmdk(&disk, Sort::Stream), Conversion::Vmdk),
        ];
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            for (mut image, conversion) in images {
                let pair = Pair::new(4 * MIB, &image, 2 * MIB).await;
                pair.image(conversion).await.unwrap();
                assert!(pair.result().await == padded(&disk, 2 * MIB));
                let at = at.index(if in_tables { 16_384 } else { image.len() }) % image.len();
                image[at] = byte;
                let pair = Pair::new(4 * MIB, &image, 2 * MIB).await;
                if let Err(error) = pair.image(conversion).await {
                    assert_eq!(error.kind(), ErrorKind::JobFailed, "{error:?}");
                }
            }
        });
    }
}

fn qemu_img(arguments: &[&str], directory: &Path) {
    let done = Command::new("qemu-img").args(arguments).current_dir(directory).output().unwrap();
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test]
#[ignore = "needs QEMU: cargo xtask test"]
async fn what_qemu_img_makes_of_a_disk_comes_back_as_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let disk = padded(&disk(), 44 * MIB);
    std::fs::write(directory.path().join("raw"), &disk).unwrap();
    for (format, options) in [
        ("qcow2", "compat=0.10"),
        ("qcow2", "compat=1.1,cluster_size=512"),
        ("qcow2", "compat=1.1,cluster_size=2M,lazy_refcounts=on"),
        ("qcow2", "compat=1.1,preallocation=metadata"),
        ("vmdk", "subformat=monolithicSparse"),
        ("vmdk", "subformat=monolithicSparse,zeroed_grain=on"),
        ("vmdk", "subformat=streamOptimized"),
    ] {
        let conversion = if format == "vmdk" { Conversion::Vmdk } else { Conversion::Qcow2 };
        for packed in [&[][..], &["-c"]] {
            let one_way = format == "vmdk" || options.contains("preallocation");
            if one_way && !packed.is_empty() {
                continue;
            }
            let convert = ["convert", "-f", "raw", "-O", format, "-o", options];
            qemu_img(&[&convert[..], packed, &["raw", "image"]].concat(), directory.path());
            let image = std::fs::read(directory.path().join("image")).unwrap();
            let pair = imaged(&image, conversion, 44 * MIB).await;
            assert!(pair.result().await == disk, "{format} {options} {packed:?}");
        }
    }
}

#[tokio::test]
#[ignore = "needs QEMU: cargo xtask test"]
async fn what_qemu_img_makes_that_names_files_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    qemu_img(&["create", "-f", "raw", "raw", "4M"], directory.path());
    qemu_img(&["create", "-f", "vmdk", "base.vmdk", "4M"], directory.path());
    let secret = ["--object", "secret,id=s,data=abc"];
    let flat = "subformat=monolithicFlat";
    let split = "subformat=twoGbMaxExtentSparse";
    for (format, arguments, expected) in [
        ("qcow2", &["-b", "raw", "-F", "raw"][..], "names another file (its backing file)"),
        ("qcow2", &["-o", "data_file=data"], "names another file (its data file)"),
        ("qcow2", &["-o", "encrypt.format=aes,encrypt.key-secret=s"], "is encrypted"),
        ("qcow2", &["-o", "extended_l2=on"], "extended L2 entries"),
        ("qcow2", &["-o", "compression_type=zstd"], "another compression than deflate"),
        ("vmdk", &["-b", "base.vmdk", "-F", "vmdk"], "names another file (its parent)"),
        ("vmdk", &["-o", flat], "names another file (its extents are files of their own)"),
        ("vmdk", &["-o", split], "names another file (its extents are files of their own)"),
    ] {
        let create = ["create", "-f", format];
        qemu_img(&[&create[..], &secret, arguments, &["image", "4M"]].concat(), directory.path());
        let image = std::fs::read(directory.path().join("image")).unwrap();
        let conversion = if format == "vmdk" { Conversion::Vmdk } else { Conversion::Qcow2 };
        let said = refusal(&image, conversion).await;
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}
