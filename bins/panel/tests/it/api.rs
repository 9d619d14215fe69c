//! An API server in memory: one account, its drives and servers, one image. It routes by the
//! project's own table of calls, and imaging goes on one step at each look.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use elasticstack_core::client::Transport;
use elasticstack_core::error::{Error, ErrorKind, Result};
use elasticstack_core::wire::calls::{self, Answer, Call};
use elasticstack_core::wire::keys::Object;
use elasticstack_core::wire::record::Record;
use http::header::AUTHORIZATION;
use http::{Request, Response};

pub(crate) const ACCOUNT: &str = "5b0e3c52-0000-4000-8000-00000000a001";
pub(crate) const KEY: &str = "canary-secret-key";
pub(crate) const IMAGE: &str = "5b0e3c52-0000-4000-8000-00000000b001";
/// Base64 of `ACCOUNT:KEY`.
const BASIC: &str =
    "Basic NWIwZTNjNTItMDAwMC00MDAwLTgwMDAtMDAwMDAwMDBhMDAxOmNhbmFyeS1zZWNyZXQta2V5";

#[derive(Default)]
pub(crate) struct State {
    pub(crate) drives: BTreeMap<String, Record>,
    pub(crate) servers: BTreeMap<String, Record>,
    pub(crate) serial: Vec<u8>,
    /// Every call that came in, in order.
    pub(crate) calls: Vec<Call>,
    /// What a call is answered from now on instead of being done.
    pub(crate) refusals: BTreeMap<&'static str, (ErrorKind, &'static str)>,
    /// Whether imaging stays where it is.
    pub(crate) imaging_waits: bool,
    made: u32,
}

#[derive(Default)]
pub(crate) struct Api {
    state: Mutex<State>,
}

impl Api {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// A server as it was before the test.
    pub(crate) fn has_server(&self, name: &str, status: &str) -> String {
        let mut state = self.state();
        let id = state.id();
        let server = Record::new().with("server", &id).with("name", name).with("status", status);
        state.servers.insert(id.clone(), server.with("cpu", 2000).with("mem", 1024));
        id
    }

    /// A drive as it was before the test.
    pub(crate) fn has_drive(&self, drive: &Record) -> String {
        let mut state = self.state();
        let id = state.id();
        let mut record = Record::new().with("drive", &id).with("size", 3_u64 << 29);
        record.apply(drive);
        state.drives.insert(id.clone(), record);
        id
    }

    fn answer(&self, request: &Request<Bytes>) -> Result<Vec<Record>> {
        let (route, parameters) = calls::find(request.uri().path()).unwrap();
        let mut state = self.state();
        state.calls.push(route.call);
        if request.headers().get(AUTHORIZATION).is_none_or(|value| value != BASIC) {
            return Err(Error::new(ErrorKind::BadCredentials, "who are you"));
        }
        if let Some((kind, sentence)) = state.refusals.get(route.path) {
            return Err(Error::new(*kind, *sentence));
        }
        let record = Record::from_json(request.body()).unwrap_or_default();
        let id = parameters.first().copied().unwrap_or_default();
        Ok(match route.call {
            Call::ProfileInfo => vec![Record::new().with("name", "Ann <b>Example</b>")],
            Call::ServersInfo => state.servers.values().cloned().collect(),
            Call::DrivesInfo => state.drives.values().cloned().collect(),
            Call::DrivesInfoStandard => {
                let image = Record::new().with("drive", IMAGE).with("name", "tiny <i>");
                vec![image.with("format", "gzip").with("media", "disk").with("rawsize", 64 << 20)]
            }
            Call::DriveCreate => {
                let id = state.id();
                let drive = record.with("drive", &id);
                state.drives.insert(id, drive.clone());
                vec![drive]
            }
            Call::DriveInfo => {
                let waits = state.imaging_waits;
                let drive = state.drive(id)?;
                let shown = drive.clone();
                match drive.value("imaging") {
                    Some("queued") => drive.set("imaging", "37%"),
                    Some(_) if !waits => drop(drive.remove("imaging")),
                    _ => {}
                }
                vec![shown]
            }
            Call::DriveSet => {
                let drive = state.drive(id)?;
                drive.apply(&record);
                vec![drive.clone()]
            }
            Call::DriveImageGunzip => {
                let drive = state.drive(id)?;
                drive.set("imaging", "queued");
                drive.remove("failed");
                vec![drive.clone()]
            }
            Call::DriveDestroy => {
                state.drive(id)?;
                state.drives.remove(id);
                vec![]
            }
            Call::ServerCreate => {
                let id = state.id();
                let server = record.with("server", &id).with("status", "active");
                state.servers.insert(id, server.clone());
                vec![server]
            }
            Call::ServerInfo => vec![state.server(id)?.clone()],
            Call::ServerStart => {
                state.server(id)?.set("status", "active");
                vec![state.server(id)?.clone()]
            }
            Call::ServerStop => {
                state.server(id)?.set("status", "stopped");
                vec![]
            }
            Call::ServerShutdown | Call::ServerReset => vec![state.server(id)?.clone()],
            Call::ServerDestroy => {
                state.server(id)?;
                state.servers.remove(id);
                vec![]
            }
            Call::ServerSerial => {
                state.server(id)?;
                vec![]
            }
            other => panic!("the panel has no use for {other:?}"),
        })
    }
}

impl State {
    fn id(&mut self) -> String {
        self.made += 1;
        format!("5b0e3c52-0000-4000-8000-{:012}", self.made)
    }

    fn drive(&mut self, id: &str) -> Result<&mut Record> {
        self.drives.get_mut(id).ok_or_else(|| Error::new(ErrorKind::NotFound, "no such drive"))
    }

    fn server(&mut self, id: &str) -> Result<&mut Record> {
        self.servers.get_mut(id).ok_or_else(|| Error::new(ErrorKind::NotFound, "no such server"))
    }
}

#[async_trait]
impl Transport for Api {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>> {
        let (route, _) = calls::find(request.uri().path()).unwrap();
        let records = match self.answer(&request) {
            Ok(records) => records,
            Err(error) => {
                let header = format!("x code={}", error.kind().code());
                let answer = Response::builder().status(400).header("x-elastic-error", header);
                return Ok(answer.body(error.public_message().to_owned().into()).unwrap());
            }
        };
        let json = |object: Object| records.iter().map(move |record| record.to_json(object));
        Ok(Response::new(match route.answer {
            Answer::One(object) => json(object).next().unwrap().to_string().into(),
            Answer::Many(object) => json(object).collect::<serde_json::Value>().to_string().into(),
            Answer::Bytes => self.state().serial.clone().into(),
            Answer::Ids(_) | Answer::Nothing => Bytes::new(),
        }))
    }
}
