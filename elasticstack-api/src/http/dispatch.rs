//! From a call to its use case: one exhaustive match, no policy.

use bytes::Bytes as Data;
use elasticstack_core::prelude::*;
use elasticstack_core::resource::{ResourceId, ResourceKind};
use elasticstack_core::scheduler::{ServerSize, Tier};
use elasticstack_core::wire::calls::Call;
use elasticstack_core::wire::internal::Conversion;
use elasticstack_core::wire::keys::Object::{
    self, Account, Array, Capabilities, Capacity, Console, Drive, Host, Pool, Profile, Resource,
    Server, Snapshot, Stray, Token, Usage,
};
use elasticstack_core::wire::record::Record;
use tokio_util::sync::CancellationToken;

use super::Limits;
use super::request::Parameters;
use super::response::{Packing, Reply};
use crate::app::{App, Caller, OnCreate, OnSuspend, Page, Whose};

/// What came with a call; what the call does not have is empty.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) parameters: Parameters<'a>,
    pub(super) record: Record,
    pub(super) data: Data,
    pub(super) page: Page,
    /// When the answer is to come to its end.
    pub(super) end: CancellationToken,
}

/// Whose events a call tells, if it tells any.
pub(super) fn whose(call: Call, caller: &Caller) -> Option<Whose> {
    match call {
        Call::EventsInfo => Some(Whose::Own(caller.account)),
        Call::EventsInfoAll => Some(Whose::All),
        _ => None,
    }
}

