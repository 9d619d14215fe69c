//! `elasticstack drive …`. Moving bytes is [`transfer`]'s, waiting for an image [`imaging`]'s.

use std::io;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use elasticstack_core::amount;
use elasticstack_core::client::{Client, Transport};
use elasticstack_core::id::DriveId;
use elasticstack_core::name::Name;
use elasticstack_core::units::Bytes;
use elasticstack_core::wire::calls::Call;
use elasticstack_core::wire::keys::Object;
use elasticstack_core::wire::record::Record;

use crate::ask::Ask;
use crate::command::about;
use crate::failure::{Failure, Result};
use crate::screen::Screen;
use crate::settings::{self, Setting};
use crate::{imaging, transfer};

const COLUMNS: &[&str] = &["drive", "name", "status", "size", "imaging", "claimed"];
const STANDARD_COLUMNS: &[&str] = &["drive", "name", "media", "format", "size", "rawsize"];

/// What to do with drives.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List your drives
    List,
    /// List the images that everybody may use
    Standard,
    #[command(about = about(Call::DriveInfo))]
    #[expect(missing_docs, reason = "the API's table says it")]
    Info { drive: DriveId },
    #[command(about = about(Call::DriveCreate))]
    #[expect(missing_docs, reason = "the API's table says it")]
    Create(Options),
    #[command(about = about(Call::DriveSet))]
    #[expect(missing_docs, reason = "the API's table says it")]
    Set {
        drive: DriveId,
        #[command(flatten)]
        options: Options,
    },
    #[command(about = about(Call::DriveDestroy))]
    #[expect(missing_docs, reason = "the API's table says it")]
    Destroy { drive: DriveId },
    /// Copies the bytes of a drive or standard drive into a drive
    Image {
        /// The drive that is overwritten
        drive: DriveId,
        /// The drive that is copied
        source: DriveId,
        /// What becomes of the bytes on the way
        #[command(flatten)]
        conversion: Conversion,
        /// Show how far it is until it is done
        #[arg(long)]
        wait: bool,
    },
    /// Copies a file from elsewhere, which the host fetches, into a drive
    Fetch {
        /// The drive that is overwritten
        drive: DriveId,
        /// Where the file is; - reads the address from standard input
        url: String,
        /// The SHA-256 that the file is to have
        #[arg(long)]
        sha256: Option<String>,
        /// Decompress gzip on the way
        #[arg(long)]
        gunzip: bool,
        /// Show how far it is until it is done
        #[arg(long)]
        wait: bool,
    },
    /// Download a drive to a file, 4 MiB at a time
    #[command(visible_alias = "download")]
    Read {
        /// The drive
        drive: DriveId,
        /// Where to put it, each byte at its offset in the drive; - is standard output
        file: PathBuf,
        /// The first byte to read
        #[arg(long, default_value = "0", value_parser = amount::size)]
        offset: Bytes,
        /// How many bytes to read; to the drive's end if not given
        #[arg(long, value_parser = amount::size)]
        length: Option<Bytes>,
    },
    /// Upload a file to a drive, 4 MiB at a time
    #[command(visible_alias = "upload")]
    Write {
        /// The drive
        drive: DriveId,
        /// What to upload, each byte to its offset in the file
        file: PathBuf,
        /// The first byte of the file to write: where an upload that broke off goes on
        #[arg(long, default_value = "0", value_parser = amount::size)]
        offset: Bytes,
        /// The SHA-256 of the file: the drive is to have it afterwards, which is waited for
        #[arg(long)]
        sha256: Option<String>,
    },
    /// Makes the SHA-256 of what a drive holds
    Sha256 {
        /// The drive
        drive: DriveId,
        /// Of how many bytes from its beginning on; of all if not given
        #[arg(long, value_parser = amount::size)]
        size: Option<Bytes>,
        /// The SHA-256 that they are to have
        #[arg(long)]
        expect: Option<String>,
        /// Show how far it is until it is done
        #[arg(long)]
        wait: bool,
    },
}

/// What becomes of the bytes on the way.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct Conversion {
    /// Decompress; a standard drive with format gzip needs it
    #[arg(long)]
    gunzip: bool,
    /// Compress
    #[arg(long)]
    gzip: bool,
    /// Copy the disk that the source holds a qcow2 image of
    #[arg(long)]
    qcow2: bool,
    /// Copy the disk that the source holds a VMDK image of
    #[arg(long)]
    vmdk: bool,
}

