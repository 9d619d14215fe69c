//! A customer who changes one thing or another without end: drives and what they are kept in,
//! servers, and which server has which drive.

use elasticstack_api::Server;
use elasticstack_core::sim::SimRng;
use elasticstack_core::wire::record::Record;
use tokio::task::JoinSet;

use crate::world::{Who, pass_to, request};

/// How many calls are under way at a time.
const AT_ONCE: usize = 16;

/// The fewest drives that no server has, and the fewest servers, that there are after a while.
const FEW: usize = 8;

/// What a customer has that nothing happens to now, as it knows it.
#[derive(Default)]
pub(crate) struct Things {
    /// Those that no server has.
    drives: Vec<Drive>,
    guests: Vec<Guest>,
}

struct Drive {
    drive: String,
    snapshot: Option<String>,
}

struct Guest {
    server: String,
    runs: bool,
    drive: Option<Drive>,
}

/// One change of one thing.
enum Change {
    MakeDrive,
    Resize(Drive, u64),
    Destroy(Drive),
    Snapshot(Drive),
    Restore(Drive, String),
    DestroySnapshot(Drive, String),
    MakeGuest(Drive),
    Start(Guest),
    Stop(Guest),
    Plug(Guest, Drive),
    Unplug(Guest),
    DestroyGuest(Guest),
}

impl Change {
    fn path_and_body(&self) -> (String, String) {
        let nothing = String::new;
        match self {
            Self::MakeDrive => ("/drives/create".to_owned(), "name d\nsize 4M".to_owned()),
            Self::Resize(Drive { drive, .. }, mib) => {
                (format!("/drives/{drive}/set"), format!("size {mib}M"))
            }
            Self::Destroy(Drive { drive, .. }) => (format!("/drives/{drive}/destroy"), nothing()),
            Self::Snapshot(Drive { drive, .. }) => (format!("/drives/{drive}/snapshot"), nothing()),
            Self::Restore(_, snapshot) => (format!("/snapshots/{snapshot}/restore"), nothing()),
            Self::DestroySnapshot(_, snapshot) => {
                (format!("/snapshots/{snapshot}/destroy"), nothing())
            }
            Self::MakeGuest(Drive { drive, .. }) => {
                let body = format!("name s\ncpu 500\nmem 256\npersistent true\nblock:0 {drive}");
                ("/servers/create".to_owned(), body)
            }
            Self::Start(Guest { server, .. }) => (format!("/servers/{server}/start"), nothing()),
            Self::Stop(Guest { server, .. }) => (format!("/servers/{server}/stop"), nothing()),
            Self::Plug(Guest { server, .. }, Drive { drive, .. }) => {
                (format!("/servers/{server}/set"), format!("block:0 {drive}"))
            }
            Self::Unplug(Guest { server, .. }) => {
                (format!("/servers/{server}/set"), "block:0".to_owned())
            }
            Self::DestroyGuest(Guest { server, .. }) => {
                (format!("/servers/{server}/destroy"), nothing())
            }
        }
    }
}

/// Takes one of many out.
fn taken<T>(from: &mut Vec<T>, rng: &mut SimRng) -> T {
    let place = rng.below(u64::try_from(from.len()).unwrap());
    from.swap_remove(usize::try_from(place).unwrap())
}

impl Things {
    /// Takes something out and says what happens to it.
    fn next(&mut self, rng: &mut SimRng) -> Change {
        if self.drives.len() < FEW || rng.one_in(4) {
            return Change::MakeDrive;
        }
        if self.guests.len() < FEW || rng.one_in(8) {
            return Change::MakeGuest(taken(&mut self.drives, rng));
        }
        if rng.one_in(2) {
            let mut drive = taken(&mut self.drives, rng);
            return match (drive.snapshot.take(), rng.below(4)) {
                (Some(snapshot), 0) => Change::DestroySnapshot(drive, snapshot),
                (Some(snapshot), _) => Change::Restore(drive, snapshot),
                (None, 0) => Change::Destroy(drive),
                (None, 1) => Change::Snapshot(drive),
                (None, _) => Change::Resize(drive, 4 * (1 + rng.below(4))),
            };
        }
        let guest = taken(&mut self.guests, rng);
        match (guest.runs, guest.drive.is_some(), rng.below(4)) {
            (_, _, 0) => Change::DestroyGuest(guest),
            (true, true, 1) => Change::Unplug(guest),
            (true, _, _) => Change::Stop(guest),
            (false, true, _) => Change::Start(guest),
            (false, false, _) => Change::Plug(guest, taken(&mut self.drives, rng)),
        }
    }

    /// Puts things back as they are after the change.
    fn changed(&mut self, change: Change, made: &Record) {
        let id = |key: &str| made.value(key).unwrap().to_owned();
        match change {
            Change::MakeDrive => {
                self.drives.push(Drive { drive: id("drive"), snapshot: None });
            }
            Change::Resize(drive, _) | Change::DestroySnapshot(drive, _) => self.drives.push(drive),
            Change::Snapshot(drive) => {
                self.drives.push(Drive { snapshot: Some(id("snapshot")), ..drive });
            }
            Change::Restore(drive, snapshot) => {
                self.drives.push(Drive { snapshot: Some(snapshot), ..drive });
            }
            Change::MakeGuest(drive) => {
                self.guests.push(Guest { server: id("server"), runs: true, drive: Some(drive) });
            }
            Change::Start(guest) => self.guests.push(Guest { runs: true, ..guest }),
            Change::Stop(guest) => self.guests.push(Guest { runs: false, ..guest }),
            Change::Plug(guest, drive) => {
                self.guests.push(Guest { drive: Some(drive), ..guest });
            }
            Change::Unplug(guest) => {
                self.drives.extend(guest.drive);
                self.guests.push(Guest { drive: None, ..guest });
            }
            Change::DestroyGuest(guest) => self.drives.extend(guest.drive),
            Change::Destroy(_) => {}
        }
    }
}

/// Has changes made, many at a time, for as long as there is to be one more after so many.
pub(crate) async fn live(
    server: &Server,
    things: &mut Things,
    rng: &mut SimRng,
    one_more: impl Fn(usize) -> bool,
) {
    let (mut under_way, mut begun) = (JoinSet::new(), 0);
    loop {
        let goes_on = one_more(begun);
        if goes_on && under_way.len() < AT_ONCE {
            let change = things.next(rng);
            let (path, body) = change.path_and_body();
            let asked =
                pass_to(server.router(), request(Who::Customer, &path, None, body.as_bytes()));
            under_way.spawn(async move {
                let answer = asked.await;
                assert!(matches!(answer.status, 200 | 204), "{path}: {answer:?}");
                let made = Record::from_json(&answer.body).unwrap_or_default();
                (change, made)
            });
            begun += 1;
            continue;
        }
        let Some(done) = under_way.join_next().await else { return };
        let (change, made) = done.unwrap();
        things.changed(change, &made);
    }
}
