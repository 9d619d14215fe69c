//! What is there when nothing goes on any more: all that callers, the control plane and the host
//! say, without what differs from one life to the next (ids, instants, what is drawn by chance).

use std::collections::BTreeMap;
use std::time::Duration;

use elasticstack_api::Server;
use elasticstack_core::block::{BlockStore as _, Lend as _};
use elasticstack_core::hypervisor::{Console as _, Hypervisor as _};
use elasticstack_core::sim::SimHypervisor;
use elasticstack_core::wire::record::Record;
use serde_json::Value;
use uuid::Uuid;

use crate::world::{Answer, GUARD, Machine, Who, World, request, send};

const USAGE: &str = "/usage/info/all";

/// Every list of objects, who may ask for it and which key holds their ids.
const LISTS: [(&str, Who, &str); 11] = [
    ("/arrays/info", Who::Operator, "array"),
    ("/snapshots/info", Who::Customer, "snapshot"),
    ("/accounts/info", Who::Operator, "account"),
    ("/drives/info", Who::Customer, "drive"),
    ("/servers/info", Who::Customer, "server"),
    ("/resources/info", Who::Customer, "resource"),
    ("/tokens/info", Who::Customer, "token"),
    ("/hosts/info", Who::Operator, "host"),
    ("/pools/info", Who::Operator, "pool"),
    ("/quarantine/info", Who::Operator, "stray"),
    (USAGE, Who::Operator, "interval"),
];

/// How often it is looked whether something still goes on.
const LOOK: Duration = Duration::from_millis(5);

/// How often a button was pressed that was asked for once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presses {
    Once,
    /// The machine keeps no record of a press: one in the moment of its agent's death is repeated.
    OnceOrAgain,
}

/// Waits until nothing goes on and all is as one of `ends` has it.
pub(crate) async fn settle(world: &World, server: &Server, ends: &[&str]) {
    settle_as(world, server, ends, Presses::Once).await;
}

