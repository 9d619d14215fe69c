//! The one table of the public API's calls. To add a call, add its row and its [`Call`] variant;
//! the server's dispatch is an exhaustive match over [`Call`].

use super::keys::Object;
pub use super::route::{Answer, Body, Effect, Route, Scope};
use super::route::{change, is_parameter, read};

/// What a call does, apart from how it is spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// Tells what the installation offers.
    CapabilitiesInfo,
    /// Makes a drive that becomes what another holds.
    DriveClone,
    /// Clones, decompressing.
    DriveCloneGunzip,
    /// Clones, compressing.
    DriveCloneGzip,
    /// Makes a drive.
    DriveCreate,
    /// Destroys a drive.
    DriveDestroy,
    /// Copies a drive's bytes into another.
    DriveImage,
    /// Copies, decompressing.
    DriveImageGunzip,
    /// Copies, compressing.
    DriveImageGzip,
    /// Tells about one drive.
    DriveInfo,
    /// Tells about one drive, with all that is measured.
    DriveInfoFull,
    /// Reads bytes of a drive.
    DriveRead,
    /// Changes a drive.
    DriveSet,
    /// Writes bytes at the start of a drive.
    DriveWrite,
    /// Writes bytes at an offset of a drive.
    DriveWriteAt,
    /// Tells about all own drives.
    DrivesInfo,
    /// Tells about all own drives, with all that is measured.
    DrivesInfoFull,
    /// Tells about all standard drives.
    DrivesInfoStandard,
    /// Names all own drives.
    DrivesList,
    /// Names all standard drives.
    DrivesListStandard,
    /// Makes a host known.
    HostCreate,
    /// Tells about one host.
    HostInfo,
    /// Tells about all hosts.
    HostsInfo,
    /// Names all hosts.
    HostsList,
    /// Makes a pool of addresses.
    PoolCreate,
    /// Tells about one pool.
    PoolInfo,
    /// Tells about all pools.
    PoolsInfo,
    /// Names all pools.
    PoolsList,
    /// Tells about the caller's account.
    ProfileInfo,
    /// Changes the caller's account.
    ProfileSet,
    /// Takes a static IP or makes a VLAN.
    ResourceCreate,
    /// Gives a resource back.
    ResourceDestroy,
    /// Tells about one resource.
    ResourceInfo,
    /// Changes a resource.
    ResourceSet,
    /// Tells about all own resources.
    ResourcesInfo,
    /// Tells about all own resources of one type.
    ResourcesInfoOf,
    /// Names all own resources.
    ResourcesList,
    /// Names all own resources of one type.
    ResourcesListOf,
    /// Makes a server and starts it.
    ServerCreate,
    /// Makes a server.
    ServerCreateStopped,
    /// Destroys a server.
    ServerDestroy,
    /// Tells about one server.
    ServerInfo,
    /// Tells about one server, with all that is measured.
    ServerInfoFull,
    /// Presses a server's reset button.
    ServerReset,
    /// Shows what a server wrote to its serial port.
    ServerSerial,
    /// Changes a server.
    ServerSet,
    /// Presses a server's power button.
    ServerShutdown,
    /// Starts a server.
    ServerStart,
    /// Cuts a server's power.
    ServerStop,
    /// Tells about all own servers.
    ServersInfo,
    /// Tells about all own servers, with all that is measured.
    ServersInfoFull,
    /// Names all own servers.
    ServersList,
    /// Makes a token.
    TokenCreate,
    /// Takes a token away.
    TokenDestroy,
    /// Tells about one token.
    TokenInfo,
    /// Tells about all own tokens.
    TokensInfo,
    /// Names all own tokens.
    TokensList,
    /// Tells what was used by oneself.
    UsageInfo,
    /// Tells what was used by all.
    UsageInfoAll,
}

use Answer::{Ids, Many, Nothing, One};
use Body::{Ignored, Record};
use Object::{Capabilities, Drive, Host, Pool, Profile, Resource, Server, Token, Usage};