/// What a drive is made of.
#[derive(Debug, Args)]
pub struct Options {
    /// What to call it
    #[arg(long)]
    name: Option<Name>,
    /// Its size: 10GiB, 512MiB, or bytes
    #[arg(long, value_name = "AMOUNT", value_parser = amount::size)]
    size: Option<Bytes>,
    /// Any other key; `elasticstack keys drive` lists them
    #[arg(value_name = "KEY=VALUE", value_parser = settings::parse)]
    settings: Vec<Setting>,
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// What the API says, a transfer's failure, or `Output`.
    pub async fn run<T: Transport>(
        self,
        client: &Client<T>,
        screen: &mut Screen<'_>,
    ) -> Result<()> {
        let ask = Ask { object: Object::Drive, client, screen };
        match self {
            Self::List => ask.many(Call::DrivesInfo, COLUMNS).await,
            Self::Standard => ask.many(Call::DrivesInfoStandard, STANDARD_COLUMNS).await,
            Self::Info { drive } => {
                ask.one(Call::DriveInfo, &[&drive.to_string()], &Record::new()).await
            }
            Self::Create(options) => ask.one(Call::DriveCreate, &[], &options.into_record()).await,
            Self::Set { drive, options } => {
                let change = options.into_record();
                ask.one(Call::DriveSet, &[&drive.to_string()], &change).await
            }
            Self::Destroy { drive } => {
                let drive = ("drive", &*drive.to_string());
                ask.act(Call::DriveDestroy, drive, "destroyed").await
            }
            Self::Image { drive, source, conversion, wait } => {
                let call = conversion.call();
                let parameters = [&*drive.to_string(), &*source.to_string()];
                let mut record = client.one(call, &parameters, &Record::new()).await?;
                if wait {
                    record = imaging::wait(client, ask.screen, drive).await?;
                }
                ask.screen.record(Object::Drive, &record)
            }
            Self::Fetch { drive, url, sha256, gunzip, wait } => {
                let url = match &*url {
                    "-" => io::read_to_string(io::stdin()).map_err(|cause| Failure::File {
                        what: "reading the address".to_owned(),
                        cause,
                    })?,
                    _ => url,
                };
                let mut wish = Record::new().with("url", url.trim());
                if let Some(sha256) = sha256 {
                    wish.set("sha256", sha256);
                }
                if gunzip {
                    wish.set("format", "gzip");
                }
                let call = Call::DriveImageUrl;
                let mut record = client.one(call, &[&*drive.to_string()], &wish).await?;
                if wait {
                    record = imaging::wait(client, ask.screen, drive).await?;
                }
                ask.screen.record(Object::Drive, &record)
            }
            Self::Read { drive, file, offset, length } => {
                transfer::download(client, ask.screen, drive, &file, offset, length).await
            }
            Self::Write { drive, file, offset, sha256 } => {
                let size = transfer::upload(client, ask.screen, drive, &file, offset).await?;
                let Some(sha256) = sha256 else { return Ok(()) };
                let wish = Record::new().with("size", size).with("sha256", sha256);
                client.one(Call::DriveSha256, &[&*drive.to_string()], &wish).await?;
                let record = imaging::wait(client, ask.screen, drive).await?;
                ask.screen.record(Object::Drive, &record)
            }
            Self::Sha256 { drive, size, expect, wait } => {
                let mut wish = Record::new();
                if let Some(size) = size {
                    wish.set("size", size.get());
                }
                if let Some(expect) = expect {
                    wish.set("sha256", expect);
                }
                let mut record =
                    client.one(Call::DriveSha256, &[&*drive.to_string()], &wish).await?;
                if wait {
                    record = imaging::wait(client, ask.screen, drive).await?;
                }
                ask.screen.record(Object::Drive, &record)
            }
        }
    }
}

impl Conversion {
    fn call(self) -> Call {
        let Self { gunzip, gzip, qcow2, vmdk } = self;
        [
            (gunzip, Call::DriveImageGunzip),
            (gzip, Call::DriveImageGzip),
            (qcow2, Call::DriveImageQcow2),
            (vmdk, Call::DriveImageVmdk),
        ]
        .into_iter()
        .find_map(|(is_asked, call)| is_asked.then_some(call))
        .unwrap_or(Call::DriveImage)
    }
}

impl Options {
    fn into_record(self) -> Record {
        let mut record = Record::new();
        if let Some(name) = self.name {
            record.set("name", name);
        }
        if let Some(size) = self.size {
            record.set("size", size.get());
        }
        settings::apply(&mut record, self.settings);
        record
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use elasticstack_core::wire::keys::{self, Moment};

    use super::*;
    use crate::command::{Cli, Command as Any};

    #[test]
    fn every_option_is_a_key_that_the_api_takes() {
        let line = "elasticstack drive create --name web --size 10GiB tier=disk";
        let Ok(Cli { command: Any::Drive(Command::Create(options)), .. }) =
            Cli::try_parse_from(line.split(' '))
        else {
            panic!("not read")
        };
        let record = options.into_record();
        keys::check(Object::Drive, Moment::Create, &record).unwrap();
        assert_eq!(record.to_text(), "name web\nsize 10737418240\ntier disk\n");
        for column in COLUMNS.iter().chain(STANDARD_COLUMNS) {
            assert!(keys::find(Object::Drive, column).is_some(), "{column}");
        }
    }
}
