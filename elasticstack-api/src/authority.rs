//! The control plane's certificate authority: who may be a host, and who may command one.
//!
//! It owns one key in one directory. A host's certificate names that host and serves only
//! (extended key usage `serverAuth`), the control plane's own is a client only (`clientAuth`): so a
//! host that is broken into can neither command another host nor answer in its place (RFC 5280
//! §4.2.1.12).

use std::fs::{self, File};
use std::io::{ErrorKind as IoErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use elasticstack_core::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};

const KEY_FILE: &str = "authority.key";
const CERTIFICATE_FILE: &str = "authority.pem";

/// What a host joins with.
#[derive(Debug)]
pub struct Bundle {
    /// Its certificate, its private key and the authority's certificate, as PEM.
    pub pem: Secret,
    /// SHA-256 of its certificate, in lower-case hex.
    pub certificate: String,
}

/// SHA-256 of a certificate, in lower-case hex.
pub(crate) fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    Sha256::digest(certificate).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Signs the certificates of hosts and of the control plane.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// The authority kept in `directory`, made there the first time. The key's file is readable by
    /// its owner only, and is what a backup must hold and nobody else may have.
    ///
    /// # Errors
    /// `Internal` if its files can't be read, written or understood.
    pub fn open(directory: &Path) -> Result<Self> {
        let key = match fs::read_to_string(directory.join(KEY_FILE)) {
            Ok(pem) => KeyPair::from_pem(&pem).map_err(|error| broken("reading its key", error))?,
            Err(error) if error.kind() == IoErrorKind::NotFound => {
                let key = KeyPair::generate().map_err(|error| broken("making its key", error))?;
                write_private(directory, KEY_FILE, &key.serialize_pem())?;
                key
            }
            Err(error) => return Err(broken("reading its key", error)),
        };
        let certificate_path = directory.join(CERTIFICATE_FILE);
        let certificate_pem = match fs::read_to_string(&certificate_path) {
            Ok(pem) => pem,
            Err(error) if error.kind() == IoErrorKind::NotFound => {
                let certificate = authority_params()
                    .self_signed(&key)
                    .map_err(|error| broken("signing its own certificate", error))?;
                write_private(directory, CERTIFICATE_FILE, &certificate.pem())?;
                certificate.pem()
            }
            Err(error) => return Err(broken("reading its certificate", error)),
        };
        Ok(Self { issuer: Issuer::new(authority_params(), key), certificate_pem })
    }

    /// What a new host needs, as PEM: its certificate, its private key, and this authority's
    /// certificate. Handed to `elasticstack-agent join` on standard input and kept nowhere here.
    ///
    /// # Errors
    /// `Internal` if signing fails.
    pub fn host_bundle(&self, host: HostId) -> Result<Bundle> {
        let (certificate, key) =
            self.leaf(&server_name(host), ExtendedKeyUsagePurpose::ServerAuth)?;
        let pem = format!("{certificate}{}{}", key.serialize_pem(), self.certificate_pem);
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes())
            .map_err(|error| broken("reading back a certificate", error))?;
        Ok(Bundle { pem: Secret::new(pem), certificate: fingerprint(&certificate) })
    }

    /// The TLS of the control plane's own client: trusts hosts of this authority alone and shows a
    /// certificate made for this process.
    ///
    /// # Errors
    /// `Internal` if signing fails.
    pub fn client_config(&self) -> Result<rustls::ClientConfig> {
        let (certificate, key) = self.leaf("control-plane", ExtendedKeyUsagePurpose::ClientAuth)?;
        let parse = |error| broken("reading back a certificate", error);
        let mut roots = rustls::RootCertStore::empty();
        let root =
            CertificateDer::from_pem_slice(self.certificate_pem.as_bytes()).map_err(parse)?;
        roots.add(root).map_err(|error| broken("trusting itself", error))?;
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(parse)?];
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).map_err(parse)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| broken("choosing TLS 1.3", error))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|error| broken("using its certificate", error))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    fn leaf(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> Result<(String, KeyPair)> {
        let sign = || -> std::result::Result<_, rcgen::Error> {
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::new(vec![name.to_owned()])?;
            params.distinguished_name = distinguished(name);
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![usage];
            params.use_authority_key_identifier_extension = true;
            let certificate = params.signed_by(&key, &self.issuer)?;
            Ok((certificate.pem(), key))
        };
        sign().map_err(|error| broken("signing a certificate", error))
    }
}

