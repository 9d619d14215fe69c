//! Guests' screens: the way from the control plane to the loopback socket that a run's VNC is
//! served on. Nobody else is let there by us.

use std::time::Duration;

use elasticstack_core::error::{Error, ErrorKind, Result};
use elasticstack_core::generation::Run;
use elasticstack_core::hypervisor::Phase;
use elasticstack_core::id::ServerId;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::host::Host;

/// How long a screen on this machine may take to answer.
const DIAL: Duration = Duration::from_secs(5);

/// A connection to the screen of exactly this run.
///
/// # Errors
/// `NotFound` if that run is over or has no screen; `Unavailable` if it does not answer.
pub(super) async fn connect(host: &Host, server: ServerId, run: Run) -> Result<TcpStream> {
    let none = || Error::new(ErrorKind::NotFound, "no run of the server shows this screen");
    let console = host.hypervisor.console().ok_or_else(none)?;
    alive(host, server, run).await?;
    let address = console.screen(server).await?.ok_or_else(none)?;
    let silent = |error: std::io::Error| {
        Error::new(ErrorKind::Unavailable, "the server's screen does not answer: try again")
            .context(format!("dialling {address}"))
            .source(error)
    };
    let dialled = tokio::time::timeout(DIAL, TcpStream::connect(address)).await;
    let stream = dialled.map_err(|_| silent(std::io::ErrorKind::TimedOut.into()))?;
    let stream = stream.map_err(silent)?;
    // Had the run ended meanwhile, its address could be anybody's by now.
    alive(host, server, run).await?;
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    Ok(stream)
}

async fn alive(host: &Host, server: ServerId, run: Run) -> Result<()> {
    let observed = host.hypervisor.observe().await?;
    let is_it = |phase| !matches!(phase, Phase::Ended(_));
    if observed.iter().any(|seen| (seen.server, seen.run) == (server, run) && is_it(seen.phase)) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::NotFound, "the run of the server whose screen was asked for is over"))
}

/// Carries bytes both ways until either side ends.
pub(super) async fn carry(mut screen: TcpStream, client: OnUpgrade) {
    let mut client = match client.await {
        Ok(client) => TokioIo::new(client),
        Err(error) => return tracing::debug!(%error, "who asked for a screen went away"),
    };
    if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut screen).await {
        tracing::debug!(%error, "a screen's stream broke");
    }
}
