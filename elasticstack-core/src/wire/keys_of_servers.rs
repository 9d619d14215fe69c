//! The keys of servers and of what opens their screens. Rows of [`super::keys::KEYS`], in the order of their patterns.

use super::form::Form;
use super::key::{Input, Key, Object, Takes, counter, key};

const CONSOLE: &[Object] = &[Object::Console];
const SERVER: &[Object] = &[Object::Server];
const MEDIA: Takes = Takes::OneOf(&["disk", "cdrom"]);

/// The rows.
pub(super) const ROWS: &[Key] = &[
    key("ata:0:{0-5}", SERVER, Input::Stopped, Takes::Drive, "The drive on a SATA port."),
    key("ata:0:{0-5}:media", SERVER, Input::Stopped, MEDIA, "disk or cdrom; disk if unset."),
    counter(
        "ata:0:{0-5}:read:bytes",
        SERVER,
        "bytes",
        "Bytes read from its drive while it runs, in info/full.",
    ),
    counter("ata:0:{0-5}:read:requests", SERVER, "requests", "Requests that read them."),
    counter(
        "ata:0:{0-5}:write:bytes",
        SERVER,
        "bytes",
        "Bytes written to its drive while it runs, in info/full.",
    ),
    counter("ata:0:{0-5}:write:requests", SERVER, "requests", "Requests that wrote them."),
    key(
        "avoid:drives",
        SERVER,
        Input::Stopped,
        Takes::Uuids(4_000),
        "Drives of yours to share no host with; others avoid nothing.",
    ),
    key(
        "avoid:servers",
        SERVER,
        Input::Stopped,
        Takes::Uuids(4_000),
        "Servers of yours to share no host with while they run; others avoid nothing.",
    ),
    key("block:{0-7}", SERVER, Input::Always, Takes::Drive, "The drive on a virtio-blk port."),
    key("block:{0-7}:media", SERVER, Input::Always, MEDIA, "disk or cdrom; disk if unset."),
    counter(
        "block:{0-7}:read:bytes",
        SERVER,
        "bytes",
        "Bytes read from its drive while it runs, in info/full.",
    ),
    counter("block:{0-7}:read:requests", SERVER, "requests", "Requests that read them."),
    counter(
        "block:{0-7}:write:bytes",
        SERVER,
        "bytes",
        "Bytes written to its drive while it runs, in info/full.",
    ),
    counter("block:{0-7}:write:requests", SERVER, "requests", "Requests that wrote them."),
    key(
        "boot",
        SERVER,
        Input::Stopped,
        Takes::Devices,
        "The devices to boot from, in order, such as ide:0:0.",
    ),
    key(
        "cloud:hostname",
        SERVER,
        Input::Stopped,
        Takes::Form(Form::HostName),
        "The name that cloud-init gives the guest.",
    ),
    key(
        "cloud:userdata",
        SERVER,
        Input::Stopped,
        Takes::Form(Form::UserData),
        "What cloud-init does in the guest, as a script or a cloud-config.",
    )
    .secret(),
    key(
        "cpu",
        SERVER,
        Input::Always,
        Takes::Range(500, 100_000),
        "Processor time in MHz, for the whole server.",
    )
    .number_of("MHz")
    .needed_by(SERVER)
    .kept(),
    key(
        "expires",
        CONSOLE,
        Input::Never,
        Takes::Nothing,
        "When the ticket is good no more, in seconds since 1970.",
    )
    .number_of("seconds since 1970"),
    key("fs:*", SERVER, Input::Create, Takes::Text(80), "The folders of a container.")
        .refused_but(&[])
        .because("a container has its root file system on a drive"),
    key("ide:{0-1}:{0-1}", SERVER, Input::Stopped, Takes::Drive, "The drive on an IDE port."),
    key("ide:{0-1}:{0-1}:media", SERVER, Input::Stopped, MEDIA, "disk or cdrom; disk if unset."),
    counter(
        "ide:{0-1}:{0-1}:read:bytes",
        SERVER,
        "bytes",
        "Bytes read from its drive while it runs, in info/full.",
    ),
    counter("ide:{0-1}:{0-1}:read:requests", SERVER, "requests", "Requests that read them."),
    counter(
        "ide:{0-1}:{0-1}:write:bytes",
        SERVER,
        "bytes",
        "Bytes written to its drive while it runs, in info/full.",
    ),
    counter("ide:{0-1}:{0-1}:write:requests", SERVER, "requests", "Requests that wrote them."),
    key("mem", SERVER, Input::Stopped, Takes::Range(128, 1_048_576), "Memory in MiB.")
        .number_of("MiB")
        .needed_by(SERVER),
    key(
        "nic:0:dhcp",
        SERVER,
        Input::Stopped,
        Takes::Form(Form::AutoOrAddress),
        "auto, or a static IP of yours, which one running server at a time may have.",
    )
    .kept(),
    key(
        "nic:0:dhcp:ip",
        SERVER,
        Input::Never,
        Takes::Nothing,
        "The address in use; absent until servers have addresses of their own.",
    ),
    key(
        "nic:0:firewall:*",
        SERVER,
        Input::Stopped,
        Takes::Text(4_000),
        "The firewall of the first card.",
    )
    .refused_but(&[]),
    key(
        "nic:{0-3}:mac",
        SERVER,
        Input::Stopped,
        Takes::Form(Form::Mac),
        "The card's hardware address, unlike any other on its VLAN; drawn if unset.",
    )
    .kept(),
    key(
        "nic:{0-3}:model",
        SERVER,
        Input::Stopped,
        Takes::OneOf(&["e1000", "rtl8139", "virtio"]),
        "The model of the network card; e1000 if unset.",
    ),
    key(
        "nic:{0-3}:vlan",
        SERVER,
        Input::Stopped,
        Takes::Form(Form::Vlan),
        "The VLAN of yours that the card is on.",
    )
    .kept(),
    key("parent", SERVER, Input::Stopped, Takes::Text(80), "A word of the owner's.").kept(),
    key(
        "password",
        SERVER,
        Input::Always,
        Takes::Text(8),
        "The password of the VNC screen, at most 8 characters; no screen without one.",
    )
    .secret(),
    key(
        "path",
        CONSOLE,
        Input::Never,
        Takes::Nothing,
        "Where the websocket is opened, on this API's address.",
    )
    .secret(),
    key(
        "persistent",
        SERVER,
        Input::Always,
        Takes::Flag,
        "true: stopping it keeps it; else it vanishes when it stops.",
    ),
    key(
        "scsi:0:{0-7}",
        SERVER,
        Input::Always,
        Takes::Drive,
        "The drive on a virtio-scsi port; while it runs only beside another.",
    ),
    key("scsi:0:{0-7}:media", SERVER, Input::Always, MEDIA, "disk or cdrom; disk if unset."),
    counter(
        "scsi:0:{0-7}:read:bytes",
        SERVER,
        "bytes",
        "Bytes read from its drive while it runs, in info/full.",
    ),
    counter("scsi:0:{0-7}:read:requests", SERVER, "requests", "Requests that read them."),
    counter(
        "scsi:0:{0-7}:write:bytes",
        SERVER,
        "bytes",
        "Bytes written to its drive while it runs, in info/full.",
    ),
    counter("scsi:0:{0-7}:write:requests", SERVER, "requests", "Requests that wrote them."),
    key("server", SERVER, Input::Never, Takes::Nothing, "The server's UUID."),
    key(
        "smp",
        SERVER,
        Input::Stopped,
        Takes::RangeOrAuto(1, 64),
        "Virtual CPUs; auto is one per 2,500 MHz begun.",
    ),
    key("smp:cores", SERVER, Input::Never, Takes::Nothing, "The virtual CPUs of a running server.")
        .number_of("CPUs"),
    key(
        "ssh:{0-7}:key",
        SERVER,
        Input::Stopped,
        Takes::Form(Form::SshKey),
        "A public key whose holder cloud-init lets in to the guest, as its default user.",
    ),
    key(
        "started",
        SERVER,
        Input::Never,
        Takes::Nothing,
        "When it began to run, in seconds since 1970.",
    )
    .number_of("seconds"),
    key(
        "ticket",
        CONSOLE,
        Input::Never,
        Takes::Nothing,
        "What opens the screen, once: whoever has it needs no other credentials.",
    )
    .secret(),
    key(
        "type",
        SERVER,
        Input::Create,
        Takes::OneOf(&["vm", "container"]),
        "vm, unless it is given; container: the provider's Linux kernel on the root file system of its first drive.",
    ),
    key(
        "vnc",
        SERVER,
        Input::Stopped,
        Takes::OneOf(&["auto"]),
        "auto: the screen is served where vnc:ip says.",
    ),
    key(
        "vnc:ip",
        SERVER,
        Input::Stopped,
        Takes::Text(40),
        "Where the screen is served, port 5900; auto on input.",
    )
    .refused_but(&["auto"]),
    key("vnc:password", SERVER, Input::Always, Takes::Text(8), "The older name of password.")
        .secret(),
    key("vnc:tls", SERVER, Input::Stopped, Takes::Text(8), "Encryption of the screen.")
        .refused_but(&["off"]),
];
