# Makes what a small guest boots: the kernel of `tiny`, and an initial RAM disk of its drivers and programs
# that says what it finds, reads and writes its drive, and ends as the kernel's command line says.
# $1: where images and the lab's modules are. $2: where `kernel` and `initrd` are to be.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
gunzip -c "$1/images/tiny.gz" >tiny.raw
mcopy -i tiny.raw@@1M ::vmlinuz ::initrd.gz .
mkdir -p more/lib/small
cp "$1"/lab/modules/*/kernel/drivers/virtio/virtio_mmio.ko more/lib/small
cat >more/init <<'INIT'
#!/bin/sh
/bin/busybox mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
while read -r module; do insmod "/lib/modules/$module"; done </lib/modules/order
insmod /lib/small/virtio_mmio.ko
echo "guest: up with $(grep -c ^processor /proc/cpuinfo) processors" >/dev/ttyS0
for disk in vda vdb; do
    echo "guest: $disk is $(cat /sys/block/$disk/serial) of $(cat /sys/block/$disk/size) sectors" >/dev/ttyS0
    echo "guest: $disk begins with $(dd if=/dev/$disk bs=5 count=1 2>/dev/null)" >/dev/ttyS0
    dd if=/dev/$disk bs=64k count=16 2>/dev/null | tr '\0' x |
        dd of=/dev/$disk bs=64k seek=16 conv=fsync 2>/dev/null || echo "guest: $disk is not written" >/dev/ttyS0
done
case "$(cat /proc/cmdline)" in
*restarts*) /bin/busybox reboot -f ;;
*) /bin/busybox poweroff -f ;;
esac
INIT
chmod 755 more/init
(cd more && find . | cpio --quiet --create --format=newc --owner=0:0 | gzip) >more.gz
mkdir -p "$2"
cat initrd.gz more.gz >"$2/initrd"
cp vmlinuz "$2/kernel"
