#!/usr/bin/env bash
# The API as the official shell scripts of older clouds use it, with curl alone: POST for everything but
# downloads, lines of text under application/octet-stream or JSON both ways, 4 MiB at a time, uploads
# packed, and up- and downloads that are resumed. Those scripts download plain; here it is done packed
# too.
#
# Environment: EHURI, EHAUTH. Exits with 0 if every step held.
set -euo pipefail

CHUNK=$((4 << 20))
SIZE=$((100 << 20))
EHURI=${EHURI%/}
work=$(mktemp -d)
# curl reads the credentials from a file of its owner's: an argument is for all to see.
(umask 077 && printf 'user = "%s"\n' "$EHAUTH" >"$work/curlrc")
trap 'rm -rf "$work"' EXIT

curl_() {
    curl --config "$work/curlrc" --silent --show-error --fail --max-time 120 --header 'Expect:' "$@"
}

# As elastichosts.sh: words joined by `/`, always POST; data is octet-stream, no data an empty text.
call() {
    local path
    path=$(IFS=/ && echo "$*")
    curl_ --request POST --header 'Content-Type: text/plain' --data-binary '' "$EHURI/$path"
}
call_with() {
    local data=$1 path
    shift
    path=$(IFS=/ && echo "$*")
    curl_ --header 'Content-Type: application/octet-stream' --data-binary "$data" "$EHURI/$path"
}
# As elastichosts.sh -j: JSON both ways.
call_json() {
    local data=$1 path
    shift
    path=$(IFS=/ && echo "$*")
    curl_ --header 'Content-Type: application/json' --header 'Accept: application/json' \
        --data-binary "$data" "$EHURI/$path"
}
value() { sed -n "s/^$1 //p"; }
step() { echo "  curl: $1: ok"; }
fail() {
    echo "  curl: $1: FAILED"
    exit 1
}

# upload FILE DRIVE FROM TO: gzip chunks to write/OFFSET, one answer of 204 each.
upload() {
    local offset status
    for ((offset = $3; offset < $4; offset += CHUNK)); do
        status=$(dd if="$1" bs=$CHUNK skip=$((offset / CHUNK)) count=1 status=none | gzip -1 |
            curl_ --header 'Content-Type: application/octet-stream' --header 'Content-Encoding: gzip' \
                --data-binary @- --write-out '%{http_code}' "$EHURI/drives/$2/write/$offset")
        [ "$status" = 204 ] || fail "write at $offset answered $status"
    done
}

# download DRIVE FROM [OPTION...]: as elastichosts-download.sh, GET of info, whose size it takes, then of
# read/OFFSET/LENGTH up to there.
download() {
    local drive=$1 offset=$2 size length
    shift 2
    size=$(curl_ "$EHURI/drives/$drive/info" | value size)
    for (( ; offset < size; offset += CHUNK)); do
        length=$((size - offset < CHUNK ? size - offset : CHUNK))
        curl_ "$@" "$EHURI/drives/$drive/read/$offset/$length" || return
    done
}

# Half of it does not compress, half is zeros, as images are.
{ head -c $((SIZE / 2)) /dev/urandom && head -c $((SIZE / 2)) /dev/zero; } >"$work/image"
sum=$(sha256sum <"$work/image")

drive=$(call_with "$(printf 'name curl\nsize %d\ntier disk\n' $SIZE)" drives create | value drive)
[ -n "$drive" ] || fail "create names its drive"
step "create"
call drives list | grep -qx "$drive" || fail "list has it"
[ "$(call drives "$drive" info | value size)" = $SIZE ] || fail "info has its size"
step "list and info by POST"

# The connection is cut within a chunk after half of the image: that chunk has not happened.
half=$((SIZE / 2 / CHUNK * CHUNK))
upload "$work/image" "$drive" 0 "$half"
head -c $CHUNK /dev/urandom >"$work/other"
if curl_ --limit-rate 256k --max-time 2 --header 'Content-Type: application/octet-stream' \
    --data-binary "@$work/other" "$EHURI/drives/$drive/write/$half" 2>"$work/cut"; then
    fail "an upload at 256 kB/s of 4 MiB is over in 2 s"
fi
[ "$(curl_ "$EHURI/drives/$drive/read/$half/$CHUNK" | tr -d '\0' | wc -c)" = 0 ] || fail "a cut chunk is not written"
step "a cut upload wrote nothing of the chunk it was at"

upload "$work/image" "$drive" "$half" $SIZE
step "the upload is resumed at offset $half"

# The download is cut too, and goes on where it broke off.
download "$drive" 0 2>"$work/cut" | head -c $((half + 1000)) >"$work/back" || true
[ "$(stat -c %s "$work/back")" = $((half + 1000)) ] || fail "a download breaks off where it is cut"
download "$drive" $((half + 1000)) >>"$work/back"
[ "$(sha256sum <"$work/back")" = "$sum" ] || fail "what came back is what was sent"
step "$SIZE bytes came back as they were sent"

[ "$(download "$drive" 0 --compressed --dump-header "$work/head" | sha256sum)" = "$sum" ] || fail "a packed download is the same"
grep -qi '^content-encoding: gzip' "$work/head" || fail "a download is packed for who takes gzip"
step "they came packed too"

call_json '{"name": "curl in JSON"}' drives "$drive" set | grep -q '"name":"curl in JSON"' || fail "set takes JSON"
call_json '' drives "$drive" info | grep -q "\"size\":$SIZE[,}]" || fail "info answers JSON"
step "set and info in JSON both ways"

server=$(call_with "$(printf 'name curl\ncpu 500\nmem 128\npersistent true\nide:0:0 %s\nboot ide:0:0' "$drive")" \
    servers create stopped | value server)
[ "$(call servers "$server" info | value status)" = stopped ] || fail "a server is made by lines of octet-stream"
step "a server is made and told about"
# Under a body-less action the old scripts post junk of an odd type.
curl_ --header 'Content-Type: header' --data-binary junk "$EHURI/servers/$server/destroy"
call drives "$drive" destroy
! call drives "$drive" info >"$work/gone" 2>&1 || fail "a destroyed drive is gone"
step "both are destroyed"
