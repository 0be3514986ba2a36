/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Making an initrd: the modules that this machine's devices and root file system need, in order,
 * and Lodge's own first program (firmware/init/), which needs nothing from the guest.
 *
 * Distribution kernels have virtio and ext4 as modules. Which modules depend on which is read from
 * modules.dep; modules.softdep adds those that are asked for by name at run time (ext4 and its
 * checksum), through modules.alias; modules.builtin says what needs no file. Compressed modules
 * are decompressed here, on the host, where it is done once. The archive itself is not compressed:
 * the guest would pay for it at each start.
 *
 * Where the machine is run as User-Mode Linux the modules stay in the archive, as a folder
 * /lib/modules/VERSION with tables for modprobe, and others are beside them that systems like to
 * load: the guest's root gets to see the folder where it has none of its own for this kernel.
 *
 * Left out: PARTUUID, firmware files, module parameters (the kernel's NAME.PARAM= words do that).
 *
 * Threads: main.
 * Spec: kmod's modules.dep(5), depmod.d(5); file system signatures from their kernel headers.
 */
#include "initrd.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lodge/error.h"
#include "lodge/num.h"

#include "cpio.h"
#include "init_blob.h"
#include "module_index.h"
#include "unpack.h"

enum {
    MAX_MODULE_BYTES = 64 << 20,
    MAX_DEPTH = 32, /* of dependencies; a longer chain is a loop */
    CONSOLE_MAJOR = 5,
    CONSOLE_MINOR = 1,
};

typedef struct Modules {
    char *dir;          /* owned */
    char *dep, *builtin, *softdep, *alias; /* owned texts, cut into lines */
    GHashTable *by_name;  /* name -> line of modules.dep: path, colon, paths; into dep */
    GHashTable *built_in; /* set of names, owned */
    GHashTable *seen;     /* set of names added already, owned */
    GHashTable *aliased;  /* set of names looked up in alias, owned */
    GPtrArray *order;     /* paths below dir, owned; in loading order */
    GPtrArray *optional;  /* beside order: non-NULL if it may fail */
    GPtrArray *missing;   /* names, owned */
} Modules;

/* "kernel/fs/ext4/ext4.ko.xz" -> "ext4", with '_' for '-'. Transfer full. */
static char *module_name(const char *path, size_t len)
{
    const char *base = path;
    for (size_t i = 0; i < len; i++)
        if (path[i] == '/')
            base = path + i + 1;
    size_t n = 0, room = len - (size_t)(base - path);
    while (n < room && !(base[n] == '.' && n + 2 < room && !strncmp(base + n, ".ko", 3)))
        n++;
    char *name = g_strndup(base, n);
    return g_strdelimit(name, "-", '_');
}

static char *read_table(const char *dir, const char *file)
{
    g_autofree char *path = g_build_filename(dir, file, NULL);
    char *text = NULL;
    return g_file_get_contents(path, &text, NULL, NULL) ? text : NULL;
}

/* The next line of *@rest, cut off in place. */
static char *next_line(char **rest)
{
    char *line = *rest;
    if (!line || !*line)
        return NULL;
    char *end = strchr(line, '\n');
    *rest = end ? end + 1 : line + strlen(line);
    if (end)
        *end = 0;
    return line;
}

static void modules_free(Modules *m)
{
    if (!m)
        return;
    g_free(m->dir);
    g_free(m->dep);
    g_free(m->builtin);
    g_free(m->softdep);
    g_free(m->alias);
    g_clear_pointer(&m->by_name, g_hash_table_unref);
    g_clear_pointer(&m->built_in, g_hash_table_unref);
    g_clear_pointer(&m->seen, g_hash_table_unref);
    g_clear_pointer(&m->aliased, g_hash_table_unref);
    g_clear_pointer(&m->order, g_ptr_array_unref);
    g_clear_pointer(&m->optional, g_ptr_array_unref);
    g_clear_pointer(&m->missing, g_ptr_array_unref);
    g_free(m);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Modules, modules_free)

static Modules *modules_open(const char *dir)
{
    char *dep = read_table(dir, "modules.dep");
    if (!dep)
        return NULL;
    Modules *m = g_new0(Modules, 1);
    m->dir = g_strdup(dir);
    m->dep = dep;
    m->builtin = read_table(dir, "modules.builtin");
    m->softdep = read_table(dir, "modules.softdep");
    m->alias = read_table(dir, "modules.alias");
    m->by_name = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    m->built_in = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    m->seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    m->aliased = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    m->order = g_ptr_array_new_with_free_func(g_free);
    m->optional = g_ptr_array_new();
    m->missing = g_ptr_array_new_with_free_func(g_free);
    char *rest = m->dep;
    for (char *line; (line = next_line(&rest));) {
        char *colon = strchr(line, ':');
        if (colon)
            g_hash_table_insert(m->by_name, module_name(line, (size_t)(colon - line)), line);
    }
    rest = m->builtin;
    for (char *line; (line = next_line(&rest));)
        g_hash_table_add(m->built_in, module_name(line, strlen(line)));
    return m;
}

static bool add_module(Modules *m, const char *name, bool optional, unsigned depth);

/* Modules whose alias is exactly @name, as depmod wrote it. The table has a megabyte of patterns:
 * it is searched as text, not parsed. */
static bool add_by_alias_text(Modules *m, const char *name, unsigned depth)
{
    bool found = false;
    g_autofree char *pattern = g_strdup_printf("\nalias %s ", name);
    for (const char *p = m->alias; p && (p = strstr(p, pattern));) {
        p += strlen(pattern);
        g_autofree char *target = g_strndup(p, strcspn(p, "\n"));
        found |= add_module(m, target, true, depth + 1);
    }
    return found;
}

/* What else answers to @name, once; all of it is optional. */
static void add_by_alias(Modules *m, const char *name, unsigned depth)
{
    if (!g_hash_table_add(m->aliased, g_strdup(name)) || add_by_alias_text(m, name, depth))
        return;
    g_autofree char *other = g_strdelimit(g_strdup(name), "-", '_');
    (void)add_by_alias_text(m, other, depth); /* a soft dependency may be nowhere */
}

/* "softdep NAME pre: A B post: C": what comes before @name. */
static void add_softdeps(Modules *m, const char *name, unsigned depth)
{
    g_auto(GStrv) lines = g_strsplit(m->softdep ? m->softdep : "", "\n", -1);
    for (char **line = lines; *line; line++) {
        g_auto(GStrv) words = g_strsplit(*line, " ", -1);
        if (g_strv_length(words) < 4 || strcmp(words[0], "softdep"))
            continue;
        g_strdelimit(words[1], "-", '_');
        if (strcmp(words[1], name))
            continue;
        bool pre = false;
        for (char **w = words + 2; *w; w++) {
            if (g_str_has_suffix(*w, ":"))
                pre = !strcmp(*w, "pre:");
            else if (pre && **w && !add_module(m, *w, true, depth + 1))
                add_by_alias(m, *w, depth);
        }
    }
}

/* Put @name behind everything that it needs. False: this kernel does not have it. */
static bool add_module(Modules *m, const char *raw, bool optional, unsigned depth)
{
    g_autofree char *name = g_strdelimit(g_strdup(raw), "-", '_');
    if (g_hash_table_contains(m->seen, name) || g_hash_table_contains(m->built_in, name))
        return true;
    const char *line = g_hash_table_lookup(m->by_name, name);
    if (!line || depth > MAX_DEPTH)
        return false;
    g_hash_table_add(m->seen, g_strdup(name));
    add_softdeps(m, name, depth);
    const char *colon = strchr(line, ':');
    g_auto(GStrv) deps = g_strsplit(colon + 1, " ", -1);
    /* The nearest comes first in the file; the farthest is needed first. */
    for (unsigned i = g_strv_length(deps); i-- > 0;) {
        g_autofree char *dep = module_name(deps[i], strlen(deps[i]));
        if (*dep && !add_module(m, dep, optional, depth + 1))
            g_ptr_array_add(m->missing, g_steal_pointer(&dep));
    }
    g_ptr_array_add(m->order, g_strndup(line, (gsize)(colon - line)));
    g_ptr_array_add(m->optional, GINT_TO_POINTER(optional));
    return true;
}

static Modules *find_modules(const InitrdPlan *plan, GError **error)
{
    g_autoptr(GPtrArray) places = g_ptr_array_new_with_free_func(g_free);
    const char *env = g_getenv("LODGE_MODULES");
    const char *v = plan->version;
    if (plan->modules_dir) {
        g_ptr_array_add(places, g_strdup(plan->modules_dir));
    } else if (v && !strchr(v, '/')) {
        g_autofree char *beside = g_path_get_dirname(plan->kernel);
        if (env) {
            g_ptr_array_add(places, g_strdup(env));
            g_ptr_array_add(places, g_build_filename(env, v, NULL));
            g_ptr_array_add(places, g_build_filename(env, "lib/modules", v, NULL));
        }
        g_ptr_array_add(places, g_build_filename(beside, "../lib/modules", v, NULL));
        g_ptr_array_add(places, g_build_filename(beside, "../usr/lib/modules", v, NULL));
        g_ptr_array_add(places, g_build_filename(beside, "lib/modules", v, NULL));
        g_ptr_array_add(places, g_build_filename("/lib/modules", v, NULL));
        g_ptr_array_add(places, g_build_filename("/usr/lib/modules", v, NULL));
    }
    for (unsigned i = 0; i < places->len; i++) {
        Modules *m = modules_open(g_ptr_array_index(places, i));
        if (m)
            return m;
    }
    if (plan->modules_dir) {
        lodge_fail(error, LODGE_ERROR_NOT_FOUND,
                   "initrd: '%s': has no modules.dep; name the folder /lib/modules/VERSION of the "
                   "kernel '%s', or give --initrd", plan->modules_dir, plan->kernel);
        return NULL;
    }
    lodge_fail(error, LODGE_ERROR_NOT_FOUND,
               "initrd: no modules for the kernel '%s' (%s) in /lib/modules or beside it; install "
               "linux-image-%s, set LODGE_MODULES, or give --initrd",
               plan->kernel, v ? v : "of unknown version", v ? v : "VERSION");
    return NULL;
}

static bool add_to_archive(Cpio *c, const Modules *m, const char *path, const char *name,
                           GError **error)
{
    g_autofree char *full = path[0] == '/' ? g_strdup(path) : g_build_filename(m->dir, path, NULL);
    g_autofree char *data = NULL;
    gsize len = 0;
    g_autoptr(GError) local = NULL;
    if (!g_file_get_contents(full, &data, &len, &local))
        return lodge_fail(error, LODGE_ERROR_HOST, "initrd: module: %s", local->message);
    UnpackFormat format = unpack_detect(data, len);
    if (format == UNPACK_PLAIN) {
        cpio_add_file(c, name, 0600, data, len);
        return true;
    }
    g_auto(UnpackBuf) buf = {0};
    if (!unpack(format, data, len, 0, MAX_MODULE_BYTES, &buf, error)) {
        g_prefix_error(error, "initrd: module '%s': ", full);
        return false;
    }
    cpio_add_file(c, name, 0600, buf.data, buf.len);
    return true;
}

/* ---- modules that the root can ask for ---- */

/* The path without what says how it is compressed. Transfer full. */
static char *plain_path(const char *path)
{
    const char *ko = g_strrstr(path, ".ko");
    return g_strndup(path, ko ? (gsize)(ko - path) + 3 : strlen(path));
}

/* modules.dep and its binary twin, of what is in the archive. */
static void add_dependencies(Cpio *c, Modules *m, const char *base)
{
    g_autoptr(GString) text = g_string_new(NULL);
    ModuleIndex index;
    module_index_begin(&index);
    for (guint i = 0; i < m->order->len; i++) {
        const char *path = g_ptr_array_index(m->order, i);
        g_autofree char *name = module_name(path, strlen(path)), *plain = plain_path(path);
        const char *line = g_hash_table_lookup(m->by_name, name), *colon = strchr(line, ':');
        g_auto(GStrv) deps = g_strsplit(colon + 1, " ", -1);
        g_autoptr(GString) value = g_string_new(plain);
        g_string_append_c(value, ':');
        for (char **d = deps; *d; d++) {
            g_autofree char *dep = plain_path(*d);
            if (*dep)
                g_string_append_printf(value, " %s", dep);
        }
        g_string_append_printf(text, "%s\n", value->str);
        module_index_add(&index, name, value->str, i);
    }
    g_autoptr(GByteArray) table = module_index_end(&index);
    g_autofree char *dep = g_strconcat(base, "/modules.dep", NULL);
    g_autofree char *bin = g_strconcat(dep, ".bin", NULL);
    cpio_add_file(c, dep, 0644, text->str, text->len);
    cpio_add_file(c, bin, 0644, table->data, table->len);
}

/* As depmod stores a pattern: '_' for '-' outside of brackets. */
static void normalize_alias(char *text)
{
    bool inside = false;
    for (; *text; text++) {
        inside = *text == '[' || (inside && *text != ']');
        if (*text == '-' && !inside)
            *text = '_';
    }
}

/* "alias PATTERN NAME" and "softdep NAME ..." of what is in the archive. */
static void add_names(Cpio *c, Modules *m, const char *base)
{
    g_autoptr(GString) text = g_string_new(NULL), soft = g_string_new(NULL);
    ModuleIndex index;
    module_index_begin(&index);
    char *rest = m->alias;
    for (char *line; (line = next_line(&rest));) {
        char *space = strrchr(line, ' ');
        if (!g_str_has_prefix(line, "alias ") || !space || space <= line + 6 ||
            !g_hash_table_contains(m->seen, space + 1))
            continue;
        g_string_append_printf(text, "%s\n", line);
        g_autofree char *pattern = g_strndup(line + 6, (gsize)(space - line) - 6);
        normalize_alias(pattern);
        module_index_add(&index, pattern, space + 1, 0);
    }
    rest = m->softdep;
    for (char *line; (line = next_line(&rest));) {
        g_auto(GStrv) words = g_strsplit(line, " ", 3);
        if (words[0] && words[1] &&
            g_hash_table_contains(m->seen, g_strdelimit(words[1], "-", '_')))
            g_string_append_printf(soft, "%s\n", line);
    }
    g_autoptr(GByteArray) table = module_index_end(&index);
    g_autofree char *alias = g_strconcat(base, "/modules.alias", NULL);
    g_autofree char *bin = g_strconcat(alias, ".bin", NULL);
    g_autofree char *softdep = g_strconcat(base, "/modules.softdep", NULL);
    cpio_add_file(c, alias, 0644, text->str, text->len);
    cpio_add_file(c, bin, 0644, table->data, table->len);
    cpio_add_file(c, softdep, 0644, soft->str, soft->len);
}

/* @path's folders, once each. */
static void add_folders(Cpio *c, GHashTable *made, const char *path)
{
    for (const char *slash = path; (slash = strchr(slash, '/')); slash++) {
        g_autofree char *dir = g_strndup(path, (gsize)(slash - path));
        if (*dir && g_hash_table_add(made, g_strdup(dir)))
            cpio_add_dir(c, dir, 0755);
    }
}

static bool add_module_tree(Cpio *c, Modules *m, const char *base, GError **error)
{
    static const char *const as_is[] = {"modules.builtin", "modules.builtin.bin",
                                        "modules.builtin.alias.bin"};
    g_autoptr(GHashTable) made = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    for (guint i = 0; i < m->order->len; i++) {
        const char *path = g_ptr_array_index(m->order, i);
        g_autofree char *plain = plain_path(path);
        g_autofree char *name = g_strdup_printf("%s/%s", base, plain);
        add_folders(c, made, name);
        if (!add_to_archive(c, m, path, name, error))
            return false;
    }
    add_dependencies(c, m, base);
    add_names(c, m, base);
    for (unsigned i = 0; i < G_N_ELEMENTS(as_is); i++) {
        g_autofree char *from = g_build_filename(m->dir, as_is[i], NULL), *data = NULL;
        g_autofree char *name = g_strdup_printf("%s/%s", base, as_is[i]);
        gsize len = 0;
        if (g_file_get_contents(from, &data, &len, NULL))
            cpio_add_file(c, name, 0644, data, len);
    }
    return true;
}

static int to_memory_file(const GByteArray *a, GError **error)
{
    int fd = memfd_create("lodge-initrd", MFD_CLOEXEC);
    if (fd < 0) {
        lodge_fail_errno(error, errno, "initrd: no memory file");
        return -1;
    }
    for (size_t done = 0; done < a->len;) {
        ssize_t n = write(fd, a->data + done, a->len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            lodge_fail_errno(error, errno, "initrd: cannot be written to memory");
            close(fd);
            return -1;
        }
        done += (size_t)n;
    }
    return fd;
}

/* Everything wanted, or an error that names what is missing. */
static bool resolve(Modules *m, const InitrdPlan *plan, GError **error)
{
    for (const char *const *w = plan->modules; w && *w; w++) {
        bool optional = **w == '?';
        const char *name = *w + optional;
        if (!add_module(m, name, optional, 0) && !optional)
            g_ptr_array_add(m->missing, g_strdup(name));
    }
    if (!m->missing->len)
        return true;
    g_ptr_array_add(m->missing, NULL);
    g_autofree char *names = g_strjoinv(", ", (char **)m->missing->pdata);
    return lodge_fail(error, LODGE_ERROR_CONFIG,
                      "initrd: the kernel %s has no module %s in '%s'; install its modules, or "
                      "give --initrd", plan->version ? plan->version : plan->kernel, names, m->dir);
}

int initrd_make(const InitrdPlan *plan, GError **error)
{
    g_autoptr(Modules) m = find_modules(plan, error);
    if (!m || !resolve(m, plan, error))
        return -1;
    /* What is loaded comes first in the order, then what is only kept. */
    guint loaded = m->order->len;
    for (const char *const *w = plan->keep_modules ? plan->extra : NULL; w && *w; w++)
        (void)add_module(m, *w + (**w == '?'), true, 0);
    g_autofree char *base = g_strdup_printf("lib/modules/%s", plan->version);
    static const char *const dirs[] = {"dev", "proc", "sys", "root", "modules"};
    Cpio c;
    cpio_begin(&c);
    for (unsigned i = 0; i < G_N_ELEMENTS(dirs); i++)
        cpio_add_dir(&c, dirs[i], 0755);
    cpio_add_char_device(&c, "dev/console", 0600, CONSOLE_MAJOR, CONSOLE_MINOR);
    cpio_add_file(&c, "init", 0755, init_blob, init_blob_len);
    const char *fstype = plan->fstype ? plan->fstype : "";
    cpio_add_file(&c, "fstype", 0644, fstype, strlen(fstype));
    g_autoptr(GString) order = g_string_new(NULL);
    bool ok = true;
    for (guint i = 0; ok && i < loaded; i++) {
        const char *path = g_ptr_array_index(m->order, i);
        g_autofree char *stem = module_name(path, strlen(path)), *plain = plain_path(path);
        g_autofree char *name = g_strdup_printf("modules/%s.ko", stem);
        const char *flag = g_ptr_array_index(m->optional, i) ? " ?" : "";
        if (plan->keep_modules)
            g_string_append_printf(order, "/%s/%s%s\n", base, plain, flag);
        else
            g_string_append_printf(order, "%s.ko%s\n", stem, flag);
        ok = plan->keep_modules || add_to_archive(&c, m, path, name, error);
    }
    if (plan->keep_modules) {
        g_autofree char *ports = g_strdup_printf("%u", plan->ports);
        cpio_add_file(&c, "ports", 0644, ports, strlen(ports));
        ok = ok && add_module_tree(&c, m, base, error);
    }
    cpio_add_file(&c, "modules/order", 0644, order->str, order->len);
    g_autoptr(GByteArray) archive = cpio_end(&c);
    return ok ? to_memory_file(archive, error) : -1;
}

const char *initrd_detect_fs(const void *head, size_t len)
{
    static const struct {
        const char *name;
        size_t at;
        const char *magic;
        size_t magic_len;
    } signatures[] = {
        {"xfs", 0, "XFSB", 4},
        {"squashfs", 0, "hsqs", 4},
        {"erofs", 1024, "\342\341\365\340", 4},
        {"f2fs", 1024, "\020\040\365\362", 4},
        {"iso9660", 32769, "CD001", 5},
        {"btrfs", 65600, "_BHRfS_M", 8},
        {"vfat", 82, "FAT32", 5},
        {"vfat", 54, "FAT1", 4},
    };
    enum {
        EXT_MAGIC_AT = 1024 + 56,
        EXT_MAGIC = 0xef53,
    };
    const uint8_t *p = head;
    for (unsigned i = 0; i < G_N_ELEMENTS(signatures); i++)
        if (range_within(signatures[i].at, signatures[i].magic_len, len) &&
            !memcmp(p + signatures[i].at, signatures[i].magic, signatures[i].magic_len))
            return signatures[i].name;
    if (len < EXT_MAGIC_AT + 2 || load_le16(p + EXT_MAGIC_AT) != EXT_MAGIC)
        return NULL;
    /* ext4's driver serves all three, and is the only one that kernels have as a module today. */
    return "ext4";
}
