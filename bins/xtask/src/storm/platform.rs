//! The product under the storm: its programs, started, killed and revived by the storm, in a
//! directory of their own. Owns the processes; nothing of them is left when it is dropped, whatever
//! came of the round.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use elasticstack_core::client::{Client, HyperTransport};
use elasticstack_core::secret::Secret;
use elasticstack_lab::Postgres;

use super::customer::{Customer, Door};
use super::database::Database;
use super::dice::Dice;
use super::mode::{Mode, Role};
use super::wait::until;
use super::{enrol, sight};
use crate::process;

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
    pub(crate) database: Database,
    /// Where the public API listens, by program.
    pub(crate) doors: Vec<(Role, SocketAddr)>,
}

impl Site {
    /// In `root`, which is empty, beside the database if that is a program of its own.
    fn new(mode: Mode, root: &Path, postgres: Option<&Postgres>, dice: &mut Dice) -> Result<Self> {
        let (array, servers, file) = match mode {
            Mode::Split | Mode::Several => ("array", "agent/servers", "api/api.db"),
            Mode::AllInOne => ("data/array", "data/servers", "data/api.db"),
        };
        let database = match postgres {
            Some(postgres) => Database::Postgres(postgres.socket().clone()),
            None => Database::Sqlite(root.join(file)),
        };
        let scratch = root.join("tmp");
        fs::create_dir(&scratch).context("make the programs' TMPDIR")?;
        let doors = mode.doors().iter().map(|role| Ok((*role, free_port(dice)?)));
        Ok(Self {
            mode,
            root: root.to_owned(),
            drives: root.join(array).join("drives"),
            servers: root.join(servers),
            scratch,
            database,
            doors: doors.collect::<Result<_>>()?,
        })
    }

    /// The file with a drive's bytes.
    pub(crate) fn raw(&self, drive: &str) -> PathBuf {
        self.drives.join(format!("{drive}.raw"))
    }

    /// The configuration file of this name.
    pub(crate) fn config(&self, name: &str) -> PathBuf {
        self.root.join(name).with_extension("toml")
    }

    /// The address of its first door.
    pub(crate) fn api(&self) -> Result<SocketAddr> {
        self.doors.first().map(|(_, address)| *address).context("the product has no door")
    }

    /// The account `auth`, which is `UUID:KEY`, at every door.
    pub(crate) fn customer(&self, auth: &str) -> Result<Arc<Customer>> {
        let (account, key) = auth.split_once(':').context("credentials are UUID:KEY")?;
        let door = |(role, address): &(Role, SocketAddr)| {
            let transport = HyperTransport::new(&format!("http://{address}"))?;
            let client = Client::new(transport, account.parse()?, &Secret::new(key))?;
            Ok(Door { role: *role, client })
        };
        let doors = self.doors.iter().map(door).collect::<Result<_>>()?;
        Ok(Arc::new(Customer::new(doors, self.database.clone())))
    }
}

/// The running product.
#[derive(Debug)]
pub(crate) struct Platform {
    pub(crate) site: Site,
    programs: Vec<Program>,
    /// Ends after the programs.
    _postgres: Option<Postgres>,
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
    /// Starts the product below `home` and answers it with its one customer.
    pub(crate) async fn start(
        mode: Mode,
        home: &Path,
        dice: &mut Dice,
        image: &Path,
    ) -> Result<(Self, Arc<Customer>)> {
        // One canonical path, because /proc shows no other.
        let home = fs::canonicalize(home).context("resolve the data directory")?;
        let postgres = match mode {
            Mode::Several => Some(start_postgres(&home)?),
            Mode::Split | Mode::AllInOne => None,
        };
        // Beside PostgreSQL: whatever works below it is the product's.
        let root = home.join("site");
        fs::create_dir(&root)?;
        let site = Site::new(mode, &root, postgres.as_ref(), dice)?;
        let programs = Vec::new();
        let mut platform = Self { site: site.clone(), programs, _postgres: postgres };
        let customer = match mode {
            Mode::AllInOne => {
                let mut arguments = vec!["--data-dir".into(), site.root.join("data").into()];
                arguments.extend(["--api".into(), site.api()?.to_string().into()]);
                arguments.extend(["--image".into(), image.with_extension("json").into()]);
                platform.launch(Role::AllInOne, arguments)?;
                site.customer(&platform.demo_account().await?)?
            }
            Mode::Split | Mode::Several => enrol::enrol(&mut platform, free_port(dice)?).await?,
        };
        customer.until_served().await?;
        Ok((platform, customer))
    }

    /// Starts one more program for good.
    pub(crate) fn launch(&mut self, role: Role, arguments: Vec<OsString>) -> Result<()> {
        let log = self.site.root.join(format!("{}.log", role.name()));
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

    /// Starts every program that is dead, but for `absent`.
    pub(crate) fn revive(&mut self, absent: Option<Role>) -> Result<()> {
        let due = |program: &&mut Program| program.child.is_none() && absent != Some(program.role);
        self.programs.iter_mut().filter(due).try_for_each(Program::start)
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
                let (name, log) = (program.role.name(), program.log.display());
                program.child = None;
                bail!("{name} ended by itself: {status}; its log is {log}");
            }
        }
        Ok(())
    }

    /// Asks every program to stop. The database stays.
    ///
    /// # Errors
    /// One does not end, or not well.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        for program in &mut self.programs {
            let Some(child) = &mut program.child else { continue };
            process::run(process::command("kill")?.arg(child.id().to_string()))?;
            let mut ended = None;
            until("a program stops when it is asked to", async || {
                ended = child.try_wait()?;
                Ok(ended.is_none().then(|| program.role.name().to_owned()))
            })
            .await?;
            program.child = None;
            match ended {
                Some(status) if status.success() => {}
                Some(status) => {
                    let signal = status.signal();
                    bail!("{} ended with {status} (signal {signal:?})", program.role.name())
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

/// A PostgreSQL below `home`. It is not killed, so it need not wait for the disk.
fn start_postgres(home: &Path) -> Result<Postgres> {
    let directory = home.join("postgres");
    fs::create_dir(&directory)?;
    // PostgreSQL's own user has to find the way.
    fs::set_permissions(home, Permissions::from_mode(0o711))?;
    Postgres::start(&directory, &[], &["-F"])
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
