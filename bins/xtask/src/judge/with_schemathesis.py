"""Hooks for Schemathesis: it calls as an operator who owns objects, and valid data means them.

Schemathesis makes up well-formed ids and huge sizes; of what it calls valid, ids become those of
objects that the account has, and sizes what a small machine has room for. What it calls invalid
goes out as it is. What each parameter and key means is read from the document itself (`x-object`,
`x-unit`, `x-names-keys`, `x-cursor`), so that a new call needs no line here.

What the installation stands on (its one host, the accounts that it came with) is looked at and set,
and never revoked or given another key: the judge would have nothing left to judge.

Environment: EHURI, OPERATOR_AUTH, and JUDGE_COUNTS, the file for how the calls were answered.
"""

import atexit
import ipaddress
import itertools
import json
import os
import random
import re
import threading
import time
import uuid
from base64 import b64encode
from collections import Counter
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import jsonschema_rs
import schemathesis

MIB = 1 << 20
BASE = os.environ["EHURI"].rstrip("/")


def basic(name):
    return "Basic " + b64encode(os.environ[name].encode()).decode()


BASIC = basic("OPERATOR_AUTH")
GUARD = 120  # seconds: far above what a call needs, so that only a hang ends here

# An expression is no description of a subnet: valid pools lie side by side, this much apart.
BLOCK = 1 << 12
# What the account has at least and at most; guests run on a software CPU.
LEAST = {"drive": 5, "server": 4, "ip": 2, "vlan": 2, "token": 2, "account": 3}
MOST = {"drive": 12, "server": 5, "ip": 5, "vlan": 5, "token": 5}
# What valid numbers mean, by unit. All drives are of one size, so that each can be imaged from any other.
SMALL = {"bytes": (1, 4 * MIB), "MiB": (128, 192), "MHz": (500, 550)}
# Nothing need happen while the judge waits.
SMALL["seconds"] = (0, 1)
# What ends, ends later than now.
SMALL["seconds since 1970"] = (int(time.time()) + 3600, int(time.time()) + 7200)
SCREEN = {"vnc": "auto", "vnc:password": "judge123"}
NEW = {
    "ip": [("resources/ip/create", {"name": "judged"})],
    "vlan": [("resources/vlan/create", {"name": "judged"})],
    "token": [("tokens/create", {"name": "judged"})],
    "account": [("accounts/create", {"name": "judged"})],
    "drive": [("drives/create", {"name": "judged", "size": "4M"})],
    "server": [
        ("servers/create/stopped", {"name": "judged", "cpu": 500, "mem": 128, "persistent": True}),
        ("servers/create/stopped", {"name": "judged too", "cpu": 500, "mem": 128, "persistent": True}),
        ("servers/create", {"name": "without a system", "cpu": 500, "mem": 128, "persistent": True} | SCREEN),
    ],
}

lock = threading.RLock()
dice = random.Random(7)
counts = Counter()
subnets = itertools.count()


def api(path, record=None):
    """What the call answers, or None if it is refused."""
    body = None if record is None else json.dumps(record).encode()
    request = Request(f"{BASE}/{path}", data=body)
    request.add_header("Authorization", BASIC)
    request.add_header("Accept", "application/json")
    request.add_header("Content-Type", "application/json")
    try:
        with urlopen(request, timeout=GUARD) as answer:
            return json.loads(answer.read() or "null")
    except HTTPError:
        return None


def is_container(info):
    return info.get("type") == "container"


def owned(kind):
    """Ids of this kind: after making what is missing and destroying what is too much."""
    with lock:
        is_resource = kind in ("ip", "vlan")
        path, key = (f"resources/{kind}", "resource") if is_resource else (f"{kind}s", kind)
        if kind == "stray":
            path = "quarantine"
        infos = api(f"{path}/info") or []
        if kind == "server":
            # One container is enough: this host runs none.
            infos.sort(key=is_container)
            for surplus in list(filter(is_container, infos))[1:]:
                api(f"servers/{surplus['server']}/destroy", {})
                infos.remove(surplus)
        ids = [info[key] for info in infos]
        for surplus in ids[MOST.get(kind, len(ids)):]:
            api(f"{path}/{surplus}/destroy", {})
        ids = ids[:MOST.get(kind, len(ids))]
        for number in range(len(ids), LEAST.get(kind, 0)):
            create, record = NEW[kind][number % len(NEW[kind])]
            made = api(create, record)
            ids += [made[key]] if made else []
        if kind == "server" and ids and all(info["status"] == "stopped" for info in infos):
            api(f"servers/{ids[0]}/start", {})
        dice.shuffle(ids)
        return ids


