//! The calls about servers. Rows of [`super::calls::CALLS`]: of two whose paths could match, the one
//! with fewer parameters comes first.

use super::calls::Call;
use super::keys::Object::{Console, Server};
use super::route::Answer::{Ids, Many, Nothing, One};
use super::route::Body::{Ignored, Record};
use super::route::{Answer, Route, change, read};

/// The rows.
pub(super) const ROWS: &[Route] = &[
    read(Call::ServersList, "/servers/list", Ids(Server), "The ids of your servers."),
    read(Call::ServersInfo, "/servers/info", Many(Server), "All your servers."),
    read(
        Call::ServersInfoFull,
        "/servers/info/full",
        Many(Server),
        "All your servers with the counters of their drives.",
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
        "One server with the counters of its drives.",
    ),
    change(
        Call::ServerSet,
        "/servers/SERVER/set",
        Record(Server),
        One(Server),
        "Changes a server; while it runs name, cpu, persistent, tags, user:*, password, block and scsi only.",
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
    change(
        Call::ServerConsole,
        "/servers/SERVER/console",
        Ignored,
        One(Console),
        "A ticket to the screen of a running server, good once and for 60 s.",
    ),
    read(
        Call::ServerSerial,
        "/servers/SERVER/serial",
        Answer::Bytes,
        "What it wrote to its serial port, at most the last 1 MiB.",
    ),
];
