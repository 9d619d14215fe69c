//! Who calls the public API: over HTTP, with a key, as records or as plain bytes.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use elasticstack_core::client::{Client, HyperTransport, Transport as _};
use elasticstack_core::id::AccountId;
use elasticstack_core::secret::Secret;
use elasticstack_core::sim::SimRng;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request};

/// An account and its key.
#[derive(Clone)]
pub(crate) struct Credentials {
    pub(super) account: AccountId,
    pub(super) key: String,
}

impl Credentials {
    /// Those of an account that only a bench ever has.
    pub(super) fn drawn(rng: &mut SimRng) -> Self {
        Self { account: rng.id(), key: rng.id::<()>().to_string() }
    }
}

impl fmt::Display for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.account, self.key)
    }
}

impl FromStr for Credentials {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (account, key) = text.split_once(':').context("an account is given as UUID:KEY")?;
        Ok(Self { account: account.parse()?, key: key.to_owned() })
    }
}

/// An account at an API server.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) client: Arc<Client<HyperTransport>>,
    transport: HyperTransport,
    authorization: HeaderValue,
}

impl Caller {
    pub(super) fn new(api: &str, Credentials { account, key }: &Credentials) -> Result<Self> {
        let transport = HyperTransport::new(api)?;
        let client = Arc::new(Client::new(transport.clone(), *account, &Secret::new(key))?);
        let basic = STANDARD.encode(format!("{account}:{key}"));
        let authorization = HeaderValue::try_from(format!("Basic {basic}"))?;
        Ok(Self { client, transport, authorization })
    }

    /// The body of the answer, which is not looked into.
    ///
    /// # Errors
    /// There is none, or it is a refusal.
    pub(super) async fn bytes(&self, method: Method, path: &str) -> Result<Bytes> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/json")
            .header(AUTHORIZATION, self.authorization.clone())
            .body(Bytes::new())?;
        let answer = self.transport.send(request).await?;
        let status = answer.status();
        ensure!(
            status.is_success(),
            "{path} answered {status}: {}",
            String::from_utf8_lossy(answer.body()).trim()
        );
        Ok(answer.into_body())
    }
}