class Pool:
    """Ids for one call, none of them twice."""

    def __init__(self):
        self.ids = {}

    def one(self, kind):
        if kind not in self.ids:
            self.ids[kind] = owned(kind)
        return self.ids[kind].pop() if self.ids[kind] else None


def meaning(operation, media_type, name):
    """What the document says about a key of the record that this operation takes."""
    schema = record_schema(operation, media_type)
    if name in schema.get("properties", {}):
        return schema["properties"][name]
    for pattern, found in schema.get("patternProperties", {}).items():
        if re.fullmatch(pattern.removeprefix("^").removesuffix("$"), name):
            return found
    return {}


document = json.load(urlopen(f"{BASE}/openapi.json", timeout=GUARD))
# What the installation came with.
FOUNDATION = {info[kind] for kind in ("account", "host") for info in api(f"{kind}s/info")}
# What would take it away.
RAZING = re.compile(r"/(hosts|accounts)/[^/]+/(revoke|key|suspend.*)")
# What of a container is refused for what it is, or because this host runs none.
FOR_VMS = re.compile(r"/servers/[^/]+/(set|start)")


def described(operation):
    return document["paths"][operation.path][operation.method.lower()]


def record_schema(operation, media_type):
    schema = described(operation)["requestBody"]["content"][media_type]["schema"]
    return document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema


def small(value, unit):
    """A value of this unit that means something, and that a small machine has room for."""
    return value if value in ("", None) or unit not in SMALL else dice.randint(*SMALL[unit])


def lists_objects(means):
    return any(form.get("items", {}).get("format") == "uuid" for form in means.get("anyOf", []))


def mean_container(operation, media_type, record):
    """What a container has and nothing else, which hangs on several keys; and of what is started at once a VM."""
    if not operation.path.endswith("/stopped"):
        del record["type"]
        return
    for name in list(record):
        is_drive = meaning(operation, media_type, name).get("x-object") == "drive"
        is_elsewhere = is_drive and not name.startswith("block:")
        is_card = re.fullmatch("nic:[0-9]:model", name) and record[name] not in ("virtio", "", None)
        # `vnc:ip` is the old word for `vnc`.
        if name in ("vnc", "vnc:ip") or is_elsewhere or is_card:
            del record[name]


def mean_record(operation, media_type, record, pool):
    devices = []
    if record.get("type") == "container":
        mean_container(operation, media_type, record)
    for name in list(record):
        means = meaning(operation, media_type, name)
        if "x-object" in means and record[name]:
            found = pool.one(means["x-object"]) if dice.random() < 0.3 else None
            if found:
                record[name] = found
                devices.append(name)
            else:
                del record[name]
        elif lists_objects(means) and dice.random() < 0.9:
            del record[name]  # made up, they are always somebody else's
        elif "x-unit" in means:
            record[name] = small(record[name], means["x-unit"])
    for name in list(record):
        if meaning(operation, media_type, name).get("x-names-keys") and record[name]:
            if devices:
                record[name] = devices
            else:
                del record[name]


def mean_pool(record):
    """A subnet of its own."""
    base = int(ipaddress.ip_address("10.64.0.0")) + next(subnets) * BLOCK
    for name, offset in [("gateway", 1), ("first", 10), ("last", BLOCK - 6)]:
        record[name] = str(ipaddress.ip_address(base + offset))
    record["netmask"] = "255.255.240.0"


first_pool = {"name": "judged"}
mean_pool(first_pool)
api("pools/create", first_pool)


def resolved(parameter):
    path = parameter.get("$ref", "").rsplit("/", 1)[-1]
    return document["components"]["parameters"][path] if path else parameter


