# SPDX-License-Identifier: GPL-2.0-or-later
"""Print a C array of a file's bytes: embed.py FILE NAME OUTPUT."""
import sys

source, name, target = sys.argv[1:]
with open(source, "rb") as f:
    data = f.read()
with open(target, "w") as out:
    out.write("/* SPDX-License-Identifier: GPL-2.0-or-later */\n")
    out.write(f'#include "{name}.h"\n')
    out.write(f"const unsigned char {name}[] = {{\n")
    for at in range(0, len(data), 16):
        out.write("    " + " ".join(f"0x{b:02x}," for b in data[at:at + 16]) + "\n")
    out.write(f"}};\nconst unsigned {name}_len = sizeof {name};\n")
