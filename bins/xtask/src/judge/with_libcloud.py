"""Apache libcloud, unmodified, against a running ElasticStack: the verdict of an old client.

Environment: EHURI, EHAUTH. Exits with 0 if every step held for every driver.
"""

import os
import sys
import time
from base64 import b64encode
from urllib.parse import urljoin, urlsplit
from urllib.request import Request, urlopen

from libcloud.compute.base import NodeImage
from libcloud.compute.providers import get_driver
from libcloud.compute.types import NodeState, Provider

GUARD = 120  # seconds: far above what a guest needs, so that only a hang ends here

base = urlsplit(os.environ["EHURI"])
user, key = os.environ["EHAUTH"].split(":", 1)


def step(driver, what, holds):
    print(f"  {driver.name}: {what}: {'ok' if holds else 'FAILED'}", flush=True)
    if not holds:
        sys.exit(1)


def wait(what, holds):
    end = time.monotonic() + GUARD
    while not holds():
        if time.monotonic() > end:
            sys.exit(f"gave up after {GUARD} s waiting for: {what}")
        time.sleep(0.5)


def boots(node):
    """How often the guest has said that it is up; the call is none of libcloud's."""
    request = Request(urljoin(os.environ["EHURI"], f"servers/{node.id}/serial"))
    basic = b64encode(os.environ["EHAUTH"].encode()).decode()
    request.add_header("Authorization", f"Basic {basic}")
    with urlopen(request, timeout=GUARD) as answer:
        return answer.read().count(b"tiny: up")


def judge(provider):
    driver = get_driver(provider)(user, key, secure=False, host=base.hostname, port=base.port)
    info = driver.connection.request("/drives/info/standard").object
    tiny = next(drive for drive in info if "tiny" in drive["name"])
    image = NodeImage(id=tiny["drive"], name=tiny["name"], driver=driver)
    size = next(size for size in driver.list_sizes() if size.cpu == 2000)
    step(driver, f"its own size is {size.cpu} MHz, {size.ram} MB, {size.disk} GB",
         (size.ram, size.disk) == (1700, 160))

    node = driver.create_node(name="judge", size=size, image=image, vnc_password="abcd1234")
    drive = node.extra["ide:0:0"]
    step(driver, "create_node", node.id and drive)

    def listed():
        return next((n for n in driver.list_nodes() if n.id == node.id), None)

    step(driver, "list_nodes shows it RUNNING", listed().state == NodeState.RUNNING)
    wait("the guest's first line on its serial port", lambda: boots(node) == 1)
    step(driver, "a guest really runs", True)
    step(driver, "ex_set_node_configuration",
         driver.ex_set_node_configuration(node, name="judged", cpu=1500))
    changed = listed()
    step(driver, "the change is seen", (changed.name, changed.extra["cpu"]) == ("judged", 1500))
    step(driver, "reboot_node", driver.reboot_node(node))
    wait("the guest's first line after its reset", lambda: boots(node) == 2)
    step(driver, "the guest has booted again", listed().state == NodeState.RUNNING)
    step(driver, "ex_shutdown_node", driver.ex_shutdown_node(node))
    # It was created as libcloud does, not persistent: it vanishes when its guest ends.
    wait("the guest to obey its power button", lambda: listed() is None)
    step(driver, "the guest has ended itself and is gone", True)
    step(driver, "its drive is kept", driver.connection.request(f"/drives/{drive}/info").object)
    step(driver, "ex_destroy_drive", driver.ex_destroy_drive(drive))

    node = driver.create_node(name="judge", size=size, image=image)
    drive = node.extra["ide:0:0"]
    step(driver, "destroy_node on a running server", driver.destroy_node(node))
    step(driver, "it is gone", listed() is None)
    step(driver, "ex_destroy_drive right after", driver.ex_destroy_drive(drive))


for provider in (Provider.ELASTICHOSTS, Provider.SERVERLOVE, Provider.SKALICLOUD):
    judge(provider)
