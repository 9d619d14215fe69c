//! The one table of the public API's calls. To add a call, add its row and its [`Call`] variant;
//! the server's dispatch is an exhaustive match over [`Call`].

use crate::wire::keys::Object;

/// What a call does, apart from how it is spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// Tells what the installation offers.
    CapabilitiesInfo,
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
    /// Tells about the caller's account.
    ProfileInfo,
    /// Makes a server and starts it.
    ServerCreate,
    /// Makes a server.
    ServerCreateStopped,
    /// Destroys a server.
    ServerDestroy,
    /// Tells about one server.
    ServerInfo,
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

/// Whether a call changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It reads: GET and POST both do.
    Reads,
    /// It changes: POST only.
    Changes,
}

/// Whose credentials a call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Any account's.
    Customer,
    /// An operator's.
    Operator,
}

impl Scope {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Operator => "operator",
        }
    }

    /// The scope of this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Customer, Self::Operator].into_iter().find(|scope| scope.as_str() == word)
    }

    /// Whether credentials of this scope cover a call that needs `needed`.
    #[must_use]
    pub const fn covers(self, needed: Self) -> bool {
        matches!((self, needed), (Self::Operator, _) | (Self::Customer, Self::Customer))
    }
}

/// What a call's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// None; whatever is sent is ignored.
    Ignored,
    /// A record of this object's keys.
    Record(Object),
    /// Raw bytes, or gzip of them by `Content-Encoding`.
    Bytes,
}

/// What a call answers when it succeeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// 200 and one record.
    One(Object),
    /// 200 and all records.
    Many(Object),
    /// 200 and all ids.
    Ids(Object),
    /// 200 and raw bytes.
    Bytes,
    /// 204 and nothing.
    Nothing,
}

/// One row of [`CALLS`].
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// Which call.
    pub call: Call,
    /// Its path; a segment in capitals is a parameter.
    pub path: &'static str,
    /// Whether it changes anything.
    pub effect: Effect,
    /// Whose credentials it needs.
    pub scope: Scope,
    /// What it is sent.
    pub body: Body,
    /// What it answers.
    pub answer: Answer,
    /// One sentence for the documentation.
    pub doc: &'static str,
}

const fn read(call: Call, path: &'static str, answer: Answer, doc: &'static str) -> Route {
    Route {
        call,
        path,
        effect: Effect::Reads,
        scope: Scope::Customer,
        body: Body::Ignored,
        answer,
        doc,
    }
}

const fn change(
    call: Call,
    path: &'static str,
    body: Body,
    answer: Answer,
    doc: &'static str,
) -> Route {
    Route { call, path, effect: Effect::Changes, scope: Scope::Customer, body, answer, doc }
}

impl Route {
    const fn for_operators(mut self) -> Self {
        self.scope = Scope::Operator;
        self
    }
}

use Answer::{Ids, Many, Nothing, One};
use Body::{Ignored, Record};
use Object::{Capabilities, Drive, Host, Profile, Server, Token, Usage};

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
    change(
        Call::ServerSet,
        "/servers/SERVER/set",
        Record(Server),
        One(Server),
        "Changes a server; most keys wait until it is stopped.",
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
    read(Call::ProfileInfo, "/profile/info", One(Profile), "Your account."),
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

fn is_parameter(segment: &str) -> bool {
    segment.bytes().next().is_some_and(|byte| byte.is_ascii_uppercase())
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
