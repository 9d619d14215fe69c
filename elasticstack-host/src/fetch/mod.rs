//! Fetches files from elsewhere by HTTP and HTTPS, for customers and so with care.
//!
//! A name is resolved once and the connection goes to an address that was looked at; each redirect is
//! looked at anew. Nothing is sent to an address that [`Networks`] do not allow, nor to this machine.
//! Of an address of a file only the host is told in errors: the rest may be a secret.

mod networks;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes as Data;
use elasticstack_core::prelude::*;
use http::header::{
    ACCEPT_ENCODING, CONTENT_LENGTH, HOST, LOCATION, TRANSFER_ENCODING, USER_AGENT,
};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;
use url::Url;

pub use networks::{Network, Networks, NoNetwork};

/// Whose certificates are believed where nothing else is said: Debian's list.
pub const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// How many redirects are followed.
const REDIRECTS: usize = 5;

/// How long a name, a connection and the beginning of an answer may take, together.
const ANSWER: Duration = Duration::from_secs(30);

/// How long a file may take.
const WHOLE: Duration = Duration::from_secs(24 * 3600);

/// The longest head of an answer.
const HEAD: usize = 64 << 10;

/// Fetches files.
#[derive(Debug, Clone)]
pub struct Fetcher {
    networks: Networks,
    authorities: PathBuf,
}

impl Default for Fetcher {
    fn default() -> Self {
        Self::new(Networks::default(), AUTHORITIES.into())
    }
}

/// A file whose first bytes are on their way.
#[derive(Debug)]
pub struct Fetched {
    length: Option<u64>,
    body: Incoming,
    until: Instant,
    _connection: AbortOnDropHandle<()>,
}

impl Fetched {
    /// Its length in bytes, if the server tells it.
    #[must_use]
    pub const fn length(&self) -> Option<u64> {
        self.length
    }

    /// The next bytes; `None` at its end.
    ///
    /// # Errors
    /// `JobFailed` if it breaks off or takes more than a day.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> Result<Option<Data>> {
        loop {
            let frame = timeout_at(self.until, self.body.frame()).await;
            match frame.map_err(|_| failed("the file takes more than a day"))? {
                None => return Ok(None),
                Some(Err(error)) => {
                    return Err(failed("the file broke off before its end").source(error));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Ok(Some(data)),
                    _ => {}
                },
            }
        }
    }
}

impl Fetcher {
    /// One that fetches from public networks and as `networks` say, and believes the certificates of
    /// the authorities in that file (PEM), which is read anew for each file.
    #[must_use]
    pub const fn new(networks: Networks, authorities: PathBuf) -> Self {
        Self { networks, authorities }
    }

    /// Asks for a file.
    ///
    /// # Errors
    /// `JobFailed`, with a sentence for whoever asked.
    ///
    /// # Cancel safety
    /// The connection is closed.
    pub async fn fetch(&self, url: &Secret) -> Result<Fetched> {
        let mut url =
            Url::parse(url.expose()).map_err(|_| failed("url is no address of a file"))?;
        for _ in 0..=REDIRECTS {
            check(&url)?;
            let (response, connection) = timeout(ANSWER, self.ask(&url))
                .await
                .map_err(|_| failed(&format!("{} does not answer", host(&url))))??;
            match response.status() {
                StatusCode::OK => return fetched(&url, response, connection),
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => url = redirected(&url, &response)?,
                other => {
                    return Err(failed(&format!("{} answers {}", host(&url), other.as_u16())));
                }
            }
        }
        Err(failed("the file is behind more than five redirects"))
    }

    async fn ask(&self, url: &Url) -> Result<(Response<Incoming>, AbortOnDropHandle<()>)> {
        let stream = self.connect(url).await?;
        if url.scheme() == "http" {
            return request(url, stream).await;
        }
        let unproved = |error: io::Error| {
            let text = format!("{} does not prove to be itself by its certificate", host(url));
            failed(&text).source(error)
        };
        let name = match url.host() {
            Some(url::Host::Domain(name)) => ServerName::try_from(name.to_owned()),
            Some(url::Host::Ipv4(address)) => Ok(IpAddr::V4(address).into()),
            Some(url::Host::Ipv6(address)) => Ok(IpAddr::V6(address).into()),
            None => ServerName::try_from(String::new()),
        };
        let name = name.map_err(|error| unproved(io::Error::other(error)))?;
        let tls = TlsConnector::from(Arc::new(self.tls()?)).connect(name, stream).await;
        request(url, tls.map_err(unproved)?).await
    }

