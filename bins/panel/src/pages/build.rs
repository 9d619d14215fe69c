//! The progress of a server that is being made from an image, and taking it up again.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use elasticstack_core::id::DriveKind;
use tera::Context;

use crate::app::App;
use crate::builds::{Rest, Work, server_of};
use crate::fault::Fault;
use crate::pages::drives::percent;
use crate::request::{Button, LoggedIn, Named, Sent};

pub(crate) async fn show(
    State(app): State<Arc<App>>,
    session: LoggedIn,
    Named(drive): Named<DriveKind>,
) -> Result<Response, Fault> {
    // The drive is asked for first: who may not see it learns nothing of its work.
    let record = session.account.drive(drive).await?;
    let rest = Rest::of(&record);
    if rest == Rest::Nothing {
        app.builds.forget(drive);
        let place = match server_of(&session.account, drive).await? {
            Some(server) => format!("/servers/{server}"),
            None => "/servers".to_owned(),
        };
        return Ok(Redirect::to(&place).into_response());
    }
    let (goes_on, error) = match app.builds.work(drive) {
        Some(Work::GoesOn) => (true, None),
        Some(Work::Failed(sentence)) => (false, Some(sentence)),
        None => (false, None),
    };
    let mut context = Context::new();
    context.insert("id", &drive.to_string());
    context.insert("name", record.value("name").unwrap_or_default());
    context.insert("imaged", &(rest == Rest::Server));
    context.insert("queued", &(record.value("imaging") == Some("queued")));
    context.insert("percent", &percent(&record));
    context.insert("goes_on", &goes_on);
    context.insert("error", &error);
    Ok(app.view.page("build.html", &session, context)?.into_response())
}

pub(crate) async fn go_on(
    State(app): State<Arc<App>>,
    Named(drive): Named<DriveKind>,
    Sent { session, .. }: Sent<Button>,
) -> Result<Redirect, Fault> {
    session.account.drive(drive).await?;
    app.builds.begin(Arc::clone(&session.account), drive);
    Ok(Redirect::to(&format!("/drives/{drive}/build")))
}
