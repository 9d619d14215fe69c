//! The guest's userland as the archive that the kernel unpacks at boot: busybox, the init script, and
//! the kernel modules in the order in which init loads them.
//!
//! Owns the modules' order and the archive's format (cpio "newc"). Every file belongs to root and
//! has no time, so that equal content gives an equal archive.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::workshop::{Workshop, output};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;
const SYMLINK: u32 = 0o120_777;

/// Makes the archive, not compressed, from an unpacked kernel package of this release, with these
/// modules.
pub(super) fn make(
    workshop: &Workshop,
    kernel_root: &Path,
    release: &str,
    modules: &[&str],
    busybox: &Path,
    init: &str,
) -> Result<Vec<u8>> {
    let directory = kernel_root.join("lib/modules").join(release);
    output(workshop.command("depmod")?.arg("--basedir").arg(kernel_root).arg(release))?;
    let paths = load_order(&read(&directory.join("modules.dep"))?, modules)?;

    let mut archive = Archive::default();
    for directory in ["bin", "dev", "lib", "lib/modules", "proc", "sys", "tmp"] {
        archive.add(directory, DIRECTORY, b"")?;
    }
    archive.add("init", PROGRAM, init.as_bytes())?;
    archive.add("bin/busybox", PROGRAM, &read(busybox)?)?;
    archive.add("bin/sh", SYMLINK, b"busybox")?;
    let mut order = String::new();
    for path in paths {
        let file = path.rsplit('/').next().unwrap_or(&path);
        archive.add(&format!("lib/modules/{file}"), FILE, &read(&directory.join(&path))?)?;
        order.push_str(file);
        order.push('\n');
    }
    archive.add("lib/modules/order", FILE, order.as_bytes())?;
    archive.finish()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}

/// The paths of the wanted modules and of all they depend on, each once and after what it needs.
///
/// `dependencies` is a `modules.dep`: `PATH: PATH…` a line, where a needed module stands to the right
/// of those that need it.
fn load_order(dependencies: &[u8], wanted: &[&str]) -> Result<Vec<String>> {
    let dependencies = str::from_utf8(dependencies).context("modules.dep is not UTF-8")?;
    let mut order: Vec<String> = Vec::new();
    for module in wanted {
        let suffix = format!("/{module}.ko");
        let (path, needs) = dependencies
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(path, _)| path.ends_with(&suffix))
            .with_context(|| format!("the kernel package has no module {module}"))?;
        for path in needs.split_whitespace().rev().chain([path]) {
            if !order.iter().any(|known| known == path) {
                order.push(path.to_owned());
            }
        }
    }
    Ok(order)
}

/// A cpio archive in the making.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.entries += 1;
        let size = u32::try_from(content.len()).with_context(|| format!("{name} is too large"))?;
        let name_size = u32::try_from(name.len() + 1)?;
        let links = 1;
        // inode, mode, uid, gid, links, mtime, size, device, special device, name, checksum
        let fields = [self.entries, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<u8>> {
        self.add("TRAILER!!!", 0, b"")?;
        Ok(self.bytes)
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPENDENCIES: &[u8] = b"kernel/ata/libata.ko: kernel/scsi/scsi_mod.ko kernel/scsi/common.ko\n\
        kernel/ata/ata_piix.ko: kernel/ata/libata.ko kernel/scsi/scsi_mod.ko kernel/scsi/common.ko\n\
        kernel/scsi/sd_mod.ko: kernel/scsi/scsi_mod.ko kernel/scsi/common.ko\n\
        kernel/scsi/scsi_mod.ko: kernel/scsi/common.ko\n\
        kernel/scsi/common.ko:\n";

    #[test]
    fn a_module_is_loaded_once_and_after_what_it_needs() {
        let order = load_order(DEPENDENCIES, &["sd_mod", "ata_piix"]).unwrap();
        let names: Vec<_> = order.iter().map(|path| path.rsplit('/').next().unwrap()).collect();
        let expected = ["common.ko", "scsi_mod.ko", "sd_mod.ko", "libata.ko", "ata_piix.ko"];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_module_that_the_kernel_lacks_is_named() {
        let refused = load_order(DEPENDENCIES, &["ahci"]).unwrap_err();
        assert_eq!(refused.to_string(), "the kernel package has no module ahci");
    }

    #[test]
    fn names_and_contents_of_any_length_stay_aligned() {
        let mut archive = Archive::default();
        for length in 1..9 {
            archive.add(&"n".repeat(length), FILE, &vec![b'c'; length]).unwrap();
            assert_eq!(archive.bytes.len() % 4, 0, "after a name of {length} bytes");
        }
        let starts = archive.bytes.windows(6).filter(|window| window == b"070701").count();
        assert_eq!(starts, 8);
    }
}
