/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The options of "lodge run", from which help, man page and completion are printed. An option
 * that is part of the grammar and has no device in this version is a row with OPT_REFUSED.
 */
#include "agent_port.h"
#include "guest_way.h"
#include "smbios.h"
#include "verb_run.h"

static const SubSpec kernel_subs[] = {
    {"file", "FILE", "bzImage, ELF, PVH or Multiboot kernel"},
    {"protocol", "auto|linux|bzimage|multiboot|pvh|elf",
     "how to enter it: linux unpacks it first, bzimage enters its own unpacker; auto looks at the "
     "file"},
    {"modules", "DIR",
     "where its modules are, for the initrd that Lodge makes: /lib/modules/VERSION"},
    {"cache", "on|off", "keep the unpacked kernel for the next run (on)"},
    {NULL},
};

const SubSpec run_disk_subs[] = {
    {"file", "FILE",
     "the image; or of a network block device nbd://HOST[:PORT]/EXPORT, or "
     "nbd+unix:///EXPORT?socket=PATH; through TLS nbds://HOST/EXPORT?tls-certificates=DIR (of "
     "ca-cert.pem, and of client-cert.pem and client-key.pem where the server asks), or nbds and "
     "nbds+unix with ?tls-psk-file=FILE, perhaps USER@; absolute paths"},
    {"base", "FILE", "make FILE as an overlay over this image where it is not there yet"},
    {"format", "FORMAT",
     "instead of looking at the image's first bytes: raw, umlcow, ...; of a new overlay (by the end "
     "of its name: .qcow2, .vhd, .vdi, .vmdk; else umlcow)"},
    {"base-format", "FORMAT", "of the base, where the image does not say it (raw)"},
    {"ro", NULL, "the guest may not write"},
    {"snapshot", "on|off", "writes go to a temporary overlay and are lost at the end"},
    {"cache", "writeback|none|unsafe", "none bypasses the host's cache, unsafe ignores flushes"},
    {"aio", "auto|io_uring|libaio|threads", "how the host does the input and output (auto)"},
    {"discard", "unmap|ignore", "what a discard does: free the room, or nothing (unmap)"},
    {"detect-zeroes", "on|off", "store no zeros that the guest writes (off)"},
    {"iops", "N", "requests a second at most"},
    {"bps", "SIZE", "bytes a second at most"},
    {"on-error", "report|ignore|stop",
     "when the host fails: let the guest see it, hide it, or pause until QMP cont (report)"},
    {"metadata-cache", "SIZE", "the image's tables kept in memory, up to 32M (1M)"},
    {"bus", "virtio|ide|none", "none: only a back end, for a --device that names it (disk0, ...)"},
    {NULL},
};

const SubSpec run_cdrom_subs[] = {
    {"file", "FILE", "the image; none: the drive is empty"},
    {NULL},
};

const SubSpec run_floppy_subs[] = {
    {"file", "FILE", "the image, of a size that floppies have; none: the drive is empty"},
    {"ro", NULL, "write-protected"},
    {NULL},
};

static const SubSpec boot_subs[] = {
    {"order", "LETTERS", "what to try: a floppy, c disk, d CD-ROM, n network"},
    {"menu", "on|off", "offer a menu (off)"},
    {"menu-timeout", "MS", "how long the menu waits for a key, 0 to 65535"},
    {NULL},
};

static const SubSpec display_subs[] = {
    {"kind", "none", "nobody looks"},
    {"vnc", "[ADDR]:N|unix:PATH|auto",
     "VNC viewers, at port 5900 + N of ADDR (127.0.0.1), a socket, or the first free port"},
    {"password-file", "FILE", "a password that viewers must know: its first line"},
    {NULL},
};

#define SMBIOS_SUB(id, name, help, preset) {name, "TEXT", help},
static const SubSpec smbios_subs[] = {SMBIOS_KEYS(SMBIOS_SUB){NULL}};

static const SubSpec memory_subs[] = {
    {"size", "SIZE", "guest memory, 1M to 1T"},
    {"huge", "on|thp|off", "on: only huge pages; thp: where the host has them at hand (thp)"},
    {"prefault", "on|off", "take all of it from the host at the start (off)"},
    {"shared", "on|off", "in a file descriptor that other processes can map (off)"},
    {NULL},
};

