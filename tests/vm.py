"""Resource limits on a kernel of its own: control groups of version 2 with every controller.

    apt-get install qemu-system-x86 busybox-static
    apt-get download linux-image-cloud-amd64      # and dpkg -x the image it names
    python3 tests/vm.py target/release/qworker boot/vmlinuz-…

Boots the kernel under qemu, without a disk: busybox, qworker and the libraries that it needs. What
is checked there is said line by line; ends with 1 if anything fails. Many machines that run
tests have control groups of version 1, or may not use those of version 2; here they are always ours.
"""

import gzip
import os
import re
import subprocess
import sys
import tempfile

TASKS = r"""
hog: {shell: 'x=$(head -c 150000000 /dev/zero | tr "\0" x); echo ${#x}', memory: 40M}
family: {shell: '(x=$(head -c 150000000 /dev/zero | tr "\0" x); echo ${#x}); echo survived', memory: 40M}
small: {exec: [true], memory: 40M}
free: {exec: [true]}
forks: {shell: 'for i in 1 2 3 4 5 6 7 8; do sleep 3 & done 2>&1; echo all', processes: 4, ok: [0, 1, 2]}
bounds: {shell: 'cd /sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup); cat memory.max memory.swap.max memory.oom.group pids.max', memory: 40M, processes: 9}
"""

INIT = r"""#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp
mount -t cgroup2 none /sys/fs/cgroup
export PATH=/bin HOME=/
cd /app
G=/sys/fs/cgroup
check() { # NAME TEXT PATTERN
  if echo "$2" | grep -q -- "$3"; then echo "CHECK ok: $1"; else echo "CHECK FAILED: $1: no $3 in: $2"; fi
}
start() { # in the control group $1, if any; then arguments of the worker
  group=$1; shift
  sh -c 'if [ -n "$0" ]; then echo $$ >"$0/cgroup.procs"; fi; exec qworker worker "$@"' "$group" "$@" >/tmp/banner 2>/tmp/log &
  worker=$!
  n=0; until grep -q ' ready\.' /tmp/log; do sleep 0.1; n=$((n+1)); [ $n -gt 300 ] && break; done
}
stop() { kill -TERM $worker; wait $worker; }
left() { find $G -name 'qworker-*' | wc -l; }

echo "task_max_deliveries: 1
result_extended: true" >qworker.yaml
for place in "" $G/plain $G/delegated; do
  if [ -n "$place" ]; then mkdir $place; fi
  if [ "$place" = $G/delegated ]; then setfattr -n user.delegate -v 1 $place; fi
  start "$place" -l INFO -c 2
  echo "--- in ${place:-the root}"
  out=$(qworker call bounds --wait)
  check "limits memory and processes" "$(cat /tmp/log)" 'which limit memory and processes'
  check "bounds" "$(echo $out)" '^41943040 0 1 9$'
  out=$(qworker call hog --wait 2>&1)
  check "out of memory is told" "$out" 'signal 9 (SIGKILL); out of memory: it reached its limit of 40.0 MiB; peak memory 40.0 MiB'
  check "and in the list of the dead" "$(qworker dead list)" 'out of memory'
  check "and in the log" "$(cat /tmp/log)" 'lost for good: .*out of memory'
  out=$(qworker call family --wait 2>&1)
  check "a child that takes too much ends the whole task" "$out" 'out of memory: it reached its limit'
  out=$(qworker call small --wait --json)
  check "the peak of a small task is known" "$out" '"memory_peak": *[1-9]'
  out=$(qworker call free --wait --json)
  check "a task without limits is no member" "$out" '"memory_peak": *null'
  out=$(qworker call forks --wait 2>&1)
  check "processes are counted together" "$out" "can't fork"
  stop
  check "nothing is left" "$(left)" '^0$'
done
check "guard and worker stood aside" "$(ls $G/plain $G/delegated | grep -c qworker.self)" '^2$'

echo "--- quotas"
mkdir -p $G/half/inner
echo "+cpu +memory" >$G/cgroup.subtree_control
echo "100000 100000" >$G/half/cpu.max
start $G/half/inner; stop
check "the default of -c is the quota around" "$(cat /tmp/banner)" 'concurrency: 1$'
start ""; stop
check "without it, the processors" "$(cat /tmp/banner)" "concurrency: $(nproc)$"
start $G/half/inner -c auto; stop
check "-c auto is the same" "$(cat /tmp/banner)" 'concurrency: 1$'

echo "--- a host that is short"
echo 100M >$G/half/memory.max
echo "worker_min_free_memory: 99M" >qworker.yaml
start $G/half/inner
check "the limit of a group around is a room" "$(cat /tmp/log)" 'takes no new tasks: .* MiB of memory are free in the control group, below'
echo 400M >$G/half/memory.max
n=0; until grep -q 'takes tasks again' /tmp/log; do sleep 0.2; n=$((n+1)); [ $n -gt 100 ] && break; done
check "and over it is when there is more" "$(cat /tmp/log)" 'takes tasks again'
qworker call free --wait
stop
echo "CHECK end"
poweroff -f
"""


def archive(files):
    """A cpio archive, `newc`, of (name, mode, bytes)."""
    out = bytearray()
    for number, (name, mode, data) in enumerate([*files, ("TRAILER!!!", 0, b"")], 1):
        name = name.encode() + b"\0"
        fields = [number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0]
        out += b"070701" + b"".join(b"%08x" % field for field in fields) + name
        out += b"\0" * (-len(out) % 4) + data
        out += b"\0" * (-len(out) % 4)
    return bytes(out)


def image(qworker):
    """The whole root file system."""
    files = {"init": (0o100755, INIT.encode()), "app/tasks.d/t.yaml": (0o100644, TASKS.encode())}

    def put(name, path):
        with open(path, "rb") as file:
            files[name] = (0o100755, file.read())

    put("bin/busybox", "/bin/busybox")
    put("bin/qworker", qworker)
    for path in re.findall(r"/[^ ]+", subprocess.run(["ldd", qworker], capture_output=True, text=True).stdout):
        put(path.lstrip("/"), path)
    for name in subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True).stdout.split():
        files.setdefault(f"bin/{name}", (0o120777, b"busybox"))
    folders = {"proc", "sys", "dev", "tmp", "app/var"}
    for name in [*files, *folders]:
        while name := os.path.dirname(name):
            folders.add(name)
    entries = [(name, 0o040755, b"") for name in sorted(folders, key=len)]
    return gzip.compress(archive(entries + [(name, *file) for name, file in files.items()]), 1)


def main():
    qworker, kernel = sys.argv[1:]
    with tempfile.NamedTemporaryFile() as root:
        root.write(image(qworker))
        root.flush()
        command = (
            ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "1024", "-nic", "none"]
            + ["-nographic", "-no-reboot", "-kernel", kernel, "-initrd", root.name]
            + ["-append", "console=ttyS0 quiet panic=-1 mitigations=off nokaslr"]
        )
        said = subprocess.run(command, stdout=subprocess.PIPE, text=True, errors="replace", timeout=600)
    lines = [line.strip() for line in said.stdout.splitlines()]
    print("\n".join(line for line in lines if line.startswith(("CHECK", "---")) or "FAILED" in line))
    if "CHECK end" not in lines or any("CHECK FAILED" in line for line in lines):
        sys.exit(said.stdout)


if __name__ == "__main__":
    main()
