/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Every verb of the command line; help, man pages and completion are printed from here. */
#include <string.h>

#include "cli.h"
#include "verb_run.h"

const OptSpec no_options_table[] = {{NULL}};
const OptSpec json_options_table[] = {OPT_JSON, {NULL}};

static const VerbExample run_examples[] = {
    {"lodge run --kernel /boot/vmlinuz-6.1.0-18-amd64 --disk root.img",
     "Boot a distribution's kernel from a disk; its modules come from /lib/modules."},
    {"lodge run web --kernel vmlinuz --disk web.cow,base=debian.img --memory 1G --cpus 2 -p "
     "8080:80",
     "A machine named web on a copy-on-write disk, its web server at 127.0.0.1:8080."},
    {"lodge run --kernel vmlinuz --initrd test.cpio --append 'console=ttyS0 quiet' --net none",
     "Only a kernel and an initial RAM disk."},
    {"lodge run --kernel test.elf --debug-exit --timeout 10",
     "A bare-metal test program; its status is Lodge's."},
    {NULL},
};

static const VerbExample screen_examples[] = {
    {"lodge screen web", "The text screen of machine web."},
    {"lodge screen web --png - | display", "A picture of it, seen at once."},
    {NULL},
};

static const VerbExample type_examples[] = {
    {"lodge type web --enter root", "Log in as root."},
    {"lodge type web --keys ctrl-alt-delete", "The three-finger salute."},
    {"lodge type web --keys esc --keys down --keys ret", "Three keys, one after the other."},
    {NULL},
};

static const VerbExample view_examples[] = {
    {"lodge view web", "An address for a browser on this host; Ctrl-C ends it."},
    {"lodge view web --port 6080",
     "On a port of one's choice, for instance one that ssh -L carries here from elsewhere."},
    {NULL},
};

static const VerbExample disk_examples[] = {
    {"lodge disk web", "The disks of machine web, each with its chain of images."},
    {"lodge disk web overlay disk0 /vm/web-today.qcow2",
     "From now on the guest writes there; what was is kept as it is in the images below, which may "
     "be copied."},
    {"lodge disk web commit disk0", "And back again, with what the guest wrote meanwhile."},
    {"lodge disk web resize disk0 20G", "A virtio disk: the guest sees it at once."},
    {NULL},
};

