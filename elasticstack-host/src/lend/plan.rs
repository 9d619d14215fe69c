//! What a lend is in the configfs of LIO, as a list of steps: a pure function, pinned by a golden
//! file.
//!
//! Paths are relative to the directory `target` of configfs. The order is that of safety: a target is
//! switched on after all that protects it is there, and off before any of that goes. Switching it
//! off refuses logins first, then cuts sessions, and then waits until nothing of them is in flight.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use elasticstack_core::block::{LendId, LendSpec, Writing};
use elasticstack_core::prelude::*;
use elasticstack_core::secret::Secret;

/// Where targets are.
pub(super) const TARGETS: &str = "iscsi";

/// Where what they serve is. LIO's other users count from 0, and this is not theirs.
pub(super) const BACKSTORES: &str = "core/fileio_3260";

/// The target that has every portal for as long as the host runs, and is never on: see [`holding`].
const HOLDER: &str = "iqn.2026-01.org.elasticstack:portal";

/// The link to what is served, which may be called anything.
const LINK: &str = "drive";

/// The most blocks that an UNMAP frees, and its most descriptors, as of our own target.
const MAX_UNMAP_BLOCKS: u32 = 1 << 20;
const MAX_UNMAP_DESCRIPTORS: u32 = 256;

/// Something that is so once the step is done, however often that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// There is a directory.
    Directory(PathBuf),
    /// An attribute has a value.
    Value(PathBuf, String),
    /// The same, of one that nobody is to see.
    Secret(PathBuf, Secret),
    /// A backstore has this file, and is as long.
    Backing { backstore: PathBuf, file: String, size: Bytes },
    /// There is a link to a directory.
    Link { at: PathBuf, to: PathBuf },
    /// What can be switched on is off or not there.
    Off(PathBuf),
    /// There is no such link.
    NoLink(PathBuf),
    /// There is no such directory.
    NoDirectory(PathBuf),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "mkdir {}", path.display()),
            Self::Value(path, value) => write!(f, "{} = {value}", path.display()),
            Self::Secret(path, secret) => write!(f, "{} = {secret:?}", path.display()),
            Self::Backing { backstore, file, size } => {
                write!(f, "{} serves {} bytes of {file}", backstore.display(), size.get())
            }
            Self::Link { at, to } => write!(f, "link {} to {}", at.display(), to.display()),
            Self::Off(path) => write!(f, "{} = 0", path.display()),
            Self::NoLink(path) => write!(f, "unlink {}", path.display()),
            Self::NoDirectory(path) => write!(f, "rmdir {}", path.display()),
        }
    }
}

/// Where the parts of a lend are.
pub(super) struct Places {
    backstore: PathBuf,
    target: PathBuf,
    group: PathBuf,
}

impl Places {
    pub(super) fn of(lend: LendId) -> Self {
        let target = Path::new(TARGETS).join(lend.target());
        Self {
            backstore: Path::new(BACKSTORES).join(backstore_name(lend)),
            group: target.join("tpgt_1"),
            target,
        }
    }

    /// Whoever may log in, a directory each.
    pub(super) fn borrowers(&self) -> PathBuf {
        self.group.join("acls")
    }

    /// Where it is served, a directory each.
    pub(super) fn portals(&self) -> PathBuf {
        self.group.join("np")
    }

    /// What switches it on and off.
    fn switch(&self) -> PathBuf {
        self.group.join("enable")
    }

    fn unit(&self) -> PathBuf {
        self.group.join("lun/lun_0")
    }
}

/// Where the portals are that are held.
pub(super) fn held() -> PathBuf {
    Path::new(TARGETS).join(HOLDER).join("tpgt_1/np")
}

/// The steps that hold a portal.
///
/// LIO begins to listen where the first of its targets is served, and ends it with the last. Whoever is
/// killed while he has it begin leaves a socket in the kernel which nobody serves and nothing but a
/// reboot ends (`iscsit_add_np` of `iscsi_target_login.c` forgets it if `kthread_run` is
/// interrupted). A target that stays has it begin once, and not in each lend.
pub(super) fn holding(portal: SocketAddr) -> Vec<Step> {
    let held = held();
    let above: Vec<_> = held.ancestors().skip(1).take(2).map(Path::to_owned).collect();
    let portal = held.join(portal.to_string());
    above.into_iter().rev().chain([portal]).map(Step::Directory).collect()
}

