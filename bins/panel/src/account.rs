//! An account whose owner is logged in: the public API as that account sees it.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use elasticstack_core::client::{Client, Transport};
use elasticstack_core::error::{Error, Result};
use elasticstack_core::id::{AccountId, DriveId, ServerId};
use elasticstack_core::secret::Secret;
use elasticstack_core::wire::calls::Call;
use elasticstack_core::wire::record::Record;
use http::{Request, Response};

/// Speaks the API as one account. Holds its key; shows it to nobody.
pub(crate) struct Account {
    client: Client<Arc<dyn Transport>>,
    id: AccountId,
    name: String,
}

impl Account {
    /// Asks the API whether `key` is the account's.
    ///
    /// # Errors
    /// `BadCredentials`, or what else the API says.
    pub(crate) async fn log_in(
        api: Arc<dyn Transport>,
        id: AccountId,
        key: &Secret,
    ) -> Result<Self> {
        let client = Client::new(api, id, key)?;
        let profile = client.one(Call::ProfileInfo, &[], &Record::new()).await?;
        let name = profile.value("name").unwrap_or("your account").to_owned();
        Ok(Self { client, id, name })
    }

    pub(crate) fn id(&self) -> AccountId {
        self.id
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) async fn servers(&self) -> Result<Vec<Record>> {
        self.client.many(Call::ServersInfo).await
    }

    pub(crate) async fn server(&self, server: ServerId) -> Result<Record> {
        self.client.one(Call::ServerInfo, &[&server.to_string()], &Record::new()).await
    }

    pub(crate) async fn create_server(&self, server: &Record) -> Result<Record> {
        self.client.one(Call::ServerCreate, &[], server).await
    }

    /// What one of the calls that need nothing but a server does.
    pub(crate) async fn act_on_server(&self, call: Call, server: ServerId) -> Result<()> {
        self.client.act(call, &[&server.to_string()]).await
    }

    pub(crate) async fn serial_log(&self, server: ServerId) -> Result<Vec<u8>> {
        let log = self.client.read(Call::ServerSerial, &[&server.to_string()]).await?;
        Ok(log.to_vec())
    }

    pub(crate) async fn drives(&self) -> Result<Vec<Record>> {
        self.client.many(Call::DrivesInfo).await
    }

    /// The images that everybody may use.
    pub(crate) async fn images(&self) -> Result<Vec<Record>> {
        self.client.many(Call::DrivesInfoStandard).await
    }

    pub(crate) async fn drive(&self, drive: DriveId) -> Result<Record> {
        self.client.one(Call::DriveInfo, &[&drive.to_string()], &Record::new()).await
    }

    pub(crate) async fn create_drive(&self, drive: &Record) -> Result<Record> {
        self.client.one(Call::DriveCreate, &[], drive).await
    }

    pub(crate) async fn set_drive(&self, drive: DriveId, change: &Record) -> Result<Record> {
        self.client.one(Call::DriveSet, &[&drive.to_string()], change).await
    }

    pub(crate) async fn destroy_drive(&self, drive: DriveId) -> Result<()> {
        self.client.act(Call::DriveDestroy, &[&drive.to_string()]).await
    }

    /// Begins to copy an image into a drive, decompressing it if it is compressed.
    pub(crate) async fn image_drive(&self, drive: DriveId, image: DriveId) -> Result<Record> {
        let id = image.to_string();
        let images = self.images().await?;
        let compressed = images.iter().any(|image| {
            image.value("drive") == Some(&id) && image.value("format") == Some("gzip")
        });
        let call = if compressed { Call::DriveImageGunzip } else { Call::DriveImage };
        self.client.one(call, &[&drive.to_string(), &id], &Record::new()).await
    }
}

/// A way to the API that does not tell customers where the API is when it can't be reached.
pub(crate) struct Discreet(pub(crate) Arc<dyn Transport>);

#[async_trait]
impl Transport for Discreet {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>> {
        self.0.send(request).await.map_err(|error| {
            let public = "the cloud can't be reached at the moment: try again in a minute";
            Error::new(error.kind(), public).source(error)
        })
    }
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("id", &self.id).finish_non_exhaustive()
    }
}
