//! The internal API over HTTP: each handler parses, calls, and answers. No policy here.
//!
//! Every failure answers with a `Fault` in JSON; this file alone knows which status goes with
//! which class of error.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes as Chunk};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{connect, get, post};
use axum::{Json, Router};
use elasticstack_core::error::{Chain, Error, ErrorClass, ErrorKind, Result};
use elasticstack_core::generation::Run;
use elasticstack_core::id::{DriveId, IdKind, ServerId, TypedId};
use elasticstack_core::wire::arrays::{HostArrays, HostDisks, OrderArray, OrderStatus};
use elasticstack_core::wire::internal::{
    Accepted, ArrayStatus, Counts, CountsOf, Documents, Fault, HostReport, MAX_WRITE, PROTOCOL,
    Reports, ReportsAfter, SCREEN_PROTOCOL, Stock,
};
use futures_util::stream;
use http::StatusCode;
use http::header::CONTENT_LENGTH;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::ext::Protocol;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::arrays::Desk;
use super::host::Host;
use super::{counts, data, screen, stock};

/// The most bytes of JSON that one call takes.
const JSON_LIMIT: usize = 16 << 20;

/// The longest that a call for reports waits.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The whole internal API.
pub(crate) fn router(host: Arc<Host>) -> Router {
    Router::new()
        .route("/v1/host", get(describe))
        .route("/v1/stock", get(stock))
        .route("/v1/documents", post(accept))
        .route("/v1/reports", post(report))
        .route("/v1/counts", post(count))
        .route("/v1/disks", get(disks))
        .route("/v1/arrays", get(arrays).post(order))
        .route("/v1/drives/{drive}/data", get(read).post(write))
        .route("/v1/drives/{drive}/qcow2", get(export))
        .route("/v1/servers/{server}/serial", get(serial))
        .route("/v1/servers/{server}/screen", connect(screen))
        .fallback(no_such_call)
        .method_not_allowed_fallback(wrong_method)
        .with_state(host)
}

async fn describe(State(host): State<Arc<Host>>) -> Result<Json<HostReport>, Failure> {
    let arrays = host.store.capacity().await?.into_iter().map(|report| ArrayStatus {
        array: report.array,
        name: report.name,
        capacity: report.capacity.get(),
        promised: report.promised.get(),
        state: report.state,
        disks: report.disks,
        warnings: report.warnings,
    });
    Ok(Json(HostReport {
        protocol: PROTOCOL,
        boot: host.boot.clone(),
        cpu_mhz: host.description.cpu_mhz,
        memory_mib: host.description.memory_mib,
        accelerator: host.description.accelerator.clone(),
        cpu_limits: host.description.cpu_limits.clone(),
        arrays: arrays.collect(),
        portal: host.lender.as_ref().map(|lender| lender.portal()),
        containers: host.description.containers,
    }))
}

async fn stock(State(host): State<Arc<Host>>) -> Result<Json<Stock>, Failure> {
    Ok(Json(stock::take(&host).await?))
}

async fn accept(State(host): State<Arc<Host>>, body: Body) -> Result<Json<Accepted>, Failure> {
    let documents: Documents = json(body).await?;
    refuse_when_closing(&host)?;
    let ignored = host.on_disk(move |host| host.accept(documents)).await?;
    Ok(Json(Accepted { ignored }))
}

async fn report(State(host): State<Arc<Host>>, body: Body) -> Result<Json<Reports>, Failure> {
    let ReportsAfter { after, wait_ms } = json(body).await?;
    let acknowledged = after.as_ref().map(|cursor| host.board.acknowledged(cursor));
    if let Some(acknowledged) = acknowledged.filter(|gone| !gone.is_empty()) {
        host.on_disk(move |host| acknowledged.into_iter().try_for_each(|gone| host.forget(gone)))
            .await?;
    }
    let patience = Duration::from_millis(wait_ms.into()).min(LONGEST_WAIT);
    tokio::select! {
        reports = host.board.reports(after.as_ref(), patience) => Ok(Json(reports)),
        () = host.closing.cancelled() => Err(closing().into()),
    }
}