/// Does what `call` asks.
pub(super) async fn dispatch(
    app: &App,
    caller: &Caller,
    call: Call,
    asked: Asked<'_>,
    limits: &Limits,
) -> Result<Reply> {
    let Asked { parameters, record, data, page, end } = asked;
    // Boxed: unboxed, each of their uses has room of its own in every future that this is part of.
    let imaged = |conversion| {
        let parameters = &parameters;
        Box::pin(async move {
            let (drive, source) = (parameters.id(0)?, parameters.id(1)?);
            Ok::<_, Error>(Reply::One(
                Drive,
                app.drive_image(caller, drive, source, conversion).await?,
            ))
        })
    };
    let cloned = |conversion| {
        let (parameters, record) = (&parameters, &record);
        Box::pin(async move {
            let source = parameters.id(0)?;
            Ok::<_, Error>(Reply::One(
                Drive,
                app.drive_clone(caller, source, record, conversion).await?,
            ))
        })
    };
    let suspended = async |servers| -> Result<Reply> {
        let account = parameters.id(0)?;
        Ok(Reply::One(Account, app.account_suspend(caller, account, servers).await?))
    };
    let reply = match call {
        Call::DrivesList => Reply::Ids(texts(app.drive_ids(caller, &page).await?)),
        Call::DrivesListStandard => Reply::Ids(texts(app.standard_ids(&page).await?)),
        Call::DrivesInfo => Reply::Listed(app.drives_info(caller, &page).await?),
        Call::DrivesInfoFull => Reply::Listed(app.drives_info_full(caller, &page).await?),
        Call::DrivesInfoStandard => Reply::Many(Drive, app.standard_info(&page).await?),
        Call::DriveCreate => Reply::One(Drive, app.drive_create(caller, &record).await?),
        Call::DriveInfo => seen(Drive, app.drive_seen(caller, parameters.id(0)?).await?),
        Call::DriveInfoFull => seen(Drive, app.drive_info_full(caller, parameters.id(0)?).await?),
        Call::DriveClone => cloned(Conversion::None).await?,
        Call::DriveCloneGunzip => cloned(Conversion::Gunzip).await?,
        Call::DriveCloneGzip => cloned(Conversion::Gzip).await?,
        Call::DriveSet => {
            Reply::One(Drive, app.drive_set(caller, parameters.id(0)?, &record).await?)
        }
        Call::DriveDestroy => nothing(app.drive_destroy(caller, parameters.id(0)?).await?),
        Call::DriveImage => imaged(Conversion::None).await?,
        Call::DriveImageGunzip => imaged(Conversion::Gunzip).await?,
        Call::DriveImageGzip => imaged(Conversion::Gzip).await?,
        Call::DriveImageQcow2 => imaged(Conversion::Qcow2).await?,
        Call::DriveImageUrl => {
            Reply::One(Drive, app.drive_download(caller, parameters.id(0)?, &record).await?)
        }
        Call::DriveImageVmdk => imaged(Conversion::Vmdk).await?,
        Call::DriveSha256 => {
            Reply::One(Drive, app.drive_sha256(caller, parameters.id(0)?, &record).await?)
        }
        Call::DriveSnapshot => {
            let info = app.drive_snapshot(caller, parameters.id(0)?, &record).await?;
            Reply::One(Snapshot, info)
        }
        Call::DriveRead => {
            let (drive, offset) = (parameters.id(0)?, parameters.size(1, "offset")?);
            let length = parameters.size(2, "size")?;
            Reply::Drive(app.drive_read(caller, drive, offset, length).await?, Packing::None)
        }
        Call::DriveExportQcow2 => Reply::Export(app.drive_export(caller, parameters.id(0)?).await?),
        Call::DriveWrite => {
            nothing(app.drive_write(caller, parameters.id(0)?, Bytes::ZERO, data).await?)
        }
        Call::DriveWriteAt => {
            let (drive, offset) = (parameters.id(0)?, parameters.size(1, "offset")?);
            nothing(app.drive_write(caller, drive, offset, data).await?)
        }
        Call::ServersList => Reply::Ids(texts(app.server_ids(caller, &page).await?)),
        Call::ServersInfo => Reply::Listed(app.servers_info(caller, &page).await?),
        Call::ServersInfoFull => Reply::Listed(app.servers_info_full(caller, &page).await?),
        Call::ServerCreate => {
            Reply::One(Server, app.server_create(caller, &record, OnCreate::Start).await?)
        }
        Call::ServerCreateStopped => {
            Reply::One(Server, app.server_create(caller, &record, OnCreate::LeaveStopped).await?)
        }
        Call::ServerInfo => seen(Server, app.server_seen(caller, parameters.id(0)?).await?),
        Call::ServerInfoFull => {
            seen(Server, app.server_info_full(caller, parameters.id(0)?).await?)
        }
        Call::ServerSet => {
            Reply::One(Server, app.server_set(caller, parameters.id(0)?, &record).await?)
        }
        Call::ServerStart => Reply::One(Server, app.server_start(caller, parameters.id(0)?).await?),
        Call::ServerStop => nothing(app.server_stop(caller, parameters.id(0)?).await?),
        Call::ServerShutdown => nothing(app.server_shutdown(caller, parameters.id(0)?).await?),
        Call::ServerReset => nothing(app.server_reset(caller, parameters.id(0)?).await?),
        Call::ServerDestroy => nothing(app.server_destroy(caller, parameters.id(0)?).await?),
        Call::ServerConsole => {
            Reply::One(Console, app.server_console(caller, parameters.id(0)?).await?)
        }
        Call::ServerSerial => Reply::Bytes(app.server_serial(caller, parameters.id(0)?).await?),
        Call::AccountsList => Reply::Ids(texts(app.account_ids(&page).await?)),
        Call::AccountsInfo => Reply::Many(Account, app.accounts_info(&page).await?),
        Call::AccountInfo => Reply::One(Account, app.account_info(parameters.id(0)?).await?),
        Call::AccountCreate => Reply::One(Account, app.account_add(caller, &record).await?),
        Call::AccountSet => {
            Reply::One(Account, app.account_set(caller, parameters.id(0)?, &record).await?)
        }
        Call::AccountSuspend => suspended(OnSuspend::GoOn).await?,
        Call::AccountSuspendStop => suspended(OnSuspend::Stop).await?,
        Call::AccountResume => {
            Reply::One(Account, app.account_resume(caller, parameters.id(0)?).await?)
        }
        Call::AccountKey => Reply::One(Account, app.account_key(caller, parameters.id(0)?).await?),
        Call::HostsList => Reply::Ids(texts(app.host_ids(&page).await?)),
        Call::HostsInfo => Reply::Many(Host, app.hosts_info(&page).await?),
        Call::HostInfo => Reply::One(Host, app.host_info(parameters.id(0)?).await?),
        Call::HostSet => Reply::One(Host, app.host_set(caller, parameters.id(0)?, &record).await?),
        Call::HostRevoke => Reply::One(Host, app.host_revoke(caller, parameters.id(0)?).await?),
        Call::HostJoin => Reply::One(Host, app.host_join(caller, parameters.id(0)?).await?),
        Call::CapacityInfo => {
            let (cpu, memory) = (parameters.amount(0, "cpu")?, parameters.amount(1, "mem")?);
            let size = ServerSize {
                cpu: MegaHertz(cpu),
                memory: MebiBytes(memory),
                drive: parameters.size(2, "size")?,
                tier: Tier::Disk,
            };
            Reply::One(Capacity, app.capacity_info(size).await?)
        }
        Call::ArraysList => Reply::Ids(texts(app.array_ids(&page).await?)),
        Call::ArraysInfo => Reply::Many(Array, app.arrays_info(&page).await?),
        Call::ArrayInfo => Reply::One(Array, app.array_info(parameters.id(0)?).await?),
        Call::ArraySet => {
            Reply::One(Array, app.array_set(caller, parameters.id(0)?, &record).await?)
        }
        Call::HostCreate => Reply::One(Host, app.host_add(caller, &record).await?),
        Call::ResourcesList => Reply::Resources(app.resource_ids(caller, None, &page).await?),
        Call::ResourcesListOf => {
            Reply::Resources(app.resource_ids(caller, Some(kind(&parameters)?), &page).await?)
        }
        Call::ResourcesInfo => {
            Reply::Many(Resource, app.resources_info(caller, None, &page).await?)
        }
        Call::ResourcesInfoOf => Reply::Many(
            Resource,
            app.resources_info(caller, Some(kind(&parameters)?), &page).await?,
        ),
        Call::ResourceCreate => {
            let kind = kind(&parameters)?;
            Reply::One(Resource, app.resource_create(caller, kind, &record).await?)
        }
        Call::ResourceInfo => {
            Reply::One(Resource, app.resource_info(caller, resource(&parameters)?).await?)
        }
        Call::ResourceSet => {
            let id = resource(&parameters)?;
            Reply::One(Resource, app.resource_set(caller, id, &record).await?)
        }
        Call::ResourceDestroy => {
            nothing(app.resource_destroy(caller, resource(&parameters)?).await?)
        }
        Call::PoolsList => Reply::Ids(texts(app.pool_ids(&page).await?)),
        Call::PoolsInfo => Reply::Many(Pool, app.pools_info(&page).await?),
        Call::PoolInfo => Reply::One(Pool, app.pool_info(parameters.id(0)?).await?),
        Call::PoolCreate => Reply::One(Pool, app.pool_create(caller, &record).await?),
        Call::SnapshotsList => Reply::Ids(texts(app.snapshot_ids(caller, &page).await?)),
        Call::SnapshotsInfo => Reply::Many(Snapshot, app.snapshots_info(caller, &page).await?),
        Call::SnapshotInfo => seen(Snapshot, app.snapshot_seen(caller, parameters.id(0)?).await?),
        Call::SnapshotSet => {
            Reply::One(Snapshot, app.snapshot_set(caller, parameters.id(0)?, &record).await?)
        }
        Call::SnapshotRestore => {
            Reply::One(Snapshot, app.snapshot_restore(caller, parameters.id(0)?).await?)
        }
        Call::SnapshotDestroy => nothing(app.snapshot_destroy(caller, parameters.id(0)?).await?),
        Call::QuarantineList => Reply::Ids(texts(app.stray_ids(&page).await?)),
        Call::QuarantineInfo => Reply::Many(Stray, app.strays_info(&page).await?),
        Call::StrayInfo => Reply::One(Stray, app.stray_info(parameters.id(0)?).await?),
        Call::StrayAdopt => {
            let account = parameters.id(1)?;
            Reply::One(Drive, app.stray_adopt(caller, parameters.id(0)?, account).await?)
        }
        Call::StrayDestroy => nothing(app.stray_destroy(caller, parameters.id(0)?).await?),
        Call::TokensList => Reply::Ids(texts(app.token_ids(caller, &page).await?)),
        Call::TokensInfo => Reply::Many(Token, app.tokens_info(caller, &page).await?),
        Call::TokenCreate => Reply::One(Token, app.token_create(caller, &record).await?),
        Call::TokenInfo => Reply::One(Token, app.token_info(caller, parameters.id(0)?).await?),
        Call::TokenDestroy => nothing(app.token_destroy(caller, parameters.id(0)?).await?),
        Call::UsageInfo => Reply::Many(Usage, app.usage_info(caller, &page).await?),
        Call::UsageInfoAll => Reply::Many(Usage, app.usage_of_all(&page).await?),
        Call::EventsInfo => {
            let whose = Whose::Own(caller.account);
            Reply::Events(app.events(whose, &page, &end).await?)
        }
        Call::EventsInfoAll => Reply::Events(app.events(Whose::All, &page, &end).await?),
        Call::CapabilitiesInfo => Reply::One(Capabilities, super::capabilities(app, limits)),
        Call::ProfileInfo => Reply::One(Profile, app.profile_info(caller).await?),
        Call::ProfileSet => Reply::One(Profile, app.profile_set(caller, &record).await?),
    };
    Ok(reply)
}

/// The kind of resource that the first parameter of a path names.
fn kind(parameters: &Parameters<'_>) -> Result<ResourceKind> {
    let word = parameters.0.first().copied().unwrap_or_default();
    ResourceKind::from_word(word).ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "there is no such type of resource: there are ip and vlan")
    })
}

/// The resource that the first two parameters of a path name. What is no name names nothing.
fn resource(parameters: &Parameters<'_>) -> Result<ResourceId> {
    let name = parameters.0.get(1).copied().unwrap_or_default();
    ResourceId::parse(kind(parameters)?, name).ok_or_else(|| {
        let sentence = "the resource could not be found: see the list of your resources";
        Error::new(ErrorKind::NotFound, sentence)
    })
}

fn seen(object: Object, (record, version): (Record, String)) -> Reply {
    Reply::Seen(object, record, version)
}

fn texts<K>(ids: Vec<elasticstack_core::id::TypedId<K>>) -> Vec<String> {
    ids.into_iter().map(|id| id.to_string()).collect()
}

fn nothing((): ()) -> Reply {
    Reply::Nothing
}
