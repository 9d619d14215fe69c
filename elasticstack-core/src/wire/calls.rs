//! The one table of the public API's calls. To add a call, add its row and its [`Call`] variant;
//! the server's dispatch is an exhaustive match over [`Call`].

use std::sync::LazyLock;

use super::route::is_parameter;
pub use super::route::{Answer, Body, Effect, Route, Scope};
use super::{
    calls_of_accounts, calls_of_drives, calls_of_events, calls_of_operators, calls_of_servers,
    calls_of_snapshots,
};

/// Declares the calls and the list of them, so that none can be left out of it.
macro_rules! calls {
    ($($(#[$doc:meta])* $call:ident,)*) => {
        /// What a call does, apart from how it is spelled.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Call {
            $($(#[$doc])* $call,)*
        }

        impl Call {
            /// Every call.
            pub const ALL: &'static [Self] = &[$(Self::$call,)*];
        }
    };
}

calls! {
    /// Makes an account.
    AccountCreate,
    /// Tells about one account.
    AccountInfo,
    /// Gives an account another secret key.
    AccountKey,
    /// Lets a suspended account change things again.
    AccountResume,
    /// Changes an account.
    AccountSet,
    /// Lets an account change nothing any more.
    AccountSuspend,
    /// Suspends an account and cuts the power of its servers.
    AccountSuspendStop,
    /// Tells about all accounts.
    AccountsInfo,
    /// Names all accounts.
    AccountsList,
    /// Tells about one array.
    ArrayInfo,
    /// Changes an array.
    ArraySet,
    /// Tells about all arrays.
    ArraysInfo,
    /// Names all arrays.
    ArraysList,
    /// Tells what the installation offers.
    CapabilitiesInfo,
    /// Tells how many more servers of one size fit.
    CapacityInfo,
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
    /// Copies the disk that a qcow2 image is of.
    DriveImageQcow2,
    /// Copies a file from elsewhere into a drive.
    DriveImageUrl,
    /// Copies the disk that a VMDK image is of.
    DriveImageVmdk,
    /// Tells a drive as a qcow2 image.
    DriveExportQcow2,
    /// Sums up what a drive holds.
    DriveSha256,
    /// Tells about one drive.
    DriveInfo,
    /// Tells about one drive, with all that is measured.
    DriveInfoFull,
    /// Reads bytes of a drive.
    DriveRead,
    /// Changes a drive.
    DriveSet,
    /// Takes a snapshot of a drive.
    DriveSnapshot,
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
    /// Tells what happened to one's own objects.
    EventsInfo,
    /// Tells what happened to everybody's objects.
    EventsInfoAll,
    /// Makes a host known.
    HostCreate,
    /// Tells about one host.
    HostInfo,
    /// Gives a host another certificate.
    HostJoin,
    /// Takes a host's certificate away.
    HostRevoke,
    /// Changes a host.
    HostSet,
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
    /// Tells about all strays.
    QuarantineInfo,
    /// Names all strays.
    QuarantineList,
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
    /// Gives a ticket to a server's screen.
    ServerConsole,
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
    /// Destroys a snapshot.
    SnapshotDestroy,
    /// Tells about one snapshot.
    SnapshotInfo,
    /// Makes a drive hold what a snapshot does.
    SnapshotRestore,
    /// Changes a snapshot.
    SnapshotSet,
    /// Tells about all own snapshots.
    SnapshotsInfo,
    /// Names all own snapshots.
    SnapshotsList,
    /// Gives a stray drive to an account.
    StrayAdopt,
    /// Destroys a stray.
    StrayDestroy,
    /// Tells about one stray.
    StrayInfo,
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

/// Every call of the public API. A path with fewer parameters comes first where two could match.
pub static CALLS: LazyLock<Vec<Route>> = LazyLock::new(|| {
    [
        calls_of_drives::ROWS,
        calls_of_snapshots::ROWS,
        calls_of_servers::ROWS,
        calls_of_accounts::ROWS,
        calls_of_events::ROWS,
        calls_of_operators::ROWS,
    ]
    .concat()
});

/// What old clouds had under a first segment that this one does not offer, and what to do instead.
pub const NOT_OFFERED: &[(&str, &str)] =
    &[("folders", "folders are not offered: give a container a drive with its root file system")];

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
        for row in CALLS.iter() {
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
    fn every_call_has_one_row() {
        for &call in Call::ALL {
            let rows = CALLS.iter().filter(|row| row.call == call).count();
            assert_eq!(rows, 1, "{call:?}");
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
