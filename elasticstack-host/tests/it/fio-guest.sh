# Makes a disk of a guest that runs fio on the disk that is not its own, over and over: the kernel and the
# drivers of `tiny`, with fio and its libraries from this machine in a file system, of which little is read.
# $1: where images and the lab's modules are. $2: the disk to be made.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
gunzip -c "$1/images/tiny.gz" >tiny.raw
mcopy -i tiny.raw@@1M ::vmlinuz ::initrd.gz .

fio=$(command -v fio)
mkdir -p root/{dev,proc,tmp} more/lib/fio
for file in "$fio" $(ldd "$fio" | grep -o '/[^ ]*'); do
    mkdir -p "root$(dirname "$file")"
    cp -L "$file" "root$file"
done
for module in crypto/crc32c_generic lib/crc16 fs/mbcache fs/jbd2/jbd2 fs/ext4/ext4; do
    cp "$1"/lab/modules/*/kernel/"$module".ko more/lib/fio
done

cat >more/init <<'INIT'
#!/bin/sh
say() {
    echo "fio: $*" >/dev/ttyS0
}
/bin/busybox mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
while read -r module; do insmod "/lib/modules/$module"; done </lib/modules/order
for module in crc32c_generic crc16 mbcache jbd2 ext4; do insmod /lib/fio/$module.ko; done
for disk in vda vdb; do
    mark=$(dd if=/dev/$disk bs=16 skip=32 count=1 2>/dev/null)
    if [ "$mark" = ES-TINY-BOOTDISK ]; then own=$disk; else lent=$disk; fi
done
mkdir /fio
mount -t ext4 -o ro "/dev/${own}2" /fio
for kind in proc devtmpfs:dev tmpfs:tmp; do mount -t ${kind%:*} none /fio/${kind#*:}; done
say "up, on $lent"
round=0
# All blocks at random, eight at a time; each is read again some blocks later and compared.
while chroot /fio FIO --thread --name=lent --filename=/dev/$lent --direct=1 --ioengine=libaio \
    --iodepth=8 --rw=randwrite --bs=4k --fdatasync=64 --verify=crc32c --verify_fatal=1 \
    --verify_backlog=32 --randseed=$round >/tmp/said 2>&1; do
    round=$((round + 1))
    say "round $round is read back"
done
tail -n 20 /tmp/said >/dev/ttyS0
say "failed"
while :; do sleep 3600; done
INIT
sed -i "s|FIO|$fio|" more/init
chmod 755 more/init
(cd more && find . | cpio --quiet --create --format=newc --owner=0:0 | gzip) >more.gz

cat >syslinux.cfg <<'CONFIG'
DEFAULT fio
PROMPT 0
LABEL fio
KERNEL vmlinuz
INITRD initrd.gz,more.gz
APPEND console=ttyS0,115200 quiet no_timer_check
CONFIG
# The boot loader, the mark and the partition of `tiny`, and a second one, from 32 MiB on, 128 MiB long.
head -c 1M tiny.raw >"$2"
truncate -s 160M "$2"
printf '\0\376\377\377\203\376\377\377\0\0\1\0\0\0\4\0' |
    dd of="$2" bs=1 seek=$((446 + 16)) conv=notrunc status=none
mformat -i "$2@@1M" -h 255 -s 63 -H 2048 -T 61440 ::
syslinux --install --offset $((1 << 20)) "$2"
mcopy -i "$2@@1M" vmlinuz initrd.gz more.gz syslinux.cfg ::
mke2fs -q -t ext4 -O ^has_journal,^metadata_csum -d root -E offset=$((32 << 20)) "$2" 128M
