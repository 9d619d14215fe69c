# Serves a file by the kernel's target to whoever comes, and has each suite that is named in the
# arguments run on it. A line before each says which it is.
set -e
target=iqn.2026-01.org.example:lio
# Where reservations are kept.
mkdir -p /etc/target/pr
modprobe --all target_core_mod target_core_file iscsi_target_mod
cd /sys/kernel/config/target
truncate -s "$LENGTH" /data/lio.raw
mkdir -p core/fileio_0/lio iscsi "iscsi/$target/tpgt_1"
echo "fd_dev_name=/data/lio.raw,fd_dev_size=$LENGTH" >core/fileio_0/lio/control
echo 1 >core/fileio_0/lio/enable
echo 1 >core/fileio_0/lio/attrib/emulate_tpu
echo 1 >core/fileio_0/lio/attrib/emulate_tpws
cd "iscsi/$target/tpgt_1"
mkdir lun/lun_0 np/127.0.0.1:3260
ln -s /sys/kernel/config/target/core/fileio_0/lio lun/lun_0/lio
echo 0 >attrib/authentication
# The names that the tests have. Whoever is not named has no reservations.
for initiator in iscsi-test iscsi-test-2; do
    initiator=acls/iqn.2007-10.com.github:sahlberg:libiscsi:$initiator
    mkdir -p "$initiator/lun_0"
    ln -s "$PWD/lun/lun_0" "$initiator/lun_0/lio"
done
echo 1 >enable
for suite; do
    # A test that hung ends without a line of its own.
    printf '\n== suite %s\n' "$suite"
    timeout --kill-after=5 "$GUARD" iscsi-test-cu --dataloss --test "$suite" \
        "iscsi://127.0.0.1:3260/$target/0" 2>/dev/null || true
done
