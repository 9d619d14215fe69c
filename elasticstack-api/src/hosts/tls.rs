//! Dialling agents on other machines, over mTLS.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::dial::{Dial, Stream};
use crate::app::HostRecord;
use crate::authority::{fingerprint, server_name};

/// Reaches agents by TCP and TLS 1.3. Which host answered is proven by its certificate, which
/// names it; a host is who its authority says, not who listens at its address. Of a host whose
/// certificate is known, no other one is good, though the authority signed it too.
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
        let stream = self.connector.connect(name, stream).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let shown = shown.map(fingerprint);
        if host.certificate.is_some() && host.certificate != shown {
            let sentence = "it shows a certificate that is not its newest: have it join again";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, sentence));
        }
        Ok(Box::new(stream))
    }
}

#[cfg(test)]
mod tests {
    use elasticstack_core::prelude::*;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use uuid::Uuid;

    use super::*;
    use crate::authority::{Authority, Bundle};

    /// Whoever asks at the address is answered with this bundle.
    async fn listen(bundle: &Bundle) -> String {
        let pem = bundle.pem.expose().as_bytes();
        let certificate = CertificateDer::from_pem_slice(pem).unwrap();
        let key = PrivateKeyDer::from_pem_slice(pem).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(Arc::new(config));
            while let Ok((stream, _)) = listener.accept().await {
                let _ = acceptor.accept(stream).await;
            }
        });
        address
    }

    #[tokio::test]
    async fn of_two_certificates_of_a_host_only_the_newest_is_good() {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::open(directory.path()).unwrap();
        let host = HostId::from_uuid(Uuid::from_u128(1));
        let old = authority.host_bundle(host).unwrap();
        let newest = authority.host_bundle(host).unwrap();
        let dial = TlsDial::new(authority.client_config().unwrap());
        let mut record = HostRecord {
            host,
            name: "h".parse().unwrap(),
            address: listen(&newest).await,
            certificate: Some(newest.certificate.clone()),
        };
        assert!(dial.dial(&record).await.is_ok());
        record.address = listen(&old).await;
        let refused = dial.dial(&record).await.err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        record.certificate = None;
        assert!(dial.dial(&record).await.is_ok(), "as long as none is known, its name counts");
    }
}
