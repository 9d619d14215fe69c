//! Dials agents over TCP with TLS 1.3, both ends proven by certificates of one authority.
//!
//! A host's certificate carries the host's id as its DNS name and nothing else, so it opens that
//! host only: another host's answer at the same address is refused.

use std::fmt;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use elasticstack_core::error::{Error, ErrorKind, Result};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::dial::{Dial, Stream};
use crate::app::HostRecord;

/// Dials the address of each host's record, `NAME_OR_IP:PORT`.
#[derive(Clone)]
pub struct TlsDial {
    connector: TlsConnector,
}

impl TlsDial {
    /// Trusts agents whose certificate `authority` signed, and shows them `certificate`, to which
    /// `key` belongs. All three are PEM; a certificate may be followed by its chain.
    ///
    /// # Errors
    /// `InvalidValue` that names which of the three cannot be used.
    pub fn from_pem(authority: &[u8], certificate: &[u8], key: &[u8]) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for root in certificates(authority, "authority")? {
            roots.add(root).map_err(|error| unusable("authority").source(error))?;
        }
        let chain = certificates(certificate, "certificate")?;
        let key =
            PrivateKeyDer::from_pem_slice(key).map_err(|error| unusable("key").source(error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| Error::internal("choosing TLS 1.3").source(error))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|error| unusable("certificate with its key").source(error))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { connector: TlsConnector::from(Arc::new(config)) })
    }
}

impl fmt::Debug for TlsDial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsDial").finish_non_exhaustive()
    }
}

#[async_trait]
impl Dial for TlsDial {
    async fn dial(&self, host: &HostRecord) -> io::Result<Box<dyn Stream>> {
        let name = ServerName::try_from(host.host.to_string()).map_err(io::Error::other)?;
        let stream = TcpStream::connect(&host.address).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(self.connector.connect(name, stream).await?))
    }
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>> {
    let read: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(certificates) if certificates.is_empty() => Err(unusable(what)),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(unusable(what).source(error)),
    }
}

fn unusable(what: &str) -> Error {
    Error::new(
        ErrorKind::InvalidValue,
        format!("the {what} for calls to agents cannot be used: give it as PEM"),
    )
}

#[cfg(test)]
mod tests {
    use elasticstack_core::id::HostId;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::ServerConfig;
    use rustls::server::WebPkiClientVerifier;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use uuid::Uuid;

    use super::*;

    /// An authority and what it signed for a name: (certificate, key), in PEM.
    struct Authority {
        pem: String,
        issuer: Issuer<'static, KeyPair>,
    }

    impl Authority {
        fn new() -> Self {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let pem = params.self_signed(&key).unwrap().pem();
            Self { pem, issuer: Issuer::new(params, key) }
        }

        fn sign(&self, name: &str) -> (String, String) {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
        }
    }

    /// Serves one connection as `host` and says what it read, or nothing if nobody got through.
    async fn agent(
        authority: &Authority,
        host: HostId,
    ) -> (String, tokio::task::JoinHandle<String>) {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
        let (certificate, key) = authority.sign(&host.to_string());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(
                certificates(certificate.as_bytes(), "certificate").unwrap(),
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let served = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut read = String::new();
            if let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(stream).await {
                let _ = stream.read_to_string(&mut read).await;
            }
            read
        });
        (address, served)
    }

    fn record(host: HostId, address: String) -> HostRecord {
        HostRecord { host, name: "h1".parse().unwrap(), address }
    }

    #[tokio::test]
    async fn only_the_host_with_the_id_that_was_asked_for_is_talked_to() {
        let authority = Authority::new();
        let (certificate, key) = authority.sign("api");
        let dial =
            TlsDial::from_pem(authority.pem.as_bytes(), certificate.as_bytes(), key.as_bytes())
                .unwrap();
        for (asked, answers) in [(7, 7), (7, 8), (u128::MAX, u128::MAX), (0, 0)] {
            let [asked, answers] =
                [asked, answers].map(|id| HostId::from_uuid(Uuid::from_u128(id)));
            let (address, served) = agent(&authority, answers).await;
            let dialled = dial.dial(&record(asked, address)).await;
            assert_eq!(dialled.is_ok(), asked == answers, "asked {asked}, answered {answers}");
            if let Ok(mut stream) = dialled {
                stream.write_all(b"hello").await.unwrap();
                stream.shutdown().await.unwrap();
            }
            let heard = if asked == answers { "hello" } else { "" };
            assert_eq!(served.await.unwrap(), heard);
        }
    }

    #[tokio::test]
    async fn strangers_reach_nobody_on_either_side() {
        let (ours, theirs) = (Authority::new(), Authority::new());
        let host = HostId::from_uuid(Uuid::from_u128(7));
        for (trusted, signer, server) in [(&ours, &theirs, &ours), (&ours, &ours, &theirs)] {
            let (certificate, key) = signer.sign("api");
            let dial =
                TlsDial::from_pem(trusted.pem.as_bytes(), certificate.as_bytes(), key.as_bytes())
                    .unwrap();
            let (address, served) = agent(server, host).await;
            // With TLS 1.3 a client learns only from its first read that it was refused.
            if let Ok(mut stream) = dial.dial(&record(host, address)).await {
                let _ = stream.write_all(b"hello").await;
                assert!(stream.read_u8().await.is_err());
            }
            assert_eq!(served.await.unwrap(), "");
        }
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let authority = Authority::new();
        let (certificate, key) = authority.sign("api");
        let pem = [authority.pem.as_bytes(), certificate.as_bytes(), key.as_bytes()];
        for (broken, named) in [(0, "authority"), (1, "certificate"), (2, "key")] {
            let mut pem = pem;
            pem[broken] = b"-----BEGIN NONSENSE-----";
            let refused = TlsDial::from_pem(pem[0], pem[1], pem[2]).unwrap_err();
            assert!(refused.public_message().contains(named), "{refused}");
        }
    }
}
