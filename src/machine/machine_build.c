/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From description to machine: the one wiring. Each part of the tree is read by one function; what
 * no function knows is an error that names the node, so that a description of a later version is
 * refused rather than built half.
 */
#include <string.h>
#include <unistd.h>

#include "lodge/diag.h"
#include "lodge/display.h"
#include "lodge/error.h"
#include "lodge/input.h"
#include "lodge/num.h"

#include "initrd.h"
#include "machine_internal.h"
#include "medium.h"

#define MEMORY_MIN (1 * MIB)
#define MEMORY_MAX (UINT64_C(1) << 40) /* bytes: what page tables and tools are tried with */
#define PAGE 4096u

/* ---- look-ups for devices ---- */

static BlkNode *find_blk(Board *b, const char *name)
{
    return g_hash_table_lookup(((Machine *)b->opaque)->blks, name);
}

static NetPort *find_net(Board *b, const char *name)
{
    NetBackend *be = g_hash_table_lookup(((Machine *)b->opaque)->nets, name);
    return be ? be->port : NULL;
}

static Chan *find_chan(Board *b, const char *name)
{
    return g_hash_table_lookup(((Machine *)b->opaque)->chans, name);
}

/* ---- parts ---- */

static bool check_root(const Tree *t, GError **error)
{
    const char *compatible = tree_str(t, "/", "compatible");
    if (!compatible || strcmp(compatible, TREE_COMPATIBLE))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "/: compatible is '%s'; this version builds "
                          TREE_COMPATIBLE, compatible ? compatible : "absent");
    return true;
}

static bool build_memory(Machine *m, const Tree *t, GError **error)
{
    uint64_t size = 0;
    unsigned flags = 0;
    const char *huge = tree_str(t, "/memory", "huge");
    if (!tree_u64(t, "/memory", "size", &size) || size < MEMORY_MIN || size > MEMORY_MAX)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "/memory: size %" PRIu64 " bytes: must be 1M to 1T", size);
    if (size % PAGE)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "/memory: size %" PRIu64 " bytes: must be a multiple of 4K", size);
    if (!huge || !strcmp(huge, "thp"))
        flags |= MEM_THP;
    else if (!strcmp(huge, "on"))
        flags |= MEM_HUGE;
    else if (strcmp(huge, "off"))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "/memory: huge=%s: must be on, thp or off",
                          huge);
    if (tree_has(t, "/memory", "prefault"))
        flags |= MEM_PREFAULT;
    if (tree_has(t, "/memory", "shared"))
        flags |= MEM_SHARED;
    bool firmware = tree_has(t, "/boot", "firmware");
    pc_split_ram(size, &m->board.ram_below_4g, &m->board.ram_above_4g);
    return pc_map_ram(&m->board, flags, firmware, error) &&
           (!firmware || pc_map_firmware(&m->board, tree_str(t, "/boot", "firmware"), error));
}

static bool read_cpus(Machine *m, const Tree *t, GError **error)
{
    uint64_t count = 1;
    const char *model = tree_str(t, "/cpus", "model");
    (void)tree_u64(t, "/cpus", "count", &count); /* absent: one */
    if (count < 1 || count > MACHINE_CPUS_MAX)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "/cpus: count %" PRIu64 ": must be 1 to %u",
                          count, MACHINE_CPUS_MAX);
    if (model && strcmp(model, "host"))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "/cpus: model '%s': this version knows host",
                          model);
    m->board.cpus = (unsigned)count;
    return true;
}

static bool build_cpus(Machine *m, GError **error)
{
    CpuSetOps ops = {machine_on_triple_fault, machine_on_cpu_stopped, machine_on_debug, m};
    m->cpus = cpu_set_new(m->kvm, &m->board, m->board.cpus, false, &ops, error);
    return m->cpus != NULL;
}

