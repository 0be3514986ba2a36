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

static const VerbExample list_examples[] = {
    {"lodge list", "All of them, those that do not run too."},
    {"lodge list -q", "For scripts: names alone."},
    {NULL},
};

static const VerbExample stop_examples[] = {
    {"lodge stop web db", "Both at the same time."},
    {"lodge stop --all --timeout 10", "All that run, and hastily."},
    {NULL},
};

static const VerbExample exec_examples[] = {
    {"lodge exec web -- uname -r", "Print the release of the kernel in the machine web."},
    {"lodge exec --via console --password-file pw web -- dmesg",
     "Log in on its console for that, as root with the password in pw."},
    {"lodge exec -u www-data -w /srv web -- sh -c 'cat > notes' < notes",
     "Copy standard input to a file there, as another user."},
    {NULL},
};
static const VerbExample cp_examples[] = {
    {"lodge cp site.tar web:/srv/", "Copy a file into the machine web."},
    {"lodge cp -r web:/var/log .", "Copy a folder out of it."},
    {NULL},
};
static const VerbExample ssh_examples[] = {
    {"lodge ssh web -l root", "Log in as root."},
    {"lodge ssh web uptime", "Run a command there."},
    {NULL},
};
static const VerbExample ssh_config_examples[] = {
    {"lodge ssh-config web >> ~/.ssh/config", "Have scp and rsync know it, too."},
    {NULL},
};
static const VerbExample wait_examples[] = {
    {"lodge wait web --log 'login:' --timeout 60", "Until it asks for a name."},
    {"lodge run web -d && lodge wait web", "Until it is over."},
    {NULL},
};

static const VerbExample log_examples[] = {
    {"lodge log -f web", "As it grows."},
    {"lodge log --machine web", "How it ended, and why."},
    {NULL},
};

static const VerbExample qmp_examples[] = {
    {"lodge qmp web query-status", "Whether it runs."},
    {"lodge qmp web blockdev-change-medium id=cd0 filename=/srv/two.iso force:=true",
     "Another CD, whatever the guest thinks of it."},
    {NULL},
};

static const VerbExample uml_examples[] = {
    {"lodge uml ubd0=root_fs mem=256M umid=vm1",
     "An image of UML's on the host's own kernel; uml_mconsole vm1 drives it."},
    {"ln -s $(which lodge) linux && ./linux ubd0=vm1.cow,root_fs eth0=daemon,,unix,/tmp/sw.ctl",
     "As scripts call it, with a copy-on-write file and a network."},
    {NULL},
};

static const VerbExample set_examples[] = {
    {"lodge set web --memory 512M", "Now, up to what it was started with."},
    {"lodge set web --cpus 4", "At the next start."},
    {"lodge set web --cdrom two.iso", "Another CD, now if the guest has not locked the drive."},
    {NULL},
};

static const VerbExample unset_examples[] = {
    {"lodge unset web cdrom publish", "No CD-ROM drive, no ports."},
    {NULL},
};

