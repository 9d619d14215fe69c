//! The stylesheet, the brand's colours and logo.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};

use crate::app::App;

const BRIEFLY: &str = "max-age=300";

pub(crate) async fn style() -> impl IntoResponse {
    let headers = [(CONTENT_TYPE, "text/css; charset=utf-8"), (CACHE_CONTROL, BRIEFLY)];
    (headers, include_str!("../../assets/style.css"))
}

pub(crate) async fn brand(State(app): State<Arc<App>>) -> impl IntoResponse {
    let headers = [(CONTENT_TYPE, "text/css; charset=utf-8"), (CACHE_CONTROL, BRIEFLY)];
    (headers, app.view.brand().css())
}

pub(crate) async fn logo(State(app): State<Arc<App>>) -> impl IntoResponse {
    let headers = [(CONTENT_TYPE, "image/svg+xml"), (CACHE_CONTROL, BRIEFLY)];
    (headers, app.view.brand().logo.clone())
}
