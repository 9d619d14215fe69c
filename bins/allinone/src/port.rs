//! Finding a port to listen on, and saying who holds the one that was wanted.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use tokio::net::TcpListener;

use crate::demo::say;

/// Where the public API listens unless told otherwise.
pub const DEFAULT_API: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8440);

/// Where the panel listens unless told otherwise.
pub const DEFAULT_PANEL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8441);

/// How many ports above the wanted one are tried.
const TRIES: u16 = 20;

/// Listens on `wanted`, or on the next free port above it, and says so. `flag` is where another
/// can be given.
///
/// # Errors
/// If none of the next ports is free, or the address is none of this machine's.
pub async fn listen(wanted: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    for step in 0..TRIES {
        let Some(port) = wanted.port().checked_add(step) else { break };
        let address = SocketAddr::new(wanted.ip(), port);
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                let holder = holder(port).unwrap_or_else(|| "another process".to_owned());
                say(format_args!("port {port} is held by {holder}: trying the next one"));
            }
            Err(error) => return Err(error).with_context(|| format!("listening on {address}")),
        }
    }
    anyhow::bail!("no free port from {} on: free one, or give another with {flag}", wanted.port())
}

/// The program and pid that listen on a TCP port, as far as this user may see.
fn holder(port: u16) -> Option<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
    let inode = tables.iter().flatten().find_map(|table| listening_inode(table, port))?;
    let socket = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok())
        else {
            continue; // such as `self`
        };
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        let holds = files.flatten().any(|file| {
            fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == socket.as_str())
        });
        if holds {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (pid {pid})", name.trim()));
        }
    }
    None
}

/// The inode of the socket that listens on `port`, from the text of `/proc/net/tcp` (proc(5)).
fn listening_inode(table: &str, port: u16) -> Option<&str> {
    const LISTEN: &str = "0A";
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace();
        let local = fields.nth(1)?;
        let state = fields.nth(1)?;
        let inode = fields.nth(5)?;
        let (_, hex) = local.split_once(':')?;
        (u16::from_str_radix(hex, 16) == Ok(port) && state == LISTEN).then_some(inode)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_next_port_is_taken_and_the_holder_of_the_first_is_known() {
        let first = listen("127.0.0.1:28440".parse().unwrap(), "--api").await.unwrap();
        let held = first.local_addr().unwrap();
        let second = listen(held, "--api").await.unwrap().local_addr().unwrap();
        assert!(second.port() > held.port());
        let holder = holder(held.port()).unwrap();
        assert!(holder.contains(&std::process::id().to_string()), "{holder}");
    }
}
