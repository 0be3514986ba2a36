# SPDX-License-Identifier: GPL-2.0-or-later
"""What the checks of this folder answer: TAP."""


def tell(results):
    """Print @results, pairs of whether it is so and what is; the status to end with."""
    print(f"1..{len(results)}")
    for i, (ok, what) in enumerate(results, 1):
        print(f"{'ok' if ok else 'not ok'} {i} - {what}")
    return 0 if all(ok for ok, _ in results) else 1
