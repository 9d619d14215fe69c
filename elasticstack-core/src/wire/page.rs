//! The tables of calls and keys as one page for people (Markdown), so that documentation and
//! behaviour cannot part.

use std::fmt::Write as _;

use super::calls::{Answer, Body, CALLS, Effect, Scope};
use super::headers::{HEADERS, Header};
use super::keys::{Input, KEYS, Key, Object, Standing};
use super::queries::QUERIES;

/// The reference of the public API. Its golden copy is `docs/api.md`.
#[must_use]
pub fn markdown() -> String {
    let mut page = String::from(PREFACE);
    page.push_str("\n## Calls\n\n| call | body | answer | |\n|---|---|---|---|\n");
    for route in CALLS.iter() {
        let method = match route.effect {
            Effect::Reads => "GET, POST",
            Effect::Changes => "POST",
        };
        let body = match route.body {
            Body::Ignored => "none".to_owned(),
            Body::Record(object) => format!("{} keys", object.word()),
            Body::Bytes => "bytes, or gzip of them".to_owned(),
        };
        let answer = match route.answer {
            Answer::One(object) => format!("200, the {}", object.word()),
            Answer::Many(object) => format!("200, every {}", object.word()),
            Answer::Ids(object) => format!("200, the id of every {}", object.word()),
            Answer::Bytes => "200, bytes".to_owned(),
            Answer::Nothing => "204".to_owned(),
        };
        let scope = match route.scope {
            Scope::Customer => "",
            Scope::Operator => " *Operators only.*",
        };
        let doc = format!("{}{scope}", route.doc);
        line(&mut page, [&format!("{method} `{}`", route.path), &body, &answer, &doc]);
    }
    page.push_str("\n## Parameters behind the `?`\n\n");
    page.push_str("| parameter | of the lists of | takes | |\n|---|---|---|---|\n");
    for query in QUERIES {
        let lists: Vec<&str> = query.objects.iter().map(|object| object.word()).collect();
        let name = format!("`{}`", query.name);
        line(&mut page, [&name, &lists.join(", "), &query.takes.in_words(), query.doc]);
    }
    page.push_str("\n## Headers\n\n| header | carried by | |\n|---|---|---|\n");
    for Header { name, carrier, takes: _, doc } in HEADERS {
        let _ = writeln!(page, "| `{name}` | {} | {doc} |", carrier.in_words());
    }
    for object in Object::ALL {
        let _ = write!(page, "\n## Keys of a {}\n\n", object.word());
        page.push_str("| key | given | takes | |\n|---|---|---|---|\n");
        for key in KEYS.iter().filter(|key| key.objects.contains(&object)) {
            let name = format!("`{}`", key.pattern);
            line(&mut page, [&name, given(key, object), &key.takes_in_words(), &doc(key)]);
        }
    }
    page
}

const PREFACE: &str = "# The public API

This page is made from the tables that the server itself reads (`cargo xtask goldens`).

Every call is `/object/ID/action`, authenticated by HTTP Basic with the account's UUID and secret key, or with the UUID and a
token, or by `Authorization: Bearer TOKEN`. A body is read by
its `Content-Type` (`application/json`, else lines of `KEY VALUE`), an answer is written by `Accept` (JSON if it names
`application/json`, else text). In a key `{0-7}` stands for one digit and `*` for any word of up to 80 characters; an empty
value unsets a key.

An error carries `X-Elastic-Error: KEYWORD code=… field=…` and one sentence of text; `Accept: application/problem+json`
gets it as JSON (RFC 9457).

**Done once.** A changing POST with the header `Idempotency-Key` (1 to 255 visible ASCII characters of your choice, such as
a new UUID) is done once, however often it is sent with that key within 24 hours and whatever breaks in between: later
answers are the first one again, with `Idempotent-Replayed: true`; one that comes while the first is under way waits for
it. If the server died before it answered, the answer is what the object is now. What was refused has changed nothing, is not
remembered and may be sent again under its key; a `failed` (500) is an answer and is remembered; after 503 the same key
goes on waiting. Another call, path or body under the same key, or other credentials, is 409 `key_reused`. A key is its
account's. Answers are kept encrypted under a key made from your own secret. `write` needs no key and ignores it: writing
twice is writing once.