/// The steps that lend a file of this size.
pub(super) fn lending(spec: &LendSpec, portal: SocketAddr, file: &str, size: Bytes) -> Vec<Step> {
    let places = Places::of(spec.lend);
    let Places { backstore, target, group } = &places;
    let borrower = places.borrowers().join(spec.initiator());
    let borrowed = borrower.join("lun_0");
    let directory = |path: &Path| Step::Directory(path.to_owned());
    let value = |at: &Path, name: &str, value: &str| Step::Value(at.join(name), value.to_owned());
    let link = |at: &Path, to: &Path| Step::Link { at: at.join(LINK), to: to.to_owned() };
    vec![
        directory(Path::new(BACKSTORES)),
        directory(backstore),
        // Without further options the kernel opens the file with O_DSYNC.
        Step::Backing { backstore: backstore.clone(), file: file.to_owned(), size },
        value(backstore, "wwn/vpd_unit_serial", &spec.lend.drive.to_string()),
        value(backstore, "enable", "1"),
        value(backstore, "attrib/block_size", "512"),
        value(backstore, "attrib/emulate_write_cache", "0"),
        value(backstore, "attrib/max_unmap_lba_count", &MAX_UNMAP_BLOCKS.to_string()),
        value(backstore, "attrib/max_unmap_block_desc_count", &MAX_UNMAP_DESCRIPTORS.to_string()),
        value(backstore, "attrib/emulate_tpu", "1"),
        value(backstore, "attrib/emulate_tpws", "1"),
        value(backstore, "attrib/unmap_zeroes_data", "1"),
        // Copies between drives that are lent, and reservations, which would hold towards the one
        // borrower of a drive and not towards the others.
        value(backstore, "attrib/emulate_3pc", "0"),
        value(backstore, "attrib/emulate_pr", "0"),
        directory(Path::new(TARGETS)),
        directory(target),
        directory(group),
        value(group, "attrib/authentication", "1"),
        value(group, "attrib/generate_node_acls", "0"),
        value(group, "attrib/demo_mode_discovery", "0"),
        value(group, "param/HeaderDigest", "CRC32C"),
        value(group, "param/DataDigest", "None"),
        directory(&places.unit()),
        link(&places.unit(), backstore),
        directory(&borrower),
        value(&borrower, "auth/userid", &spec.initiator()),
        Step::Secret(borrower.join("auth/password"), spec.secret.clone()),
        directory(&borrowed),
        link(&borrowed, &places.unit()),
        value(
            &borrowed,
            "write_protect",
            match spec.writing {
                Writing::Allowed => "0",
                Writing::Refused => "1",
            },
        ),
        directory(&places.portals().join(portal.to_string())),
        Step::Value(places.switch(), "1".to_owned()),
    ]
}

/// The steps that end a lend with these borrowers and portals.
pub(super) fn withdrawing(lend: LendId, borrowers: &[String], portals: &[String]) -> Vec<Step> {
    let places = Places::of(lend);
    let mut steps = vec![Step::Off(places.switch())];
    for borrower in borrowers {
        let borrower = places.borrowers().join(borrower);
        let borrowed = borrower.join("lun_0");
        steps.push(Step::NoLink(borrowed.join(LINK)));
        steps.extend([borrowed, borrower].map(Step::NoDirectory));
    }
    steps.push(Step::NoLink(places.unit().join(LINK)));
    steps.push(Step::NoDirectory(places.unit()));
    let portals = portals.iter().map(|portal| places.portals().join(portal));
    steps.extend(portals.map(Step::NoDirectory));
    let Places { backstore, target, group } = places;
    steps.extend([group, target, backstore].map(Step::NoDirectory));
    steps
}

/// The name of what a lend serves.
fn backstore_name(lend: LendId) -> String {
    format!("{}.{}", lend.drive, lend.epoch)
}

/// The lend that this is the name of what it serves.
pub(super) fn lend_of_backstore(name: &str) -> Option<LendId> {
    let (drive, epoch) = name.split_once('.')?;
    let lend = LendId { drive: drive.parse().ok()?, epoch: Epoch(epoch.parse().ok()?) };
    (backstore_name(lend) == name).then_some(lend)
}

