//! From a call to its use case: one exhaustive match, no policy.

use bytes::Bytes as Data;
use elasticstack_core::prelude::*;
use elasticstack_core::wire::calls::Call;
use elasticstack_core::wire::internal::Conversion;
use elasticstack_core::wire::keys::Object::{
    Capabilities, Drive, Host, Profile, Server, Token, Usage,
};
use elasticstack_core::wire::record::Record;

use super::ImageAnswer;
use super::request::Parameters;
use super::response::Reply;
use crate::app::{App, Caller, OnCreate, Page};

/// What came with a call; what the call does not have is empty.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) parameters: Parameters<'a>,
    pub(super) record: Record,
    pub(super) data: Data,
    pub(super) page: Page,
}

/// Does what `call` asks.
pub(super) async fn dispatch(
    app: &App,
    caller: &Caller,
    call: Call,
    asked: Asked<'_>,
    image_answer: ImageAnswer,
) -> Result<Reply> {
    let Asked { parameters, record, data, page } = asked;
    let image = async |conversion| -> Result<Record> {
        app.drive_image(caller, parameters.id(0)?, parameters.id(1)?, conversion).await
    };
    let imaged = |info| match image_answer {
        ImageAnswer::Info => Reply::One(Drive, info),
        ImageAnswer::Nothing => Reply::Nothing,
    };
    let reply = match call {
        Call::DrivesList => Reply::Ids(texts(app.drive_ids(caller, &page).await?)),
        Call::DrivesListStandard => Reply::Ids(texts(app.standard_ids(&page).await?)),
        Call::DrivesInfo => Reply::Many(Drive, app.drives_info(caller, &page).await?),
        Call::DrivesInfoStandard => Reply::Many(Drive, app.standard_info(&page).await?),
        Call::DriveCreate => Reply::One(Drive, app.drive_create(caller, &record).await?),
        Call::DriveInfo => Reply::One(Drive, app.drive_info(caller, parameters.id(0)?).await?),
        Call::DriveSet => {
            Reply::One(Drive, app.drive_set(caller, parameters.id(0)?, &record).await?)
        }
        Call::DriveDestroy => nothing(app.drive_destroy(caller, parameters.id(0)?).await?),
        Call::DriveImage => imaged(image(Conversion::None).await?),
        Call::DriveImageGunzip => imaged(image(Conversion::Gunzip).await?),
        Call::DriveImageGzip => imaged(image(Conversion::Gzip).await?),
        Call::DriveRead => {
            let (drive, offset) = (parameters.id(0)?, parameters.size(1, "offset")?);
            let length = parameters.size(2, "size")?;
            Reply::Bytes(app.drive_read(caller, drive, offset, length).await?)
        }
        Call::DriveWrite => {
            nothing(app.drive_write(caller, parameters.id(0)?, Bytes::ZERO, data).await?)
        }
        Call::DriveWriteAt => {
            let (drive, offset) = (parameters.id(0)?, parameters.size(1, "offset")?);
            nothing(app.drive_write(caller, drive, offset, data).await?)
        }
        Call::ServersList => Reply::Ids(texts(app.server_ids(caller, &page).await?)),
        Call::ServersInfo => Reply::Many(Server, app.servers_info(caller, &page).await?),
        Call::ServerCreate => {
            Reply::One(Server, app.server_create(caller, &record, OnCreate::Start).await?)
        }
        Call::ServerCreateStopped => {
            Reply::One(Server, app.server_create(caller, &record, OnCreate::LeaveStopped).await?)
        }
        Call::ServerInfo => Reply::One(Server, app.server_info(caller, parameters.id(0)?).await?),
        Call::ServerSet => {
            Reply::One(Server, app.server_set(caller, parameters.id(0)?, &record).await?)
        }
        Call::ServerStart => Reply::One(Server, app.server_start(caller, parameters.id(0)?).await?),
        Call::ServerStop => nothing(app.server_stop(caller, parameters.id(0)?).await?),
        Call::ServerShutdown => nothing(app.server_shutdown(caller, parameters.id(0)?).await?),
        Call::ServerReset => nothing(app.server_reset(caller, parameters.id(0)?).await?),
        Call::ServerDestroy => nothing(app.server_destroy(caller, parameters.id(0)?).await?),
        Call::ServerSerial => Reply::Bytes(app.server_serial(caller, parameters.id(0)?).await?),
        Call::HostsList => Reply::Ids(texts(app.host_ids(&page).await?)),
        Call::HostsInfo => Reply::Many(Host, app.hosts_info(&page).await?),
        Call::HostInfo => Reply::One(Host, app.host_info(parameters.id(0)?).await?),
        Call::HostCreate => Reply::One(Host, app.host_add(caller, &record).await?),
        Call::TokensList => Reply::Ids(texts(app.token_ids(caller).await?)),
        Call::TokensInfo => Reply::Many(Token, app.tokens_info(caller).await?),
        Call::TokenCreate => Reply::One(Token, app.token_create(caller, &record).await?),
        Call::TokenInfo => Reply::One(Token, app.token_info(caller, parameters.id(0)?).await?),
        Call::TokenDestroy => nothing(app.token_destroy(caller, parameters.id(0)?).await?),
        Call::UsageInfo => Reply::Many(Usage, app.usage_info(caller, &page).await?),
        Call::UsageInfoAll => Reply::Many(Usage, app.usage_of_all(&page).await?),
        Call::CapabilitiesInfo => Reply::One(Capabilities, super::capabilities(app)),
        Call::ProfileInfo => Reply::One(Profile, app.profile_info(caller).await?),
    };
    Ok(reply)
}

fn texts<K>(ids: Vec<elasticstack_core::id::TypedId<K>>) -> Vec<String> {
    ids.into_iter().map(|id| id.to_string()).collect()
}

fn nothing((): ()) -> Reply {
    Reply::Nothing
}
