//! The product under the storm: its programs, started, killed and revived by the storm, in a
//! directory of their own. Owns the processes; nothing of them is left when it is dropped, whatever
//! came of the round.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use elasticstack_core::client::{Client, HyperTransport};
use elasticstack_core::secret::Secret;

use super::customer::Customer;
use super::dice::Dice;
use super::wait::until;
use super::{enrol, sight};
use crate::process;

/// How the product is cut into processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The control plane and the agent are programs of their own.
    Split,
    /// All in one.
    AllInOne,
}

/// One of the product's programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Api,
    Agent,
    AllInOne,
}

impl Role {
    pub(crate) const fn package(self) -> &'static str {
        match self {
            Self::Api => "elasticstack-bin-api",
            Self::Agent => "elasticstack-bin-agent",
            Self::AllInOne => "elasticstack-bin-allinone",
        }
    }

    const fn binary(self) -> &'static str {
        match self {
            Self::Api => "elasticstack-api",
            Self::Agent => "elasticstack-agent",
            Self::AllInOne => "elasticstack-allinone",
        }
    }
}

impl Mode {
    /// Every set of programs that may be killed at once.
    pub(crate) const fn victims(self) -> &'static [&'static [Role]] {
        match self {
            Self::Split => &[&[Role::Api], &[Role::Agent], &[Role::Api, Role::Agent]],
            Self::AllInOne => &[&[Role::AllInOne]],
        }
    }

    /// The sets whose death leaves the guests alone.
    pub(crate) fn guardians(self) -> Vec<&'static [Role]> {
        let guards = |victims: &&&[Role]| victims.iter().any(|role| *role != Role::Api);
        self.victims().iter().filter(guards).copied().collect()
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Split => "split",
            Self::AllInOne => "allinone",
        }
    }

    /// Builds what it takes.
    pub(crate) fn build(self) -> Result<()> {
        let mut cargo = process::cargo(["build", "--quiet", "--locked"])?;
        match self {
            Self::Split => {
                cargo.args(["-p", Role::Api.package(), "-p", Role::Agent.package()]);
                cargo.args(["-p", "elasticstack-bin-cli"]);
            }
            Self::AllInOne => {
                cargo.args(["-p", Role::AllInOne.package()]);
            }
        }
        process::run(&mut cargo)
    }
}

/// Where the product is and keeps things.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    pub(crate) mode: Mode,
    /// Everything lies under it.
    pub(crate) root: PathBuf,
    /// Where the drives' files are.
    pub(crate) drives: PathBuf,
    /// Where the guests' directories are.
    pub(crate) servers: PathBuf,
    /// Where the programs put what is to be gone with them.
    pub(crate) scratch: PathBuf,
    /// The control plane's database.
    pub(crate) database: PathBuf,
    /// Where the public API listens.
    pub(crate) api: SocketAddr,
}

impl Site {
    fn new(mode: Mode, root: &Path, dice: &mut Dice) -> Result<Self> {
        // One canonical path, because /proc shows no other.
        let root = fs::canonicalize(root).context("resolve the data directory")?;
        let (array, servers, database) = match mode {
            Mode::Split => {
                (root.join("array"), root.join("agent/servers"), root.join("api/api.db"))
            }
            Mode::AllInOne => {
                (root.join("data/array"), root.join("data/servers"), root.join("data/api.db"))
            }
        };
        let (drives, scratch) = (array.join("drives"), root.join("tmp"));
        fs::create_dir(&scratch).context("make the programs' TMPDIR")?;
        Ok(Self { mode, root, drives, servers, scratch, database, api: free_port(dice)? })
    }

    /// The file with a drive's bytes.
    pub(crate) fn raw(&self, drive: &str) -> PathBuf {
        self.drives.join(format!("{drive}.raw"))
    }

    /// A client for the account `auth`, which is `UUID:KEY`.
    pub(crate) fn customer(&self, auth: &str) -> Result<Arc<Customer>> {
        let (account, key) = auth.split_once(':').context("credentials are UUID:KEY")?;
        let transport = HyperTransport::new(&format!("http://{}", self.api))?;
        let client = Client::new(transport, account.parse()?, &Secret::new(key))?;
        Ok(Arc::new(Customer::new(client)))
    }
}

/// The running product.
#[derive(Debug)]
pub(crate) struct Platform {
    pub(crate) site: Site,
    programs: Vec<Program>,
}

#[derive(Debug)]
struct Program {
    role: Role,
    arguments: Vec<OsString>,
    log: PathBuf,
    scratch: PathBuf,
    child: Option<Child>,
}