def mean_header(headers, name):
    """A key that was not used for anything else, and the version that the object is at."""
    if name == "Idempotency-Key" and name in headers:
        headers[name] = str(uuid.uuid4())
    elif name == "If-Match" and name in headers:
        headers[name] = "*"


def is_valid(case):
    return case.meta is None or case.meta.generation.mode.is_positive


@schemathesis.hook
def before_call(context, case, kwargs):
    case.headers = case.headers or {}
    accepts = ["application/json", "text/plain", "application/json, application/problem+json"]
    case.headers.setdefault("Accept", dice.choice(accepts))
    pool = Pool()
    if RAZING.fullmatch(case.operation.path):
        pool.ids = {kind: [id for id in owned(kind) if id not in FOUNDATION] for kind in ("account", "host")}
        if FOUNDATION & set(case.path_parameters.values()):
            case.path_parameters = {name: str(uuid.uuid4()) for name in case.path_parameters}
    if FOR_VMS.fullmatch(case.operation.path):
        owned("server")
        pool.ids["server"] = [info["server"] for info in api("servers/info") or [] if not is_container(info)]
    if isinstance(case.body, dict):
        # It may make something, which must not become too much.
        pool.ids = {kind: owned(kind) for kind in NEW} | pool.ids
    if not is_valid(case):
        return
    for parameter in map(resolved, described(case.operation).get("parameters", [])):
        name = parameter["name"]
        if parameter["in"] == "header":
            mean_header(case.headers, name)
            continue
        if parameter["in"] == "query":
            if name in (case.query or {}):
                schema = parameter["schema"]
                unit = schema.get("x-unit")
                case.query[name] = schema.get("x-cursor", small(case.query[name], unit))
            continue
        if "x-object" in parameter:
            kind = parameter["x-object"]
            # A resource is of the type that the path names before it.
            found = pool.one(case.path_parameters["TYPE"] if kind == "resource" else kind)
            if found:
                case.path_parameters[name] = found
        elif parameter["schema"].get("x-unit") == "bytes":
            case.path_parameters[name] = str(dice.randint(1, 4096))
    if case.operation.path == "/pools/create" and isinstance(case.body, dict):
        mean_pool(case.body)
    elif isinstance(case.body, dict):
        mean_record(case.operation, case.media_type, case.body, pool)


@schemathesis.hook
def after_call(context, case, response):
    label = f"{case.operation.method.upper()} {case.operation.path}"
    # A check sends valid calls again with other credentials, to see them refused.
    is_ours = response.request.headers.get("Authorization") == BASIC
    kind = "valid" if is_valid(case) and is_ours else "invalid"
    closed = re.fullmatch(r"/(arrays|hosts)/[^/]+/set", case.operation.path)
    if closed and response.status_code == 200:
        api(response.request.path_url.split("?")[0].lstrip("/"), {"placements": "open"})
    if case.method.upper() == case.operation.method.upper():
        with lock:
            counts[f"{kind} {response.status_code} {label}"] += 1


def plain(value):
    """A value as text has it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return " ".join(map(plain, value))
    return str(value)


def lines(record):
    """A record as lines of KEY VALUE."""
    escaped = {key: plain(value).replace("\\", "\\\\") for key, value in record.items()}
    return "".join("{} {}\n".format(key, value.replace("\n", "\\n")) for key, value in escaped.items())


@schemathesis.hook
def filter_case(context, case):
    """Drops what was to be invalid and is valid as text, where a number is the text of a number."""
    if is_valid(case) or case.media_type != "text/plain" or not isinstance(case.body, dict):
        return True
    schema = record_schema(case.operation, case.media_type) | {"components": document["components"]}
    as_sent = {key: plain(value) for key, value in case.body.items()}
    return not jsonschema_rs.is_valid(schema, as_sent)


@schemathesis.serializer("text/plain")
def text_plain(context, value):
    return (lines(value) if isinstance(value, dict) else str(value)).encode()


@atexit.register
def report():
    with open(os.environ["JUDGE_COUNTS"], "w") as file:
        json.dump(counts, file)
