//! A guest's screen, from QEMU to a client of VNC on a websocket of the public API.

use elasticstack_core::wire::calls::Call;
use elasticstack_core::wire::record::Record;

use crate::rfb::Rfb;
use crate::rig::{GUARD, Rig};

#[tokio::test]
#[ignore = "needs QEMU: cargo xtask test"]
async fn a_guests_screen_is_seen_over_a_websocket_by_whoever_knows_its_password() {
    let rig = Rig::new();
    let product = rig.up(&rig.zeros(), &[]);
    let (client, api) = (product.client(), product.variable("EHURI"));
    // With no drive at all, its firmware says so on the screen.
    let record = Record::new()
        .with("name", "screen")
        .with("cpu", 1_000)
        .with("mem", 128)
        .with("persistent", true)
        .with("vnc", "auto")
        .with("password", "hunter22");
    let made = client.one(Call::ServerCreate, &[], &record).await.unwrap();
    let server = made.value("server").unwrap();
    let open = async || {
        let ticket = client.one(Call::ServerConsole, &[server], &Record::new()).await.unwrap();
        Rfb::open(&api, ticket.value("path").unwrap()).await
    };

    assert!(!open().await.authenticate("hunter23").await, "another password is let in");

    let mut screen = open().await;
    assert!(screen.authenticate("hunter22").await);
    let size = screen.join().await;
    let seen = async {
        loop {
            let frame = screen.frame(size).await;
            // A guest may choose a smaller picture than the one that was told of.
            let most = usize::from(size.0) * usize::from(size.1) * 4;
            assert!((4..=most).contains(&frame.pixels.len()), "{size:?}: {}", frame.pixels.len());
            if frame.shows_something() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(GUARD, seen).await.expect("the screen stays empty");

    let mut another = open().await;
    assert!(another.authenticate("hunter22").await, "two may look");
    client.act(Call::ServerStop, &[server]).await.unwrap();
    assert_eq!((screen.closed().await, another.closed().await), (1000, 1000));

    client.one(Call::ServerStart, &[server], &Record::new()).await.unwrap();
    let mut screen = open().await;
    assert!(screen.authenticate("hunter22").await);
    product.terminate();
    assert!(matches!(screen.closed().await, 1000 | 1001));
    rig.assert_nothing_is_left();
}
