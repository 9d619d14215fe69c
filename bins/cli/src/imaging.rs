//! Waiting until a drive is imaged.

use std::time::Duration;

use elasticstack_core::client::{Client, Transport};
use elasticstack_core::error::{Error, ErrorKind};
use elasticstack_core::id::DriveId;
use elasticstack_core::wire::calls::Call;
use elasticstack_core::wire::record::Record;

use crate::failure::Result;
use crate::screen::Screen;

/// How often the API is asked.
const PERIOD: Duration = Duration::from_secs(1);

/// Shows how far the imaging of `drive` is, and answers the drive once it is done.
///
/// # Errors
/// `JobFailed` with the API's reason, or what the API says.
pub(crate) async fn wait<T: Transport>(
    client: &Client<T>,
    screen: &mut Screen<'_>,
    drive: DriveId,
) -> Result<Record> {
    loop {
        let record = client.one(Call::DriveInfo, &[&drive.to_string()], &Record::new()).await?;
        match (record.value("imaging"), record.value("failed")) {
            (Some(far), _) => screen.progress(&format!("imaging {far}")),
            (None, Some(reason)) => {
                return Err(Error::new(ErrorKind::JobFailed, reason).into());
            }
            (None, None) => {
                screen.progress("imaging done");
                screen.progress_ends();
                return Ok(record);
            }
        }
        tokio::time::sleep(PERIOD).await;
    }
}
