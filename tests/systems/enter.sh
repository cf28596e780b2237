#!/bin/sh
# enter.sh ROOT WORK PATH... -- COMMAND...: run COMMAND with ROOT for its root, in WORK, which is /srv/spawnx there.
#
# Called as the first process of a PID namespace and a mount namespace: the kernel ends what is left in them, processes
# and mounts, however this ends. Each PATH of this system is there too, under the same name, and can't be written.
set -eu

# place SOURCE TARGET: bind a file or a folder, for which a place is made.
place() {
    if [ -d "$1" ]; then mkdir -p "$2"; else mkdir -p "$(dirname "$2")" && touch "$2"; fi
    mount --bind "$1" "$2"
}

root=$1 work=$2
shift 2
# pivot_root wants a mount point; so do tests that have mount namespaces of their own.
mount --bind "$root" "$root"
cd "$root"
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
# Not this system's: the tests count what is in it.
mount -t tmpfs -o mode=1777 tmpfs dev/shm
place "$work" srv/spawnx
while [ "$1" != -- ]; do
    place "$1" ".$1"
    mount -o remount,bind,ro ".$1"
    shift
done
shift
# Not chroot: a process in one may not make user namespaces. The old root comes to lie over the new one.
pivot_root . .
umount --lazy .
cd /srv/spawnx
set +e
# Not exec: the first process is to be this shell, which reaps orphans while it waits, and not the command, which doesn't.
# The signals: a command in the background of a script ignores them, and so would each rank.
env --default-signal=INT,QUIT "$@"
exit $?