impl Platform {
    /// Starts the product in `root` and answers it with its one customer.
    pub(crate) async fn start(
        mode: Mode,
        root: &Path,
        dice: &mut Dice,
        image: &Path,
    ) -> Result<(Self, Arc<Customer>)> {
        let site = Site::new(mode, root, dice)?;
        let mut platform = Self { site: site.clone(), programs: Vec::new() };
        let customer = match mode {
            Mode::AllInOne => {
                let mut arguments = vec!["--data-dir".into(), site.root.join("data").into()];
                arguments.extend(["--api".into(), site.api.to_string().into()]);
                arguments.extend(["--image".into(), image.with_extension("json").into()]);
                platform.launch(Role::AllInOne, arguments)?;
                site.customer(&platform.demo_account().await?)?
            }
            Mode::Split => enrol::enrol(&mut platform, free_port(dice)?).await?,
        };
        customer.until_served().await?;
        Ok((platform, customer))
    }

    /// Starts one more program for good.
    pub(crate) fn launch(&mut self, role: Role, arguments: Vec<OsString>) -> Result<()> {
        let log = self.site.root.join(format!("{}.log", role.binary()));
        let scratch = self.site.scratch.clone();
        let mut program = Program { role, arguments, log, scratch, child: None };
        let started = program.start();
        self.programs.push(program);
        started
    }

    /// The account that the all-in-one has for whoever tries it, once it is there.
    async fn demo_account(&mut self) -> Result<String> {
        let path = self.site.root.join("data/demo.env");
        let mut auth = None;
        until("the product is ready", async || {
            self.check()?;
            let text = fs::read_to_string(&path).unwrap_or_default();
            auth = text.lines().find_map(|line| line.strip_prefix("EHAUTH=").map(str::to_owned));
            Ok(auth.is_none().then(|| "there is no demo.env".to_owned()))
        })
        .await?;
        auth.context("demo.env names no account")
    }

    /// Kills these programs, at once and all together.
    pub(crate) fn kill(&mut self, victims: &[Role]) -> Result<()> {
        self.check()?;
        let chosen = |program: &&mut Program| victims.contains(&program.role);
        for program in self.programs.iter_mut().filter(chosen) {
            if let Some(child) = &mut program.child {
                child.kill().context("kill -9")?;
            }
        }
        for program in self.programs.iter_mut().filter(chosen) {
            if let Some(mut child) = program.child.take() {
                child.wait().context("wait for a killed program")?;
            }
        }
        Ok(())
    }

    /// Starts every program that is dead.
    pub(crate) fn revive(&mut self) -> Result<()> {
        let mut dead = self.programs.iter_mut().filter(|program| program.child.is_none());
        dead.try_for_each(Program::start)
    }

    /// Whether every program that should live does.
    ///
    /// # Errors
    /// One has ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        for program in &mut self.programs {
            if let Some(child) = &mut program.child
                && let Some(status) = child.try_wait()?
            {
                let (name, log) = (program.role.binary(), program.log.display());
                program.child = None;
                bail!("{name} ended by itself: {status}; its log is {log}");
            }
        }
        Ok(())
    }

    /// Asks every program to stop.
    ///
    /// # Errors
    /// One does not end, or not well.
    pub(crate) async fn stop(mut self) -> Result<()> {
        for program in &mut self.programs {
            let Some(child) = &mut program.child else { continue };
            process::run(process::command("kill")?.arg(child.id().to_string()))?;
            let mut ended = None;
            until("a program stops when it is asked to", async || {
                ended = child.try_wait()?;
                Ok(ended.is_none().then(|| program.role.binary().to_owned()))
            })
            .await?;
            program.child = None;
            match ended {
                Some(status) if status.success() => {}
                Some(status) => {
                    let signal = status.signal();
                    bail!("{} ended with {status} (signal {signal:?})", program.role.binary())
                }
                None => {}
            }
        }
        Ok(())
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        for program in &mut self.programs {
            if let Some(mut child) = program.child.take() {
                // Failing to kill or to reap one that is gone is as good.
                let _ = child.kill().and_then(|()| child.wait());
            }
        }
        // Guests outlive their agent on purpose.
        for guest in sight::processes_under(&self.site.root).unwrap_or_default() {
            let killed = process::command("kill")
                .and_then(|mut kill| process::run(kill.args(["-9", &guest.pid.to_string()])));
            if let Err(error) = killed {
                eprintln!("guest {} could not be ended: {error:#}", guest.pid);
            }
        }
    }
}

impl Program {
    fn start(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(sibling(self.role.binary())?);
        command.args(&self.arguments).stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        command.env("RUST_LOG", "info").env("TMPDIR", &self.scratch);
        // In a group of its own: Ctrl-C is for us, and we end it.
        let child = command.process_group(0).spawn();
        self.child = Some(child.with_context(|| format!("start {}", self.role.binary()))?);
        Ok(())
    }
}

/// A program that cargo built beside this one.
pub(crate) fn sibling(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("find this program")?;
    Ok(own.with_file_name(name))
}

/// An address that nobody listens on, below the ports that the kernel gives to connections: while
/// the product is dead its port must not be taken by a client that is looking for it.
pub(crate) fn free_port(dice: &mut Dice) -> Result<SocketAddr> {
    for _ in 0..100 {
        let port = u16::try_from(dice.within(20_000..32_000))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no free port was found in 100 tries")
}
