"""Which files a process may touch from now on: Linux's Landlock, which takes no privilege to use."""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # system calls, the same on every architecture
VERSION = 1  # flag: tell the version instead
BENEATH = 1  # the kind of rule
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
EVERYTHING = (1 << 13) - 1  # what the first version can forbid: the rest is making and removing files
READING = READ_FILE | READ_DIR
OF_A_FILE = EXECUTE | WRITE_FILE | READ_FILE


def only(reads: Iterable[Path], writes: Iterable[Path]) -> bool:
    """Read what is at or under `reads`, do anything at or under `writes`, and touch nothing else from now on;
    what is open stays open. False, and nothing changes, where the kernel has no Landlock. The process must
    have set `no_new_privs`, and be of one thread."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(CREATE_RULESET, None, 0, VERSION) < 1:
        return False
    handled = ctypes.create_string_buffer(struct.pack("=Q", EVERYTHING), 8)
    ruleset = libc.syscall(CREATE_RULESET, handled, 8, 0)
    for paths, rights in ((reads, READING), (writes, EVERYTHING)):
        for path in paths:
            allow(libc, ruleset, path, rights)
    restricted: bool = libc.syscall(RESTRICT_SELF, ruleset, 0) == 0
    os.close(ruleset)
    return restricted


def allow(libc: ctypes.CDLL, ruleset: int, path: Path, rights: int) -> None:
    """A path that is not there needs no rule."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
        rights &= OF_A_FILE
    libc.syscall(ADD_RULE, ruleset, BENEATH, struct.pack("=Qi", rights, descriptor), 0)
    os.close(descriptor)