/// Every call of the public API. A path with fewer parameters comes first where two could match.
pub const CALLS: &[Route] = &[
    read(Call::DrivesList, "/drives/list", Ids(Drive), "The ids of your drives."),
    read(
        Call::DrivesListStandard,
        "/drives/list/standard",
        Ids(Drive),
        "The ids of the images everybody may use.",
    ),
    read(Call::DrivesInfo, "/drives/info", Many(Drive), "All your drives."),
    read(
        Call::DrivesInfoFull,
        "/drives/info/full",
        Many(Drive),
        "All your drives with all that is measured; today the same as info.",
    ),
    read(
        Call::DrivesInfoStandard,
        "/drives/info/standard",
        Many(Drive),
        "The images everybody may use.",
    ),
    change(
        Call::DriveCreate,
        "/drives/create",
        Record(Drive),
        One(Drive),
        "Makes a drive of zeros.",
    ),
    read(Call::DriveInfo, "/drives/DRIVE/info", One(Drive), "One drive."),
    read(
        Call::DriveInfoFull,
        "/drives/DRIVE/info/full",
        One(Drive),
        "One drive with all that is measured; today the same as info.",
    ),
    change(
        Call::DriveSet,
        "/drives/DRIVE/set",
        Record(Drive),
        One(Drive),
        "Changes a drive; a new size resizes it, size 0 leaves it.",
    ),
    change(
        Call::DriveDestroy,
        "/drives/DRIVE/destroy",
        Ignored,
        Nothing,
        "Destroys a drive that nothing uses.",
    ),
    change(
        Call::DriveImage,
        "/drives/DRIVE/image/SOURCE",
        Ignored,
        One(Drive),
        "Begins to copy the source's bytes into the drive; imaging in its info tells how far it is.",
    ),
    change(
        Call::DriveImageGunzip,
        "/drives/DRIVE/image/SOURCE/gunzip",
        Ignored,
        One(Drive),
        "As image, decompressing on the way.",
    ),
    change(
        Call::DriveImageGzip,
        "/drives/DRIVE/image/SOURCE/gzip",
        Ignored,
        One(Drive),
        "As image, compressing on the way.",
    ),
    change(
        Call::DriveClone,
        "/drives/SOURCE/clone",
        Record(Drive),
        One(Drive),
        "Makes a drive and begins to copy the source's bytes into it; the answer is the new drive.",
    ),
    change(
        Call::DriveCloneGunzip,
        "/drives/SOURCE/clone/gunzip",
        Record(Drive),
        One(Drive),
        "As clone, decompressing on the way.",
    ),
    change(
        Call::DriveCloneGzip,
        "/drives/SOURCE/clone/gzip",
        Record(Drive),
        One(Drive),
        "As clone, compressing on the way.",
    ),
    read(
        Call::DriveRead,
        "/drives/DRIVE/read/OFFSET/SIZE",
        Answer::Bytes,
        "At most 4 MiB from a byte offset on; offset and size may carry k, M, G or T.",
    ),
    change(
        Call::DriveWrite,
        "/drives/DRIVE/write",
        Body::Bytes,
        Nothing,
        "Writes the body at the drive's start, at most 64 MiB.",
    ),
    change(
        Call::DriveWriteAt,
        "/drives/DRIVE/write/OFFSET",
        Body::Bytes,
        Nothing,
        "Writes the body at a byte offset, at most 64 MiB.",
    ),
    read(Call::ServersList, "/servers/list", Ids(Server), "The ids of your servers."),
    read(Call::ServersInfo, "/servers/info", Many(Server), "All your servers."),
    read(
        Call::ServersInfoFull,
        "/servers/info/full",
        Many(Server),
        "All your servers with all that is measured; today the same as info.",
    ),
    change(
        Call::ServerCreate,
        "/servers/create",
        Record(Server),
        One(Server),
        "Makes a server and starts it.",
    ),
    change(
        Call::ServerCreateStopped,
        "/servers/create/stopped",
        Record(Server),
        One(Server),
        "Makes a server and leaves it stopped.",
    ),
    read(Call::ServerInfo, "/servers/SERVER/info", One(Server), "One server."),
    read(
        Call::ServerInfoFull,
        "/servers/SERVER/info/full",
        One(Server),
        "One server with all that is measured; today the same as info.",
    ),
    change(
        Call::ServerSet,
        "/servers/SERVER/set",
        Record(Server),
        One(Server),
        "Changes a server; while it runs name, cpu, persistent, tags, user:* and password only.",
    ),
    change(Call::ServerStart, "/servers/SERVER/start", Ignored, One(Server), "Starts a server."),
    change(
        Call::ServerStop,
        "/servers/SERVER/stop",
        Ignored,
        Nothing,
        "Cuts its power; one that is not persistent vanishes, its drives stay.",
    ),
    change(
        Call::ServerShutdown,
        "/servers/SERVER/shutdown",
        Ignored,
        Nothing,
        "Presses its power button; what comes of it is the guest's affair.",
    ),
    change(
        Call::ServerReset,
        "/servers/SERVER/reset",
        Ignored,
        Nothing,
        "Presses its reset button.",
    ),
    change(
        Call::ServerDestroy,
        "/servers/SERVER/destroy",
        Ignored,
        Nothing,
        "Destroys it, running or not; its drives stay.",
    ),
    read(
        Call::ServerSerial,
        "/servers/SERVER/serial",
        Answer::Bytes,
        "What it wrote to its serial port, at most the last 1 MiB.",
    ),
    read(Call::HostsList, "/hosts/list", Ids(Host), "The ids of all hosts.").for_operators(),
    read(Call::HostsInfo, "/hosts/info", Many(Host), "All hosts.").for_operators(),
    change(
        Call::HostCreate,
        "/hosts/create",
        Record(Host),
        One(Host),
        "Makes a host known; the answer has, this once, the certificate bundle it joins with.",
    )
    .for_operators(),
    read(Call::HostInfo, "/hosts/HOST/info", One(Host), "One host.").for_operators(),
    read(Call::ResourcesList, "/resources/list", Ids(Resource), "Your static IPs and VLANs."),
    read(Call::ResourcesInfo, "/resources/info", Many(Resource), "Your static IPs and VLANs."),
    read(
        Call::ResourcesListOf,
        "/resources/TYPE/list",
        Ids(Resource),
        "Your resources of one type.",
    ),
    read(
        Call::ResourcesInfoOf,
        "/resources/TYPE/info",
        Many(Resource),
        "Your resources of one type.",
    ),
    change(
        Call::ResourceCreate,
        "/resources/TYPE/create",
        Record(Resource),
        One(Resource),
        "Takes the lowest free address as a static IP, or makes a VLAN; it is metered from now on.",
    ),
    read(Call::ResourceInfo, "/resources/TYPE/RESOURCE/info", One(Resource), "One resource."),
    change(
        Call::ResourceSet,
        "/resources/TYPE/RESOURCE/set",
        Record(Resource),
        One(Resource),
        "Changes a resource.",
    ),
    change(
        Call::ResourceDestroy,
        "/resources/TYPE/RESOURCE/destroy",
        Ignored,
        Nothing,
        "Gives back a resource that no running server uses.",
    ),
    read(Call::PoolsList, "/pools/list", Ids(Pool), "The ids of all pools.").for_operators(),
    read(Call::PoolsInfo, "/pools/info", Many(Pool), "All pools of addresses.").for_operators(),
    change(
        Call::PoolCreate,
        "/pools/create",
        Record(Pool),
        One(Pool),
        "Adds a pool of addresses that static IPs are taken from.",
    )
    .for_operators(),
    read(Call::PoolInfo, "/pools/POOL/info", One(Pool), "One pool.").for_operators(),
    read(Call::ProfileInfo, "/profile/info", One(Profile), "Your account."),
    change(
        Call::ProfileSet,
        "/profile/set",
        Record(Profile),
        One(Profile),
        "Changes your account.",
    ),
    read(Call::TokensList, "/tokens/list", Ids(Token), "The ids of your tokens."),
    read(Call::TokensInfo, "/tokens/info", Many(Token), "All your tokens."),
    change(
        Call::TokenCreate,
        "/tokens/create",
        Record(Token),
        One(Token),
        "Makes a token; the answer has, this once, its secret. Asked with the account's key.",
    ),
    read(Call::TokenInfo, "/tokens/TOKEN/info", One(Token), "One token."),
    change(
        Call::TokenDestroy,
        "/tokens/TOKEN/destroy",
        Ignored,
        Nothing,
        "Takes a token away: it opens nothing from then on.",
    ),
    read(
        Call::UsageInfo,
        "/usage/info",
        Many(Usage),
        "Your usage; from and to, in seconds since 1970, ask for what touches that period.",
    ),
    read(Call::UsageInfoAll, "/usage/info/all", Many(Usage), "As info, of all accounts.")
        .for_operators(),
    read(
        Call::CapabilitiesInfo,
        "/capabilities/info",
        One(Capabilities),
        "What this installation offers, and its limits.",
    ),
];

