//! The process of an API server, put together as the product does it, but for the way of dialling:
//! in clear, unless TLS is to be measured too.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use elasticstack_api::Server;
use elasticstack_api::app::{AppConfig, HostRecord};
use elasticstack_api::authority::Authority;
use elasticstack_api::hosts::{Dial, Stream, TlsDial};
use elasticstack_core::secret::Secret;
use tokio::net::{TcpListener, TcpStream};

use super::caller::Credentials;
use super::fleet::PLAIN_PORT;
use super::process::{input_ends, ready};

/// What it serves.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where its authority is kept
    #[arg(long)]
    directory: PathBuf,
    #[arg(long)]
    database: String,
    /// Whether hosts are dialled over TLS
    #[arg(long)]
    tls: bool,
    #[arg(long, env = "BENCH_OPERATOR", hide_env_values = true)]
    operator: Credentials,
    #[arg(long, env = "BENCH_CUSTOMER", hide_env_values = true)]
    customer: Credentials,
}

impl Args {
    pub(crate) fn database(&self) -> &str {
        &self.database
    }
}

/// Serves until standard input ends.
pub(crate) async fn run(args: &Args) -> Result<()> {
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::ERROR)
        .with_writer(io::stderr)
        .init();
    std::fs::create_dir_all(&args.directory).context("making the authority's directory")?;
    let authority = Authority::open(&args.directory)?;
    let dial: Arc<dyn Dial> = if args.tls {
        Arc::new(TlsDial::new(authority.client_config()?))
    } else {
        Arc::new(PlainDial)
    };
    let server = Server::builder()
        .database(&args.database)
        .dial(dial)
        .config(AppConfig { authority: Some(Arc::new(authority)), ..AppConfig::default() })
        .build()
        .await?;
    let app = server.app();
    let Credentials { account, key } = &args.operator;
    app.operator_create(*account, &"operator".parse()?, &Secret::new(key)).await?;
    let Credentials { account, key } = &args.customer;
    let name = "customer".parse()?;
    app.account_create(*account, &name, "customer@example.org", &Secret::new(key)).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await.context("listening")?;
    ready(format_args!("http://{}", listener.local_addr()?));
    let end = async {
        let _ = tokio::task::spawn_blocking(input_ends).await;
    };
    server.serve(listener, end).await?;
    server.close().await;
    Ok(())
}

/// Dials the port beside the one that hosts are known by, where nothing is encrypted.
struct PlainDial;

#[async_trait]
impl Dial for PlainDial {
    async fn dial(&self, host: &HostRecord) -> io::Result<Box<dyn Stream>> {
        let (ip, _) = host.address.split_once(':').unwrap_or((&host.address, ""));
        let stream = TcpStream::connect((ip, PLAIN_PORT)).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}
