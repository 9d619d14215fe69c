//! Dialling agents on other machines, over mTLS.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::dial::{Dial, Stream};
use crate::app::HostRecord;
use crate::authority::server_name;

/// Reaches agents by TCP and TLS 1.3. Which host answered is proven by its certificate, which
/// names it; a host is who its authority says, not who listens at its address.
pub struct TlsDial {
    connector: TlsConnector,
}

impl TlsDial {
    /// Dials with the control plane's own certificate, see
    /// [`Authority::client_config`](crate::authority::Authority::client_config).
    #[must_use]
    pub fn new(config: rustls::ClientConfig) -> Self {
        Self { connector: TlsConnector::from(Arc::new(config)) }
    }
}

impl std::fmt::Debug for TlsDial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsDial").finish_non_exhaustive()
    }
}

#[async_trait]
impl Dial for TlsDial {
    async fn dial(&self, host: &HostRecord) -> io::Result<Box<dyn Stream>> {
        let name = ServerName::try_from(server_name(host.host)).map_err(io::Error::other)?;
        let stream = TcpStream::connect(host.address.as_str()).await?;
        // A desired document is small and waited for.
        stream.set_nodelay(true)?;
        Ok(Box::new(self.connector.connect(name, stream).await?))
    }
}
