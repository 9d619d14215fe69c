//! The small disk on which a guest is told who it is (cloud-init's NoCloud): its files, and the CD
//! that holds them. Pure.
//!
//! Invariants: equal seeds of one server give equal bytes; the instance's id is another one exactly
//! when something that the guest is told changed, so that cloud-init does its first boot's work
//! again then and only then. It may hold secrets: it is for a file that nobody else reads.

use elasticstack_core::error::{Error, Result};
use elasticstack_core::hypervisor::Seed;
use elasticstack_core::id::ServerId;
use elasticstack_core::secret::Secret;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::iso9660;

/// What cloud-init looks for.
const LABEL: &str = "cidata";
/// It wants the file, also where there is nothing to do.
const NOTHING_TO_DO: &str = "#cloud-config\n{}\n";

/// The image of the CD.
///
/// # Errors
/// `Internal` if it does not fit, which the limits of the keys exclude.
pub(super) fn disk(server: ServerId, seed: &Seed) -> Result<Vec<u8>> {
    let (meta, user) = (meta_data(server, seed), user_data(seed));
    let files = [("meta-data", meta.as_bytes()), ("user-data", user.as_bytes())];
    iso9660::image(LABEL, &files).ok_or_else(|| Error::internal("a server's seed fits on no CD"))
}

/// JSON, which is YAML: no text can break out of its quotes.
fn meta_data(server: ServerId, seed: &Seed) -> String {
    let mut meta = json!({
        "instance-id": instance(server, seed),
        "public-keys": seed.keys,
    });
    if let Some(name) = &seed.host_name {
        meta["local-hostname"] = name.as_str().into();
    }
    format!("{meta:#}\n")
}

fn user_data(seed: &Seed) -> &str {
    seed.user_data.as_ref().map_or(NOTHING_TO_DO, Secret::expose)
}

