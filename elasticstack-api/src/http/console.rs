//! Websockets (RFC 6455) that carry servers' screens: binary messages are the bytes of VNC, both
//! ways, as noVNC speaks it.
//!
//! A ticket in the path is the one credential, so where the page comes from that opens it does not
//! matter; the path is never logged. Invariants: of either direction one buffer is under way, and
//! the next is read once it is taken; whoever does not take it in time is cut; every screen ends
//! with the server that serves it.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts as _;
use axum::extract::ws::{CloseCode, CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use elasticstack_core::prelude::*;
use futures_util::{Sink, SinkExt as _, Stream, StreamExt as _};
use http::Method;
use http::request::Parts;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::places::{Full, Place, Places};
use super::serve::Link;
use super::{Api, Notes};
use crate::app::{App, Grant, Screen, ticket_id};

/// Whence a screen is opened, for the log, which never has the ticket.
pub(super) const PATH: &str = "/console/TICKET";

/// How it is opened.
pub(super) const METHODS: &str = "GET";

/// What the messages are, to whoever asks.
const SUBPROTOCOL: &str = "binary";

/// The longest message that a client may send.
const MAX_MESSAGE: usize = 128 << 10;

/// The most of a screen that one message carries.
const CHUNK: usize = 32 << 10;

/// How often it is looked whether an open screen may stay open.
const LOOK: Duration = Duration::from_secs(5);

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(5);

/// How long a screen stays open.
#[derive(Debug, Clone, Copy)]
struct Times {
    /// In all.
    total: Duration,
    /// While it carries nothing.
    idle: Duration,
    /// While one side does not take what the other sent.
    stall: Duration,
    /// Between two questions to the client whether it is there.
    ping: Duration,
    /// While nothing at all comes from the client.
    silence: Duration,
}

const TIMES: Times = Times {
    total: Duration::from_secs(12 * 60 * 60),
    idle: Duration::from_secs(30 * 60),
    stall: Duration::from_secs(30),
    ping: Duration::from_secs(30),
    silence: Duration::from_secs(100),
};

/// Why a screen is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// The client hung up, or its connection broke.
    Client,
    /// The client sent what is no message of a screen.
    Malformed,
    /// The client stopped reading, or is gone without a word.
    Slow,
    /// The server ended, or its host is out of reach.
    Screen,
    /// Nothing was carried for long.
    Idle,
    /// It was open for as long as one may be.
    Time,
    /// What opened it opens it no more.
    Withdrawn,
    /// This API server is ending.
    Shutdown,
}

impl Ending {
    /// What the client is told, if it still listens.
    const fn goodbye(self) -> Option<(CloseCode, &'static str)> {
        match self {
            Self::Client | Self::Slow => None,
            Self::Malformed => {
                Some((close_code::UNSUPPORTED, "send binary messages of at most 128 KiB"))
            }
            Self::Screen => Some((close_code::NORMAL, "the server's screen ended")),
            Self::Idle => Some((close_code::POLICY, "nothing was carried for 30 minutes")),
            Self::Time => Some((close_code::POLICY, "open for 12 hours: open another")),
            Self::Withdrawn => Some((close_code::POLICY, "what opened it opens it no more")),
            Self::Shutdown => Some((close_code::AWAY, "this API server is ending: open another")),
        }
    }
}

/// The ticket that a path to a screen holds.
pub(super) fn ticket(path: &str) -> Option<Secret> {
    let mut segments = path.split('/').filter(|segment| !segment.is_empty());
    let (Some("console"), Some(ticket), None) = (segments.next(), segments.next(), segments.next())
    else {
        return None;
    };
    Some(Secret::new(ticket))
}

/// Opens the screen that a ticket is for.
///
/// # Errors
/// `MethodNotAllowed`; `InvalidValue` for what is no websocket; `NotFound` for a ticket that is not
/// good; `QuotaExceeded` and `Unavailable` if too many are open; those of the screen itself.
pub(super) async fn open(
    api: &Api,
    ticket: &Secret,
    parts: &mut Parts,
    notes: &mut Notes,
) -> Result<Response> {
    if parts.method != Method::GET {
        let message = format!("{PATH} is opened with {METHODS}, as a websocket");
        return Err(Error::new(ErrorKind::MethodNotAllowed, message));
    }
    // A ticket is guessed at by its id, as a token is.
    let guessed = ticket_id(ticket).map(AccountId::from_uuid);
    let guess = api.may_try(guessed, parts, notes)?;
    let upgrade = WebSocketUpgrade::from_request_parts(parts, &()).await;
    let link = parts.extensions.get::<Link>().cloned();
    let (Ok(upgrade), Some(link)) = (upgrade, link) else {
        let message = "a screen is opened as a websocket of version 13: send its headers";
        return Err(Error::new(ErrorKind::InvalidValue, message).field("Upgrade"));
    };
    let holder = api.app.ticket_holder(ticket).await;
    let account = holder.inspect_err(|error| {
        if error.kind() == ErrorKind::NotFound {
            api.was_wrong(guess);
        }
    })?;
    let place = placed(&api.screens, account)?;
    let (screen, grant) = api.app.open_screen(ticket).await?;
    tracing::info!(account = %grant.account, server_id = %grant.server, "a screen is opened");
    let app = Arc::clone(&api.app);
    let upgrade = upgrade
        .protocols([SUBPROTOCOL])
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_MESSAGE)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * MAX_MESSAGE);
    Ok(upgrade.on_upgrade(async move |socket| {
        let _task = link.tasks.token();
        serve(socket, screen, &app, &grant, &link).await;
        drop(place);
    }))
}

