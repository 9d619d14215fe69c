# Makes what a small guest boots: the kernel of `tiny`, and an initial RAM disk of its drivers and programs
# that says what it finds, reads and writes its drive, and ends as the kernel's command line says.
# $1: where images and the lab's modules are. $2: where `kernel`, that `unpacked`, and `initrd` are to be.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
gunzip -c "$1/images/tiny.gz" >tiny.raw
mcopy -i tiny.raw@@1M ::vmlinuz ::initrd.gz .
mkdir -p more/lib/small
for module in virtio/virtio_mmio acpi/button input/evdev; do
    cp "$1"/lab/modules/*/kernel/drivers/$module.ko more/lib/small
done
cat >more/init <<'INIT'
#!/bin/sh
/bin/busybox mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
while read -r module; do insmod "/lib/modules/$module"; done </lib/modules/order
for module in virtio_mmio button evdev; do insmod /lib/small/$module.ko; done
echo "guest: up with $(grep -c ^processor /proc/cpuinfo) processors" >/dev/ttyS0
for disk in vda vdb; do
    echo "guest: $disk is $(cat /sys/block/$disk/serial) of $(cat /sys/block/$disk/size) sectors" >/dev/ttyS0
    echo "guest: $disk begins with $(dd if=/dev/$disk bs=5 count=1 2>/dev/null)" >/dev/ttyS0
    dd if=/dev/$disk bs=64k count=16 2>/dev/null | tr '\0' x |
        dd of=/dev/$disk bs=64k seek=16 conv=fsync 2>/dev/null || echo "guest: $disk is not written" >/dev/ttyS0
done
case "$(cat /proc/cmdline)" in
*restarts*) /bin/busybox reboot -f ;;
*)
    echo "guest: waits for its power button" >/dev/ttyS0
    dd if=/dev/input/event0 bs=24 count=1 of=/dev/null 2>/dev/null
    /bin/busybox poweroff -f
    ;;
esac
INIT
chmod 755 more/init
(cd more && find . | cpio --quiet --create --format=newc --owner=0:0 | gzip) >more.gz
mkdir -p "$2"
cat initrd.gz more.gz >"$2/initrd"
cp vmlinuz "$2/kernel"
# As a bzImage's header says where it lies (Documentation/arch/x86/boot.rst); behind it is its size.
field() { od -An -j "$1" -N "$2" -t "u$2" vmlinuz | tr -d ' '; }
dd if=vmlinuz bs=64k iflag=skip_bytes,count_bytes status=none count="$(($(field 588 4) - 4))" \
    skip="$((($(field 497 1) + 1) * 512 + $(field 584 4)))" | xz -dc >"$2/unpacked"
