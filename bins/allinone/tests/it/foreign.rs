//! Guests that are no Linux: iPXE, from a CD and from an IDE disk, with its own driver of the e1000
//! card.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use elasticstack_core::client::{Client, HyperTransport};
use elasticstack_core::wire::calls::Call;
use elasticstack_core::wire::record::Record;
use serde_json::{Value, json};

use crate::rig::{GUARD, Rig, image, info, read, until};

#[tokio::test]
#[ignore = "needs QEMU: cargo xtask test"]
async fn a_guest_boots_a_cd_that_is_a_standard_drive_and_shows_it_on_its_screen() {
    let rig = Rig::new();
    let product = rig.up(&image("ipxe"), &[]);
    let client = product.client();
    let cd = standard(&client, "iPXE CD").await;
    assert_eq!(info(&client, Call::DriveInfo, &cd, "media").await.as_deref(), Some("cdrom"));
    let record = server().with("ide:1:0", &cd).with("ide:1:0:media", "cdrom");
    let made = client.one(Call::ServerCreate, &[], &record.with("boot", "ide:1:0")).await.unwrap();
    let server = made.value("server").unwrap();
    let operator = rig.data_dir().join("servers").join(server).join("operator.qmp");
    for words in ["Open Source Network Boot Firmware", "using 82540em on"] {
        until(words, async || screen(&operator).contains(words)).await;
    }
    client.act(Call::ServerDestroy, &[server]).await.unwrap();
    product.terminate();
    rig.assert_nothing_is_left();
}

#[tokio::test]
#[ignore = "needs QEMU: cargo xtask test"]
async fn a_guest_that_is_no_linux_boots_its_ide_disk_and_drives_its_e1000_card() {
    let rig = Rig::new();
    let product = rig.up(&image("ipxe-disk"), &[]);
    let client = product.client();
    let source = standard(&client, "iPXE disk").await;
    let size = info(&client, Call::DriveInfo, &source, "rawsize").await.unwrap();
    let sized = Record::new().with("name", "no linux").with("size", size);
    let made = client.one(Call::DriveCreate, &[], &sized).await.unwrap();
    let disk = made.value("drive").unwrap();
    client.one(Call::DriveImageGunzip, &[disk, &source], &Record::new()).await.unwrap();
    until("the disk is imaged", async || {
        info(&client, Call::DriveInfo, disk, "claimed").await.is_none()
    })
    .await;

    // What only this guest can ask for, and only if it has an address: the script is on its disk.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = thread::spawn(move || first_line(&listener.accept().unwrap().0));
    let url = format!("http://${{gateway}}:{port}/${{uuid}}/${{net0/chip}}/${{ip}}");
    let script = format!("#!ipxe\ndhcp net0\nimgfetch {url}\n");
    let content = read(&client, disk).await;
    let place = content.windows(7).position(|bytes| bytes == b"#!ipxe\n").unwrap();
    let mut block = content[place..place + 512].to_vec();
    block.fill(b'\n');
    block[..script.len()].copy_from_slice(script.as_bytes());
    let place = place.to_string();
    client.write(Call::DriveWriteAt, &[disk, &place], block.into()).await.unwrap();

    let record = server().with("ide:0:0", disk).with("boot", "ide:0:0");
    let made = client.one(Call::ServerCreate, &[], &record).await.unwrap();
    let server = made.value("server").unwrap();
    until("the guest asks for a page", async || asked.is_finished()).await;
    let expected = format!("GET /{server}/82540em/10.0.2.15 HTTP/1.1\r\n");
    assert_eq!(asked.join().unwrap(), expected);
    client.act(Call::ServerDestroy, &[server]).await.unwrap();
    product.terminate();
    rig.assert_nothing_is_left();
}

/// A small server with an e1000 card.
fn server() -> Record {
    Record::new()
        .with("name", "no linux")
        .with("cpu", 1_000)
        .with("mem", 256)
        .with("persistent", true)
        .with("nic:0:model", "e1000")
        .with("nic:0:dhcp", "auto")
}

async fn standard(client: &Client<HyperTransport>, name: &str) -> String {
    let drives = client.many(Call::DrivesInfoStandard).await.unwrap();
    let drive = drives.iter().find(|drive| drive.value("name") == Some(name)).unwrap();
    drive.value("drive").unwrap().to_owned()
}

fn first_line(mut stream: &TcpStream) -> String {
    stream.set_read_timeout(Some(GUARD)).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    line
}

/// What stands on a screen in text mode, read from where a PC keeps it.
fn screen(operator: &Path) -> String {
    let mut socket = UnixStream::connect(operator).unwrap();
    let mut answers = BufReader::new(socket.try_clone().unwrap());
    let dump = json!({ "command-line": "xp /2000hx 0xb8000" });
    let mut answer = Value::Null;
    for command in [
        json!({ "execute": "qmp_capabilities" }),
        json!({ "execute": "human-monitor-command", "arguments": dump }),
    ] {
        writeln!(socket, "{command}").unwrap();
        answer = Value::Null;
        while answer.get("return").is_none() {
            let mut line = String::new();
            assert_ne!(answers.read_line(&mut line).unwrap(), 0, "QEMU has ended");
            answer = serde_json::from_str(&line).unwrap();
            assert!(answer.get("error").is_none(), "{answer}");
        }
    }
    let cells = answer["return"].as_str().unwrap().split_whitespace();
    let cells = cells.filter_map(|word| u16::from_str_radix(word.strip_prefix("0x")?, 16).ok());
    cells.map(|cell| char::from(cell.to_le_bytes()[0])).collect()
}
