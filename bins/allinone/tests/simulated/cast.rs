//! Who is in the restore drill by name: each has a fate of its own after the backup.

use std::collections::BTreeSet;

use elasticstack_api::Server;
use elasticstack_core::block::BlockStore as _;

use crate::world::{World, post};

/// What the backup knows: drives, snapshots and servers, by what becomes of them after it.
pub(crate) struct Cast {
    /// A drive that its server keeps, in the same run.
    pub(crate) kept: String,
    pub(crate) stays: String,
    restarts: String,
    /// A drive that its server has in a newer run.
    pub(crate) taken: String,
    pub(crate) starts: String,
    /// A drive that its server gives back.
    pub(crate) freed: String,
    stops: String,
    vanishes: String,
    grows: String,
    pub(crate) doomed: String,
    /// A drive that one running server gives another.
    pub(crate) given: String,
    giver: String,
    pub(crate) taker: String,
    /// A drive that another server has in a newer run.
    pub(crate) inherited: String,
    dies: String,
    pub(crate) heir: String,
    /// A drive that a server has of which the backup knows nothing.
    pub(crate) usurped: String,
    loses: String,
    /// A drive that is restored from one of its snapshots, again and again; the other goes.
    pub(crate) returned: String,
    pub(crate) returns: String,
    pub(crate) goes: String,
}

/// What comes after the backup.
pub(crate) struct Strangers {
    pub(crate) strange: String,
    pub(crate) stranger: String,
    pub(crate) usurper: String,
}

/// What [`Cast::returned`] holds in its snapshots.
pub(crate) const AS_IT_WAS: &str = "as it was";

impl Cast {
    pub(crate) async fn new(world: &World, server: &Server) -> Self {
        let names = ["kept", "taken", "freed", "inherited", "usurped", "returned"];
        let mut drives = Vec::new();
        for name in names {
            drives.push(drive(server, name).await);
        }
        let [kept, taken, freed, inherited, usurped, returned] = drives.try_into().unwrap();
        let [givers, given, takers] = neighbours(world, server).await;
        write(server, &returned, AS_IT_WAS).await;
        let snapshot = format!("/drives/{returned}/snapshot");
        Self {
            stays: running(server, "stays", &[&kept]).await,
            restarts: running(server, "restarts", &[&drive(server, "restarts").await]).await,
            starts: stopped(server, "starts", &[&taken]).await,
            stops: running(server, "stops", &[&freed]).await,
            vanishes: running(server, "vanishes", &[&drive(server, "is left").await]).await,
            grows: drive(server, "grows").await,
            doomed: drive(server, "doomed").await,
            giver: running(server, "giver", &[&givers, &given]).await,
            taker: running(server, "taker", &[&takers]).await,
            dies: running(server, "dies", &[&inherited]).await,
            heir: stopped(server, "heir", &[]).await,
            loses: running(server, "loses", &[&usurped]).await,
            returns: post(server, &snapshot, "name returns").await.value("snapshot"),
            goes: post(server, &snapshot, "name goes").await.value("snapshot"),
            kept,
            taken,
            freed,
            given,
            inherited,
            usurped,
            returned,
        }
    }

    /// What becomes of them, and who comes.
    pub(crate) async fn go_on(&self, server: &Server) -> Strangers {
        let servers = async |id: &str, call: &str, body: &str| {
            post(server, &format!("/servers/{id}/{call}"), body).await;
        };
        servers(&self.restarts, "stop", "").await;
        servers(&self.restarts, "start", "").await;
        servers(&self.starts, "start", "").await;
        servers(&self.stops, "stop", "").await;
        servers(&self.vanishes, "destroy", "").await;
        post(server, &format!("/drives/{}/set", self.grows), "size 16M").await;
        post(server, &format!("/drives/{}/destroy", self.doomed), "").await;
        servers(&self.giver, "set", "block:1").await;
        servers(&self.taker, "set", &format!("block:1 {}", self.given)).await;
        servers(&self.dies, "stop", "").await;
        servers(&self.heir, "set", &format!("block:0 {}", self.inherited)).await;
        servers(&self.heir, "start", "").await;
        servers(&self.loses, "stop", "").await;
        for since in ["once", "twice"] {
            write(server, &self.returned, since).await;
            post(server, &format!("/snapshots/{}/restore", self.returns), "").await;
        }
        write(server, &self.returned, "it is another").await;
        post(server, &format!("/snapshots/{}/destroy", self.goes), "").await;
        let strange = drive(server, "strange").await;
        Strangers {
            stranger: running(server, "stranger", &[&strange]).await,
            usurper: running(server, "usurper", &[&self.usurped]).await,
            strange,
        }
    }
}

/// A new drive.
pub(crate) async fn drive(server: &Server, name: &str) -> String {
    post(server, "/drives/create", &format!("name {name}\nsize 8M")).await.value("drive")
}

async fn write(server: &Server, drive: &str, bytes: &str) {
    post(server, &format!("/drives/{drive}/write"), bytes).await;
}

/// A stopped server with these drives.
async fn stopped(server: &Server, name: &str, drives: &[&String]) -> String {
    let mut body = format!("name {name}\ncpu 500\nmem 256\npersistent true");
    for (number, drive) in drives.iter().enumerate() {
        body += &format!("\nblock:{number} {drive}");
    }
    post(server, "/servers/create/stopped", &body).await.value("server")
}

async fn running(server: &Server, name: &str, drives: &[&String]) -> String {
    let made = stopped(server, name, drives).await;
    post(server, &format!("/servers/{made}/start"), "").await;
    made
}

/// Three drives on one host.
async fn neighbours(world: &World, server: &Server) -> [String; 3] {
    let mut made = Vec::new();
    loop {
        made.push(drive(server, "neighbour").await);
        for machine in &world.machines {
            let there = machine.store.list().await.unwrap();
            let there: BTreeSet<_> = there.iter().map(|it| it.spec.drive.to_string()).collect();
            let together: Vec<_> = made.iter().filter(|drive| there.contains(*drive)).collect();
            if let [one, two, three] = together[..] {
                return [one, two, three].map(Clone::clone);
            }
        }
    }
}