bool machine_open_net(Machine *m, const Tree *t, const char *id, GError **error)
{
    g_autofree char *path = g_strdup_printf("/backends/net/%s", id);
    g_autoptr(GPtrArray) props = tree_props(t, path);
    g_autoptr(GHashTable) opts =
        g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify)g_ptr_array_unref);
    const char *driver = tree_str(t, path, "driver");
    for (unsigned i = 0; i < props->len; i++) {
        const char *name = g_ptr_array_index(props, i);
        if (!strcmp(name, "driver"))
            continue;
        GStrv values = NULL;
        guint n = tree_strv(t, path, name, &values);
        GPtrArray *list = g_ptr_array_new_with_free_func(g_free);
        bool a_cpu = !strcmp(name, "queues") && n == 1 && !strcmp(values[0], "auto");
        for (guint k = 0; k < n; k++)
            g_ptr_array_add(list, a_cpu ? g_strdup_printf("%u", MIN(m->board.cpus, NET_STREAMS_MAX))
                                        : g_strdup(values[k]));
        g_strfreev(values);
        g_hash_table_insert(opts, g_strdup(name), list);
    }
    NetBackend *be = net_backend_open(driver ? driver : "none", id, opts, m->board.clock, error);
    if (!be)
        return false;
    g_ptr_array_add(m->net_order, be);
    g_hash_table_insert(m->nets, g_strdup(id), be);
    return true;
}

static bool open_chan(Machine *m, const Tree *t, const char *id, GError **error)
{
    g_autofree char *path = g_strdup_printf("/backends/chan/%s", id);
    const char *spec = tree_str(t, path, "spec");
    Chan *c = chan_open(spec ? spec : "none", id, m->io, error);
    if (!c)
        return false;
    g_hash_table_insert(m->chans, g_strdup(id), c);
    return true;
}

static bool each_child(Machine *m, const Tree *t, const char *path,
                       bool (*fn)(Machine *m, const Tree *t, const char *id, GError **error),
                       GError **error)
{
    g_autoptr(GPtrArray) ids = tree_children(t, path);
    for (unsigned i = 0; i < ids->len; i++) {
        if (!fn(m, t, g_ptr_array_index(ids, i), error))
            return false;
    }
    return true;
}

/* Who holds what @p of @d names; NULL: nobody, or it names nothing. */
static const Device *holder_of(const Machine *m, const Device *d, const PropSpec *p)
{
    const void *backend = *(void *const *)((const char *)d + p->offset);
    for (unsigned i = 0; backend && i < m->devices->len; i++) {
        const Device *o = g_ptr_array_index(m->devices, i);
        for (const PropSpec *q = o->cls->props; q && q->name; q++) {
            if (q->kind == p->kind && *(void *const *)((const char *)o + q->offset) == backend)
                return o;
        }
    }
    return NULL;
}

/* A back end has one device: two would write over each other. */
static bool check_backends(const Machine *m, const Device *d, GError **error)
{
    for (const PropSpec *p = d->cls->props; p && p->name; p++) {
        bool names = p->kind == PROP_BLK || p->kind == PROP_NET || p->kind == PROP_CHAN;
        const Device *o = names ? holder_of(m, d, p) : NULL;
        if (o)
            return lodge_fail(error, LODGE_ERROR_BUSY, "%s: %s: is in use by %s", d->id, p->name,
                              o->id);
    }
    return true;
}

/* Whether the drive @d starts with a whole medium, or none. */
static bool check_medium(Machine *m, const Tree *t, Device *d, GError **error)
{
    BlkNode *node = machine_medium(m, d);
    if (!node)
        return true;
    g_autofree char *path = g_strdup_printf("/backends/block/%s", blk_name(node));
    if (medium_check(d->cls->boot, node, tree_str(t, path, "file"), error))
        return true;
    g_prefix_error(error, "disk %s: ", d->id);
    return false;
}

bool machine_build_device(Machine *m, const Tree *t, const char *id, GError **error)
{
    g_autofree char *path = g_strdup_printf("/devices/%s", id);
    const char *name = tree_str(t, path, "compatible");
    const DeviceClass *cls = name ? device_class_find(name) : NULL;
    if (!cls || !cls->bus)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: no device class '%s'", path,
                          name ? name : "");
    g_autoptr(Device) d = device_new(cls, id, &m->board);
    g_autoptr(GPtrArray) props = tree_props(t, path);
    for (unsigned i = 0; i < props->len; i++) {
        const char *prop = g_ptr_array_index(props, i), *value = tree_str(t, path, prop);
        if (!strcmp(prop, "compatible"))
            continue;
        if (!device_set(d, prop, value ? value : "on", error))
            return false;
    }
    if (!check_backends(m, d, error) || !check_medium(m, t, d, error) || !device_realize(d, error))
        return false;
    g_ptr_array_add(m->devices, g_steal_pointer(&d));
    return true;
}

/* ---- what is booted ---- */