    /// Connects to an address that it may.
    async fn connect(&self, url: &Url) -> Result<TcpStream> {
        let port = url.port_or_known_default().unwrap_or(0);
        let found: Vec<SocketAddr> = match url.host() {
            Some(url::Host::Ipv4(address)) => vec![(address, port).into()],
            Some(url::Host::Ipv6(address)) => vec![(address, port).into()],
            Some(url::Host::Domain(name)) => match lookup_host((name, port)).await {
                Ok(found) => found.collect(),
                Err(error) => {
                    return Err(failed(&format!("{name} has no address")).source(error));
                }
            },
            None => Vec::new(),
        };
        let refused = || {
            let text = format!("{} is not a public address, or not allowed here", host(url));
            failed(&text)
        };
        let mut last = refused();
        for address in found.into_iter().filter(|address| self.networks.allow(address.ip())) {
            match TcpStream::connect(address).await {
                // A public address of this machine's own leads to what it has for itself.
                Ok(stream) if self.is_own(&stream) => last = refused(),
                Ok(stream) => return Ok(stream),
                Err(error) => {
                    last = failed(&format!("{} takes no connection", host(url))).source(error);
                }
            }
        }
        Err(last)
    }

    fn is_own(&self, stream: &TcpStream) -> bool {
        match (stream.local_addr(), stream.peer_addr()) {
            (Ok(here), Ok(there)) => {
                here.ip() == there.ip() && !self.networks.allow_by_name(there.ip())
            }
            _ => true,
        }
    }

    fn tls(&self) -> Result<ClientConfig> {
        let unreadable = |error: rustls::pki_types::pem::Error| {
            failed("this host has no list of certificate authorities, and HTTPS needs one")
                .source(error)
        };
        let mut roots = RootCertStore::empty();
        let all = CertificateDer::pem_file_iter(&self.authorities).map_err(unreadable)?;
        roots.add_parsable_certificates(all.filter_map(std::result::Result::ok));
        Ok(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
    }
}

async fn request(
    url: &Url,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<(Response<Incoming>, AbortOnDropHandle<()>)> {
    let broken =
        |error: hyper::Error| failed(&format!("{} does not speak HTTP", host(url))).source(error);
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let connection = AbortOnDropHandle::new(tokio::spawn(async move {
        // The request or the body fails with it.
        let _ = connection.await;
    }));
    let asked = Request::get(url[url::Position::BeforePath..url::Position::AfterQuery].to_owned())
        .header(HOST, &url[url::Position::BeforeHost..url::Position::AfterPort])
        .header(USER_AGENT, HeaderValue::from_static("ElasticStack"))
        .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"))
        .body(Empty::<Data>::new())
        .map_err(|error| failed("url is no address of a file").source(error))?;
    Ok((sender.send_request(asked).await.map_err(broken)?, connection))
}

fn fetched(
    url: &Url,
    response: Response<Incoming>,
    connection: AbortOnDropHandle<()>,
) -> Result<Fetched> {
    let headers = response.headers();
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if length.is_none() && !headers.contains_key(TRANSFER_ENCODING) {
        return Err(failed(&format!("{} does not tell where the file ends", host(url))));
    }
    let until = Instant::now() + WHOLE;
    Ok(Fetched { length, body: response.into_body(), until, _connection: connection })
}

/// Where a redirect leads.
fn redirected(from: &Url, response: &Response<Incoming>) -> Result<Url> {
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let nowhere = || failed(&format!("{} redirects to nowhere", host(from)));
    let to = from.join(location.ok_or_else(nowhere)?).map_err(|_| nowhere())?;
    if from.scheme() == "https" && to.scheme() != "https" {
        return Err(failed(&format!("{} redirects from HTTPS to something else", host(from))));
    }
    Ok(to)
}

/// Refuses what is not a plain address of a file.
fn check(url: &Url) -> Result<()> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(failed("files are fetched by http:// and https:// only"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(failed("a file's address with a user in it is not taken"));
    }
    Ok(())
}

fn host(url: &Url) -> &str {
    url.host_str().unwrap_or("the server")
}

fn failed(public: &str) -> Error {
    Error::new(ErrorKind::JobFailed, public)
}