/// As [`settle`], with so many presses of buttons.
pub(crate) async fn settle_as(world: &World, server: &Server, ends: &[&str], presses: Presses) {
    let pressed = |end: &str| match presses {
        Presses::Once => end.to_owned(),
        Presses::OnceOrAgain => end.replace(&greetings(3), &greetings(2)),
    };
    let mut last = String::new();
    let settled = async {
        loop {
            if server.app().hosts_to_tell().await.unwrap().is_empty() {
                last = all(world, server).await;
                if ends.contains(&pressed(&last).as_str()) {
                    return;
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    if tokio::time::timeout(GUARD / 4, settled).await.is_err() {
        let ends = ends.join("\n--- or\n");
        panic!("it ended as\n{last}\n--- and not as\n{ends}");
    }
}

/// What a guest says that came up so often.
fn greetings(times: usize) -> String {
    SimHypervisor::GREETING.repeat(times).escape_debug().to_string()
}

/// Waits until nothing goes on, and tells what there is.
pub(crate) async fn end(world: &World, server: &Server) -> String {
    let mut last = String::new();
    let still = async {
        // Whether a host is at something can't be seen from here, but that nothing comes of it.
        let mut same = 0;
        while same < 8 {
            let told = server.app().hosts_to_tell().await.unwrap().is_empty();
            let now = all(world, server).await;
            same = if told && now == last { same + 1 } else { 0 };
            last = now;
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(GUARD, still).await.expect("it never came to rest");
    last
}

/// All there is now, a line for each thing, in an order of its own.
async fn all(world: &World, server: &Server) -> String {
    let (mut names, mut records) = (Names::default(), Vec::new());
    for (path, who, id) in LISTS {
        let list = Record::list_from_json(&ask(server, who, path).await.body).unwrap();
        for record in &list {
            names.learn(record.value(id).unwrap(), record.value("name"));
        }
        records.extend(list.into_iter().map(|record| (path, record)));
    }
    let profile = ask(server, Who::Customer, "/profile/info").await;
    records.push(("/profile/info", Record::from_json(&profile.body).unwrap()));
    tiled(records.iter().filter(|(path, _)| *path == USAGE).map(|(_, record)| record));
    let mut lines = Vec::new();
    for (path, record) in &records {
        lines.push(format!("{path}: {}", names.say(&shown(record))));
        if *path == "/drives/info" {
            let drive = record.value("drive").unwrap();
            let read = request(Who::Customer, &format!("/drives/{drive}/read/0/16"), None, b"");
            let Answer { status, body, .. } = send(server, read).await;
            let bytes = if status == 200 { body.escape_ascii().to_string() } else { String::new() };
            lines.push(names.say(&format!("bytes of {drive}: {status} {bytes}")));
        }
    }
    lines.extend(on_the_hosts(world).await.iter().map(|line| names.say(line)));
    lines.sort();
    lines.join("\n")
}

async fn ask(server: &Server, who: Who, path: &str) -> Answer {
    send(server, request(who, path, None, b"")).await.expect(200)
}

/// What the hosts have: drives, guests, and what their agents keep of each.
async fn on_the_hosts(world: &World) -> Vec<String> {
    let mut lines = Vec::new();
    for machine in &world.machines {
        for drive in machine.store.list().await.unwrap() {
            let (spec, epoch) = (drive.spec, drive.epoch);
            let (id, size, generation) = (spec.drive, spec.size, spec.generation);
            lines.push(format!("drive on a host: {id} of {size}, {generation}, epoch {epoch}"));
        }
        for guest in machine.hypervisor.observe().await.unwrap() {
            let serial = machine.hypervisor.serial(guest.server).await.unwrap();
            let (server, run, phase) = (guest.server, guest.run, guest.phase);
            let serial = serial.escape_ascii();
            lines.push(format!("guest on a host: {server}, run {run} {phase:?} {serial}"));
        }
        for lend in machine.lender.lent().await.unwrap() {
            lines.push(format!("lend on a host: {lend}"));
        }
        for kind in ["drives", "jobs", "servers"] {
            for mut record in records(machine, kind) {
                timeless(&mut record);
                lines.push(format!("record of {kind}: {record}"));
            }
        }
    }
    lines
}

/// What an agent keeps of a kind of objects. One that is replaced at this moment may be missing.
pub(crate) fn records(machine: &Machine, kind: &str) -> Vec<Value> {
    let folder = std::fs::read_dir(machine.state_dir.join(kind)).unwrap();
    let texts = folder.filter_map(|entry| std::fs::read(entry.unwrap().path()).ok());
    texts.filter_map(|text| serde_json::from_slice(&text).ok()).collect()
}

/// Takes instants and what is drawn by chance out of a record of the agent's.
fn timeless(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !matches!(key.as_str(), "mac" | "secret"));
            for (key, value) in map {
                if matches!(key.as_str(), "at" | "begun" | "started") && !value.is_null() {
                    *value = Value::from("then");
                }
                timeless(value);
            }
        }
        Value::Array(list) => list.iter_mut().for_each(timeless),
        _ => {}
    }
}

/// The record without ids that nothing else has, instants, and what is drawn by chance.
fn shown(record: &Record) -> String {
    let mut words = Vec::new();
    for (key, value) in record.iter() {
        match key {
            "interval" | "from" | "created" | "secret" | "since" => {}
            _ if key.ends_with(":mac") => {}
            "to" | "started" => words.push(format!("{key}=then")),
            "certificate" if value != "revoked" => words.push(format!("{key}=one")),
            _ => words.push(format!("{key}={value}")),
        }
    }
    words.join(" ")
}

/// Usage never overlaps, and one interval of a thing goes on at most.
pub(crate) fn tiled<'a>(usage: impl IntoIterator<Item = &'a Record>) {
    let mut intervals = BTreeMap::<_, Vec<(i64, i64)>>::new();
    for record in usage {
        let instant = |key| record.value(key).map(|value| value.parse().unwrap());
        let of = (record.value("resource").unwrap(), record.value("meter").unwrap());
        let (from, to) = (instant("from").unwrap(), instant("to").unwrap_or(i64::MAX));
        intervals.entry(of).or_default().push((from, to));
    }
    for (of, mut intervals) in intervals {
        intervals.sort_unstable();
        for pair in intervals.windows(2) {
            assert!(pair[0].1 <= pair[1].0, "{of:?} is metered twice: {intervals:?}");
        }
    }
}

/// What each id is called.
#[derive(Default)]
struct Names(BTreeMap<Uuid, String>);

impl Names {
    fn learn(&mut self, id: &str, name: Option<&str>) {
        if let (Ok(id), Some(name)) = (id.parse(), name) {
            self.0.insert(id, name.to_owned());
        }
    }

    /// `text` with names in place of ids; what is not there any more has none.
    fn say(&self, text: &str) -> String {
        let mut said = String::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let id = rest.get(..36).and_then(|word| word.parse::<Uuid>().ok());
            let taken = match id {
                Some(id) => {
                    said.push_str(self.0.get(&id).map_or("<no name>", String::as_str));
                    36
                }
                None => {
                    said.push(first);
                    first.len_utf8()
                }
            };
            rest = &rest[taken..];
        }
        said
    }
}
