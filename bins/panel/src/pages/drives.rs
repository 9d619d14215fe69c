//! Drives: all of them, and destroying one.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{Html, Redirect};
use elasticstack_core::amount;
use elasticstack_core::id::DriveKind;
use elasticstack_core::units::Bytes;
use elasticstack_core::wire::record::Record;
use serde::Serialize;
use tera::Context;

use crate::app::App;
use crate::builds::Rest;
use crate::fault::Fault;
use crate::pages::servers::told;
use crate::request::{Button, LoggedIn, Named, Sent};

/// A drive as pages show it.
#[derive(Serialize)]
struct Row {
    id: String,
    name: String,
    size: String,
    imaging: Option<String>,
    percent: Option<u8>,
    failed: Option<String>,
    used: bool,
    unfinished: bool,
}

impl Row {
    fn of(drive: &Record) -> Self {
        let text = |key| drive.value(key).map(str::to_owned);
        Self {
            id: text("drive").unwrap_or_default(),
            name: text("name").unwrap_or_default(),
            size: size(drive, "size"),
            imaging: text("imaging"),
            percent: percent(drive),
            failed: text("failed"),
            used: drive.value("claimed").is_some(),
            unfinished: Rest::of(drive) != Rest::Nothing,
        }
    }
}

/// A size for people.
pub(super) fn size(drive: &Record, key: &str) -> String {
    let bytes = drive.value(key).and_then(|bytes| bytes.parse::<u64>().ok());
    let bytes = bytes.and_then(|bytes| Bytes::try_from(bytes).ok());
    bytes.map(amount::shown).unwrap_or_default()
}

/// How far imaging is, where the API tells it as `37%`.
pub(super) fn percent(drive: &Record) -> Option<u8> {
    let percent = drive.value("imaging")?.strip_suffix('%')?.parse().ok()?;
    (percent <= 100).then_some(percent)
}

pub(crate) async fn list(
    State(app): State<Arc<App>>,
    session: LoggedIn,
) -> Result<Html<String>, Fault> {
    let mut rows: Vec<_> = session.account.drives().await?.iter().map(Row::of).collect();
    rows.sort_by_cached_key(|row| (row.name.to_lowercase(), row.id.clone()));
    let mut context = Context::new();
    context.insert("changing", &rows.iter().any(|row| row.imaging.is_some()));
    context.insert("drives", &rows);
    app.view.page("drives.html", &session, context)
}

pub(crate) async fn confirm_destroy(
    State(app): State<Arc<App>>,
    session: LoggedIn,
    Named(drive): Named<DriveKind>,
) -> Result<Html<String>, Fault> {
    let record = session.account.drive(drive).await?;
    let mut context = Context::new();
    context.insert("what", "drive");
    context.insert("name", record.value("name").unwrap_or_default());
    context.insert("consequence", "Its data is gone for good.");
    context.insert("action", &format!("/drives/{drive}/destroy"));
    context.insert("back", "/drives");
    app.view.page("confirm.html", &session, context)
}

pub(crate) async fn destroy(
    State(app): State<Arc<App>>,
    Named(drive): Named<DriveKind>,
    Sent { session, .. }: Sent<Button>,
) -> Redirect {
    let outcome = session.account.destroy_drive(drive).await;
    if outcome.is_ok() {
        app.builds.forget(drive);
    }
    told(&session, outcome, "The drive was destroyed.");
    Redirect::to("/drives")
}
