//! What runs one guest: a program that holds its process, and is told of the guest by its command line,
//! its standard input and QMP.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use elasticstack_core::error::Result;
use elasticstack_core::generation::Run;
use elasticstack_core::hypervisor::ServerSpec;

/// A kind of virtual machine monitor.
///
/// # Contract
/// [`super::conformance`] is its kit.
/// - **VM-1** Its process executes nothing of the guest until it is told `cont` by QMP, at the socket
///   `qmp` of the directory that it is started in; it serves there the QEMU Machine Protocol, or the part of
///   it that [`super::Guests`] uses.
/// - **VM-2** It keeps its standard input, which is the server's lock, open for as long as it touches
///   anything of the guest's, and gives it to nobody.
/// - **VM-3** A guest that ends itself waits, paused, with its process, and its status says how it did.
/// - **VM-4** The process name, [`super::process_name`], is one of its arguments, and no secret is.
pub trait Vmm: fmt::Debug + Send + Sync {
    /// How a run of a server is started, with its screen at this address if it has one.
    ///
    /// # Errors
    /// `JobFailed` if this can't run such a server, with a sentence fit for its owner; `Internal`.
    fn launch(&self, spec: &ServerSpec, run: Run, screen: Option<Ipv4Addr>) -> Result<Launch>;

    /// What the owner of a server may read of the last words of a process that ended at once.
    fn reason(&self, last_words: &str) -> Option<&'static str>;
}

/// How a process is started, in the server's own directory.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// Its arguments. Paths in the server's directory are relative.
    pub arguments: Vec<String>,
    /// Its environment, beside `PATH`.
    pub environment: Vec<(&'static str, &'static str)>,
    /// Files that it finds there, by name, which nobody else may read. Each drive that is borrowed has
    /// the file of its secret beside these.
    pub files: Vec<(&'static str, Vec<u8>)>,
}
