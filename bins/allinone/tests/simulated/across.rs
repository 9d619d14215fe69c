//! Drives imaged from another host's, while agents and the target of iSCSI die.

use std::time::Duration;

use elasticstack_api::Server;
use elasticstack_core::block::Lend as _;
use elasticstack_core::wire::record::Record;

use crate::database::TestDatabase;
use crate::lends::home;
use crate::world::{Answer, GUARD, Machine, Who, World, post, request, send};

/// How much of the source is no zeros.
const WRITTEN: usize = 8 << 20;

/// Two hosts with a drive each.
struct Across {
    world: World,
    server: Server,
    source: String,
    target: String,
}

impl Across {
    async fn new() -> Self {
        let (world, server) = World::of(TestDatabase::new(), 2).await;
        let source = post(&server, "/drives/create", "name source\nsize 16M").await.value("drive");
        let beside = format!("name target\nsize 16M\navoid {source}");
        let target = post(&server, "/drives/create", &beside).await.value("drive");
        let across = Self { world, server, source, target };
        assert_ne!(across.lender().await.host, across.borrower().await.host);
        across
    }

    async fn lender(&self) -> &Machine {
        home(&self.world, &self.source).await
    }

    async fn borrower(&self) -> &Machine {
        home(&self.world, &self.target).await
    }

    async fn image(&self) {
        post(&self.server, &format!("/drives/{}/image/{}", self.target, self.source), "").await;
    }

    async fn write(&self, drive: &str, byte: u8) {
        let path = format!("/drives/{drive}/write");
        // Its host lets go of it a little later than nothing is lent any more.
        self.until_not(409, &path, &vec![byte; WRITTEN]).await.expect(204);
    }

    /// Asks again as long as the answer is this.
    async fn until_not(&self, status: u16, path: &str, body: &[u8]) -> Answer {
        let asked = async {
            loop {
                let answer = send(&self.server, request(Who::Customer, path, None, body)).await;
                if answer.status != status {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(GUARD, asked).await.expect("it is so for ever")
    }

    /// What a drive has at its beginning, at the end of what was written, and at its own end.
    async fn content(&self, drive: &str) -> [u8; 3] {
        let mut found = [0; 3];
        for (at, found) in [0, WRITTEN - 1, (16 << 20) - 1].into_iter().zip(&mut found) {
            let path = format!("/drives/{drive}/read/{at}/1");
            // Its agent may just have begun anew, with a connection left to the one before.
            *found = self.until_not(503, &path, b"").await.expect(200).body[0];
        }
        found
    }

    async fn until_imaged(&self) {
        let imaged = async {
            loop {
                let path = format!("/drives/{}/info", self.target);
                let info = post(&self.server, &path, "").await;
                let info = Record::from_json(&info.body).unwrap();
                assert_eq!(info.value("failed"), None);
                if info.value("imaging").is_none() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(GUARD, imaged).await.expect("it was never imaged");
    }

    async fn until_nothing_is_lent(&self) {
        let lender = &self.lender().await.lender;
        let none = async {
            while !lender.lent().await.unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(GUARD, none).await.expect("it is lent for ever");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drive_is_imaged_from_another_host_whichever_of_them_dies() {
    let across = Across::new().await;
    let Across { world, source, target, .. } = &across;
    // The lender is away when it is asked for, and the borrower dies while it waits.
    across.write(source, 1).await;
    across.write(target, 9).await;
    let (lender, borrower) = (across.lender().await, across.borrower().await);
    world.kill_agent(lender).await;
    across.image().await;
    world.kill_agent(borrower).await;
    world.boot_agent(borrower).await;
    world.boot_agent(lender).await;
    across.until_imaged().await;
    assert_eq!(across.content(target).await, [1, 1, 0]);
    across.until_nothing_is_lent().await;

    // One of them, or the target of iSCSI, dies at some time on the way.
    for round in 2..14_u8 {
        across.write(source, round).await;
        across.image().await;
        tokio::time::sleep(Duration::from_millis(u64::from(round) * 4)).await;
        match round % 3 {
            0 => lender.lender.crash(),
            dies => {
                let machine = if dies == 1 { lender } else { borrower };
                world.kill_agent(machine).await;
                world.boot_agent(machine).await;
            }
        }
        across.until_imaged().await;
        assert_eq!(across.content(target).await, [round, round, 0]);
        across.until_nothing_is_lent().await;
    }
    across.server.close().await;
}
