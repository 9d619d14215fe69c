//! `elasticstack server …`.

use clap::{Args, Subcommand};
use elasticstack_core::amount;
use elasticstack_core::client::{Client, Transport};
use elasticstack_core::hypervisor::Device;
use elasticstack_core::id::{DriveId, ServerId};
use elasticstack_core::name::Name;
use elasticstack_core::units::{MebiBytes, MegaHertz};
use elasticstack_core::wire::calls::Call;
use elasticstack_core::wire::keys::Object;
use elasticstack_core::wire::record::Record;

use crate::account;
use crate::ask::Ask;
use crate::command::about;
use crate::failure::Result;
use crate::screen::Screen;
use crate::settings::{self, Setting};

const COLUMNS: &[&str] = &["server", "name", "status", "cpu", "mem"];

/// What to do with servers.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List your servers
    List,
    #[command(about = about(Call::ServerInfo))]
    #[expect(missing_docs, reason = "the API's table says it")]
    Info { server: ServerId },
    #[command(about = "Makes a server and starts it, unless --stopped")]
    #[expect(missing_docs, reason = "the attribute says it")]
    Create {
        #[command(flatten)]
        options: Options,
        /// Leave it stopped
        #[arg(long)]
        stopped: bool,
    },
    #[command(about = about(Call::ServerSet))]
    #[expect(missing_docs, reason = "the API's table says it")]
    Set {
        server: ServerId,
        #[command(flatten)]
        options: Options,
    },
    #[command(about = about(Call::ServerStart))]
    #[expect(missing_docs, reason = "the API's table says it")]
    Start { server: ServerId },
    #[command(about = about(Call::ServerStop))]
    #[expect(missing_docs, reason = "the API's table says it")]
    Stop { server: ServerId },
    #[command(about = about(Call::ServerShutdown))]
    #[expect(missing_docs, reason = "the API's table says it")]
    Shutdown { server: ServerId },
    #[command(about = about(Call::ServerReset))]
    #[expect(missing_docs, reason = "the API's table says it")]
    Reset { server: ServerId },
    #[command(about = about(Call::ServerDestroy))]
    #[expect(missing_docs, reason = "the API's table says it")]
    Destroy { server: ServerId },
    #[command(about = "A websocket's URL that shows its screen, good once and for 60 s")]
    #[expect(missing_docs, reason = "the attribute says it")]
    Console { server: ServerId },
    #[command(about = about(Call::ServerSerial))]
    #[expect(missing_docs, reason = "the API's table says it")]
    Serial { server: ServerId },
}

/// What a server is made of.
#[derive(Debug, Args)]
pub struct Options {
    /// What to call it
    #[arg(long)]
    name: Option<Name>,
    /// Processor time for the whole server: 2000, 2000MHz, 2GHz
    #[arg(long, value_name = "AMOUNT", value_parser = amount::cpu)]
    cpu: Option<MegaHertz>,
    /// Memory: 1024, 1024MiB, 1GiB
    #[arg(long, value_name = "AMOUNT", value_parser = amount::memory)]
    mem: Option<MebiBytes>,
    /// A drive on a device, such as ide:0:0=UUID; repeat for more
    #[arg(long = "drive", value_name = "DEVICE=DRIVE", value_parser = attachment)]
    drives: Vec<(Device, DriveId)>,
    /// The device to boot from; when a server is made, the first --drive if not given
    #[arg(long, value_name = "DEVICE")]
    boot: Option<Device>,
    /// Keep the server when it stops
    #[arg(long)]
    persistent: bool,
    /// Any other key; `elasticstack keys server` lists them
    #[arg(value_name = "KEY=VALUE", value_parser = settings::parse)]
    settings: Vec<Setting>,
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// What the API says, or `Output`.
    pub async fn run<T: Transport>(
        self,
        client: &Client<T>,
        screen: &mut Screen<'_>,
    ) -> Result<()> {
        let ask = Ask { object: Object::Server, client, screen };
        match self {
            Self::List => ask.many(Call::ServersInfo, COLUMNS).await,
            Self::Info { server } => {
                ask.one(Call::ServerInfo, &[&server.to_string()], &Record::new()).await
            }
            Self::Create { mut options, stopped } => {
                options.boot = options.boot.or(options.drives.first().map(|(device, _)| *device));
                let call = if stopped { Call::ServerCreateStopped } else { Call::ServerCreate };
                ask.one(call, &[], &options.into_record()).await
            }
            Self::Set { server, options } => {
                let change = options.into_record();
                ask.one(Call::ServerSet, &[&server.to_string()], &change).await
            }
            Self::Start { server } => {
                ask.one(Call::ServerStart, &[&server.to_string()], &Record::new()).await
            }
            Self::Stop { server } => act(ask, Call::ServerStop, server, "stopped").await,
            Self::Shutdown { server } => {
                act(ask, Call::ServerShutdown, server, "asked to shut down").await
            }
            Self::Reset { server } => act(ask, Call::ServerReset, server, "reset").await,
            Self::Destroy { server } => act(ask, Call::ServerDestroy, server, "destroyed").await,
            Self::Console { server } => {
                let call = Call::ServerConsole;
                let ticket = client.one(call, &[&server.to_string()], &Record::new()).await?;
                let path = ticket.value("path").unwrap_or_default();
                let url = account::websocket(path)?;
                ask.screen.record(Object::Console, &ticket.with("url", url))
            }
            Self::Serial { server } => {
                let log = client.read(Call::ServerSerial, &[&server.to_string()]).await?;
                ask.screen.log(&log)
            }
        }
    }
}

