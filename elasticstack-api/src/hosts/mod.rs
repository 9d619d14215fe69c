//! The API server's side of the internal wire: it dials hosts, pushes intent down, follows their
//! reports, and reads and writes bytes of drives. Hosts dial nobody.
//!
//! ```text
//! Fleet ─ per host ─ pusher    outbox → POST documents → delivered     ┐ while its
//!       │          ├ follower  long-poll reports → ingest              ┘ lease is ours
//!       │          └ HostClient, one HTTP/2 connection ─ Dial ─ TLS, or memory in the all-in-one
//!       ├ keeper    takes up hosts that were added; takes and renews leases
//!       ├ caller    wakes the pushers of hosts for which something was written down
//!       └ ticker    deadlines and usage, each second
//! ```
//! Of several servers on one database one works for a host, by a lease; any of them reads and
//! writes its drives.
//! It decides nothing: what an answer means is the use cases' business. Repeating anything here
//! is harmless, so every failure is answered with patience and another try.

mod client;
mod dial;
mod fleet;
mod follow;
mod long;
mod tasks;
mod tls;

pub use client::Patience;
pub use dial::{Dial, MemoryDial, Stream};
pub use fleet::Fleet;
pub use tls::TlsDial;