fn placed(screens: &Places<AccountId>, account: AccountId) -> Result<Place<AccountId>> {
    screens.take(account).map_err(|full| match full {
        Full::Holder => {
            let most = screens.most_each();
            let message =
                format!("an account has at most {most} screens open at a time: close one");
            Error::new(ErrorKind::QuotaExceeded, message)
        }
        Full::All => {
            let message = "as many screens are open here as may be: try again later";
            Error::new(ErrorKind::Unavailable, message)
        }
    })
}

async fn serve(socket: WebSocket, screen: Box<dyn Screen>, app: &App, grant: &Grant, link: &Link) {
    let (mut to_client, from_client) = socket.split();
    let ending = tokio::select! {
        ending = carry(&mut to_client, from_client, screen, TIMES) => ending,
        () = withdrawn(app, grant) => Ending::Withdrawn,
        () = link.end.cancelled() => Ending::Shutdown,
    };
    if let Some((code, reason)) = ending.goodbye() {
        let frame = CloseFrame { code, reason: reason.into() };
        let goodbye = to_client.send(Message::Close(Some(frame)));
        // Who does not take it is cut without.
        let _ = timeout(GOODBYE, goodbye).await;
    }
    tracing::info!(account = %grant.account, server_id = %grant.server, ?ending, "a screen is closed");
}

/// Completes when what opened a screen opens it no more.
async fn withdrawn(app: &App, grant: &Grant) {
    loop {
        sleep(LOOK).await;
        match app.screen_stands(grant).await {
            Ok(()) => {}
            // That it can't be said now withdraws nothing.
            Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Internal) => {
                tracing::debug!(error = %Chain(&error), "a screen could not be looked after");
            }
            Err(_) => return,
        }
    }
}

/// Carries bytes both ways until something ends it.
async fn carry<E>(
    to_client: &mut (impl Sink<Message> + Unpin),
    from_client: impl Stream<Item = Result<Message, E>> + Unpin,
    screen: Box<dyn Screen>,
    times: Times,
) -> Ending {
    let (from_screen, to_screen) = tokio::io::split(screen);
    let (carried, heard) = (watch::Sender::new(Instant::now()), watch::Sender::new(Instant::now()));
    tokio::select! {
        ending = up(from_client, to_screen, &carried, &heard, times) => ending,
        ending = down(from_screen, to_client, &carried, times) => ending,
        () = quiet(&carried, times.idle) => Ending::Idle,
        () = quiet(&heard, times.silence) => Ending::Slow,
        () = sleep(times.total) => Ending::Time,
    }
}

async fn up<E>(
    mut from_client: impl Stream<Item = Result<Message, E>> + Unpin,
    mut to_screen: WriteHalf<Box<dyn Screen>>,
    carried: &watch::Sender<Instant>,
    heard: &watch::Sender<Instant>,
    times: Times,
) -> Ending {
    while let Some(message) = from_client.next().await {
        heard.send_replace(Instant::now());
        match message {
            Ok(Message::Binary(data)) => {
                carried.send_replace(Instant::now());
                match timeout(times.stall, to_screen.write_all(&data)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => return Ending::Screen,
                }
            }
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            Ok(Message::Text(_)) => return Ending::Malformed,
            Ok(Message::Close(_)) => return Ending::Client,
            Err(_) => return Ending::Malformed,
        }
    }
    Ending::Client
}

async fn down(
    mut from_screen: ReadHalf<Box<dyn Screen>>,
    to_client: &mut (impl Sink<Message> + Unpin),
    carried: &watch::Sender<Instant>,
    times: Times,
) -> Ending {
    let mut pings = tokio::time::interval(times.ping);
    let mut buffer = vec![0; CHUNK];
    loop {
        let message = tokio::select! {
            read = from_screen.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return Ending::Screen,
                Ok(length) => {
                    carried.send_replace(Instant::now());
                    let read = buffer.get(..length).unwrap_or_default();
                    Message::Binary(bytes::Bytes::copy_from_slice(read))
                }
            },
            _ = pings.tick() => Message::Ping(bytes::Bytes::new()),
        };
        match timeout(times.stall, to_client.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Ending::Client,
            Err(_) => return Ending::Slow,
        }
    }
}

