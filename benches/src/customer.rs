//! The product as a customer sees it: over HTTP, with a key, and timed from the request to the whole
//! answer.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use elasticstack_core::client::{Client, HyperTransport};
use elasticstack_core::secret::Secret;
use elasticstack_core::units::Bytes;
use elasticstack_core::wire::calls::Call;
use elasticstack_core::wire::record::Record;

/// An account of the product.
pub(crate) struct Customer {
    client: Client<HyperTransport>,
}

impl Customer {
    /// The account `authorization` (`UUID:KEY`) at the API of that address.
    pub(crate) fn new(api: &str, authorization: &str) -> Result<Self> {
        let (account, key) =
            authorization.split_once(':').context("the account is not given as UUID:KEY")?;
        let client = Client::new(HyperTransport::new(api)?, account.parse()?, &Secret::new(key))?;
        Ok(Self { client })
    }

    /// Creates a drive of zeros; answers its id and how long that took.
    pub(crate) async fn create_drive(&self, size: Bytes) -> Result<(String, Duration)> {
        let record = Record::new().with("name", "bench").with("size", size.get());
        let began = Instant::now();
        let info = self.client.one(Call::DriveCreate, &[], &record).await?;
        let took = began.elapsed();
        if info.value("status") != Some("active") {
            bail!("the new drive is not active: {info:?}");
        }
        Ok((id(&info, "drive")?, took))
    }

    /// Destroys a drive.
    pub(crate) async fn destroy_drive(&self, drive: &str) -> Result<()> {
        Ok(self.client.act(Call::DriveDestroy, &[drive]).await?)
    }

    /// Creates a server of 2 GHz and 1 GiB that boots `drive`; answers its id and how long it took
    /// until the answer said that it runs.
    pub(crate) async fn create_server(&self, drive: &str) -> Result<(String, Duration)> {
        let record = Record::new()
            .with("name", "bench")
            .with("cpu", 2_000)
            .with("mem", 1_024)
            .with("ide:0:0", drive)
            .with("boot", "ide:0:0")
            .with("nic:0:model", "e1000")
            .with("nic:0:dhcp", "auto");
        let began = Instant::now();
        let info = self.client.one(Call::ServerCreate, &[], &record).await?;
        let took = began.elapsed();
        if info.value("status") != Some("active") {
            bail!("the new server is not active: {info:?}");
        }
        Ok((id(&info, "server")?, took))
    }

    /// Destroys a server, and with it its guest.
    pub(crate) async fn destroy_server(&self, server: &str) -> Result<()> {
        Ok(self.client.act(Call::ServerDestroy, &[server]).await?)
    }

    /// How many servers there are.
    pub(crate) async fn servers(&self) -> Result<usize> {
        Ok(self.client.many(Call::ServersInfo).await?.len())
    }
}

fn id(info: &Record, key: &str) -> Result<String> {
    Ok(info.value(key).with_context(|| format!("the new {key} has no id"))?.to_owned())
}