static const SubSpec cpus_subs[] = {
    {"count", "N", "1 to 255"},
    {"model", "host|NAME", "what CPUID says (host)"},
    {NULL},
};

static const SubSpec net_subs[] = {
    {"driver", "user|none|NAME", "the back end"},
    {"model", "virtio|ne2k_pci|ne2k_isa|pcnet", "the card (virtio)"},
    {NULL},
};

static const SubSpec gdb_subs[] = {
    {"at", "SPEC", "where: tcp:[ADDR:]PORT (ADDR is 127.0.0.1 unless said) or unix:PATH"},
    {"wait", "on|off", "the machine waits until a debugger lets it go on (off)"},
    {NULL},
};

static const SubSpec qmp_subs[] = {
    {"at", "SPEC", "stdio, unix:PATH, or tcp:[ADDR]:PORT (ADDR is 127.0.0.1 unless said)"},
    {"server", "on|off", "listen there; without it, somebody listens there and is connected to (off)"},
    {"wait", "on|off", "with server=on: the machine starts when the first client has come (on)"},
    {NULL},
};

static const SubSpec mconsole_subs[] = {
    {"path", "PATH", "the socket"},
    {"umid", "NAME", "instead of PATH: UML-DIR/NAME/mconsole, where UML's tools look by name"},
    {"uml-dir", "DIR", "the folder of umids (~/.uml)"},
    {"notify", "PATH", "a datagram socket that is told when this one is there, and of a panic"},
    {NULL},
};

static const SubSpec device_subs[] = {
    {"class", "CLASS", "a class that \"lodge devices\" lists"},
    {"id", "NAME", "its name in the description"},
    {NULL},
};