/* What systems ask for by themselves, and what is used in laboratories. */
static const char *const uml_modules[] = {
    /* file systems */
    "ext4", "vfat", "nls_cp437", "nls_ascii", "nls_iso8859-1", "isofs", "squashfs", "fuse", "overlay",
    "autofs4", "loop",
    /* networks */
    "tun", "bridge", "br_netfilter", "8021q", "veth", "dummy", "macvlan", "ipip",
    "ip_gre", "sit", "wireguard", "vxlan", "sch_netem", "sch_tbf", "sch_htb", "sch_ingress", "cls_u32",
    /* packet filters */
    "ip_tables", "iptable_filter", "iptable_nat", "iptable_mangle", "ip6_tables", "ip6table_filter",
    "ipt_REJECT", "xt_MASQUERADE", "xt_REDIRECT", "xt_conntrack", "xt_nat", "xt_tcpudp",
    "xt_multiport", "xt_mark", "xt_comment", "xt_LOG", "nf_log_syslog", "xt_limit", "nf_tables",
    "nft_compat", "nft_chain_nat", "nft_ct", "nft_nat", "nft_masq", "nft_limit", "nft_log",
    "nft_reject_inet",
    /* this machine's devices */
    "virtio_balloon", "virtio_rng", "i6300esb", NULL,
};

/* Whether the word is on the kernel's command line. */
static bool has_word(const Tree *t, const char *word)
{
    const char *append = tree_str(t, "/boot", "append");
    g_auto(GStrv) words = g_strsplit(append ? append : "", " ", -1);
    return g_strv_contains((const char *const *)words, word);
}

/* The virtio console's, with the first. */
static unsigned count_ports(const Tree *t)
{
    g_autoptr(GPtrArray) props = tree_props(t, "/devices/consoles");
    unsigned n = props->len > 0;
    for (guint i = 0; i < props->len; i++)
        n += g_str_has_suffix(g_ptr_array_index(props, i), "-name");
    return n;
}

/* The file system that the first disk begins with; NULL: none that is known. */
static const char *look_at_root(BlkNode *disk)
{
    BlkLimits limits;
    blk_limits(disk, &limits);
    g_autofree uint8_t *head = g_malloc0(INITRD_FS_HEAD);
    size_t len = (size_t)MIN(limits.size, INITRD_FS_HEAD);
    if (blk_pread(disk, head, 0, len))
        len = 0; /* the guest will meet the same error and say so */
    return initrd_detect_fs(head, len);
}

/* A distribution's kernel has the drivers of its root disk as modules: bring them in an initrd of
 * our own where there is a disk and nobody gave one. The file system is the first disk's, where it
 * has no partitions; else the guest tries what it knows. */
static bool add_initrd(Machine *m, const Tree *t, GError **error)
{
    static const char *const devices[] = {
        "virtio_pci", "virtio_blk", "?virtio_net", "?virtio_console", "?virtio_rng",
        "?virtio_balloon", "?pvpanic-mmio",
    };
    static const char *const guesses[] = {"?ext4", "?xfs", "?btrfs"};
    g_autoptr(GPtrArray) ids = tree_children(t, "/backends/block");
    const char *version = m->boot ? boot_kernel_version(m->boot) : NULL;
    bool uml = has_word(t, "lodge.uml=1");
    if ((!ids->len && !uml) || !version || tree_has(t, "/boot", "initrd"))
        return true;
    const char *fstype =
        ids->len ? look_at_root(g_hash_table_lookup(m->blks, g_ptr_array_index(ids, 0))) : NULL;
    g_autoptr(GPtrArray) modules = g_ptr_array_new();
    for (unsigned i = 0; i < G_N_ELEMENTS(devices); i++)
        g_ptr_array_add(modules, (gpointer)devices[i]);
    for (unsigned i = 0; !fstype && i < G_N_ELEMENTS(guesses); i++)
        g_ptr_array_add(modules, (gpointer)guesses[i]);
    if (fstype)
        g_ptr_array_add(modules, (gpointer)fstype);
    g_ptr_array_add(modules, NULL);
    InitrdPlan plan = {
        .kernel = tree_str(t, "/boot", "kernel"),
        .version = version,
        .modules_dir = tree_str(t, "/boot", "modules"),
        .modules = (const char *const *)modules->pdata,
        .fstype = fstype,
        .keep_modules = uml,
        .extra = uml_modules,
        .ports = count_ports(t),
    };
    int fd = initrd_make(&plan, error);
    if (fd < 0)
        return false;
    bool ok = boot_add_initrd(m->boot, fd, error);
    close(fd);
    return ok;
}

