//! Standard drives: images that everybody may use, made with a fixed id and written through the
//! data path.
//!
//! Invariant: a drive is standard, and so visible to customers, only while it holds the whole of
//! one file; the hash that says so is recorded after the last byte is durable, and taken away
//! before the first byte of another file is written.

use elasticstack_core::prelude::*;
use elasticstack_core::state::DriveState;
use elasticstack_core::wire::calls::Scope;
use elasticstack_core::wire::internal::Access;
use elasticstack_core::wire::record::Record;
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use super::access::EVERYBODY;
use super::accounts::OPERATOR;
use super::drive_record::GRANULE;
use super::drives::{NewDrive, in_use};
use super::{App, Caller, StandardImage, changed_meanwhile};
use crate::db::{DriveRow, Standard, Standing};

impl App {
    /// Makes `image` a standard drive, or leaves it if it is one already. Killed anywhere, the
    /// next call begins again from zero.
    ///
    /// # Errors
    /// `InvalidValue` if the file is not what its hash says; `DriveInUse` if another file is to
    /// replace one that is being imaged from; `Unavailable` if its host does not answer; those of
    /// making a drive.
    pub async fn publish_standard(&self, image: &StandardImage) -> Result<()> {
        self.ensure_operator().await?;
        let unread = |error: std::io::Error| {
            Error::internal(format!("reading the image {}", image.path.display())).source(error)
        };
        let mut file = File::open(&image.path).await.map_err(unread)?;
        let length = file.metadata().await.map_err(unread)?.len();
        let size = Bytes::try_from(length.max(1)).ok().and_then(|size| size.round_up_to(GRANULE));
        let size = size.ok_or_else(|| Error::internal("an image larger than any drive"))?;
        let Some(row) = self.unpublished(image, size).await? else { return Ok(()) };

        let mut hash = Sha256::new();
        let mut offset = Bytes::ZERO;
        while offset < size {
            let mut chunk = Vec::new();
            (&mut file).take(GRANULE.get()).read_to_end(&mut chunk).await.map_err(unread)?;
            hash.update(&chunk);
            let length = usize::try_from(GRANULE.get())
                .map_err(|error| Error::internal("a chunk larger than memory").source(error))?;
            chunk.resize(length, 0);
            self.data.write(row.host, row.drive, offset, chunk.into()).await?;
            offset = offset
                .checked_add(GRANULE)
                .ok_or_else(|| Error::internal("an image larger than any drive"))?;
        }
        let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if found != image.sha256 {
            return Err(Error::new(
                ErrorKind::InvalidValue,
                format!(
                    "the image {} has the hash {found}, it should have {}: build it again",
                    image.name, image.sha256
                ),
            ));
        }
        self.publish(image).await
    }

    /// The drive for the image, of its size and not published; `None` if it is published already.
    async fn unpublished(&self, image: &StandardImage, size: Bytes) -> Result<Option<DriveRow>> {
        let known = self.db.glance().await?.drive(image.drive).await?;
        let row = match known.filter(|row| row.state != DriveState::Gone) {
            None => {
                let new = NewDrive {
                    drive: image.drive,
                    account: OPERATOR,
                    size,
                    access: Access::Shared,
                    config: config(image),
                    avoid: Vec::new(),
                };
                self.make_drive(&Caller::new(OPERATOR, Scope::Operator, Standing::Active), &new)
                    .await?
            }
            Some(row) if row.account != OPERATOR => return Err(changed_meanwhile("drive")),
            Some(row) => {
                let same =
                    row.standard.as_ref().is_some_and(|standard| standard.sha256 == image.sha256);
                if same {
                    self.publish(image).await?;
                    return Ok(None);
                }
                self.withdraw(image.drive, size).await?
            }
        };
        if row.state != DriveState::Ready || row.seen_size != size {
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!("the drive for {} is not there yet: publish it again", image.name),
            ));
        }
        Ok(Some(row))
    }

    /// Takes a standard drive back from customers and gives it the size of another file.
    async fn withdraw(&self, drive: DriveId, size: Bytes) -> Result<DriveRow> {
        let row = self
            .db
            .write(|tx| {
                Box::pin(async move {
                    let before =
                        tx.drive(drive).await?.ok_or_else(|| changed_meanwhile("drive"))?;
                    let claims = tx.claims_on(drive).await?;
                    if !claims.is_empty() {
                        return Err(in_use(&claims, "replaced"));
                    }
                    let mut row = before.clone();
                    row.standard = None;
                    row.config.remove("readers");
                    if row.state == DriveState::Ready && row.size != size {
                        self.resize(tx, &mut row, size, None).await?;
                    }
                    if row != before {
                        tx.save_drive(&row).await?;
                    }
                    Ok(row)
                })
            })
            .await?;
        self.await_drive(row).await
    }

    async fn publish(&self, image: &StandardImage) -> Result<()> {
        self.db
            .write(|tx| {
                Box::pin(async move {
                    let before =
                        tx.drive(image.drive).await?.ok_or_else(|| changed_meanwhile("drive"))?;
                    let mut row = before.clone();
                    row.config = config(image).with("readers", EVERYBODY);
                    row.access = Access::Shared;
                    row.standard = Some(Standard {
                        media: image.media.clone(),
                        format: image.format.clone(),
                        rawsize: image.rawsize,
                        sha256: image.sha256.clone(),
                    });
                    if row != before {
                        tx.save_drive(&row).await?;
                    }
                    Ok(())
                })
            })
            .await
    }
}

fn config(image: &StandardImage) -> Record {
    Record::new().with("name", &image.name)
}
