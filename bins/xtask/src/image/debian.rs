//! Debian packages: which version apt would install, the package itself in a cache, its files.
//!
//! Owns the cache of packages. Installs nothing and needs no root. apt checks what it fetches against
//! Debian's signatures.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::workshop::{Workshop, output};

pub(super) const BUSYBOX: &str = "busybox-static";

/// One of Debian's kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kernel {
    /// With drivers for any hardware.
    Generic,
    /// With those that virtual machines have; it is small, and soon up.
    Cloud,
}

impl Kernel {
    /// The package that always depends on the newest.
    const fn metapackage(self) -> &'static str {
        match self {
            Self::Generic => "linux-image-amd64",
            Self::Cloud => "linux-image-cloud-amd64",
        }
    }
}

/// A binary package at one version.
#[derive(Debug, PartialEq)]
pub(super) struct Package {
    name: String,
    version: String,
}

/// What apt would install today.
#[derive(Debug, PartialEq)]
pub(super) struct Candidates {
    /// What a kernel's metapackage stands for.
    pub(super) kernel: Package,
    pub(super) busybox: Package,
}

/// Asks apt, which answers from the lists it last fetched.
pub(super) fn candidates(workshop: &Workshop, kernel: Kernel) -> Result<Candidates> {
    let mut show = workshop.command("apt-cache")?;
    show.args(["show", "--no-all-versions", kernel.metapackage(), BUSYBOX]);
    let stanzas = output(&mut show)
        .context("this needs Debian's package lists: run `sudo apt-get update` on Debian")?;
    parse_candidates(&stanzas, kernel)
}

/// The version of a package that is installed.
pub(super) fn installed_version(workshop: &Workshop, name: &str) -> Result<String> {
    output(workshop.command("dpkg-query")?.args(["--show", "--showformat=${Version}", name]))
}

/// The version of a package that apt would install.
pub(super) fn candidate(workshop: &Workshop, name: &str) -> Result<Package> {
    let mut show = workshop.command("apt-cache")?;
    let stanza = output(show.args(["show", "--no-all-versions", name]))
        .context("this needs Debian's package lists: run `sudo apt-get update` on Debian")?;
    let version = field(&stanza, name, "Version")?.to_owned();
    Ok(Package { name: name.to_owned(), version })
}

impl Package {
    /// The release that a kernel package is for, which names its files: `6.1.0-9-amd64`.
    pub(super) fn kernel_release(&self) -> Result<&str> {
        self.name
            .strip_prefix("linux-image-")
            .with_context(|| format!("{self} is not a kernel package"))
    }

    /// Unpacks the package in the workshop, fetching it into `debs` first if it is not there, and returns
    /// the directory that stands for `/`.
    pub(super) fn unpack(&self, workshop: &Workshop, debs: &Path) -> Result<PathBuf> {
        let archive = self.fetch(workshop, debs)?;
        let root = workshop.path(&self.name);
        output(workshop.command("dpkg")?.arg("-x").arg(&archive).arg(&root))?;
        Ok(root)
    }

    fn fetch(&self, workshop: &Workshop, debs: &Path) -> Result<PathBuf> {
        let Self { name, version } = self;
        let archive = debs.join(format!("{name}_{}.deb", version.replace(':', "%3a")));
        if archive.exists() {
            return Ok(archive);
        }
        let landing = workshop.path(&format!("fetch-{name}"));
        fs::create_dir_all(&landing).with_context(|| format!("create {}", landing.display()))?;
        fs::create_dir_all(debs).with_context(|| format!("create {}", debs.display()))?;
        let mut download = workshop.command("apt-get")?;
        download.args(["download", "--quiet", &format!("{name}={version}")]).current_dir(&landing);
        output(&mut download)
            .context("if the mirror no longer has it, run `sudo apt-get update`")?;
        let fetched = fs::read_dir(&landing)?.next().transpose()?;
        let fetched = fetched.with_context(|| format!("{download:?} left no file"))?.path();
        fs::rename(&fetched, &archive).with_context(|| format!("keep {}", archive.display()))?;
        Ok(archive)
    }
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

fn parse_candidates(stanzas: &str, kernel: Kernel) -> Result<Candidates> {
    let metapackage = kernel.metapackage();
    let depends = field(stanzas, metapackage, "Depends")?;
    let kernel = parse_kernel_dependency(depends).with_context(|| {
        format!("{metapackage} depends on {depends:?}: want linux-image-RELEASE (= VERSION)")
    })?;
    let version = field(stanzas, BUSYBOX, "Version")?.to_owned();
    Ok(Candidates { kernel, busybox: Package { name: BUSYBOX.to_owned(), version } })
}

fn field<'a>(stanzas: &'a str, package: &str, key: &str) -> Result<&'a str> {
    let value = |stanza: &'a str, key: &str| {
        stanza.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
    };
    stanzas
        .split("\n\n")
        .find(|stanza| value(stanza, "Package") == Some(package))
        .and_then(|stanza| value(stanza, key))
        .with_context(|| format!("apt knows no {key} of {package}: run `sudo apt-get update`"))
}

fn parse_kernel_dependency(depends: &str) -> Option<Package> {
    depends.split(", ").find_map(|dependency| {
        let (name, version) = dependency.split_once(" (= ")?;
        name.starts_with("linux-image-").then(|| Package {
            name: name.to_owned(),
            version: version.trim_end_matches(')').to_owned(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANZAS: &str = "Package: linux-image-amd64\nSource: linux-signed-amd64 (6.1.2+1)\n\
        Version: 6.1.2-1\nDepends: linux-base, linux-image-6.1.0-9-amd64 (= 6.1.2-1)\n\n\
        Package: busybox-static\nVersion: 1:1.35.0-4+b1\n";

    #[test]
    fn the_kernel_is_the_exact_dependency_of_its_metapackage() {
        let candidates = parse_candidates(STANZAS, Kernel::Generic).unwrap();
        assert_eq!(candidates.kernel.to_string(), "linux-image-6.1.0-9-amd64 6.1.2-1");
        assert_eq!(candidates.kernel.kernel_release().unwrap(), "6.1.0-9-amd64");
        assert_eq!(candidates.busybox.to_string(), "busybox-static 1:1.35.0-4+b1");
    }

    #[test]
    fn what_apt_does_not_know_is_named() {
        let refused =
            parse_candidates("Package: busybox-static\nVersion: 1\n", Kernel::Generic).unwrap_err();
        let said = "apt knows no Depends of linux-image-amd64: run `sudo apt-get update`";
        assert_eq!(refused.to_string(), said);
        let refused =
            parse_candidates(&STANZAS.replace(" (= ", " (>= "), Kernel::Generic).unwrap_err();
        assert!(refused.to_string().contains("want linux-image-RELEASE (= VERSION)"), "{refused}");
    }
}
