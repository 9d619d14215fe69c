#!/usr/bin/python3
# What cloud-init runs in the guest that proves itself: answers the nonce on the second drive with
# the boot id that sshd tells whoever holds the key, and powers the guest off. Where anything is
# not as it should be there is no answer.
import glob
import hashlib
import os
import socket
import subprocess
import time

BLOCK = 512
BOOT_ID = "/proc/sys/kernel/random/boot_id"
KEY = "/run/first-boot.key"


def task():
    for name in sorted(glob.glob("/sys/block/[sv]d*")):
        disk = os.open("/dev/" + os.path.basename(name), os.O_RDWR)
        if os.pread(disk, 16, 0) == b"{MAGIC}":
            return disk
        os.close(disk)
    raise SystemExit("first boot: no disk asks for anything")


def logged_in():
    options = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"]
    ssh = ["ssh", "-q", "-i", KEY] + ["-o" + option for option in options]
    while True:
        login = subprocess.run(ssh + ["debian@localhost", "cat", BOOT_ID], stdout=subprocess.PIPE)
        if login.returncode == 0:
            return login.stdout.strip()
        print("first boot: sshd does not let us in yet", flush=True)
        time.sleep(2)


disk = task()
name = socket.gethostname()
if name != "{HOST_NAME}":
    raise SystemExit("first boot: the name is " + name)
root = os.statvfs("/")
if root.f_blocks * root.f_frsize <= {IMAGE_SIZE}:
    raise SystemExit("first boot: the root file system has not grown")
with open(os.open(KEY, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
    file.write("""{PRIVATE_KEY}""")
boot_id = logged_in()
nonce = os.pread(disk, 32, 16)
answer = hashlib.sha256(nonce + boot_id).digest() + boot_id
os.pwrite(disk, answer.ljust(BLOCK, b"\0"), BLOCK)
os.fsync(disk)
print("first boot: answered", flush=True)
subprocess.run(["systemctl", "poweroff"], check=True)