/// What old clouds had under a first segment that this one does not offer, and what to do instead.
pub const NOT_OFFERED: &[(&str, &str)] =
    &[("folders", "folders and containers are not offered: make a drive and a server of type vm")];

/// Why a path that is no call is not offered, where old clouds had it.
#[must_use]
pub fn not_offered(path: &str) -> Option<&'static str> {
    let first = path.split('/').find(|segment| !segment.is_empty())?;
    NOT_OFFERED.iter().find(|(segment, _)| *segment == first).map(|(_, why)| *why)
}

/// The row of `call`.
#[must_use]
pub fn route(call: Call) -> &'static Route {
    // Every variant has a row: a test walks them. The first row is never reached as a default.
    CALLS.iter().find(|route| route.call == call).unwrap_or(&CALLS[0])
}

/// The row that a path names, with its parameters in order. Doubled and final slashes are
/// tolerated, as old scripts send them.
#[must_use]
pub fn find(path: &str) -> Option<(&'static Route, Vec<&str>)> {
    let given: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    CALLS.iter().find_map(|route| {
        let mut segments = route.path.split('/').filter(|segment| !segment.is_empty());
        let mut parameters = Vec::new();
        for &part in &given {
            let segment = segments.next()?;
            if is_parameter(segment) {
                parameters.push(part);
            } else if segment != part {
                return None;
            }
        }
        segments.next().is_none().then_some((route, parameters))
    })
}

