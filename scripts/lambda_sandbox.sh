#!/usr/bin/env bash
# Run Python as AWS Lambda would: everything read-only but an empty /tmp of 512 MB, no /dev/shm (so no semaphores between
# processes), no /sys, no home folder and no user name, no network, one processor.
#
#   scripts/lambda_sandbox.sh TASK [--layer FOLDER] PYTHON-ARGUMENTS...
#
# TASK is what the function's zip holds (/var/task), FOLDER what a layer's zip holds (/opt). Needs no root: it makes the
# sandbox of Linux namespaces. Exit status 77 where the machine does not allow that.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

if [ "${1:-}" = inside ]; then # in namespaces of our own, where we may mount
    shift
    root=$1 prefix=$2 task=$3 layer=$4
    shift 4
    mount -t tmpfs -o mode=755 tmpfs "$root"
    show() { # show FOLDER [AS]: read-only; the flags that it has already may not be dropped
        mkdir -p "$root${2:-$1}"
        mount --rbind "$1" "$root${2:-$1}"
        mount -o "remount,bind,ro,$(findmnt -no VFS-OPTIONS -T "$1" | sed -E 's/(^|,)rw(,|$)/\1\2/; s/^,+|,+$//g')" "$root${2:-$1}"
    }
    for folder in /usr /bin /sbin /lib /lib32 /lib64 /libx32; do
        if [ -L "$folder" ]; then cp -P "$folder" "$root$folder"; elif [ -d "$folder" ]; then show "$folder"; fi
    done
    case "$prefix" in /usr | /usr/*) ;; *) show "$prefix" ;; esac
    show "$task" /var/task
    [ -z "$layer" ] || show "$layer" /opt
    mkdir -p "$root"/{etc,proc,dev,tmp,old}
    cp /etc/ld.so.cache "$root/etc/"
    mount --rbind /proc "$root/proc"
    for device in null zero full random urandom; do
        touch "$root/dev/$device"
        mount --bind "/dev/$device" "$root/dev/$device"
    done
    mount -t tmpfs -o size=512m,mode=1777 tmpfs "$root/tmp"
    cd "$root"
    pivot_root . old
    umount -l /old && rmdir /old
    mount -o remount,ro,bind /
    cd /var/task
    exec env -i PATH=/usr/bin:/bin LANG=C.UTF-8 LD_LIBRARY_PATH="$prefix/lib" AWS_LAMBDA_FUNCTION_MEMORY_SIZE=1769 \
        LAMBDA_TASK_ROOT=/var/task PYTHONPATH=/var/task:/opt/python PYTHONDONTWRITEBYTECODE=1 \
        unshare --user --map-user=1051 --map-group=1051 taskset -c "$(taskset -cp $$ | grep -oE '[0-9]+' | tail -1)" "$prefix/bin/python3" "$@"
fi

task=$(readlink -f "$1") layer=
shift
if [ "${1:-}" = --layer ]; then
    layer=$(readlink -f "$2")
    shift 2
fi
if ! reason=$(unshare --user --map-root-user --mount --net --ipc mount -t tmpfs tmpfs /mnt 2>&1); then
    echo "lambda_sandbox: this machine does not let this user make namespaces: $reason" >&2
    exit 77
fi
root=$(mktemp -d)
trap 'rmdir "$root"' EXIT
prefix=$(python3 -c 'import sys; print(sys.base_prefix)')
unshare --user --map-root-user --mount --net --ipc bash "$0" inside "$root" "$prefix" "$task" "$layer" "$@"