**Limits.** An account may make so many calls a second, and so many in a row, as `/capabilities/info` tells: `RateLimit-Limit` (those in a row), `RateLimit-Remaining` and
`RateLimit-Reset` (seconds until all are there again) are in every answer to it; past that, 429 with `Retry-After`. Twenty
wrong credentials from one address, or a hundred for one account, and further ones from there wait likewise; an address
that was never wrong is not held up by what others guess. Behind a proxy that the operator has not listed addresses are not
known and accounts alone are counted. Credentials that are missing or unreadable are no guess. A body
may pause for 60 s and comes with 4 KiB a second at least, and as fast an answer must be taken; a head comes within 30 s and
has at most 64 KiB; whoever is slower is cut off. From one address that is known 256 requests may be under way at a
time, else 429; a server has 4,096 connections at a time, and further ones wait. `X-Request-Id` (at most 128 letters, digits, `-`, `_`
and `.`) is echoed and in the log; without one the answer has a new one.

**Parts of a list.** Calls that answer with many objects take the query parameters `limit` (1 to 10,000),
`after` (an id: begin behind it) and, where the objects have one, `status`, `name` and `tag`. What is listed is ordered by id, so a walk that passes
the last id of each page as the next `after` meets everything that is there all the while exactly once. A parameter that a call does
not have is 400.

**Events.** `/events/info` tells what happened to your drives, snapshots, servers, resources, tokens and account: one event for each object
whose info a change has changed, oldest first, exactly once and in the order in which it became true, from whichever server you ask.
Each has a `cursor`; `after=CURSOR` begins behind it, `after=now` with what is still to happen. The header `Events-Cursor` of every answer
is the place to go on with, also when nothing happened. Events are kept for 7 days; a cursor from before that, or from before the
installation was restored from a backup, is 400 `cursor_lost`: begin anew with `after=now`, then look at what there is by info. `wait=SECONDS`
(at most 60) holds the answer until something happens. `Accept: text/event-stream`, named explicitly, gets the same as server-sent
events, as `EventSource` reads them: `id` is the cursor, `data` the event as JSON, `Last-Event-ID` resumes, and every 15 s without an
event there is a comment with the cursor so far; `limit` and `wait` then mean nothing. A stream ends with the credentials that opened it and with the server; an account may
wait or follow 32 times at once at each server. An event says that something changed, not what it is now: the info does.

**Versions.** The info of a drive, a snapshot or a server has an `ETag`: another one whenever what is wanted of the object has changed,
the same while only its host's reports change or the bytes that a drive holds. A changing call with `If-Match` and that tag is done if the object is still at
that version, else 412 `precondition_failed` and nothing is done.

**The screen.** A running server that has `vnc auto` and a `password` shows its screen by VNC. `POST
/servers/SERVER/console` answers with a ticket and the `path` where a websocket (RFC 6455) is opened with it, once and
within 60 s: `GET /console/TICKET`, without other credentials. Its binary messages carry RFB (RFC 6143), as noVNC speaks it; the
subprotocol is `binary` for whoever offers one, and the server's `password` is asked for within RFB as ever. A browser's
page of any origin may open it: no cookie or login of the browser counts, the ticket alone does, so treat a URL that has it
as a secret. A ticket that is wrong, used or too old is 404. A message has at most 128 KiB. An account has at most 20 screens
open and 100 tickets unused; one that carries nothing for 30 minutes is closed, one whose reader stalls for 30 s too,
and every one after 12 hours, or when its server stops, when the token or key that asked for the
ticket is no more, or when its account is suspended. `vnc:ip`, in answers,
is a loopback address of the server's host.

**Kept, not honoured yet** means that a value is accepted, stored and echoed and has no effect today: processor time is
not limited to `cpu`, virtual machines reach the outside through QEMU's user networking, and containers what a bridge of their host leads to, whatever
their `nic` keys say; they have no address of their own, so `nic:0:dhcp:ip` is not told. Static IPs and VLANs are taken, metered and claimed, and no packet passes by them yet; `tier` is only
kept, as arrays do not tell theirs. Keys that promise protection or a licence are refused until they are honoured. Folders
(`/folders/…`) are not offered: such a call is a 400 with the code `not_offered`.

