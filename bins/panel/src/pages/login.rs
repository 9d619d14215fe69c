//! Logging in with an account's UUID and secret key, and out.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::rejection::FormRejection;
use axum::extract::{Form, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use elasticstack_core::error::ErrorKind;
use elasticstack_core::id::AccountId;
use elasticstack_core::secret::Secret;
use http::header::SET_COOKIE;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use tera::Context;

use crate::account::Account;
use crate::app::App;
use crate::fault::{self, Fault};
use crate::request::{Button, LoggedIn, Origin, Sent, cookie, ended_cookie, session_cookie};

pub(crate) async fn show(
    State(app): State<Arc<App>>,
    session: Result<LoggedIn, Fault>,
) -> Result<Response, Fault> {
    match session {
        Ok(_) => Ok(Redirect::to("/servers").into_response()),
        Err(_) => page(&app, StatusCode::OK, "", None),
    }
}

#[derive(Deserialize)]
pub(crate) struct Credentials {
    account: String,
    key: Secret,
}

pub(crate) async fn log_in(
    State(app): State<Arc<App>>,
    Origin(address): Origin,
    form: Result<Form<Credentials>, FormRejection>,
) -> Result<Response, Fault> {
    let Form(Credentials { account, key }) = form.map_err(|_| Fault::Forged)?;
    app.throttle.admit(address, Instant::now()).map_err(Fault::Throttled)?;
    let wrong = "The account or its key is wrong.";
    let Ok(id) = account.trim().parse::<AccountId>() else {
        return page(&app, StatusCode::UNAUTHORIZED, account.trim(), Some(wrong));
    };
    match Account::log_in(Arc::clone(&app.api), id, &key).await {
        Ok(account) => {
            app.throttle.forgive(address);
            let token = app.sessions.begin(account, Instant::now())?;
            let cookie = cookie(&token, app.scheme);
            Ok(([(SET_COOKIE, cookie)], Redirect::to("/servers")).into_response())
        }
        Err(error) => {
            let (status, why) = match error.kind() {
                ErrorKind::BadCredentials | ErrorKind::InvalidValue => {
                    (StatusCode::UNAUTHORIZED, wrong.to_owned())
                }
                _ => (StatusCode::SERVICE_UNAVAILABLE, fault::sentence(&error)),
            };
            page(&app, status, account.trim(), Some(&why))
        }
    }
}

pub(crate) async fn log_out(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    _: Sent<Button>,
) -> Response {
    if let Some(token) = session_cookie(&headers) {
        app.sessions.end(token);
    }
    ([(SET_COOKIE, ended_cookie(app.scheme))], Redirect::to("/login")).into_response()
}

/// The form again; what was typed as the account is kept, the key never.
fn page(
    app: &App,
    status: StatusCode,
    account: &str,
    why: Option<&str>,
) -> Result<Response, Fault> {
    let mut context = Context::new();
    context.insert("typed", account);
    context.insert("error", &why);
    Ok((status, app.view.public_page("login.html", context)?).into_response())
}
