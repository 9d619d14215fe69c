//! A machine that the agent is on.

use std::time::{Duration, Instant};

use elasticstack_core::hypervisor::Media;
use elasticstack_core::prelude::*;
use elasticstack_core::wire::internal::{
    Access, ClaimedDrive, Document, Documents, DriveDocument, Hardware, HostReport, IoLimits,
    Lender, ServerDocument,
};
use elasticstack_lab::{Ended, Lab, Machine};

/// Far more than any step takes, so that only a step that never ends fails.
pub(crate) const GUARD: Duration = Duration::from_secs(120);

pub(crate) const AGENT: &str = env!("CARGO_BIN_EXE_elasticstack-agent");
pub(crate) const CONFIG: &str = "/data/agent.toml";

/// What every script may use. `of N` prints the device of disk N, `by NAME` that of an array.
const WORDS: &str = r#"
of() { for disk in /sys/block/sd*; do
    if grep -aq "LAB-DISK-$1$" $disk/device/vpd_pg80; then echo /dev/${disk##*/}; fi
done; }
by() { readlink -f /dev/md/$1; }
"#;

/// Reads a file from its disk, and not from memory.
pub(crate) const PAST_CACHE: &str = "dd iflag=direct bs=4k status=none <";

/// Boots the first machine of the lab.
pub(crate) fn boot(lab: &Lab) -> Machine {
    let mut machine = lab.boot(1).unwrap();
    // Read as a whole, the program is there at once; page by page, as it is needed, it takes seconds.
    let prepare = format!(
        "cat {AGENT} >/dev/null; test -e {CONFIG} || echo 'state_dir = \"/data/state\"' >{CONFIG}"
    );
    run(&mut machine, &prepare);
    machine
}

/// What the agent says to these arguments, and whether it did what they ask.
pub(crate) fn agent(machine: &mut Machine, arguments: &str) -> Ended {
    machine.run(&format!("{AGENT} --config {CONFIG} {arguments}")).unwrap()
}

/// What a script prints, which must end well.
pub(crate) fn run(machine: &mut Machine, script: &str) -> String {
    machine.run(&format!("set -e\n{WORDS}{script}")).unwrap().ok().unwrap()
}

/// Has the machine's agent join whoever asks by [`ask`], and starts it; it answers from then on.
pub(crate) fn serve(machine: &mut Machine) {
    join(machine);
    start(machine);
}

/// Starts the machine's agent, which has joined; it answers from then on.
pub(crate) fn start(machine: &mut Machine) {
    run(
        machine,
        &format!(
            "setsid {AGENT} --config {CONFIG} run >/data/agent.log 2>&1 </dev/null &
             until (exec 3<>/dev/tcp/127.0.0.1/8444) 2>/dev/null; do kill -0 $!; sleep 0.1; done"
        ),
    );
}

/// Has the machine's agent join whoever asks by [`ask`].
pub(crate) fn join(machine: &mut Machine) {
    run(
        machine,
        &format!("{KEYS}\ncat host.pem authority.pem host.key | {AGENT} --config {CONFIG} join"),
    );
}

const KEYS: &str = r#"
mkdir -p /data/keys
cd /data/keys
new() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" "${@:2}"; }
signed() {
    new $1 -keyout $1.key -out $1.csr
    printf "subjectAltName=DNS:$1\nextendedKeyUsage=$2\n" >extensions
    openssl x509 -req -in $1.csr -CA authority.pem -CAkey authority.key -days 9 -out $1.pem \
        -extfile extensions
}
{
    new authority -x509 -days 9 -keyout authority.key -out authority.pem
    signed host serverAuth
    signed control clientAuth
} 2>/dev/null
"#;

/// What the agent answers to a call of the internal API, with the status behind it.
pub(crate) fn ask(machine: &mut Machine, path: &str, options: &str) -> String {
    let keys = "--cert control.pem --key control.key --insecure";
    run(
        machine,
        &format!(
            "cd /data/keys; curl --silent --max-time 60 --write-out ' %{{http_code}}' {keys} {options} \
             'https://127.0.0.1:8444/v1/{path}'"
        ),
    )
}

/// How the agent says that its host is.
pub(crate) fn report(machine: &mut Machine) -> HostReport {
    let answer = ask(machine, "host", "");
    serde_json::from_str(answer.strip_suffix(" 200").expect(&answer)).unwrap()
}

/// Tells the agent what is to be.
pub(crate) fn tell(machine: &mut Machine, documents: Vec<Document>) {
    let json = serde_json::to_string(&Documents { documents }).unwrap();
    let header = "--header 'Content-Type: application/json'";
    let answer = ask(machine, "documents", &format!("{header} --data '{json}'"));
    assert!(answer.ends_with(" 200"), "{answer}");
}

/// A drive of 64 MiB.
pub(crate) fn drive(number: u128, array: ArrayId) -> DriveDocument {
    DriveDocument {
        drive: DriveId::from_uuid(uuid::Uuid::from_u128(number)),
        generation: Generation::new(Era(1), 1),
        gone: false,
        account: AccountId::from_uuid(uuid::Uuid::from_u128(9)),
        array,
        size: 64 << 20,
        lends: Vec::new(),
    }
}

/// A server that runs.
pub(crate) fn server(number: u128, hardware: Hardware) -> ServerDocument {
    ServerDocument {
        server: ServerId::from_uuid(uuid::Uuid::from_u128(number)),
        generation: Generation::new(Era(1), 1),
        gone: false,
        run: Run(1),
        powered: true,
        reset: 0,
        shutdown: 0,
        hardware,
    }
}

/// A server's claim on a drive.
pub(crate) fn claim(drive: DriveId, device: &str, lender: Option<Lender>) -> ClaimedDrive {
    ClaimedDrive {
        drive,
        epoch: Epoch(1),
        access: Access::Exclusive,
        device: device.parse().unwrap(),
        media: Media::Disk,
        lender,
        limits: IoLimits::default(),
    }
}

/// Has a drive made that begins with what the file holds.
pub(crate) fn make_drive(machine: &mut Machine, document: &DriveDocument, file: &str) {
    tell(machine, vec![Document::Drive(document.clone())]);
    let began = Instant::now();
    while !write(machine, document.drive, file).ends_with(" 204") {
        assert!(began.elapsed() < GUARD, "drive {} is not made", document.drive);
    }
}

pub(crate) fn write(machine: &mut Machine, drive: DriveId, file: &str) -> String {
    ask(machine, &format!("drives/{drive}/data?offset=0"), &format!("--data-binary @{file}"))
}

/// Whether the drive begins with what the file holds.
pub(crate) fn begins_with(machine: &mut Machine, drive: DriveId, file: &str) -> bool {
    let path = format!("drives/{drive}/data?offset=0&length=1048576");
    let answer = ask(machine, &path, "--output /data/read");
    let same = format!("cmp --silent /data/read {file} && echo same || true");
    answer.ends_with(" 200") && run(machine, &same) == "same\n"
}