async fn count(State(host): State<Arc<Host>>, body: Body) -> Result<Json<Counts>, Failure> {
    let of: CountsOf = json(body).await?;
    Ok(Json(counts::tell(&host, of).await?))
}

async fn disks(State(host): State<Arc<Host>>) -> Result<Json<HostDisks>, Failure> {
    Ok(Json(desk(&host)?.disks().await?))
}

async fn arrays(State(host): State<Arc<Host>>) -> Result<Json<HostArrays>, Failure> {
    Ok(Json(desk(&host)?.arrays().await?))
}

async fn order(State(host): State<Arc<Host>>, body: Body) -> Result<Json<OrderStatus>, Failure> {
    let OrderArray { order, wait_ms } = json(body).await?;
    refuse_when_closing(&host)?;
    let patience = Duration::from_millis(wait_ms.into()).min(LONGEST_WAIT);
    tokio::select! {
        status = desk(&host)?.order(order, patience) => Ok(Json(status?)),
        () = host.closing.cancelled() => Err(closing().into()),
    }
}

fn desk(host: &Host) -> Result<&Desk> {
    host.arrays.as_ref().ok_or_else(|| {
        let sentence = "this host makes no arrays: its agent was started without what does";
        Error::new(ErrorKind::NotOffered, sentence)
    })
}

/// The part of a drive that a read asks for.
#[derive(Debug, Deserialize)]
struct Range {
    offset: u64,
    length: u64,
}

async fn read(
    State(host): State<Arc<Host>>,
    Path(drive): Path<String>,
    range: Result<Query<Range>, QueryRejection>,
) -> Result<Chunk, Failure> {
    let drive: DriveId = id(&drive)?;
    let Query(Range { offset, length }) = range.map_err(|error| bad_query(&error))?;
    Ok(data::read(&host, drive, offset, length).await?)
}

/// Where on a drive a write begins.
#[derive(Debug, Deserialize)]
struct Place {
    offset: u64,
}

