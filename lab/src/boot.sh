# What a lab machine does once it has a root: its network, its data directory, and then its jobs.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
read -r number </lab/number
hostname "lab$number"
ip link set lo up
ip address add "10.77.0.$number/24" dev eth0
ip link set eth0 up
modprobe configfs
mount -t configfs configfs /sys/kernel/config

# The data directory is the disk with the serial `data`; it is made once and outlives the machine.
blkid /dev/vda >/dev/null || mkfs.xfs -q /dev/vda
mount /dev/vda /data

# The port comes when the host's side has told of it; a number of its own is not promised.
serve() {
    until [ -c /dev/vport*p1 ]; do
        sleep 0.1
    done
    exec 3<>/dev/vport*p1
    echo up >&3
    while read -r job <&3; do
        bash "/lab/jobs/$job" >"/lab/jobs/$job.out" 2>&1 </dev/null
        echo "$job $?" >&3
    done
}
if [ ! -e /lab/systemd ]; then
    serve
    exit
fi

# Of what this machine's systemd would start there is nothing there but its journal: whoever boots it
# brings his own units.
cd /usr/lib/systemd
rm -rf system-generators /etc/systemd/system ./*/*.wants
mkdir /etc/systemd/system
cat >/etc/systemd/system/lab.target <<END
[Unit]
Wants=systemd-journald.service
After=systemd-journald.service
END
(
    until [ "$(systemctl is-active lab.target)" = active ]; do
        sleep 0.1
    done
    serve
) &
exec /usr/lib/systemd/systemd --unit=lab.target
