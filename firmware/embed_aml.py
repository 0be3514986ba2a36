#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Compile an ASL source with iasl and write the AML as a C array.

usage: embed_aml.py IASL SOURCE.asl OUTPUT.h NAME
"""
import os
import subprocess
import sys
import tempfile


def main():
    iasl, source, output, name = sys.argv[1:5]
    with tempfile.TemporaryDirectory() as tmp:
        stem = os.path.join(tmp, "table")
        # Warnings stop the build: a table that iasl doubts is not shipped.
        run = subprocess.run([iasl, "-we", "-vs", "-p", stem, source], text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if run.returncode or not os.path.exists(stem + ".aml"):
            sys.stderr.write(run.stdout)
            return 1
        with open(stem + ".aml", "rb") as f:
            aml = f.read()
    with open(output, "w", encoding="ascii") as f:
        f.write(f"/* AML of {os.path.basename(source)}. */\n#include <stdint.h>\n")
        f.write(f"static const uint8_t {name}[{len(aml)}] = {{\n")
        for i in range(0, len(aml), 12):
            f.write("    " + " ".join(f"0x{b:02x}," for b in aml[i:i + 12]) + "\n")
        f.write("};\n")
    return 0


sys.exit(main())