/// The path of a call with these parameters, in order.
#[must_use]
pub fn path(call: Call, parameters: &[&str]) -> String {
    let mut parameters = parameters.iter();
    let segments = route(call).path.split('/').map(|segment| {
        if is_parameter(segment) { parameters.next().copied().unwrap_or(segment) } else { segment }
    });
    segments.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_call_is_found_by_its_own_path_and_by_no_other() {
        for row in CALLS {
            let spelled = path(
                row.call,
                &["a", "b", "c"][..row.path.matches(char::is_uppercase).count().min(3)],
            );
            let (found, parameters) = find(&spelled).unwrap_or_else(|| panic!("{spelled}"));
            assert_eq!(found.call, row.call, "{spelled}");
            assert_eq!(path(found.call, &parameters), spelled);
            assert_eq!(route(row.call).path, row.path);
            assert!(row.doc.ends_with('.'), "{}", row.path);
            let named = row.path.split('/').filter(|segment| is_parameter(segment));
            assert!(named.eq(row.parameters().map(|known| known.name)), "{}: a row", row.path);
        }
    }

    #[test]
    fn slashes_are_tolerated_and_other_paths_are_not() {
        assert_eq!(find("//drives/list/").unwrap().0.call, Call::DrivesList);
        for unknown in [
            "",
            "/",
            "/drives",
            "/drives/x",
            "/drives/x/y",
            "/drives/x/info/y",
            "/Drives/list",
            "/drives/x/read/0",
        ] {
            assert!(find(unknown).is_none(), "{unknown}");
        }
    }

    proptest! {
        #[test]
        fn no_path_panics_the_router(text in ".{0,60}", call in 0..CALLS.len()) {
            let _ = find(&text);
            let _ = path(CALLS[call].call, &[&text]);
        }
    }
}