async fn write(
    State(host): State<Arc<Host>>,
    Path(drive): Path<String>,
    place: Result<Query<Place>, QueryRejection>,
    body: Body,
) -> Result<StatusCode, Failure> {
    let drive: DriveId = id(&drive)?;
    let Query(Place { offset }) = place.map_err(|error| bad_query(&error))?;
    // All of it first: of a body that breaks off, not one byte may reach the drive.
    let body = collect(body, MAX_WRITE).await?;
    refuse_when_closing(&host)?;
    data::write(&host, drive, offset, body).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn export(
    State(host): State<Arc<Host>>,
    Path(drive): Path<String>,
) -> Result<Response, Failure> {
    let exporting = data::export(&host, id(&drive)?).await?;
    let length = exporting.length();
    let pieces = stream::try_unfold(exporting, |mut exporting| async move {
        let piece = exporting.next().await.map_err(|error| {
            tracing::warn!(error = %Chain(&error), "the export of a drive broke off");
            io::Error::other("the export broke off")
        })?;
        Ok::<_, io::Error>(piece.map(|piece| (piece, exporting)))
    });
    Ok(([(CONTENT_LENGTH, length)], Body::from_stream(pieces)).into_response())
}

async fn serial(
    State(host): State<Arc<Host>>,
    Path(server): Path<String>,
) -> Result<Vec<u8>, Failure> {
    let server: ServerId = id(&server)?;
    let console = host.hypervisor.console().ok_or_else(|| {
        Error::new(ErrorKind::NotOffered, "the hypervisor of this host has no consoles")
    })?;
    Ok(console.serial(server).await?)
}

/// The run whose screen is asked for.
#[derive(Debug, Deserialize)]
struct Shown {
    run: Run,
}

async fn screen(
    State(host): State<Arc<Host>>,
    Path(server): Path<String>,
    shown: Result<Query<Shown>, QueryRejection>,
    mut request: Request,
) -> Result<StatusCode, Failure> {
    let server: ServerId = id(&server)?;
    let Query(Shown { run }) = shown.map_err(|error| bad_query(&error))?;
    let protocol = request.extensions().get::<Protocol>();
    if protocol.is_none_or(|protocol| protocol.as_str() != SCREEN_PROTOCOL) {
        let message = format!("a screen speaks {SCREEN_PROTOCOL}: name it as the protocol");
        return Err(Error::new(ErrorKind::InvalidValue, message).into());
    }
    refuse_when_closing(&host)?;
    let stream = screen::connect(&host, server, run).await?;
    let carried = screen::carry(stream, hyper::upgrade::on(&mut request));
    let closing = host.closing.clone();
    host.tasks.spawn(async move {
        tokio::select! {
            () = carried => {}
            () = closing.cancelled() => {}
        }
    });
    Ok(StatusCode::OK)
}

async fn no_such_call() -> Failure {
    Error::new(ErrorKind::NotFound, "no such call: see the list of the internal API").into()
}

async fn wrong_method() -> Failure {
    Error::new(ErrorKind::MethodNotAllowed, "this call takes another method").into()
}

fn refuse_when_closing(host: &Host) -> Result<()> {
    if host.closing.is_cancelled() { Err(closing()) } else { Ok(()) }
}

fn closing() -> Error {
    Error::new(ErrorKind::Unavailable, "the agent is stopping: try again")
}

fn id<K: IdKind>(text: &str) -> Result<TypedId<K>> {
    text.parse().map_err(|error: elasticstack_core::id::InvalidId| {
        Error::new(ErrorKind::InvalidValue, error.to_string()).field(K::NAME)
    })
}

fn bad_query(error: &QueryRejection) -> Error {
    Error::new(ErrorKind::InvalidValue, error.body_text().to_lowercase())
}

async fn json<T: DeserializeOwned>(body: Body) -> Result<T> {
    let body = collect(body, JSON_LIMIT).await?;
    serde_json::from_slice(&body)
        .map_err(|error| Error::new(ErrorKind::MalformedBody, format!("not this call's: {error}")))
}

async fn collect(body: Body, limit: usize) -> Result<Chunk> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            let message = format!("the body is longer than {limit} bytes: send less at a time");
            Err(Error::new(ErrorKind::InvalidValue, message))
        }
        Err(error) => {
            let message = "the body broke off before its end: nothing was done, send it again";
            Err(Error::new(ErrorKind::MalformedBody, message).source(error))
        }
    }
}

/// An [`Error`] as an answer.
struct Failure(Error);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match self.0.kind().class() {
            ErrorClass::Invalid => StatusCode::BAD_REQUEST,
            ErrorClass::Unauthenticated => StatusCode::UNAUTHORIZED,
            ErrorClass::NeedsPayment => StatusCode::PAYMENT_REQUIRED,
            ErrorClass::Forbidden => StatusCode::FORBIDDEN,
            ErrorClass::NotFound => StatusCode::NOT_FOUND,
            ErrorClass::Method => StatusCode::METHOD_NOT_ALLOWED,
            ErrorClass::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            ErrorClass::Conflict => StatusCode::CONFLICT,
            ErrorClass::Outdated => StatusCode::PRECONDITION_FAILED,
            ErrorClass::Throttled => StatusCode::TOO_MANY_REQUESTS,
            ErrorClass::Failed | ErrorClass::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            ErrorClass::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorClass::NoCapacity => StatusCode::INSUFFICIENT_STORAGE,
        };
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(error = %Chain(&self.0), "a call failed");
        }
        (status, Json(Fault::from(&self.0))).into_response()
    }
}