/// Completes once nothing was noted for so long.
async fn quiet(noted: &watch::Sender<Instant>, within: Duration) {
    loop {
        let end = *noted.borrow() + within;
        if end <= Instant::now() {
            return;
        }
        sleep_until(end).await;
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::io;

    use futures_util::{sink, stream};
    use tokio::io::DuplexStream;
    use tokio::sync::mpsc;

    use super::*;

    /// How much the pipe to a screen holds.
    const PIPE: usize = 16 << 10;

    const FAST: Times = Times {
        total: Duration::from_secs(100),
        idle: Duration::from_secs(100),
        stall: Duration::from_millis(100),
        ping: Duration::from_millis(10),
        silence: Duration::from_secs(100),
    };

    /// What carries between a client, as its messages in and out, and a screen.
    fn carried(
        times: Times,
    ) -> (mpsc::Sender<Message>, mpsc::Receiver<Message>, DuplexStream, impl Future<Output = Ending>)
    {
        let (client, from_client) = mpsc::channel(1);
        let (to_client, heard) = mpsc::channel(1);
        let (screen, guest) = tokio::io::duplex(PIPE);
        let carrying = async move {
            let from_client = stream::unfold(from_client, async |mut from| {
                from.recv().await.map(|message| (Ok::<_, Infallible>(message), from))
            });
            let to_client = sink::unfold(to_client, async |to: mpsc::Sender<Message>, message| {
                to.send(message).await.map_err(io::Error::other)?;
                Ok::<_, io::Error>(to)
            });
            let mut to_client = std::pin::pin!(to_client);
            carry(&mut to_client, std::pin::pin!(from_client), Box::new(screen), times).await
        };
        (client, heard, guest, carrying)
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_cut_and_holds_one_chunk_till_then() {
        let (_client, _heard, mut guest, carrying) = carried(FAST);
        let mut sent = 0;
        let talking = async {
            while let Ok(length) = guest.write(&[7; 4096]).await {
                sent += length;
            }
        };
        let (ending, ()) = tokio::join!(carrying, talking);
        assert_eq!(ending, Ending::Slow);
        assert!(sent <= PIPE + 3 * CHUNK, "{sent} bytes were taken");
    }

    #[tokio::test]
    async fn a_screen_that_does_not_read_holds_its_client_back_and_is_ended() {
        let (client, mut heard, _guest, carrying) = carried(FAST);
        let mut sent = 0;
        let talking = async {
            while client.send(Message::binary(vec![7; 4096])).await.is_ok() {
                sent += 4096;
            }
        };
        let listening = async { while heard.recv().await.is_some() {} };
        let (ending, (), ()) = tokio::join!(carrying, talking, listening);
        assert_eq!(ending, Ending::Screen);
        assert!(sent <= PIPE + 3 * 4096, "{sent} bytes were taken");
    }

    #[tokio::test]
    async fn a_screen_is_closed_when_nothing_is_carried_though_its_client_is_there() {
        let times = Times { idle: Duration::from_millis(300), ..FAST };
        let (client, mut heard, _guest, carrying) = carried(times);
        let answering = async {
            while let Some(message) = heard.recv().await {
                assert!(matches!(message, Message::Ping(_)), "{message:?}");
                if client.send(Message::Pong(bytes::Bytes::new())).await.is_err() {
                    break;
                }
            }
        };
        assert_eq!(tokio::join!(carrying, answering).0, Ending::Idle);
    }

    #[tokio::test]
    async fn a_client_that_is_gone_without_a_word_is_noticed_though_its_screen_goes_on() {
        let times = Times { silence: Duration::from_millis(300), ..FAST };
        let (_client, mut heard, mut guest, carrying) = carried(times);
        let showing = async { while guest.write_all(b"more").await.is_ok() {} };
        let taking = async { while heard.recv().await.is_some() {} };
        assert_eq!(tokio::join!(carrying, showing, taking).0, Ending::Slow);
    }

    #[tokio::test]
    async fn a_screen_is_closed_after_its_time_however_busy_it_is() {
        let times = Times { total: Duration::from_millis(300), ..FAST };
        let (client, mut heard, mut guest, carrying) = carried(times);
        let showing = async {
            let mut buffer = [0; 64];
            while let Ok(1..) = guest.read(&mut buffer).await {
                if guest.write_all(b"more").await.is_err() {
                    break;
                }
            }
        };
        let asking = async {
            while client.send(Message::binary("x")).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        let taking = async { while heard.recv().await.is_some() {} };
        assert_eq!(tokio::join!(carrying, showing, asking, taking).0, Ending::Time);
    }

    #[test]
    fn a_ticket_is_the_one_segment_behind_console() {
        for (path, expected) in [
            ("/console/x", Some("x")),
            ("//console//x/", Some("x")),
            ("/console", None),
            ("/console/x/y", None),
            ("/servers/x", None),
        ] {
            let found = ticket(path);
            assert_eq!(found.as_ref().map(Secret::expose), expected, "{path}");
        }
    }
}
