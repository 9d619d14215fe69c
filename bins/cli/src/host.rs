//! `elasticstack host`: for operators.

use clap::Subcommand;
use elasticstack_core::client::{Client, Transport};
use elasticstack_core::id::HostId;
use elasticstack_core::name::Name;
use elasticstack_core::wire::calls::Call;
use elasticstack_core::wire::keys::Object;
use elasticstack_core::wire::record::Record;

use crate::ask::Ask;
use crate::command::about;
use crate::failure::Result;
use crate::screen::Screen;

const COLUMNS: &[&str] = &["host", "name", "status", "address", "cpu:total", "mem:total"];

/// What can be done with hosts.
#[derive(Debug, Subcommand)]
pub enum Command {
    #[command(about = about(Call::HostsInfo))]
    #[expect(missing_docs, reason = "the API's table says it")]
    List,
    #[command(about = about(Call::HostInfo))]
    #[expect(missing_docs, reason = "the API's table says it")]
    Info {
        /// The host's UUID
        host: HostId,
    },
    /// Make a host known, and print the command to run on it: it joins with the certificates and
    /// the key in that command's input
    Add {
        /// What to call it
        name: Name,
        /// Where its agent listens, as NAME_OR_IP:PORT
        address: String,
    },
    /// Place nothing new on a host; what is there goes on
    Close {
        /// The host's UUID
        host: HostId,
    },
    /// Place new things on a host again
    Open {
        /// The host's UUID
        host: HostId,
    },
    #[command(about = about(Call::HostRevoke))]
    #[expect(missing_docs, reason = "the API's table says it")]
    Revoke {
        /// The host's UUID
        host: HostId,
    },
    /// Have a host join again, with other certificates, and print the command to run on it
    Join {
        /// The host's UUID
        host: HostId,
    },
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
        let ask = Ask { object: Object::Host, client, screen };
        match self {
            Self::List => ask.many(Call::HostsInfo, COLUMNS).await,
            Self::Info { host } => {
                ask.one(Call::HostInfo, &[&host.to_string()], &Record::new()).await
            }
            Self::Add { name, address } => {
                let wish = Record::new().with("name", name).with("address", address);
                let host = ask.client.one(Call::HostCreate, &[], &wish).await?;
                ask.screen.bytes(joining(&host).as_bytes())
            }
            Self::Close { host } => {
                let change = Record::new().with("placements", "closed");
                ask.one(Call::HostSet, &[&host.to_string()], &change).await
            }
            Self::Open { host } => {
                let change = Record::new().with("placements", "open");
                ask.one(Call::HostSet, &[&host.to_string()], &change).await
            }
            Self::Revoke { host } => {
                ask.one(Call::HostRevoke, &[&host.to_string()], &Record::new()).await
            }
            Self::Join { host } => {
                let path = host.to_string();
                let host = ask.client.one(Call::HostJoin, &[&path], &Record::new()).await?;
                ask.screen.bytes(joining(&host).as_bytes())
            }
        }
    }
}

/// The command that joins the host whose bundle this is.
fn joining(host: &Record) -> String {
    let bundle = host.value("bundle").unwrap_or_default().trim_end();
    format!("elasticstack-agent join <<'END_OF_BUNDLE'\n{bundle}\nEND_OF_BUNDLE\n")
}
