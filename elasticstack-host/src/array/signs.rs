//! Signs of trouble to come with an array: what its disks say of themselves, which of them is slow, how full
//! it is. Owns what is remembered from look to look, and the file that tells the same to who asks on this host.
//!
//! Disks are asked of themselves rarely, each by a thread of its own: one that hangs is not asked again before
//! it has answered, and holds up nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use elasticstack_core::block::Warning;
use elasticstack_core::prelude::*;

use super::disk::{Disk, DiskName};
use super::fullness::Fullness;
use super::latency::{IoCount, Latency};
use super::smart::{self, Smart};
use crate::store::Room;

/// The pause between two questions to a disk about itself.
const BETWEEN_QUESTIONS: Duration = Duration::from_secs(3600);

/// What is known of one array.
pub(super) struct Signs {
    began: Instant,
    latency: Latency,
    fullness: Fullness,
    /// When the disks were last asked, if they were.
    asked: Option<Instant>,
    /// Those that have not answered yet.
    asking: BTreeSet<String>,
    answers: (Sender<Answer>, Receiver<Answer>),
    smart: BTreeMap<String, Smart>,
}

/// What a disk, by its name, says of itself.
type Answer = (String, Result<Smart>);

/// A disk of the array, by the name that it is told by and that of its device.
pub(super) struct Watched<'a> {
    pub name: &'a str,
    pub device: &'a str,
}

impl Signs {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            latency: Latency::default(),
            fullness: Fullness::default(),
            asked: None,
            asking: BTreeSet::new(),
            answers: channel(),
            smart: BTreeMap::new(),
        }
    }

    /// What there is to tell of an array with these disks and this room.
    pub(super) fn look(&mut self, disks: &[Watched<'_>], room: Option<Room>) -> Vec<Warning> {
        let count = |disk: &Watched<'_>| {
            let stat = fs::read_to_string(format!("/sys/block/{}/stat", disk.device)).ok()?;
            Some((disk.name.to_owned(), IoCount::parse(&stat)?))
        };
        self.latency.look(self.began.elapsed(), disks.iter().filter_map(count).collect());
        if self.asked.is_none_or(|asked| asked.elapsed() >= BETWEEN_QUESTIONS) && smart::is_there()
        {
            self.asked = Some(Instant::now());
            disks.iter().for_each(|disk| self.ask(disk.name));
        }
        self.hear();
        self.smart.retain(|name, _| disks.iter().any(|disk| disk.name == name));
        let mut warnings: Vec<_> =
            self.smart.iter().flat_map(|(name, smart)| smart.warnings(name)).collect();
        warnings.extend(self.latency.warnings());
        if let Some(room) = room {
            self.fullness.look(room);
            warnings.extend(self.fullness.warning(room));
        }
        warnings
    }

    fn ask(&mut self, name: &str) {
        // One that tells no serial number is not found again, and one that is out is not there.
        let Ok(disk) = Disk::find(&DiskName::Serial(name.to_owned())) else { return };
        if !self.asking.insert(name.to_owned()) {
            tracing::warn!(disk = name, "a disk has not said for an hour how it is");
            return;
        }
        let (name, answers) = (name.to_owned(), self.answers.0.clone());
        let asking = move || {
            // Nobody listens any more once the array is not watched.
            let _ = answers.send((name, smart::ask(&disk.device)));
        };
        if let Err(error) = thread::Builder::new().name("smart".to_owned()).spawn(asking) {
            tracing::warn!(%error, "there is no thread to ask a disk how it is");
        }
    }

    fn hear(&mut self) {
        for (name, answer) in self.answers.1.try_iter() {
            self.asking.remove(&name);
            match answer {
                Ok(smart) => drop(self.smart.insert(name, smart)),
                Err(error) => {
                    tracing::info!(disk = name, error = %Chain(&error), "a disk does not say how it is");
                }
            }
        }
    }
}

/// Keeps what there is to tell of an array, for who asks on this host; the last word counts.
pub(super) fn keep(directory: &Path, array: ArrayId, warnings: &[Warning]) -> Result<()> {
    let path = directory.join(array.to_string());
    let write = || {
        fs::create_dir_all(directory)?;
        let scratch = path.with_extension("new");
        fs::write(&scratch, serde_json::to_vec(warnings)?)?;
        fs::rename(&scratch, &path)
    };
    write().map_err(|error| Error::internal(format!("writing {}", path.display())).source(error))
}

/// What was kept last by [`super::watch`] in this directory; nothing of an array that was never watched.
///
/// # Errors
/// `Internal` if it can't be read.
pub(super) fn kept_warnings(directory: &Path, array: ArrayId) -> Result<Vec<Warning>> {
    let path = directory.join(array.to_string());
    let read = match fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.and_then(|bytes| Ok(serde_json::from_slice(&bytes)?)),
    };
    read.map_err(|error| Error::internal(format!("reading {}", path.display())).source(error))
}

#[cfg(test)]
mod tests {
    use elasticstack_core::block::WarningKind;

    use super::*;

    #[test]
    fn what_was_kept_of_an_array_is_told_to_who_asks() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().join("warnings");
        let array: ArrayId = "a77a0000-0000-4000-8000-000000000001".parse().unwrap();
        assert_eq!(kept_warnings(&directory, array).unwrap(), []);
        let warning = Warning {
            kind: WarningKind::NearlyFull,
            disk: None,
            sentence: "it is nearly full".to_owned(),
        };
        for warnings in [vec![warning], Vec::new()] {
            keep(&directory, array, &warnings).unwrap();
            assert_eq!(kept_warnings(&directory, array).unwrap(), warnings);
        }
        fs::write(directory.join(array.to_string()), "[").unwrap();
        assert!(kept_warnings(&directory, array).is_err());
    }
}