const Verb verb_table[] = {
    {"run", "[NAME] [OPTION]...", "start a virtual machine",
     "Builds a machine and runs it in this process. NAME is 1 to 63 letters, digits, dots, dashes "
     "and underscores; without one the machine is vm-PID, with the number of its process.\n\n"
     "With --kernel FILE it starts that; without, firmware (SeaBIOS) looks for something to boot on "
     "the drives and the network, with a screen that lodge screen shows.\n\n"
     "What else is there unless said otherwise: 512 MiB, one CPU, the terminal as serial console, a network card on "
     "the user network, an entropy source. A distribution's kernel and a root disk are enough for "
     "a "
     "system: Lodge makes the initial RAM disk that mounts it.\n\n"
     "On a terminal, all keys go to the guest, Ctrl-C too. Ctrl-] then q ends the machine, Ctrl-] "
     "then ? lists what else there is. Without a terminal, SIGINT and SIGTERM press the guest's "
     "power button; a second one ends the machine at once.\n\n"
     "Sub-options stand behind commas as KEY=VALUE; a comma that belongs to a value is doubled. "
     "Sizes take K, M, G and T, powers of 1024.",
     run_options_table, run_examples, NULL, verb_run},
    {"doctor", "[--json]", "see whether this host can run machines, and what to do if not",
     "Looks at what Lodge needs of the host, one line a check: ok, warning (something works less "
     "well or not at all) or fail (machines cannot run), with what to do about it. The check named "
     "assist measures code in a throw-away machine of its own, for less than half a second.\n\n"
     "The status is 0, or 1 when a check failed.",
     doctor_options_table, NULL, NULL, verb_doctor},
    {"screen", "[--png FILE] [--json] NAME", "show the screen of a running machine",
     "Prints the text that is on the screen of machine NAME, without the blanks at the ends of "
     "lines. In a graphics mode there is no text: take a picture with --png.",
     screen_options_table, screen_examples, NULL, verb_screen},
    {"type", "[OPTION]... NAME [TEXT]...", "type on the keyboard of a running machine",
     "Presses the keys of a US keyboard that type TEXT, at a pace that a guest can follow, and "
     "returns when they are typed. Several words are typed with a blank between them. In TEXT, \\n "
     "is Enter, \\t is Tab and \\\\ is a backslash; there is no Enter at the end unless --enter is "
     "given. A character that is not on the keyboard is an error, and nothing is typed.\n\n"
     "Ctrl-C stops the typing.",
     type_options_table, type_examples, NULL, verb_type},
    {"view", "[--port N] [--address ADDR] [--json] NAME",
     "serve the screen of a running machine to browsers",
     "Prints the address at which a browser on this host finds the screen, keyboard and mouse of "
     "machine NAME, and serves it until Ctrl-C or the machine's end. The page is noVNC's, from the "
     "distribution's package novnc. The machine needs no --display for it.\n\n"
     "An address is good once: it carries a token that nobody can guess, and the first who opens it "
     "is shown the screen. Then another address is printed, for the next viewer or for the same one "
     "after the page was loaded anew.\n\n"
     "It listens on the loopback interface. With --address, others can reach it, and what they see "
     "and type is not encrypted: better let ssh -L carry the port.",
     view_options_table, view_examples, NULL, verb_view},
    {.name = "image", .synopsis = "VERB [OPTION]... FILE...",
     .help = "make, convert, check and change disk images",
     .text = "Works on images that no machine has open for writing; who has one is named. Formats "
     "are known by their first bytes, or said by --format. The format of a base is never guessed: "
     "what is not raw is recorded in the overlay, or said by --base-format.\n\n"
     "A new image gets its name when it is whole: what fails or is interrupted leaves nothing. On "
     "a terminal, a bar shows how far it is.\n\n"
     "Sizes take K, M, G and T, powers of 1024.",
     .opts = no_options_table, .verbs = image_verbs},
    {"disk", "[OPTION]... NAME [list|overlay DISK FILE|commit DISK|resize DISK SIZE]",
     "see and change the disks of a running machine",
     "Without an action, or with list: the disks of machine NAME, each with the image that it writes "
     "to and those below it. DISK is the name of a device or disk as that shows it.\n\n"
     "overlay puts a new image FILE on top of a disk while the guest runs; the image that was there "
     "becomes its base and is written no more. If anything fails, all is as before. At the next "
     "start, name FILE as the disk.\n\n"
     "commit merges the image on top into the one below it while the guest runs, then the disk goes "
     "on with that, and the merged image is empty. A bar shows how far it is; Ctrl-C gives up and "
     "leaves all as it was. A base that other machines use is not written. Should the host or the "
     "machine die in between, the overlay is still the disk, with all that the guest had flushed. "
     "A UML COW file is put right as to its base's time: User-Mode Linux takes it again, but after a "
     "crash in the middle only when Lodge has opened it once.\n\n"
     "resize gives a disk another size; a guest on a virtio disk is told, others see it at their next "
     "start.",
     disk_options_table, disk_examples, NULL, verb_disk},
    {"devices", "[--json] [CLASS|NAME]", "list device classes, or the devices of a machine",
     "Those on bus pci or isa can be added by lodge run --device; the others stand on the board. "
     "With CLASS, only that one. With the NAME of a running machine, its devices: class, bus, "
     "address, and the values of the properties.",
     json_options_table, NULL, NULL, verb_devices},
    {"version", "[--json]", "print the version and what libraries are there",
     "A library that is loaded at first use may be missing; then what it is for does not work, and "
     "says so.",
     json_options_table, NULL, NULL, verb_version},
    {"completion", "bash", "print a completion script",
     "For bash: put eval \"$(lodge completion bash)\" into ~/.bashrc, or the script itself into "
     "/etc/bash_completion.d.",
     no_options_table, NULL, NULL, verb_completion},
    {"help", "[VERB [VERB]]", "print help",
     "The same as lodge VERB --help. With --man, prints the source of the man page for scdoc.",
     help_options_table, NULL, NULL, verb_help},
    {NULL},
};

static const Verb *rows_of(const Verb *family)
{
    return family ? family->verbs : verb_table;
}

const char *verb_word(const Verb *v)
{
    const char *blank = strrchr(v->name, ' ');

    return blank ? blank + 1 : v->name;
}

const Verb *verb_find(const Verb *family, const char *name)
{
    for (const Verb *v = rows_of(family); v->name; v++) {
        if (!strcmp(verb_word(v), name))
            return v;
    }
    return NULL;
}

static const char *verb_next(const void *opaque, unsigned i)
{
    const Verb *v = opaque;

    return v[i].name ? verb_word(&v[i]) : NULL;
}

const char *verb_nearest(const Verb *family, const char *name)
{
    return name_nearest(name, verb_next, rows_of(family));
}
