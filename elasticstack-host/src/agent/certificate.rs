//! A host's certificate: what `join` takes in, and the TLS that only the control plane gets through.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use elasticstack_core::prelude::*;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;

const FILE: &str = "certificate.pem";

/// A host's certificate with its private key, and the authority whose client it obeys: three PEM
/// blocks, the host's certificate before the authority's.
pub struct Certificate {
    bundle: Secret,
    host: CertificateDer<'static>,
    authority: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").finish_non_exhaustive()
    }
}

impl Certificate {
    /// Reads a bundle as `elasticstack host add` prints it.
    ///
    /// # Errors
    /// `InvalidValue` if it is not two certificates and a key.
    pub fn parse(bundle: &str) -> Result<Self> {
        let invalid = || {
            Error::new(
                ErrorKind::InvalidValue,
                "not a certificate bundle: give the whole output of `elasticstack host add`",
            )
        };
        let pem = bundle.as_bytes();
        let certificates: std::result::Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(pem).collect();
        let certificates = certificates.map_err(|error| invalid().source(error))?;
        let key = PrivateKeyDer::from_pem_slice(pem).map_err(|error| invalid().source(error))?;
        let [host, authority] = <[_; 2]>::try_from(certificates).map_err(|_| invalid())?;
        let certificate = Self { bundle: Secret::new(bundle), host, authority, key };
        certificate.server_config()?;
        Ok(certificate)
    }

    /// Keeps it in `state_dir`, readable by its owner only, in place of any earlier one.
    ///
    /// # Errors
    /// `Internal` if it can't be written.
    pub fn keep(&self, state_dir: &Path) -> Result<()> {
        let write = || -> std::io::Result<()> {
            fs::create_dir_all(state_dir)?;
            let draft = state_dir.join("certificate.new");
            let mut options = File::options();
            let mut file =
                options.write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
            file.write_all(self.bundle.expose().as_bytes())?;
            file.sync_all()?;
            fs::rename(&draft, state_dir.join(FILE))?;
            File::open(state_dir)?.sync_all()
        };
        write().map_err(|error| {
            Error::internal(format!("keeping the certificate in {}", state_dir.display()))
                .source(error)
        })
    }

    /// The one kept in `state_dir`.
    ///
    /// # Errors
    /// `NotFound` if this host has not joined; `Internal` if it can't be read.
    pub fn kept(state_dir: &Path) -> Result<Self> {
        match fs::read_to_string(state_dir.join(FILE)) {
            Ok(bundle) => Self::parse(&bundle),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::new(
                ErrorKind::NotFound,
                "this host has no certificate: run `elasticstack host add` where the API is, and \
                 here the command that it prints",
            )),
            Err(error) => Err(Error::internal("reading the certificate").source(error)),
        }
    }

    /// The TLS of the internal API: TLS 1.3, and only a client of the same authority.
    ///
    /// # Errors
    /// `InvalidValue` if certificate and key do not fit each other.
    pub fn server_config(&self) -> Result<rustls::ServerConfig> {
        let unfit = |error: Box<dyn std::error::Error + Send + Sync>| {
            Error::new(
                ErrorKind::InvalidValue,
                "the certificate bundle is damaged: run `elasticstack host add` again",
            )
            .source(error)
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.authority.clone()).map_err(|error| unfit(error.into()))?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .map_err(|error| unfit(error.into()))?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| unfit(error.into()))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![self.host.clone()], self.key.clone_key())
            .map_err(|error| unfit(error.into()))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_host_that_has_not_joined_is_told_how() {
        let directory = tempfile::tempdir().unwrap();
        let error = Certificate::kept(directory.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("elasticstack host add"), "{error}");
    }

    proptest! {
        #[test]
        fn no_text_panics_the_bundle_parser(text in ".{0,200}") {
            prop_assert!(Certificate::parse(&text).is_err());
            let framed = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
            prop_assert!(Certificate::parse(&framed.repeat(2)).is_err());
        }
    }
}
