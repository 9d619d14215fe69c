//! The pages, one module a subject. A handler reads the request, asks the API and fills a template;
//! after a change it sends the browser on, so that reloading repeats nothing.

mod assets;
mod build;
mod create;
mod drives;
mod login;
mod serial;
mod servers;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::response::Redirect;
use axum::routing::{get, post};

use crate::app::App;
use crate::fault::Fault;
use crate::guard;

/// More than any form of ours has.
const LARGEST_FORM: usize = 16 << 10;

pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(|| async { Redirect::to("/servers") }))
        .route("/login", get(login::show).post(login::log_in))
        .route("/logout", post(login::log_out))
        .route("/servers", get(servers::list))
        .route("/servers/create", get(create::show).post(create::create))
        .route("/servers/{server}", get(servers::show))
        .route("/servers/{server}/start", post(servers::start))
        .route("/servers/{server}/shutdown", post(servers::shut_down))
        .route("/servers/{server}/stop", post(servers::stop))
        .route("/servers/{server}/reset", post(servers::reset))
        .route("/servers/{server}/destroy", get(servers::confirm_destroy).post(servers::destroy))
        .route("/servers/{server}/serial", get(serial::show))
        .route("/drives", get(drives::list))
        .route("/drives/{drive}/destroy", get(drives::confirm_destroy).post(drives::destroy))
        .route("/drives/{drive}/build", get(build::show).post(build::go_on))
        .route("/style.css", get(assets::style))
        .route("/brand.css", get(assets::brand))
        .route("/logo.svg", get(assets::logo))
        .fallback(|| async { Fault::Missing })
        .method_not_allowed_fallback(|| async { Fault::Missing })
        .layer(DefaultBodyLimit::max(LARGEST_FORM))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), guard::guard))
        .with_state(app)
}