#[cfg(test)]
mod tests {
    use elasticstack_core::id::ServerId;

    use super::*;

    const SECRET: &str = "a-secret-of-some";

    fn spec(writing: Writing) -> LendSpec {
        let drive = "5b0e3c52-0000-4000-8000-000000000001".parse().unwrap();
        let borrower: ServerId = "5b0e3c52-0000-4000-8000-000000000009".parse().unwrap();
        let lend = LendId { drive, epoch: Epoch(7) };
        LendSpec { lend, borrower, writing, secret: Secret::new(SECRET) }
    }

    fn lending_of(writing: Writing) -> Vec<Step> {
        let portal = "[2001:db8::1]:3260".parse().unwrap();
        super::lending(&spec(writing), portal, "/srv/fast/a.raw", Bytes::from_mib(64))
    }

    #[test]
    fn a_portal_is_held_by_a_target_that_is_no_lend_and_never_on() {
        let steps = written(&holding("10.77.0.1:3260".parse().unwrap()));
        let target = format!("{TARGETS}/{HOLDER}");
        assert_eq!(
            steps,
            format!(
                "mkdir {target}\nmkdir {target}/tpgt_1\n\
                 mkdir {target}/tpgt_1/np/10.77.0.1:3260\n"
            )
        );
        assert_eq!(LendId::of_target(HOLDER), None);
    }

    fn written(steps: &[Step]) -> String {
        steps.iter().map(|step| format!("{step}\n")).collect()
    }

    #[test]
    fn the_steps_of_a_lend_are_as_their_golden_file_says_and_show_no_secret() {
        let lent = lending_of(Writing::Allowed);
        let borrowers = [spec(Writing::Allowed).initiator()];
        let withdrawn =
            withdrawing(spec(Writing::Allowed).lend, &borrowers, &["[2001:db8::1]:3260".into()]);
        let steps = format!("lend:\n{}\nwithdraw:\n{}", written(&lent), written(&withdrawn));
        assert!(!format!("{steps}{lent:?}").contains(SECRET));
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/lend-configfs.txt");
        if std::env::var_os("UPDATE_GOLDENS").is_some() {
            std::fs::write(&golden, &steps).unwrap();
        }
        assert_eq!(
            steps,
            std::fs::read_to_string(&golden).unwrap(),
            "refresh: cargo xtask goldens"
        );
    }

    #[test]
    fn a_lend_without_writing_differs_in_its_protection_alone() {
        let (allowed, refused) = (lending_of(Writing::Allowed), lending_of(Writing::Refused));
        let differing: Vec<_> =
            allowed.iter().zip(&refused).filter(|(allowed, refused)| allowed != refused).collect();
        let [(_, Step::Value(path, value))] = &differing[..] else { panic!("{differing:?}") };
        assert!(path.ends_with("lun_0/write_protect") && value == "1", "{differing:?}");
    }

    #[test]
    fn whatever_lending_makes_withdrawing_takes_away_and_the_rest_is_shared() {
        let lent = lending_of(Writing::Allowed);
        let borrowers = [spec(Writing::Allowed).initiator()];
        let gone =
            withdrawing(spec(Writing::Allowed).lend, &borrowers, &["[2001:db8::1]:3260".into()]);
        let mut left = Vec::new();
        for step in &lent {
            let undone = match step {
                Step::Directory(path) => gone.contains(&Step::NoDirectory(path.clone())),
                Step::Link { at, .. } => gone.contains(&Step::NoLink(at.clone())),
                _ => true,
            };
            if !undone {
                left.push(step.to_string());
            }
        }
        assert_eq!(left, [format!("mkdir {BACKSTORES}"), format!("mkdir {TARGETS}")]);
        assert!(matches!(gone.first(), Some(Step::Off(_))));
        assert!(
            matches!(lent.last(), Some(Step::Value(path, on)) if path.ends_with("enable") && on == "1")
        );
    }

    #[test]
    fn a_lend_is_known_again_by_what_it_serves() {
        let lend = spec(Writing::Allowed).lend;
        assert_eq!(lend_of_backstore(&backstore_name(lend)), Some(lend));
        for other in ["", "hba_info", "5b0e3c52-0000-4000-8000-000000000001.07", "x.7"] {
            assert_eq!(lend_of_backstore(other), None, "{other}");
        }
    }
}