/// The name in a host's certificate, by which the control plane knows that it reached that host.
#[must_use]
pub fn server_name(host: HostId) -> String {
    format!("{host}.host.elasticstack.internal")
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished("ElasticStack hosts");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn distinguished(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// Writes a file that only its owner may read, whole or not at all.
fn write_private(directory: &Path, name: &str, content: &str) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let draft = directory.join(format!("{name}.new"));
        let mut options = File::options();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, directory.join(name))?;
        File::open(directory)?.sync_all()
    };
    write().map_err(|error| broken("keeping its files", error))
}

fn broken(doing: &str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::internal(format!("the certificate authority, {doing}")).source(error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use rustls::pki_types::ServerName;
    use rustls::server::WebPkiClientVerifier;
    use tokio_rustls::{TlsAcceptor, TlsConnector};
    use uuid::Uuid;

    use super::*;

    fn host(n: u128) -> HostId {
        HostId::from_uuid(Uuid::from_u128(n))
    }

    fn parts(bundle: &Secret) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let pem = bundle.expose().as_bytes();
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        (certificates.unwrap(), PrivateKeyDer::from_pem_slice(pem).unwrap())
    }

    fn provider() -> Arc<rustls::crypto::CryptoProvider> {
        Arc::new(rustls::crypto::ring::default_provider())
    }

    fn roots(bundle: &Secret) -> Arc<rustls::RootCertStore> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(parts(bundle).0.pop().unwrap()).unwrap();
        Arc::new(roots)
    }

    fn host_config(bundle: &Secret) -> rustls::ServerConfig {
        let verifier = WebPkiClientVerifier::builder_with_provider(roots(bundle), provider());
        let (mut certificates, key) = parts(bundle);
        certificates.truncate(1);
        rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(certificates, key)
            .unwrap()
    }

    /// Whether both sides agree that the connection stands.
    async fn connects(
        client: rustls::ClientConfig,
        name: HostId,
        server: rustls::ServerConfig,
    ) -> bool {
        let (near, far) = tokio::io::duplex(1 << 16);
        let name = ServerName::try_from(server_name(name)).unwrap();
        let connect = TlsConnector::from(Arc::new(client)).connect(name, near);
        let accept = TlsAcceptor::from(Arc::new(server)).accept(far);
        let (connected, accepted) = tokio::join!(connect, accept);
        connected.is_ok() && accepted.is_ok()
    }

    #[tokio::test]
    async fn a_hosts_certificate_opens_only_its_own_agent() {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::open(directory.path()).unwrap();
        let (one, two) = (
            authority.host_bundle(host(1)).unwrap().pem,
            authority.host_bundle(host(2)).unwrap().pem,
        );

        let control_plane = || authority.client_config().unwrap();
        assert!(connects(control_plane(), host(1), host_config(&one)).await);
        assert!(
            !connects(control_plane(), host(1), host_config(&two)).await,
            "host 2 answers for 1"
        );

        let (mut chain, key) = parts(&two);
        chain.truncate(1);
        let stolen = rustls::ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots(&two))
            .with_client_auth_cert(chain, key)
            .unwrap();
        assert!(!connects(stolen, host(1), host_config(&one)).await, "host 2 commands host 1");

        let elsewhere = tempfile::tempdir().unwrap();
        let stranger = Authority::open(elsewhere.path()).unwrap().client_config().unwrap();
        assert!(
            !connects(stranger, host(1), host_config(&one)).await,
            "another authority commands"
        );
    }

    #[tokio::test]
    async fn an_authority_is_the_same_after_a_restart_and_its_key_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let bundle = Authority::open(directory.path()).unwrap().host_bundle(host(1)).unwrap().pem;
        let again = Authority::open(directory.path()).unwrap();
        assert!(connects(again.client_config().unwrap(), host(1), host_config(&bundle)).await);
        let mode = fs::metadata(directory.path().join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{again:?}{bundle:?}").contains("PRIVATE"));
    }
}