**Containers.** A server of `type container` is a light Linux server: a virtual machine of its own, whose kernel is the
provider's. It has no firmware and no screen. Its drives are at `block:0` to `block:7`, and its root is the first in `boot`,
else the first of all: an ext4 file system with an `/sbin/init`, as the whole of the drive or as its first partition. The
standard drive `tiny-root` is one. `cpu` and `mem` are limits, as a virtual machine's are. Its cards are `virtio`, and its
drives change while it is stopped. It runs where hosts run containers; where none does, its start is refused for want of room.

**Others' drives.** What is not yours is 404, but for standard drives and for drives whose `readers` name you or everybody:
of these the info is shown, without what the owner noted on them, and they may be imaged from and cloned. A drive is imaged from one on
another host where that host lends drives, else it is refused as `not_offered`: a clone is placed beside its source.

**Snapshots.** A snapshot is what a power cut at one instant would have left of its drive: what the guest had flushed is in
it. It lies on its drive's array and takes room as large as the drive was, whatever it shares with it. Of a drive that a
server uses it is taken where the array's file system shares blocks (XFS, Btrfs); elsewhere it is a copy, and `drive_in_use`
until the server is stopped. So is a snapshot, or a clone, of a drive in use that lies in more than 20,000 pieces: its guest's
writes would wait for too long. A restore needs a drive that nothing uses and that is as large as the snapshot at least; it
overwrites what is there, and what the drive has beyond the snapshot's size is zeros. A drive that has snapshots is not
destroyed.

**Limits of drives.** `limit:requests` and `limit:bytes` say how many requests and how many bytes a second a server gets from a
drive, reads and writes together, at any moment; whatever it asks for beyond that waits. They hold for each server that uses the
drive, on whichever host, and `set` changes them while it runs.

**Destroyed drives.** What a destroyed drive occupied is given back at once, on disks that can it is discarded, and it reads as
zeros to whoever gets the room. It is not overwritten: on storage that is thin, shares blocks, keeps journals or lies on SSDs nobody
can promise that by overwriting. `erase` with anything but `unmap` is therefore refused as `not_offered`: encrypt within the guest
what nobody may ever read again.

A server claims what its keys name when it is started and until its run is over: a drive and a static IP alone (a drive of
`claim:type shared` beside others), a VLAN beside others. A stopped server holds nothing, so that its drives and resources
can be given to another or destroyed; a start that finds one missing or taken says which key.

**Drives of a running server.** `set` gives it a drive at `block:N`, and at `scsi:0:N` if it has another scsi drive, and takes
one away by setting the key to nothing; other places wait for a stop. A drive that is taken away stays claimed until the guest
has let go of it, which is the guest's affair: if that takes too long the call answers 503, the wish stands, `failed` in the
server's info says what is awaited, and `claimed` in the drive's says who still has it. To take it back, set the key to the
drive again once it is free, or stop the server.

**Counters.** `info/full` tells what servers read and write, as numbers that JSON shows as text: of a running server for
each of its drives since it was plugged in, which is since the server started unless it came later, and a reset does not begin
anew; of a drive the sum over the servers that run with it now, so that it falls when one of them stops. A stopped server has no
counters, a drive that no server runs with has zeros, and somebody else's standard drive has none. They are asked of the hosts
for this answer: where a host or a guest does not tell within 2 s, they are missing and all else is there. Nothing counts the
packets of network cards yet.

An operator may name `image` and `start` in `legacy` in `api.toml`: they then answer 204 and nothing, on which some old
clients insist.
";

fn line(page: &mut String, cells: [&str; 4]) {
    let _ = writeln!(page, "| {} |", cells.join(" | "));
}

fn given(key: &Key, object: Object) -> &'static str {
    let needed = key.needed_by.contains(&object);
    match key.input {
        Input::Never => "in answers",
        Input::Create if needed => "on create, always",
        Input::Create => "on create",
        Input::Stopped if needed => "on create, always; set while stopped",
        Input::Stopped => "on create; set while stopped",
        Input::Always if needed => "on create, always; set",
        Input::Always => "on create; set",
    }
}

fn doc(key: &Key) -> String {
    let standing = match key.standing {
        Standing::Honoured => String::new(),
        Standing::Kept => " *Kept, not honoured yet.*".to_owned(),
        Standing::RefusedBut([]) => " *Refused: not offered yet.*".to_owned(),
        Standing::RefusedBut(values) => {
            let yet = if key.reason.is_some() { "" } else { ": not offered yet" };
            format!(" *Refused but for {}{yet}.*", values.join(", "))
        }
    };
    format!("{}{standing}", key.doc)
}
