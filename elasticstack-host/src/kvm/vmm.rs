//! Our own guests as [`crate::guests`] runs them: how their process is started.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use elasticstack_core::error::{Error, Result};
use elasticstack_core::generation::Run;
use elasticstack_core::hypervisor::ServerSpec;

use super::order::{ORDER, Order};
use crate::guests::{Launch, Vmm, process_name};

/// Has glibc allocate from one arena. Else it may, at any later moment, count the processors to know how many
/// arenas there may be, and opens a file for that: a process that is held to its open files is ended for it
/// (`MALLOC_ARENA_MAX`, mallopt(3)).
const ONE_ARENA: (&str, &str) = ("MALLOC_ARENA_MAX", "1");

/// Small Linux guests of the provider's kernel.
#[derive(Debug, Clone)]
pub struct Kvm {
    /// The program that holds one guest: `elasticstack-vmm`, or what calls [`super::serve`].
    pub program: PathBuf,
    /// The kernel of all guests.
    pub kernel: PathBuf,
    /// Its initial RAM disk.
    pub initial_disk: Option<PathBuf>,
    /// The bridge that their network cards are plugged into.
    pub bridge: String,
}

impl Vmm for Kvm {
    fn launch(&self, spec: &ServerSpec, run: Run, _screen: Option<Ipv4Addr>) -> Result<Launch> {
        let order = serde_json::to_vec(&Order::of(spec, self)?)
            .map_err(|error| Error::internal("telling a guest's process").source(error))?;
        Ok(Launch {
            program: self.program.clone(),
            arguments: vec![process_name(spec.server, run)],
            environment: vec![ONE_ARENA],
            files: vec![(ORDER, order)],
        })
    }

    fn reason(&self, last_words: &str) -> Option<&'static str> {
        let reasons = [
            ("bytes of memory", "its host has not enough free memory: try again later"),
            ("opening a drive", "one of its drives cannot be opened"),
            ("plugging a card", "its host cannot reach the network of containers"),
            ("/dev/kvm", "its host cannot run containers now"),
        ];
        reasons.into_iter().find(|(word, _)| last_words.contains(word)).map(|(_, reason)| reason)
    }
}
