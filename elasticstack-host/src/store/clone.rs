//! Copying drives of directory arrays by sharing their blocks (reflinks).

use std::fs::{File, OpenOptions};
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use elasticstack_core::block::{CloneDrive, Cloned};
use elasticstack_core::prelude::*;
use rustix::io::Errno;

use super::directory::failed;
use super::drive::Drive;
use super::volume::punch;
use super::{DirectoryStore, blocking};

#[async_trait]
impl CloneDrive for DirectoryStore {
    async fn clone_drive(&self, source: DriveId, target: DriveId) -> Result<Cloned> {
        let (from, to) = (self.catalogue.find(source)?, self.catalogue.find(target)?);
        if source == target {
            let public = format!("drive {source} can't be a copy of itself");
            return Err(Error::new(ErrorKind::InvalidValue, public));
        }
        // In the order of the ids, so that two clones never wait for each other.
        let (first, second) = if source < target { (&from, &to) } else { (&to, &from) };
        let permits = (first.hold().await?, second.hold().await?);
        if to.size() < from.size() {
            let public =
                format!("the target has {}, less than the source's {}", to.size(), from.size());
            return Err(Error::new(ErrorKind::InvalidValue, public));
        }
        if !Arc::ptr_eq(&from.array, &to.array) {
            return Ok(Cloned::MustCopy);
        }
        blocking(move || {
            let path = to.array.raw(target);
            let result = share(&from, source, &to, target);
            drop(permits);
            result.map_err(failed("sharing blocks with", &path))
        })
        .await
    }
}

fn share(from: &Drive, source: DriveId, to: &Drive, target: DriveId) -> io::Result<Cloned> {
    let source = File::open(from.array.raw(source))?;
    let target = OpenOptions::new().write(true).open(to.array.raw(target))?;
    match rustix::fs::ioctl_ficlone(&target, &source) {
        Ok(()) => {}
        Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::NOSYS | Errno::XDEV | Errno::INVAL) => {
            return Ok(Cloned::MustCopy);
        }
        Err(error) => return Err(error.into()),
    }
    // What the target held beyond the source's end is still there.
    punch(&target, from.size(), to.size().saturating_sub(from.size()))?;
    to.sync(|| target.sync_all())?;
    Ok(Cloned::Shared)
}
