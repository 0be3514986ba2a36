# SPDX-License-Identifier: GPL-2.0-or-later
"""memtest86+ from a CD-ROM: it has a machine for longer than any other test, half of that asleep."""
import time

from pc_screen import Machine, guest

GUESTS = ("memtest",)
PASS_SECONDS = 900  # a pass takes four to five minutes in the emulated machine, two of them asleep
PASS_ERRORS = r"Pass: +([0-9]+) +Errors: +([0-9]+)"


def test_memtest(lodge, nothing_left):
    """One pass over 64 MiB, without an error."""
    m, deadline = Machine(lodge, "--firmware", "--cdrom", guest("memtest")), time.monotonic() + PASS_SECONDS
    while True:
        seen = m.wait(PASS_ERRORS, max(1, deadline - time.monotonic()))
        assert seen[2] == "0", m.screen()
        if seen[1] != "0":
            break
        assert time.monotonic() < deadline, m.screen()
        time.sleep(1)
    assert "64MB" in m.screen()
    m.end()