static bool open_boot(Machine *m, const Tree *t, GError **error)
{
    g_auto(GStrv) initrds = NULL;
    guint n = tree_strv(t, "/boot", "initrd", &initrds);
    BootSpec spec = {
        .kernel = tree_str(t, "/boot", "kernel"),
        .initrds = n ? (const char *const *)initrds : NULL,
        .append = tree_str(t, "/boot", "append"),
        .protocol = tree_str(t, "/boot", "protocol"),
        .cache_dir = tree_has(t, "/boot", "cache") ? m->config.cache_dir : NULL,
    };
    bool firmware = tree_has(t, "/boot", "firmware");
    if (firmware && spec.kernel)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "/boot: has a kernel and firmware; a machine starts from one of them");
    if (firmware)
        return true;
    if (!spec.kernel)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "/boot: no kernel; give --kernel FILE");
    m->boot = boot_open(&spec, error);
    if (!m->boot)
        return false;
    boot_prefetch(m->boot);
    return true;
}

static bool read_action(const Tree *t, const char *option, MachineAction *ret, GError **error)
{
    const char *text = tree_str(t, "/options", option);
    return !text || machine_action_parse(text, ret) ||
           lodge_fail(error, LODGE_ERROR_CONFIG,
                      "/options: %s '%s': must be poweroff, reset, pause, none or shutdown", option,
                      text);
}

/* What the kernel is loaded from and into comes first: the rest is made beside that. */
static bool build(Machine *m, const Tree *t, GError **error)
{
    Board *b = &m->board;
    if (!check_root(t, error) || !open_boot(m, t, error) || !read_cpus(m, t, error))
        return false;
    b->clock = lodge_clock_new();
    m->io = io_thread_new("io", b->clock, error);
    if (!m->io)
        return false;
    b->io = m->io;
    b->timers = io_thread_timers(m->io);
    b->mem = mem_map_new();
    b->pio = bus_new("port", 65536);
    b->mmio = bus_new("mmio", UINT64_C(1) << 52);
    b->irq = irq_new();
    m->parts = pc_parts(t);
    if (m->parts & PC_SCREEN)
        b->display = display_new(b->timers);
    if (m->parts & (PC_SCREEN | PC_FIRMWARE))
        b->input = input_new();
    if (!build_memory(m, t, error) ||
        !each_child(m, t, "/backends/block", machine_open_disk, error) || !add_initrd(m, t, error))
        return false;
    if (m->boot)
        machine_loader_start(m);
    m->kvm = kvm_open(error);
    if (!m->kvm || !kvm_attach(m->kvm, b, error) || !build_cpus(m, error) ||
        !each_child(m, t, "/backends/net", machine_open_net, error) ||
        !each_child(m, t, "/backends/chan", open_chan, error))
        return false;
    m->no_reboot = tree_has(t, "/options", "no-reboot");
    if (!read_action(t, "on-panic", &m->on_panic, error) ||
        !read_action(t, "watchdog-action", &m->watchdog_action, error))
        return false;
    m->pc = (PcBoard){.board = b, .devices = m->devices};
    return pc_build(&m->pc, t, error) &&
           each_child(m, t, "/devices", machine_build_device, error) &&
           pc_prepare_firmware(&m->pc, t, error);
}

Machine *machine_build(const Tree *t, const MachineConfig *c, GError **error)
{
    g_autoptr(Machine) m = g_new0(Machine, 1);
    m->config = *c;
    m->watchdog_action = MACHINE_ACTION_RESET;
    m->context = g_main_context_ref(g_main_context_default());
    lodge_lock_init(&m->request_lock, LOCK_RANK_QUEUE, "requests");
    m->devices = g_ptr_array_new();
    m->blks = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify)blk_close);
    m->nets = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    m->net_order = g_ptr_array_new_with_free_func((GDestroyNotify)net_backend_close);
    m->chans = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify)chan_close);
    m->board.opaque = m;
    m->board.blk = find_blk;
    m->board.net = find_net;
    m->board.chan = find_chan;
    m->board.disk_loop = machine_disk_loop;
    m->board.request = machine_on_request;
    m->board.cpu_regs = cpu_set_io_regs;
    if (!build(m, t, error))
        return NULL;
    m->now = tree_new();
    (void)tree_graft(m->now, "/backends", t, "/backends"); /* absent: none */
    (void)tree_graft(m->now, "/devices", t, "/devices");
    (void)tree_graft(m->now, "/options", t, "/options");
    m->times.build_ns = clock_host_ns();
    return g_steal_pointer(&m);
}
