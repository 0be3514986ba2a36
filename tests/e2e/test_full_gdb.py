# SPDX-License-Identifier: GPL-2.0-or-later
"""Stock GDB where the CPU itself stops the guest: steps, INT3, watchpoints, two vCPUs."""
import os
import re

import pytest
from gdb_session import Debuggee, gdb_or_skip

pytestmark = pytest.mark.usefixtures("nothing_left")


def on_a_real_cpu(test):
    """QEMU's emulation of SVM stops a guest neither at INT3 (which it checks against the intercepts of software
    interrupts) nor by its debug registers (VMRUN loads DR7 without arming it): no tests of that there."""
    return None if os.environ.get("LODGE_TEST_EMULATED") else test


def number(text):
    return int(re.search(r"= (?:\(.*\) )?(0x[0-9a-f]+|\d+)", text)[1], 0)


def test_steps(lodge, guests):
    """With the other vCPU running and standing; registers of both; what was changed stays."""
    gdb_or_skip()
    box = Debuggee(lodge, guests)
    out = box.gdb("p others", "stepi 20", "p others", "set scheduler-locking on", "p others", "stepi 20", "p others", "set scheduler-locking off",
                  "thread 1", "info registers rip cs", "thread 2", "info registers rip cs", "p $rdi", "set var marked = 77", "thread 1", "p marked", "detach")
    assert number(out[2]) >= number(out[0]) and number(out[4]) == number(out[6])
    assert all(re.search(r"rip +0x1[0-9a-f]{5} ", out[i]) and re.search(r"cs +0x18 ", out[i]) for i in (9, 11))
    assert number(out[12]) == 1 and number(out[15]) == 77
    box.quit()


@on_a_real_cpu
def test_breakpoints(lodge, guests):
    """In memory: they do not show, and nothing of them stays."""
    gdb_or_skip()
    box = Debuggee(lodge, guests)
    out = box.gdb("break bump", "continue", "bt 2", "x/1xb &bump", "p counter", "finish", "p counter", "delete", "break mark", "continue", "next", "p marked == counter", "delete", "detach")
    assert "hit Breakpoint 1, bump (by=" in out[1] and "guest_main" in out[2]
    assert "\t0x" in out[3] and not out[3].rstrip().endswith("0xcc")
    assert number(out[6]) == number(out[4]) + 2
    assert "hit Breakpoint 2, mark ()" in out[9] and number(out[11]) == 1
    box.quit()


@on_a_real_cpu
def test_watchpoints(lodge, guests):
    gdb_or_skip()
    box = Debuggee(lodge, guests)
    out = box.gdb("watch marked", "continue", "p marked == counter", "continue", "delete", "awatch others", "continue", "p $_thread", "delete",
                  "break mark", "hbreak bump", "continue", "continue", "delete", "detach")
    assert "hit Hardware watchpoint 1: marked" in out[1] and number(out[2]) == 1
    assert "hit Hardware watchpoint 1: marked" in out[3]
    assert "Thread 2 hit Hardware access (read/write) watchpoint 2: others" in out[6] and number(out[7]) == 2
    assert all(re.search(r"hit Breakpoint [34], (mark|bump)", out[i]) for i in (11, 12))
    box.quit()