const OptSpec run_options_table[] = {
    {"kernel", 0, "FILE[,protocol=P][,modules=DIR][,cache=off]", "The kernel to boot.",
     kernel_subs},
    {"initrd", 0, "FILE",
     "An initial RAM disk; several are put one behind the other, and are a "
     "Multiboot kernel's modules. With a disk and no --initrd, Lodge makes one that holds the "
     "modules which the kernel needs to mount it.",
     NULL, OPT_REPEAT},
    {"append", 0, "TEXT",
     "The kernel's command line, as it stands. One case is completed: where "
     "a disk is given without --initrd, a TEXT that is not empty and has no root= gets "
     "root=/dev/vda and rw or ro. Without --append it is console=ttyS0, and with a disk "
     "root=/dev/vda rw."},
    {"disk", 0, "FILE[,base=FILE][,ro][,KEY=VALUE]...",
     "A disk: /dev/vda, /dev/vdb and so on. "
     "Other keys are properties of the device; see lodge devices.",
     run_disk_subs, OPT_REPEAT | OPT_OPEN},
    {"cdrom", 0, "FILE|none", "A CD-ROM drive with this image, on the IDE bus.", run_cdrom_subs,
     OPT_REPEAT | OPT_OPEN},
    {"floppy", 0, "FILE[,ro]|none", "A floppy drive with this image.", run_floppy_subs,
     OPT_REPEAT | OPT_OPEN},
    {"firmware", 0, "FILE",
     "Start as a PC does, from firmware (SeaBIOS), and let that find something to boot. So it is "
     "without --kernel.",
     NULL, OPT_MAYBE},
    {"boot", 0, "order=LETTERS[,menu=on][,menu-timeout=MS]", "What firmware tries, and in what order.",
     boot_subs},
    {"vga", 0, "std|none", "The graphics adapter (std with firmware or --display, else none)."},
    {"display", 0, "none|vnc=[ADDR]:N|vnc=unix:PATH|vnc=auto", "Who can look at the screen (none).",
     display_subs},
    {"memory", 'm', "SIZE[,huge=on|thp|off][,prefault=on][,shared=on]", "Guest memory (512M).",
     memory_subs},
    {"cpus", 0, "N[,model=host]", "Virtual CPUs (1).", cpus_subs},
    {"net", 0, "BACKEND[=VALUE][,KEY=VALUE]...|none",
     "A network card and what it is joined to (one on user); up to 16 times. Other keys are options "
     "of the back end, which lodge net lists, or properties of the device.",
     net_subs, OPT_REPEAT | OPT_OPEN},
    {"publish", 'p', "[ADDR:]HOST:GUEST[/udp]",
     "Forward a port of the host (at 127.0.0.1 unless "
     "ADDR says otherwise) to the guest, through the first user network.",
     NULL, OPT_REPEAT},
    {"console", 0, "stdio|pty|none|unix:P|file:P|tcp:H:P|tty:P",
     "Where the first serial port goes "
     "(stdio; none with --detach); given twice, the second one too.",
     NULL, OPT_REPEAT},
    {"channel", 0, "NAME=SPEC",
     "A virtio port NAME (/dev/virtio-ports/NAME), with SPEC as for "
     "--console.",
     NULL, OPT_REPEAT},
    {"agent", 0, "on|off",
     "A virtio port " AGENT_PORT_NAME ", through which lodge exec, cp and wait --agent reach the "
     "QEMU guest agent in the guest (on)."},
    {"gdb", 0, "tcp:[ADDR:]PORT|unix:PATH[,wait=on]",
     "Let GDB in (target remote); see lodge gdb. A TCP port has no password.", gdb_subs},
    {"qmp", 0, "unix:PATH|tcp:[ADDR]:PORT|stdio[,server=on][,wait=off]",
     "Speak QMP there too, as QEMU's option does; a machine has its own socket anyway, see lodge qmp. "
     "A TCP port has no password.",
     qmp_subs, OPT_REPEAT},
    {"mconsole", 0, "PATH|umid=NAME[,uml-dir=DIR][,notify=PATH]",
     "A management console as User-Mode Linux has it, for uml_mconsole.", mconsole_subs},
    {"rng", 0, "on|off", "A virtio entropy source (on)."},
    {"balloon", 0, "on|off",
     "A balloon by which the guest gives memory back to the host: what it frees, and what lodge set "
     "--memory takes (on)."},
    {"watchdog", 0, "reset|poweroff|shutdown|pause|none",
     "A watchdog (i6300esb), and what it does when the guest lets its time run out (reset).", NULL,
     OPT_MAYBE},
    {"on-panic", 0, "poweroff|reset|pause|none",
     "What is done when the guest's kernel dies (poweroff, with status 255)."},
    {"device", 0, "CLASS[,KEY=VALUE]...", "Any other device that lodge devices lists.", device_subs,
     OPT_REPEAT | OPT_OPEN},
    {"rtc", 0, "utc|localtime|EPOCH",
     "What the clock chip shows at the start (utc); EPOCH in "
     "seconds."},
    {"uuid", 0, "UUID", "The machine's identity."},
    {"smbios", 0, "KEY=TEXT[,KEY=TEXT]...", "What firmware tells of the machine's make.", smbios_subs,
     OPT_REPEAT},
    {"debug-exit", 0, NULL,
     "A write of V to port 0xf4 ends the machine with status (V << 1 | 1) "
     "& 0xff; Lodge's own failures are then status 125."},
    {"no-reboot", 0, NULL, "A reset by the guest ends the machine."},
    {"ephemeral", 0, NULL,
     "Leave nothing: what is written to disks is lost at the end, and there is no definition and no "
     "log.",
     NULL, OPT_RUN},
    {"timeout", 0, "SECONDS", "End the machine after this long, with status 124.", NULL, OPT_RUN},
    {"detach", 'd', NULL, "Run on in the background once the guest runs.", NULL, OPT_RUN},
    {"wait", 0, "log:REGEX",
     "With --detach: come back when a line of the console matches (log:login: *$); status 7 if it "
     "ends before.",
     NULL, OPT_RUN | OPT_MAYBE},
    OPT_VIA(OPT_RUN),
    {"user", 0, "USER", "With a command: run it as this user (root); by the console, log in as this "
     "user.", NULL, OPT_RUN},
    OPT_PASSWORD_FILE(OPT_RUN),
    {"dry-run", 0, NULL, "Print the machine as device-tree source, start nothing.", NULL, OPT_RUN},
    {"verbose", 'v', NULL, "Say more.", NULL, OPT_RUN},
    {"quiet", 'q', NULL, "Say only what is wrong.", NULL, OPT_RUN},
    {"trace", 0, "boot", "Print when each step of the start was done.", NULL, OPT_RUN},
    {"share", 0, "DIR", "", NULL, OPT_REFUSED},
    {"host", 0, NULL, "", NULL, OPT_REFUSED},
    {NULL},
};