/// The server, and a digest of all that it is told.
fn instance(server: ServerId, seed: &Seed) -> String {
    let Seed { host_name, keys, user_data } = seed;
    let told = json!([host_name, keys, user_data.as_ref().map(Secret::expose)]);
    let digest = Sha256::digest(told.to_string());
    let short: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{server}-{short}")
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::path::Path;
    use std::{env, fs};

    use super::*;

    const KEYS: [&str; 2] =
        ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 me", "ssh-rsa AAAAB3NzaC1yc2EA \"'\\"];
    const USER_DATA: &str = "#cloud-config\nruncmd:\n  - [echo, \"größe\"]\n";

    fn server() -> ServerId {
        "5b0e3c52-0000-4000-8000-00000000d001".parse().unwrap()
    }

    fn full() -> Seed {
        Seed {
            host_name: Some("web1".to_owned()),
            keys: KEYS.map(str::to_owned).to_vec(),
            user_data: Some(Secret::new(USER_DATA)),
        }
    }

    fn empty() -> Seed {
        Seed { host_name: None, keys: Vec::new(), user_data: None }
    }

    #[test]
    fn the_files_of_a_seed_are_as_their_golden_file_says() {
        let mut text = String::new();
        for seed in [full(), empty()] {
            for (name, content) in
                [("meta-data", &*meta_data(server(), &seed)), ("user-data", user_data(&seed))]
            {
                writeln!(text, "== {name}\n{content}").unwrap();
            }
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/seed.txt");
        if env::var_os("UPDATE_GOLDENS").is_some() {
            fs::write(&path, &text).unwrap();
        }
        assert_eq!(text, fs::read_to_string(&path).unwrap(), "if meant, UPDATE_GOLDENS=1");
    }

    #[test]
    fn the_disk_reads_back_in_both_trees_and_is_the_same_every_time() {
        let largest = Secret::new(format!("#!{}", "ü".repeat(16_382)));
        let large = Seed { user_data: Some(largest), ..full() };
        for seed in [full(), empty(), large] {
            let disk = disk(server(), &seed).unwrap();
            assert_eq!(disk, super::disk(server(), &seed).unwrap());
            let (meta, user) = (meta_data(server(), &seed), user_data(&seed));
            let [plain, joliet] = [16, 17].map(|block| read(&disk, block));
            for (tree, names) in
                [(plain, ["META-DATA.;1", "USER-DATA.;1"]), (joliet, ["meta-data", "user-data"])]
            {
                assert_eq!(tree.label, "cidata");
                let expected = [
                    (names[0].to_owned(), meta.as_bytes().to_vec()),
                    (names[1].to_owned(), user.as_bytes().to_vec()),
                ];
                assert!(tree.files == expected, "{names:?}");
            }
        }
    }

    #[test]
    fn the_instance_is_another_one_when_and_only_when_something_said_changes() {
        let seeds = [
            full(),
            empty(),
            Seed { host_name: Some("web2".to_owned()), ..full() },
            Seed { keys: KEYS[..1].iter().map(|key| (*key).to_owned()).collect(), ..full() },
            Seed { keys: vec![KEYS.join("\n")], ..full() },
            Seed { user_data: Some(Secret::new("#!/bin/sh\n")), ..full() },
            Seed { user_data: None, ..full() },
        ];
        for (index, seed) in seeds.iter().enumerate() {
            let id = instance(server(), seed);
            assert_eq!(id, instance(server(), &seed.clone()));
            assert!(seeds[..index].iter().all(|other| instance(server(), other) != id), "{seed:?}");
        }
        let other = "5b0e3c52-0000-4000-8000-00000000d002".parse().unwrap();
        assert_ne!(instance(server(), &full()), instance(other, &full()));
    }

    #[test]
    fn too_many_files_for_one_block_of_names_are_refused() {
        let names: Vec<String> =
            (0..60).map(|index| format!("a-file-with-a-name-{index}")).collect();
        let files: Vec<(&str, &[u8])> =
            names.iter().map(|name| (name.as_str(), &b"x"[..])).collect();
        assert!(iso9660::image("x", &files[..10]).is_some());
        assert!(iso9660::image("x", &files).is_none());
    }

    struct Tree {
        label: String,
        files: Vec<(String, Vec<u8>)>,
    }

    /// Reads a CD as a system does: from one descriptor by its own words to the files. Both orders
    /// of each number, and the path tables, must agree.
    fn read(disk: &[u8], descriptor: usize) -> Tree {
        const BLOCK: usize = 2_048;
        let is_joliet = descriptor == 17;
        let text = |bytes: &[u8]| match is_joliet {
            true => {
                let units: Vec<u16> =
                    bytes.chunks(2).map(|unit| u16::from_be_bytes([unit[0], unit[1]])).collect();
                String::from_utf16(&units).unwrap()
            }
            false => String::from_utf8(bytes.to_vec()).unwrap(),
        };
        let little = |at: usize| u32::from_le_bytes(disk[at..at + 4].try_into().unwrap());
        let big = |at: usize| u32::from_be_bytes(disk[at..at + 4].try_into().unwrap());
        let both = |at: usize| {
            assert_eq!(little(at), big(at + 4), "the two orders differ at {at}");
            usize::try_from(little(at)).unwrap()
        };
        let at = descriptor * BLOCK;
        assert_eq!(disk[at], if is_joliet { 2 } else { 1 });
        assert_eq!(&disk[at + 1..at + 7], b"CD001\x01");
        assert_eq!(&disk[18 * BLOCK..18 * BLOCK + 7], b"\xffCD001\x01");
        assert_eq!(&disk[at + 88..at + 91], if is_joliet { b"%/E" } else { b"\0\0\0" });
        assert_eq!(both(at + 80) * BLOCK, disk.len());
        assert_eq!(disk[at + 128..at + 132], [0, 8, 8, 0], "the size of a block");
        let root = both(at + 158);
        assert_eq!(both(at + 132), 10);
        let tables = (little(at + 140), big(at + 148));
        let place = |block: u32| usize::try_from(block).unwrap() * BLOCK + 2;
        assert_eq!(usize::try_from(little(place(tables.0))).unwrap(), root);
        assert_eq!(usize::try_from(big(place(tables.1))).unwrap(), root);

        let (mut files, mut entry) = (Vec::new(), root * BLOCK);
        while disk[entry] != 0 {
            let (block, size) = (both(entry + 2), both(entry + 10));
            let name = &disk[entry + 33..][..usize::from(disk[entry + 32])];
            match disk[entry + 25] {
                2 => assert_eq!((block, size, name.len()), (root, BLOCK, 1)),
                _ => files.push((text(name), disk[block * BLOCK..][..size].to_vec())),
            }
            entry += usize::from(disk[entry]);
        }
        Tree { label: text(&disk[at + 40..at + 72]).trim_end().to_owned(), files }
    }
}
