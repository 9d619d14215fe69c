//! Servers: all, one, and what may be done with one.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{Html, Redirect};
use elasticstack_core::amount;
use elasticstack_core::error::Result as ApiResult;
use elasticstack_core::hypervisor::Device;
use elasticstack_core::id::{ServerId, ServerKind};
use elasticstack_core::units::Bytes;
use elasticstack_core::wire::calls::Call;
use elasticstack_core::wire::record::Record;
use serde::Serialize;
use tera::Context;

use crate::app::App;
use crate::fault::{self, Fault};
use crate::request::{Button, LoggedIn, Named, Sent};
use crate::sessions::Session;

/// A server as pages show it.
#[derive(Serialize)]
struct Row {
    id: String,
    name: String,
    status: String,
    tone: &'static str,
    stopped: bool,
    cpu: String,
    mem: String,
    failed: Option<String>,
}

impl Row {
    fn of(server: &Record) -> Self {
        let text = |key| server.value(key).unwrap_or_default().to_owned();
        let number = |key| server.value(key).and_then(|value| value.parse::<u32>().ok());
        let status = text("status");
        Self {
            id: text("server"),
            name: text("name"),
            tone: tone(&status),
            stopped: status == "stopped",
            status,
            cpu: number("cpu")
                .map(|mhz| format!("{} GHz", decimal(mhz.into())))
                .unwrap_or_default(),
            mem: number("mem").map(|mib| amount::shown(Bytes::from_mib(mib))).unwrap_or_default(),
            failed: server.value("failed").map(str::to_owned),
        }
    }
}

/// `thousandths` as a decimal number without needless digits.
pub(super) fn decimal(thousandths: u64) -> String {
    let text = format!("{}.{:03}", thousandths / 1_000, thousandths % 1_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// How a status looks: what is neither at rest nor in trouble is on its way to something.
fn tone(status: &str) -> &'static str {
    match status {
        "active" => "good",
        "stopped" => "quiet",
        "dead" | "dumped" | "paused" | "unresponsive" => "bad",
        _ => "busy",
    }
}

pub(crate) async fn list(
    State(app): State<Arc<App>>,
    session: LoggedIn,
) -> Result<Html<String>, Fault> {
    let mut rows: Vec<_> = session.account.servers().await?.iter().map(Row::of).collect();
    rows.sort_by_cached_key(|row| (row.name.to_lowercase(), row.id.clone()));
    let mut context = Context::new();
    context.insert("changing", &rows.iter().any(|row| row.tone == "busy"));
    context.insert("servers", &rows);
    app.view.page("servers.html", &session, context)
}

pub(crate) async fn show(
    State(app): State<Arc<App>>,
    session: LoggedIn,
    Named(server): Named<ServerKind>,
) -> Result<Html<String>, Fault> {
    let record = session.account.server(server).await?;
    let row = Row::of(&record);
    let devices: Vec<_> = record.iter().filter(|(key, _)| key.parse::<Device>().is_ok()).collect();
    let mut context = Context::new();
    context.insert("changing", &(row.tone == "busy"));
    context.insert("server", &row);
    context.insert("devices", &devices);
    app.view.page("server.html", &session, context)
}

pub(crate) async fn start(server: Named<ServerKind>, sent: Sent<Button>) -> Redirect {
    act(server, sent, Call::ServerStart, "is starting").await
}

pub(crate) async fn shut_down(server: Named<ServerKind>, sent: Sent<Button>) -> Redirect {
    act(server, sent, Call::ServerShutdown, "was asked to shut down").await
}

pub(crate) async fn stop(server: Named<ServerKind>, sent: Sent<Button>) -> Redirect {
    act(server, sent, Call::ServerStop, "was switched off").await
}

pub(crate) async fn reset(server: Named<ServerKind>, sent: Sent<Button>) -> Redirect {
    act(server, sent, Call::ServerReset, "was reset").await
}

pub(crate) async fn confirm_destroy(
    State(app): State<Arc<App>>,
    session: LoggedIn,
    Named(server): Named<ServerKind>,
) -> Result<Html<String>, Fault> {
    let row = Row::of(&session.account.server(server).await?);
    let mut context = Context::new();
    context.insert("what", "server");
    context.insert("name", &row.name);
    context.insert("consequence", "It is switched off at once. Its drives stay, with their data.");
    context.insert("action", &format!("/servers/{server}/destroy"));
    context.insert("back", &format!("/servers/{server}"));
    app.view.page("confirm.html", &session, context)
}

pub(crate) async fn destroy(
    Named(server): Named<ServerKind>,
    Sent { session, .. }: Sent<Button>,
) -> Redirect {
    let outcome = session.account.act_on_server(Call::ServerDestroy, server).await;
    told(&session, outcome, "The server was destroyed; its drives stay.");
    Redirect::to("/servers")
}

async fn act(
    Named(server): Named<ServerKind>,
    Sent { session, .. }: Sent<Button>,
    call: Call,
    what: &str,
) -> Redirect {
    let name = name(&session, server).await;
    let outcome = session.account.act_on_server(call, server).await;
    told(&session, outcome, &format!("{name} {what}."));
    Redirect::to("/servers")
}

/// What to call the server in a notice; it may be gone a moment later.
async fn name(session: &Session, server: ServerId) -> String {
    let record = session.account.server(server).await;
    let name = record.ok().and_then(|record| record.value("name").map(str::to_owned));
    name.unwrap_or_else(|| "The server".to_owned())
}

/// Leaves for the next page what came of a change.
pub(super) fn told(session: &Session, outcome: ApiResult<()>, done: &str) {
    match outcome {
        Ok(()) => session.tell("good", done),
        Err(error) => session.tell("bad", fault::sentence(&error)),
    }
}
