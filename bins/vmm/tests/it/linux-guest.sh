# Makes the root drive of a container, a file system with busybox and fio, whose init is a script: it says what it
# finds, has fio write its drives and read them back at its first boot, asks its host for an answer over its network, and then
# counts until its power button is pressed.
# $1: the file to be made. $2: an initramfs with a static busybox.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
fio=$(command -v fio)
mkdir -p root/{bin,dev,proc,sbin,sys,tmp}
gunzip -c "$2" | (cd root && cpio --quiet -id bin/busybox)
for file in "$fio" $(ldd "$fio" | grep -o '/[^ ]*'); do
    mkdir -p "root$(dirname "$file")"
    cp -L "$file" "root$file"
done
ln -s busybox root/bin/sh
cat >root/sbin/init <<'INIT'
#!/bin/sh
say() { echo "guest: $*" >/dev/ttyS0; }
export PATH=/bin
[ -e /bin/cat ] || busybox --install -s /bin
for input in /sys/class/input/event*; do
    [ "$(cat $input/device/name)" = "Power Button" ] || continue
    { dd if=/dev/input/${input##*/} bs=24 count=1 of=/dev/null 2>/dev/null; sync; poweroff -f; } &
done
say "up with $(grep -c ^processor /proc/cpuinfo) processors on $(grep ' / ext4 rw' /proc/mounts)"
ip address add 10.88.0.2/24 dev eth0
ip link set eth0 up
say "$(ping -c 3 -w 60 10.88.0.1 | grep loss)"
# What the first boot wrote is what another one finds.
[ -e /sums ] && md5sum -c -s /sums && say "finds what it wrote"
[ -e /sums ] || for file in /own /dev/vdb; do
    FIO --thread --name=own --filename=$file --size=2M --ioengine=libaio --direct=1 --iodepth=4 \
        --rw=randwrite --bs=16k --verify=crc32c --verify_fatal=1 >/tmp/said 2>&1 ||
        say "failed on $file: $(tail -n 20 /tmp/said)"
    say "$file is read back"
    md5sum $file >>/tmp/sums
done
[ -e /sums ] || cp /tmp/sums /sums
sync
count=0
while true; do
    count=$((count + 1))
    say "counts $count"
    sleep 1
done
INIT
sed -i "s|FIO|$fio|" root/sbin/init
chmod 755 root/sbin/init
mke2fs -q -t ext4 -d root "$1" 192M
