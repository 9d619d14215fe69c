#!/bin/sh
# Makes a disk that a BIOS boots of the Debian that mmdebstrap has put into the directory $1, and leaves it
# there as /disk.gz. Runs as root, or as what counts for root in a user namespace; needs nothing outside $1
# but what every Debian has.
set -eu
root=$1

megabytes=2048
uuid=3f8a6c1e-5b0d-4e7a-9c42-646562313202
consoles='console=tty0 console=ttyS0,115200'

# No host's and no build's own marks.
echo debian >"$root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 debian\n::1 localhost ip6-localhost ip6-loopback\n' >"$root/etc/hosts"
: >"$root/etc/machine-id"
: >"$root/etc/resolv.conf"
rm -f "$root/var/lib/dbus/machine-id" "$root"/etc/ssh/ssh_host_* "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap"
chroot "$root" apt-get clean
# /tmp stays: what mmdebstrap has there keeps its own apt off this machine's lists.
rm -rf "$root"/var/lib/apt/lists/*

echo 'datasource_list: [NoCloud, None]' >"$root/etc/cloud/cloud.cfg.d/90-datasource.cfg"

# What update-grub makes of it once the guest has a new kernel; until then, the few lines below do.
sed -i -e "s/^GRUB_CMDLINE_LINUX=.*/GRUB_CMDLINE_LINUX=\"$consoles\"/" \
    -e 's/^GRUB_CMDLINE_LINUX_DEFAULT=.*/GRUB_CMDLINE_LINUX_DEFAULT=""/' \
    -e 's/^GRUB_TIMEOUT=.*/GRUB_TIMEOUT=1/' "$root/etc/default/grub"
printf 'GRUB_TERMINAL="console serial"\nGRUB_SERIAL_COMMAND="serial --speed=115200"\n' >>"$root/etc/default/grub"
cat >"$root/boot/grub/grub.cfg" <<END
serial --speed=115200
terminal_output console serial
linux /vmlinuz root=UUID=$uuid ro $consoles
initrd /initrd.img
boot
END

# GRUB as grub-install lays it out, which would want to see the disk.
modules=/usr/lib/grub/i386-pc
mkdir -p "$root/boot/grub/i386-pc"
cp "$root$modules"/*.mod "$root$modules"/*.lst "$root/boot/grub/i386-pc/"
chroot "$root" grub-mkimage --format=i386-pc --output=/boot/grub/i386-pc/core.img \
    --prefix='(,msdos1)/boot/grub' biosdisk part_msdos ext2

# The same directory without what is mounted in it. However this ends, no mount stays; what can't be
# unmounted is not deleted.
work=$(mktemp -d)
mkdir "$work/root"
mount --bind "$root" "$work/root"
trap 'umount "$work/root" 2>/dev/null || true; rmdir "$work/root" && rm -r "$work"' EXIT
find "$work/root/dev" -mindepth 1 ! -type d -delete
find "$work/root" -newermt "@$SOURCE_DATE_EPOCH" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
truncate --size=$((megabytes - 1))M "$work/partition"
mke2fs -q -t ext4 -L debian-12 -U "$uuid" -E "hash_seed=$uuid,root_owner=0:0" -d "$work/root" "$work/partition"
umount "$work/root"

# One partition from the first MiB to the end, and before it GRUB's two parts, whose places they know.
disk=$work/disk
truncate --size=${megabytes}M "$disk"
dd if="$work/partition" of="$disk" bs=1M seek=1 conv=sparse,notrunc status=none
dd if="$root$modules/boot.img" of="$disk" bs=440 count=1 conv=notrunc status=none
dd if="$root/boot/grub/i386-pc/core.img" of="$disk" bs=512 seek=1 conv=notrunc status=none
# The disk's signature, nothing, then: bootable, from past what heads can say to past it, Linux, from
# block 2048, so many blocks.
blocks=$(((megabytes - 1) * 2048))
bytes() { printf "\\$(printf %o $(($1 & 255)))\\$(printf %o $(($1 >> 8 & 255)))\\$(printf %o $(($1 >> 16 & 255)))\\$(printf %o $(($1 >> 24)))"; }
{
    printf 'deb\014\000\000\200\376\377\377\203\376\377\377'
    bytes 2048
    bytes $blocks
} | dd of="$disk" bs=1 seek=440 conv=notrunc status=none
printf '\125\252' | dd of="$disk" bs=1 seek=510 conv=notrunc status=none

gzip --no-name "$disk"
mv "$disk.gz" "$root/disk.gz"
