# SPDX-License-Identifier: GPL-2.0-or-later
"""Stock GDB where the CPU itself stops the guest: INT3, watchpoints, two vCPUs."""
import re

import pytest
from gdb_session import Debuggee, gdb_or_skip

pytestmark = pytest.mark.usefixtures("nothing_left")


def number(text):
    return int(re.search(r"= (?:\(.*\) )?(0x[0-9a-f]+|\d+)", text)[1], 0)


def test_breakpoints_watchpoints_steps(lodge, guests):
    gdb_or_skip()
    box = Debuggee(lodge, guests)
    out = box.gdb("break bump", "continue", "bt 2", "x/1xb &bump", "p counter", "finish", "p counter", "stepi", "stepi", "delete",
                  "watch marked", "continue", "p marked == counter", "continue", "delete",
                  "awatch others", "continue", "p $_thread", "info threads", "delete",
                  "thread 1", "info registers rip cs", "thread 2", "info registers rip cs", "p $rdi",
                  "break mark", "hbreak bump", "continue", "continue", "info breakpoints", "delete", "next", "detach")
    assert "hit Breakpoint 1, bump (by=" in out[1] and "guest_main" in out[2]
    assert not out[3].rstrip().endswith("0xcc")
    assert number(out[6]) == number(out[4]) + 2
    assert "hit Hardware watchpoint 2: marked" in out[11] and number(out[12]) == 1
    assert "hit Hardware watchpoint 2: marked" in out[13]
    assert "Thread 2 hit Hardware access (read/write) watchpoint 3: others" in out[16] and number(out[17]) == 2
    assert all(re.search(r"rip +0x1[0-9a-f]{5} ", out[i]) and re.search(r"cs +0x18 ", out[i]) for i in (21, 23)) and number(out[24]) == 1
    assert all(re.search(r"hit Breakpoint [45], (mark|bump)", out[i]) for i in (27, 28)) and "already hit" in out[29]
    box.quit()


def test_every_step(lodge, guests):
    """A hundred steps in a row, each one instruction on, and what runs beside them."""
    gdb_or_skip()
    box = Debuggee(lodge, guests)
    out = box.gdb("p others", "break bump", "continue", "delete", "stepi 100", "p others", "set scheduler-locking on", "p others", "stepi 20", "p others", "detach")
    assert number(out[5]) > number(out[0]) and number(out[7]) == number(out[9])
    box.quit()