async fn act<T: Transport>(
    ask: Ask<'_, '_, T>,
    call: Call,
    server: ServerId,
    what: &str,
) -> Result<()> {
    ask.act(call, ("server", &server.to_string()), what).await
}

impl Options {
    fn into_record(self) -> Record {
        let mut record = Record::new();
        if let Some(name) = self.name {
            record.set("name", name);
        }
        if let Some(MegaHertz(cpu)) = self.cpu {
            record.set("cpu", cpu);
        }
        if let Some(MebiBytes(mem)) = self.mem {
            record.set("mem", mem);
        }
        for (device, drive) in self.drives {
            record.set(device.to_string(), drive);
        }
        if let Some(boot) = self.boot {
            record.set("boot", boot);
        }
        if self.persistent {
            record.set("persistent", true);
        }
        settings::apply(&mut record, self.settings);
        record
    }
}

fn attachment(text: &str) -> Result<(Device, DriveId), String> {
    let (device, drive) = text.split_once('=').ok_or("give DEVICE=DRIVE, such as ide:0:0=UUID")?;
    let device = device.parse::<Device>().map_err(|error| error.to_string())?;
    Ok((device, drive.parse::<DriveId>().map_err(|error| error.to_string())?))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use elasticstack_core::wire::keys::{self, Moment};

    use super::*;
    use crate::command::{Cli, Command as Any};

    const DRIVE: &str = "5b0e3c52-0000-4000-8000-00000000d001";

    #[test]
    fn every_option_is_a_key_that_the_api_takes() {
        let drive = format!("ide:0:0={DRIVE}");
        let Ok(Cli { command: Any::Server(Command::Create { options, stopped: true }), .. }) =
            Cli::try_parse_from([
                "elasticstack",
                "server",
                "create",
                "--name",
                "web one",
                "--cpu",
                "2GHz",
                "--mem=1GiB",
                "--drive",
                &drive,
                "--boot=ide:0:0",
                "--persistent",
                "--stopped",
                "smp=2",
                "user:note=a=b",
            ])
        else {
            panic!("not read")
        };
        let record = options.into_record();
        keys::check(Object::Server, Moment::Create, &record).unwrap();
        let text = format!(
            "boot ide:0:0\ncpu 2000\nide:0:0 {DRIVE}\nmem 1024\nname web one\n\
             persistent true\nsmp 2\nuser:note a=b\n"
        );
        assert_eq!(record.to_text(), text);
        for column in COLUMNS {
            assert!(keys::find(Object::Server, column).is_some(), "{column}");
        }
    }

    #[test]
    fn what_is_no_server_drive_or_amount_is_a_usage_error() {
        for line in [
            "server info ../profile",
            "host info ../profile",
            "server create --cpu 2GiB",
            "server create --drive ide:0:0",
            "server create --drive floppy=5b0e3c52-0000-4000-8000-00000000d001",
            "server create smp",
            "server fly",
        ] {
            let words = std::iter::once("elasticstack").chain(line.split(' '));
            assert_eq!(Cli::try_parse_from(words).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