static const VerbExample define_examples[] = {
    {"lodge define web --kernel vmlinuz --disk web.cow,base=debian.img -p 8080:80",
     "Make the machine web, to be started by lodge run web."},
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

static const VerbExample gdb_examples[] = {
    {"lodge gdb web -- vmlinux", "GDB on machine web, with the kernel's symbols."},
    {"lodge gdb --print web", "Only the line for a GDB that is started otherwise."},
    {"lodge gdb web -- -batch -ex 'info registers' -ex detach", "The registers of its first CPU."},
    {NULL},
};

static const VerbExample net_examples[] = {
    {"lodge net", "What --net can name."},
    {"lodge net web", "The networks of machine web."},
    {"lodge net web --publish 8443:443", "Lead port 8443 of the host to the guest's web server."},
    {"lodge net web --filter rules", "Only what rules allow passes the first card from now on."},
    {NULL},
};

static const VerbExample capture_examples[] = {
    {"lodge capture web | tcpdump -r -", "What passes the first card of machine web."},
    {"lodge capture web:1 -w trouble.pcap", "The second one's frames into a file, until Ctrl-C."},
    {NULL},
};

static const VerbExample switch_examples[] = {
    {"lodge run a --net switch=lab --kernel vmlinuz --disk a.img",
     "A machine on switch lab, which is made if it does not run."},
    {"lodge switch", "Which switches run."},
    {"lodge switch lab ports", "What is plugged in, with counters."},
    {"lodge switch lab --listen vde:/tmp/lab --vlan 1=10 --vlan 2=trunk --detach",
     "A switch in the background that vde_plug, slirpvde and QEMU's vde back end can join."},
    {"lodge switch lab --listen uml:/tmp/lab.ctl --hub",
     "A hub for User-Mode Linux: eth0=daemon,,,/tmp/lab.ctl"},
    {"lodge switch lab plug tap:tap0 --vlan 10", "The host's tap0 in VLAN 10."},
    {NULL},
};

const Verb verb_table[] = {
    {"run", "[NAME] [OPTION]...", "start a virtual machine",
     "Builds a machine and runs it in this process. NAME is 1 to 63 letters, digits, dots, dashes "
     "and underscores; without one the machine is vm-PID, with the number of its process.\n\n"
     "A NAME with options is defined by them once it runs: lodge run NAME alone then starts it "
     "again, with its files looked up where it was defined. Options about the run (--detach, "
     "--ephemeral, --quiet, --timeout, --trace, --verbose) may stand beside such a NAME and are "
     "not "
     "kept.\n\n"
     "With --kernel FILE it starts that; without, firmware (SeaBIOS) looks for something to boot "
     "on "
     "the drives and the network, with a screen that lodge screen shows.\n\n"
     "What else is there unless said otherwise: 512 MiB, one CPU, the terminal as serial console, "
     "a network card on "
     "the user network, an entropy source. A distribution's kernel and a root disk are enough for "
     "a "
     "system: Lodge makes the initial RAM disk that mounts it.\n\n"
     "On a terminal, all keys go to the guest, Ctrl-C too. Ctrl-] then q ends the machine, Ctrl-] "
     "then ? lists what else there is. Without a terminal, SIGINT and SIGTERM press the guest's "
     "power button; a second one ends the machine at once.\n\n"
     "Sub-options stand behind commas as KEY=VALUE; a comma that belongs to a value is doubled. "
     "Sizes take K, M, G and T, powers of 1024.",
     run_options_table, run_examples, NULL, verb_run},
    {"define", "NAME [OPTION]...", "define a machine without starting it",
     "The options are those of lodge run that tell what the machine is. What was defined under the "
     "name before is replaced; a machine of that name that runs is not touched.",
     run_options_table, define_examples, NULL, verb_define},
    {"set", "NAME OPTION...", "change what a machine is defined as",
     "The options are those of lodge define, and each takes the place of all of its name that the "
     "definition has: all --disk, for instance. If the machine runs, disks on virtio, networks, "
     "forwarded ports and media of drives come and go at once, where the guest lets go of what it "
     "had, limits of disks (iops=, bps=) change, and its balloon makes its memory smaller, or larger "
     "up to what it was started with; the rest has its effect at the next start. Each is said.",
     run_options_table, set_examples, NULL, verb_set},
    {"unset", "NAME OPTION...", "take options out of a machine's definition",
     "The options are named without dashes; what they said is as if they had never been given.",
     no_options_table, unset_examples, NULL, verb_unset},
    {"edit", "NAME", "change a machine's definition in an editor",
     "Starts $VISUAL, $EDITOR or vi on it: the folder where relative paths are looked up, and an "
     "option on each line. What makes no machine is refused, and nothing is changed then.",
     no_options_table, NULL, NULL, verb_edit},
    {"list", "[OPTION]... [NAME]...", "list machines that run or are defined",
     "One line each: name, state (running, paused, io-error, starting or stopped), CPUs, how much "
     "of its memory it has from the host, since when it runs, and the ports of the host that lead to "
     "it.",
     list_options_table, list_examples, NULL, verb_list},
    {"stop", "[--timeout SECONDS] NAME...|--all", "have machines power off",
     "Presses the power button, as ACPI tells it to the guest, and waits until the machine has "
     "ended. One that is paused is resumed first. One that has not ended in time has its plug "
     "pulled, and that is said.",
     stop_options_table, stop_examples, NULL, verb_stop},
    {"kill", "NAME...|--all", "pull the plug of machines",
     "The machine ends at once; what its guest had not yet written to its disks is lost. A process "
     "that does not answer is killed.",
     names_options_table, NULL, NULL, verb_kill},
    {"pause", "NAME...|--all", "have machines stand still",
     "CPUs, devices and the guest's clock stand still until lodge resume.", names_options_table,
     NULL, NULL, verb_pause},
    {"resume", "NAME...|--all", "let machines go on",
     "After lodge pause, or when a disk with on-error=stop has failed: its requests are tried "
     "again.",
     names_options_table, NULL, NULL, verb_resume},
    {"reset", "NAME...|--all", "press the reset button of machines",
     "The machine starts again from its kernel or firmware, and this returns when it does. One "
     "that "
     "is paused does so when it goes on.",
     names_options_table, NULL, NULL, verb_reset},
    {"wait", "[--exit|--running|--paused|--agent|--ssh|--log REGEX] [--timeout SECONDS] NAME",
     "wait for something that a machine does",
     "The status is 0 when it came, 124 when the time ran out, 7 when the machine does not run or "
     "ended before.",
     wait_options_table, wait_examples, NULL, verb_wait},
    {"log", "[-f|--previous|--machine] NAME", "show what a machine has said on its console",
     "Of the run that goes on, or of the last one. On a terminal the guest's escape sequences are "
     "left out. The file has at most 1 MiB; what was before is shown by --previous.\n\n"
     "Of a machine that ended badly, one line on standard error says so.",
     log_options_table, log_examples, NULL, verb_log},
    {"console", "[--read-only] NAME", "look at a machine's console, and type there",
     "Shows what was said last, and what is said from now on, until the machine ends. Several may "
     "look; the first of them types. On a terminal all keys go to the guest, Ctrl-C too: Ctrl-] "
     "then "
     "q leaves, Ctrl-] then w types here and no longer elsewhere, Ctrl-] then ? lists the keys.",
     console_options_table, NULL, NULL, verb_console},
    {"exec", "[OPTION]... NAME -- COMMAND [ARGUMENT]...", "run a command in the guest of a machine",
     "Standard input, output and error are the command's, each by itself, and its status is ours, as "
     "in a shell: 126 and 127 where it cannot be run, 128 + N where signal N ended it. 124: the time "
     "ran out; 125: Lodge or the guest's agent failed, and says why; 255: the guest's kernel "
     "panicked. Ctrl-C ends the command.\n\n"
     "The guest needs the QEMU guest agent (Debian's package qemu-guest-agent), running, and "
     "/bin/sh. Where no agent answers, it goes by the guest's console, where that shows a login "
     "prompt: as root without a password, unless --user and --password-file say otherwise. Then the "
     "guest needs base64 and md5sum (coreutils, busybox), it is slower, and what goes over the console "
     "is in its log, passwords excepted. Somebody who is logged in there, or types there, is left "
     "alone; with --via console, a shell that stands there is used, and stays. There is no terminal: "
     "see lodge ssh and lodge console.\n\n"
     "What comes and goes lies in a folder of the guest's /tmp, some MiB of it at most: beyond that "
     "the command waits until its output is taken, as it would for a slow terminal. (A guest without "
     "mkfifo or dd keeps all output there until the command ends.) A child that outlives the command "
     "does not hold it up; what that one says later goes nowhere. Where lodge exec is killed by "
     "force, the machine has the agent end the command; behind the console nobody does, and the "
     "command stands where its output is not taken. Input needs mkfifo in the guest.",
     exec_options_table, exec_examples, NULL, verb_exec},
    {"events", "[--json] NAME", "print what happens to a running machine",
     "One line for each event of its control socket, until it has ended.", events_options_table,
     NULL, NULL, verb_events},
    {"cp", "[OPTION]... SOURCE DESTINATION", "copy files into and out of the guest of a machine",
     "One of the two is NAME:PATH, a path in the guest from its root; a path of this host with a "
     "colon is written ./a:b. Where DESTINATION is a folder, the copy goes into it, under the "
     "name of SOURCE. A file gets its name when it is whole; permissions are kept, owners are not, "
     "and blocks of zeros become holes. On a terminal, a bar shows how far it is.\n\n"
     "The guest needs what lodge exec needs, and for folders tar. A folder that is copied to this "
     "host must not be there yet; devices in it are left out.",
     cp_options_table, cp_examples, NULL, verb_cp},
    {"ssh", "NAME [SSH-ARGUMENT]...", "log in to the guest of a running machine",
     "Starts ssh(1), joined to the port of the host that leads to the guest's port 22 (-p 2222:22 of "
     "lodge run, or lodge net NAME --publish 2222:22). What stands behind NAME is for ssh: options, "
     "a command. The host key of a guest is remembered under the machine's name, in "
     "~/.ssh/known_hosts.",
     ssh_options_table, ssh_examples, NULL, verb_ssh},
    {"ssh-config", "NAME", "print how ssh reaches the guest of a running machine",
     "Lines for ~/.ssh/config, after which ssh, scp, rsync and others know the machine by its name.",
     no_options_table, ssh_config_examples, NULL, verb_ssh_config},
    {"stats", "[-w] [--json] NAME...|--all", "show what running machines use of the host",
     "CPU time of the process and of its virtual CPUs, memory that the host has given it, memory that "
     "the guest has now and what is free of it (as the guest's balloon tells; - where it does not), "
     "and bytes that went from and to disks, since the start. With --watch, of each second, CPUs in "
     "percent of one. --json has more: networks, exits, the balloon, and all that the guest tells.",
     stats_options_table, NULL, NULL, verb_stats},
    {"top", "", "watch what all running machines use",
     "A table of all running machines, made anew each second, the busiest first: CPU time of the "
     "process and of its virtual CPUs in percent of one CPU; memory that the host has given it and "
     "memory that the guest has; bytes a second from and to disks and networks; exits of its virtual "
     "CPUs a second. The key q ends it. Without a terminal it is printed once, of one second.",
     no_options_table, NULL, NULL, verb_top},
    {"qmp", "NAME COMMAND [KEY=TEXT|KEY:=JSON|{...}]...",
     "give a running machine a command of its control socket",
     "The protocol is QMP. Arguments are texts (KEY=TEXT), other values (KEY:=JSON), or one object "
     "with all of them. Prints what the command returns, as JSON.",
     no_options_table, qmp_examples, NULL, verb_qmp},
    {"rename", "NAME NEW", "give a machine another name",
     "Its definition and logs move along; its disks stay where they are. It must not run.",
     no_options_table, NULL, NULL, verb_rename},
    {"rm", "NAME...", "remove definitions and logs of machines",
     "Disks are not touched. A machine that runs is not removed.", no_options_table, NULL, NULL,
     verb_rm},
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
    {"switch", "[OPTION]... [NAME [ports|macs|stats|plug WHAT|unplug PORT]]",
     "run a network switch, look at one, or list them",
     "Without NAME, lists the switches that run, with their processes and how many ports are in use. "
     "With NAME alone, is switch NAME until Ctrl-C or SIGTERM (kill PID): machines plug in with "
     "--net switch=NAME, other programs where --listen says. A machine makes a switch that does not run "
     "(as --detach --until-unused does); this verb is for one that has options, or stays.\n\n"
     "Of one that runs, ports lists what is plugged in, macs the addresses that it knows and where, "
     "stats all counters and what happened lately. plug adds tap:NAME, a tap of the host, or "
     "switch:NAME, a cable to another switch; unplug takes out what is in a port.\n\n"
     "A port without --vlan carries frames as they are, tagged or not. Ports with one are a network "
     "of their own with the other ports of that VLAN.\n\n"
     "There is no spanning tree. A loop is noticed when an address comes from two ports in turn; it "
     "is reported, and these ports' broadcasts are held to 100 a second while it lasts. A reader that "
     "is too slow loses frames, which are counted, and does not slow others.",
     switch_options_table, switch_examples, NULL, verb_switch},
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
     "An address is good once: it carries a token that nobody can guess, and the first who opens "
     "it "
     "is shown the screen. Then another address is printed, for the next viewer or for the same "
     "one "
     "after the page was loaded anew.\n\n"
     "It listens on the loopback interface. With --address, others can reach it, and what they see "
     "and type is not encrypted: better let ssh -L carry the port.",
     view_options_table, view_examples, NULL, verb_view},
    {"gdb", "[--print] NAME [-- ARGUMENT...]", "debug a running machine with GDB",
     "Starts gdb, joined to machine NAME, with the ARGUMENTs in front: a kernel with symbols, other "
     "options. The machine stands still while GDB shows its prompt and goes on when GDB is left; a "
     "vCPU is a thread. The machine needs no --gdb for it: a socket for its owner alone is made in "
     "its running folder.\n\n"
     "A Linux kernel is where its symbols say when it was started with nokaslr. What debug registers "
     "and INT3 can do on this host is in docs/debugging.md.",
     gdb_options_table, gdb_examples, NULL, verb_gdb},
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
     "start, name FILE as the disk; a machine that has a definition (lodge define) gets it changed.\n\n"
     "commit merges the image on top into the one below it while the guest runs, then the disk goes "
     "on with that, and the merged image is empty. A bar shows how far it is; Ctrl-C gives up and "
     "leaves all as it was. A base that other machines use is not written. Should the host or the "
     "machine die in between, the overlay is still the disk, with all that the guest had flushed. "
     "A UML COW file is put right as to its base's time: User-Mode Linux takes it again, but after a "
     "crash in the middle only when Lodge has opened it once.\n\n"
     "resize gives a disk another size; a guest on a virtio disk is told, others see it at their next "
     "start.",
     disk_options_table, disk_examples, NULL, verb_disk},
    {"uml", "[WORD]...", "run a machine by User-Mode Linux's command line",
     "Also where the program is called linux. Takes User-Mode Linux's words and runs an image that was "
     "made for it, unchanged, on hardware, with a kernel for PCs. Words that are not listed go to the "
     "guest's kernel. uml_mconsole drives the machine; it ends with status 0 when the guest halts, with "
     "1 after SIGINT or SIGTERM, by SIGABRT after a panic, and starts again in the same process when "
     "the guest restarts. docs/uml.md says of each word and command whether it works as it does there.",
     no_options_table, uml_examples, NULL, verb_uml, verb_uml_word},
    {"devices", "[--json] [CLASS|NAME]", "list device classes, or the devices of a machine",
     "Those on bus pci or isa can be added by lodge run --device; the others stand on the board. "
     "With CLASS, only that one. With the NAME of a running machine, its devices: class, bus, "
     "address, and the values of the properties.",
     json_options_table, NULL, NULL, verb_devices},
    {"net", "[OPTION]... [NAME]", "list what --net can name, or the networks of a machine",
     "Without NAME: the back ends of lodge run --net, each with its options.\n\n"
     "With the NAME of a running machine: for each of its networks the card, what it is joined to, whether the link is "
     "up, what passed, what was dropped and why, the addresses that the guest was seen to use "
     "(by ARP, DHCP and neighbour discovery), the host's ports that lead to it, and the rules of its "
     "filter with what each decided.\n\n"
     "With --publish and --unpublish, ports of the host that lead to the guest through its first "
     "user network come and go while it runs; see --publish of lodge run. --filter replaces the rules "
     "that filter= of lodge run --net gave, at once and as a whole.",
     net_options_table, net_examples, NULL, verb_net},
    {"capture", "[-w FILE] [-c N] NAME[:N]", "see the frames of a running machine's network",
     "Writes the frames that pass card N (0 unless said) of machine NAME in the pcap format, from "
     "now until Ctrl-C or the machine's end. The guest sees nothing of it. A reader that is too slow "
     "misses frames; the machine does not wait for it. Checksums that the guest leaves to its card "
     "are not in the frames yet.",
     capture_options_table, capture_examples, NULL, verb_capture},
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
