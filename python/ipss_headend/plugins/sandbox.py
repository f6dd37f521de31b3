"""What a plugin's process may not do: start processes, signal others, look into them, open a connection, change a file.

A seccomp filter (seccomp(2)) that refuses the calls with EPERM; threads stay allowed. And a Landlock ruleset
(landlock(7)) that refuses every change of the file system with EACCES: the store, the configuration and the stop file
are files of its user's. Neither needs rights. Where the kernel or the machine's architecture has none, the process goes
on with what is there and says so.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import struct
import sys

PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, PR_SET_DUMPABLE = 1, 22, 38, 4
FILTER = 2
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
CLONE_THREAD = 0x00010000

# audit architecture; clone, clone3, and the calls that are refused outright
_MACHINES: dict[str, tuple[int, int, int, tuple[int, ...]]] = {
    # fork vfork execve execveat kill tkill ptrace process_vm_readv process_vm_writev pidfd_open pidfd_send_signal
    # socket connect setsid setpgid unshare setns bpf io_uring_setup
    # chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat, which Landlock lets through
    "x86_64": (0xC000003E, 56, 435, (
        57, 58, 59, 322, 62, 200, 101, 310, 311, 434, 424, 41, 42, 112, 109, 272, 308, 321, 425,
        90, 91, 268, 452, 92, 93, 94, 260,
    )),
    "aarch64": (0xC00000B7, 220, 435, (
        221, 281, 129, 130, 117, 270, 271, 434, 424, 198, 203, 157, 154, 97, 268, 280, 425,
        52, 53, 452, 55, 54,
    )),
}  # fmt: skip


def program(machine: str) -> bytes | None:
    """The filter of a machine, as the kernel takes it; None where there is none."""
    if machine not in _MACHINES:
        return None
    audit, clone, clone3, refused = _MACHINES[machine]
    load, equal, bits, give = 0x20, 0x15, 0x45, 0x06
    steps: list[tuple[int, int, int, int]] = [
        (load, 0, 0, 4),  # the architecture
        (equal, 1, 0, audit),
        (give, 0, 0, ERRNO | errno.EPERM),
        (load, 0, 0, 0),  # the call's number
        (equal, 0, 1, clone3),
        (give, 0, 0, ERRNO | errno.ENOSYS),  # whose flags a filter cannot see: the C library falls back to clone
        (equal, 0, 4, clone),
        (load, 0, 0, 16),  # its flags
        (bits, 1, 0, CLONE_THREAD),
        (give, 0, 0, ERRNO | errno.EPERM),
        (give, 0, 0, ALLOW),
    ]
    for number in refused:
        steps += [(equal, 0, 1, number), (give, 0, 0, ERRNO | errno.EPERM)]
    if machine == "x86_64":
        # The x32 calls have other numbers.
        steps += [(0x35, 0, 1, 0x40000000), (give, 0, 0, ERRNO | errno.EPERM)]
    steps.append((give, 0, 0, ALLOW))
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
VERSION, BENEATH = 1, 1
WRITE_FILE, TRUNCATE = 1 << 1, 1 << 14
CHANGES = ((1, WRITE_FILE | 0b1_1111_1111_0000), (2, 1 << 13), (3, TRUNCATE))
"""Landlock's version, and the rights that it knows: write, remove, make; link elsewhere; truncate."""


def change_nothing(library: ctypes.CDLL) -> bool:
    """Let this process change no file from now on, but write to /dev/null. Returns whether that holds.

    Memory files that it was handed stay writable. Needs no_new_privs.
    """
    version = library.syscall(CREATE_RULESET, None, 0, VERSION)
    if version < 1:
        return False
    rights = sum(known for since, known in CHANGES if version >= since)
    ruleset = library.syscall(CREATE_RULESET, ctypes.create_string_buffer(struct.pack("=Q", rights), 8), 8, 0)
    if ruleset < 0:
        return False
    try:
        nowhere = os.open(os.devnull, os.O_PATH | os.O_CLOEXEC)
        try:
            rule = struct.pack("=Qi", rights & (WRITE_FILE | TRUNCATE), nowhere)
            library.syscall(ADD_RULE, ruleset, BENEATH, ctypes.create_string_buffer(rule, len(rule)), 0)
        finally:
            os.close(nowhere)
        return bool(library.syscall(RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def enter() -> bool:
    """Give up the rights of this process, for ever. Returns whether the filter is on."""
    library = ctypes.CDLL(None, use_errno=True)
    library.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if library.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 or not change_nothing(library):
        sys.stderr.write(f"files are not kept from changes: {os.strerror(ctypes.get_errno())}\n")
    steps = program(platform.machine())
    if steps is None or library.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        sys.stderr.write("no filter of system calls on this machine\n")
        return False
    octets = ctypes.create_string_buffer(steps, len(steps))
    whole = struct.pack("@HP", len(steps) // 8, ctypes.addressof(octets))
    if library.prctl(PR_SET_SECCOMP, FILTER, ctypes.create_string_buffer(whole, len(whole)), 0, 0) != 0:
        sys.stderr.write(f"no filter of system calls: {os.strerror(ctypes.get_errno())}\n")
        return False
    return True
