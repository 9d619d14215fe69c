//! The program itself, over a socket.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_elasticstack-panel");

#[test]
fn the_program_serves_until_it_is_told_to_stop() {
    let mut program = Command::new(PROGRAM)
        .args(["--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = String::new();
    BufReader::new(program.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let address = ready.trim().strip_prefix("READY http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /login HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("Log in"), "{page}");
    // A connection on which nothing was asked yet does not keep it.
    let _idle = TcpStream::connect(address).unwrap();
    let told = Command::new("kill").arg(program.id().to_string()).status().unwrap();
    assert!(told.success());
    assert!(program.wait().unwrap().success());
}

#[test]
fn keys_are_not_taken_in_clear_from_a_network() {
    let output = Command::new(PROGRAM).args(["--listen", "0.0.0.0:0"]).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && told.contains("set https = true"), "{told}");
}
