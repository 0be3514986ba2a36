/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A running machine after its definition was changed: what is different is found by comparing two
 * descriptions, that of the machine as it is now, which it tells, and the one that the definition
 * compiles to. Options that can have their effect at once are rows of rows[].
 *
 * Disks are the same where their file is, networks where all but the address that was chosen for
 * the card is: so a disk or card that only moved on the list stays with the guest, under the name
 * that it has. What is no longer wanted goes first, for what comes may be made of the same file or
 * tap. A disk with other options stays as it is until the next start, as the guest may be running
 * from it; only its limits change at once.
 */
#include "set_live.h"

#include <stdio.h>
#include <string.h>

#include "lodge/device.h"
#include "lodge/error.h"
#include "lodge/net.h"

#include "machines.h"
#include "run_compile.h"

#define ANSWER_SECONDS 30
#define LET_GO_SECONDS 10 /* that a guest is given */

typedef struct Live {
    const char *name, *folder; /* borrowed */
    const Tree *wanted;        /* borrowed */
    Client *client;            /* owned */
    Tree *now;                 /* owned */
    bool said;                 /* something of the option that is looked at */
} Live;

/* What can come and go: a back end with its device. */
typedef struct Unit {
    char *id;    /* owned; of both */
    char *key;   /* owned; units of two descriptions with one key are the same */
    char *rest;  /* owned; what else is known of it */
    char *what;  /* owned; for people */
    bool plugs, kept;
    uint64_t rate[2]; /* of a disk: rates[]; 0: no limit */
} Unit;

static const char *const rates[] = {"iops", "bps"};

static void say(Live *l, const char *option, bool now, const char *detail)
{
    printf("%s: %s: %s%s%s\n", l->name, option, now ? "now" : "at the next start",
           detail ? ": " : "", detail ? detail : "");
    l->said = true;
}

static bool ask(Live *l, JsonOut *call, GError **error)
{
    return client_call(l->client, call, machines_deadline(ANSWER_SECONDS), error).node != NULL;
}

/* What the machine said, without its name, which the line begins with. */
static const char *why(const Live *l, const GError *error)
{
    size_t len = strlen(l->name);
    const char *text = error->message;

    return strncmp(text, l->name, len) || strncmp(text + len, ": ", 2) ? text : text + len + 2;
}

/* Have l->now say what is so now. */
static bool look(Live *l, GError **error)
{
    Jv answer = client_call(l->client, client_begin("x-lodge-description"),
                            machines_deadline(ANSWER_SECONDS), error);
    const char *text = jv_text(jv_get(answer, "tree"));
    gsize len = 0;

    if (!text)
        return false;
    g_autofree guchar *blob = g_base64_decode(text, &len);
    g_clear_pointer(&l->now, tree_free);
    l->now = tree_from_blob(blob, len, error);
    return l->now != NULL;
}

/* ---- units ---- */

static void unit_free(gpointer opaque)
{
    Unit *u = opaque;

    g_free(u->id);
    g_free(u->key);
    g_free(u->rest);
    g_free(u->what);
    g_free(u);
}

static char *full_path(const Live *l, const char *file)
{
    bool elsewhere = g_str_has_prefix(file, "nbd:") || g_str_has_prefix(file, "nbd+unix:");

    return elsewhere ? g_strdup(file) : g_canonicalize_filename(file, l->folder);
}

static int by_name(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Whether @value is the address that the machine's card net0, net1 and so on has by itself. */
static bool is_own_mac(const Live *l, const char *value)
{
    for (unsigned n = 0; n < 32; n++) {
        uint8_t mac[6];
        net_mac_of(l->name, n, mac);
        g_autofree char *text = net_mac_text(mac);
        if (!strcmp(text, value))
            return true;
    }
    return false;
}

/* Append what @t says at @path, but for properties in @without. */
static void append_node(GString *out, const Live *l, const Tree *t, const char *path,
                        const char *const *without)
{
    g_autoptr(GPtrArray) props = tree_props(t, path);

    g_ptr_array_sort(props, by_name);
    for (unsigned i = 0; i < props->len; i++) {
        const char *prop = g_ptr_array_index(props, i);
        g_auto(GStrv) values = NULL;
        guint n = tree_strv(t, path, prop, &values);

        if (g_strv_contains(without, prop) ||
            (!strcmp(prop, "mac") && n == 1 && is_own_mac(l, values[0])))
            continue;
        g_string_append_printf(out, "%s\n", prop);
        for (guint k = 0; k < n; k++)
            g_string_append_printf(out, " %s\n", values[k]);
    }
}

static Unit *unit_new(const Live *l, const Tree *t, const char *kind, const char *id)
{
    static const char *const disk_without[] = {"file", "snapshot", "drive", "bootindex",
                                              "iops", "bps",      NULL};
    static const char *const net_without[] = {"hostfwd", "netdev", "netboot", NULL};
    bool disk = !strcmp(kind, "block");
    g_autofree char *back = g_strdup_printf("/backends/%s/%s", kind, id);
    g_autofree char *device = g_strdup_printf("/devices/%s", id);
    const char *name = tree_str(t, device, "compatible");
    const DeviceClass *cls = name ? device_class_find(name) : NULL;
    g_autoptr(GString) rest = g_string_new(NULL);

    if (disk && cls && cls->change_medium)
        return NULL; /* a drive */
    const char *const *without = disk ? disk_without : net_without;
    append_node(rest, l, t, back, without);
    append_node(rest, l, t, device, without);
    Unit *u = g_new0(Unit, 1);
    u->id = g_strdup(id);
    u->plugs = cls && !g_strcmp0(cls->bus, "pci");
    u->rest = g_strdup(rest->str);
    if (disk) {
        const char *file = tree_str(t, back, "file");
        u->key = full_path(l, file ? file : "");
        u->what = g_strdup_printf("%s (%s)", id, u->key);
        for (unsigned i = 0; i < G_N_ELEMENTS(rates); i++) {
            const char *text = tree_str(t, back, rates[i]);
            if (!text || !parse_size(text, &u->rate[i]))
                u->rate[i] = 0;
        }
    } else {
        u->key = g_strdup(rest->str);
        u->what = g_strdup_printf("%s (%s)", id, tree_str(t, back, "driver"));
    }
    return u;
}

static GPtrArray *units_of(const Live *l, const Tree *t, const char *kind)
{
    g_autofree char *under = g_strdup_printf("/backends/%s", kind);
    g_autoptr(GPtrArray) ids = tree_children(t, under);
    GPtrArray *list = g_ptr_array_new_with_free_func(unit_free);

    for (unsigned i = 0; i < ids->len; i++) {
        Unit *u = unit_new(l, t, kind, g_ptr_array_index(ids, i));
        if (u)
            g_ptr_array_add(list, u);
    }
    return list;
}

/* ---- going ---- */

static void take_out(Live *l, const char *option, const Unit *u)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *detail = NULL;

    if (u->plugs) {
        JsonOut *call = client_begin("x-lodge-unplug");
        json_string(call, "id", u->id);
        json_number(call, "seconds", LET_GO_SECONDS);
        if (ask(l, call, &error))
            detail = g_strdup_printf("%s is out", u->what);
        else
            detail = g_strdup_printf("%s: %s", u->what, why(l, error));
    } else {
        detail = g_strdup_printf("%s: is no device that can go while the machine runs", u->what);
    }
    say(l, option, u->plugs && !error, detail);
}

/* ---- coming ---- */

/* A name that nothing has yet: @id, or another of its kind; transfer full. */
static char *free_id(const Live *l, const char *kind, const char *id)
{
    g_autofree char *stem = g_strndup(id, strcspn(id, "0123456789"));

    for (unsigned i = 0;; i++) {
        char *other = i ? g_strdup_printf("%s%u", stem, i - 1) : g_strdup(id);
        g_autofree char *back = g_strdup_printf("/backends/%s/%s", kind, other);
        g_autofree char *device = g_strdup_printf("/devices/%s", other);
        if (!tree_has(l->now, back, NULL) && !tree_has(l->now, device, NULL))
            return other;
        g_free(other);
    }
}

/* The description of @u alone, under the name @id; transfer full. */
static Tree *describe(const Live *l, const char *kind, const Unit *u, const char *id)
{
    g_autofree char *back = g_strdup_printf("/backends/%s/%s", kind, id);
    g_autofree char *device = g_strdup_printf("/devices/%s", id);
    g_autofree char *old_back = g_strdup_printf("/backends/%s/%s", kind, u->id);
    g_autofree char *old_device = g_strdup_printf("/devices/%s", u->id);
    bool disk = !strcmp(kind, "block");
    Tree *t = tree_new();

    (void)tree_graft(t, back, l->wanted, old_back); /* both are there and have their room */
    (void)tree_graft(t, device, l->wanted, old_device);
    const PropSpec *p = prop_of_kind(device_class_find(tree_str(t, device, "compatible")),
                                     disk ? PROP_BLK : PROP_NET);
    if (p)
        tree_set_str(t, device, p->name, id);
    for (unsigned i = 0; disk && i < 2; i++) {
        const char *prop = i ? "base" : "file", *file = tree_str(t, back, prop);
        g_autofree char *full = file ? full_path(l, file) : NULL;
        if (full)
            tree_set_str(t, back, prop, full);
    }
    if (disk && tree_has(l->now, "/options", "ephemeral") && !tree_has(t, back, "read-only"))
        tree_set_bool(t, back, "snapshot", true);
    tree_remove(t, back, "hostfwd"); /* apply_forwards() sees to them */
    const char *mac = tree_str(t, device, "mac");
    if (mac && is_own_mac(l, mac))
        tree_remove(t, device, "mac"); /* the machine knows one that is free */
    return t;
}

static void put_in(Live *l, const char *option, const char *kind, const Unit *u)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *detail = NULL;

    if (u->plugs) {
        g_autofree char *id = free_id(l, kind, u->id);
        g_autoptr(Tree) t = describe(l, kind, u, id);
        size_t len = 0;
        const void *blob = tree_blob(t, &len);
        g_autofree char *text = blob ? g_base64_encode(blob, len) : g_strdup("");
        JsonOut *call = client_begin("x-lodge-plug");
        json_string(call, "tree", text);
        if (ask(l, call, &error))
            detail = g_strdup_printf("%s is in%s%s", u->what, strcmp(id, u->id) ? " as " : "",
                                     strcmp(id, u->id) ? id : "");
        else
            detail = g_strdup_printf("%s: %s", u->what, why(l, error));
    } else {
        detail = g_strdup_printf("%s: is no device that can come while the machine runs", u->what);
    }
    say(l, option, u->plugs && !error, detail);
    if (!error)
        (void)look(l, NULL); /* else what is known is a little old */
}

static Unit *find_same(const GPtrArray *units, const char *key)
{
    for (unsigned i = 0; i < units->len; i++) {
        Unit *u = g_ptr_array_index(units, i);
        if (!u->kept && !strcmp(u->key, key))
            return u;
    }
    return NULL;
}

/* Give the disk @here the limits of @wanted. */
static void change_rates(Live *l, const char *option, const Unit *here, const Unit *wanted)
{
    static const char *const parts[] = {"", "_rd", "_wr"};
    g_autoptr(GError) error = NULL;
    g_autofree char *detail = NULL;
    JsonOut *call = client_begin("block_set_io_throttle");

    json_string(call, "id", here->id);
    for (unsigned i = 0; i < G_N_ELEMENTS(rates); i++) {
        for (unsigned k = 0; k < G_N_ELEMENTS(parts); k++) {
            g_autofree char *name = g_strconcat(rates[i], parts[k], NULL);
            json_number(call, name, k ? 0 : (int64_t)MIN(wanted->rate[i], INT64_MAX));
        }
    }
    if (ask(l, call, &error))
        detail = g_strdup_printf("limits of %s", here->what);
    else
        detail = g_strdup_printf("limits of %s: %s", here->what, why(l, error));
    say(l, option, !error, detail);
}

static void apply_units(Live *l, const char *option, const char *kind)
{
    g_autoptr(GPtrArray) here = units_of(l, l->now, kind);
    g_autoptr(GPtrArray) wanted = units_of(l, l->wanted, kind);

    for (unsigned i = 0; i < wanted->len; i++) {
        Unit *u = g_ptr_array_index(wanted, i), *same = find_same(here, u->key);
        if (!same)
            continue;
        u->kept = same->kept = true;
        if (strcmp(u->rest, same->rest)) {
            g_autofree char *detail = g_strdup_printf("other options of %s", same->what);
            say(l, option, false, detail);
        }
        if (memcmp(u->rate, same->rate, sizeof u->rate))
            change_rates(l, option, same, u);
    }
    for (unsigned i = 0; i < here->len; i++) {
        const Unit *u = g_ptr_array_index(here, i);
        if (!u->kept)
            take_out(l, option, u);
    }
    (void)look(l, NULL); /* else what is known is a little old */
    for (unsigned i = 0; i < wanted->len; i++) {
        const Unit *u = g_ptr_array_index(wanted, i);
        if (!u->kept)
            put_in(l, option, kind, u);
    }
}

static void apply_disks(Live *l, const char *option)
{
    apply_units(l, option, "block");
}

/* ---- ports ---- */

typedef struct Forward {
    char *net, *rule; /* owned; the network that has it */
} Forward;

static void forward_free(gpointer opaque)
{
    Forward *f = opaque;

    g_free(f->net);
    g_free(f->rule);
    g_free(f);
}

static GPtrArray *forwards_of(const Tree *t)
{
    g_autoptr(GPtrArray) ids = tree_children(t, "/backends/net");
    GPtrArray *list = g_ptr_array_new_with_free_func(forward_free);

    for (unsigned i = 0; i < ids->len; i++) {
        const char *id = g_ptr_array_index(ids, i);
        g_autofree char *path = g_strdup_printf("/backends/net/%s", id);
        g_auto(GStrv) rules = NULL;
        guint n = tree_strv(t, path, "hostfwd", &rules);

        for (guint k = 0; k < n; k++) {
            Forward *f = g_new0(Forward, 1);
            *f = (Forward){g_strdup(id), g_strdup(rules[k])};
            g_ptr_array_add(list, f);
        }
    }
    return list;
}

static bool has_rule(const GPtrArray *list, const char *rule)
{
    for (unsigned i = 0; i < list->len; i++) {
        if (!strcmp(((const Forward *)g_ptr_array_index(list, i))->rule, rule))
            return true;
    }
    return false;
}

/* @net: NULL: the first user network. */
static void change_forward(Live *l, const char *option, const char *net, const char *rule)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *detail = NULL;
    JsonOut *call = client_begin(net ? "x-lodge-hostfwd-remove" : "x-lodge-hostfwd-add");

    if (net)
        json_string(call, "netdev", net);
    json_string(call, "rule", rule);
    if (ask(l, call, &error))
        detail = g_strdup_printf("%s is %s", rule, net ? "out" : "in");
    else
        detail = g_strdup_printf("%s: %s", rule, why(l, error));
    say(l, option, !error, detail);
}

static void apply_forwards(Live *l, const char *option)
{
    g_autoptr(GPtrArray) here = forwards_of(l->now), wanted = forwards_of(l->wanted);

    for (unsigned i = 0; i < here->len; i++) {
        const Forward *f = g_ptr_array_index(here, i);
        if (!has_rule(wanted, f->rule))
            change_forward(l, option, f->net, f->rule);
    }
    for (unsigned i = 0; i < wanted->len; i++) {
        const Forward *f = g_ptr_array_index(wanted, i);
        if (!has_rule(here, f->rule))
            change_forward(l, option, NULL, f->rule);
    }
}

static void apply_nets(Live *l, const char *option)
{
    apply_units(l, option, "net");
    apply_forwards(l, option);
}

/* ---- media ---- */

/* Put the medium of drive @id into it. */
static bool change_medium(Live *l, const char *id)
{
    g_autofree char *back = g_strdup_printf("/backends/block/%s", id);
    const char *file = tree_str(l->wanted, back, "file");
    JsonOut *call = client_begin(file ? "blockdev-change-medium" : "eject");

    json_string(call, "id", id);
    if (file) {
        g_autofree char *full = full_path(l, file);
        json_string(call, "filename", full);
        json_string(call, "read-only-mode",
                    tree_has(l->wanted, back, "read-only") ? "read-only" : "read-write");
    }
    return ask(l, call, NULL);
}

/* Drives themselves stay as they are: those that both descriptions have get their media. */
static void apply_media(Live *l, const char *option)
{
    const char *stem = !strcmp(option, "cdrom") ? "cd" : "floppy";
    bool all = true;

    for (unsigned n = 0; n < 4; n++) {
        g_autofree char *id = g_strdup_printf("%s%u", stem, n);
        g_autofree char *device = g_strdup_printf("/devices/%s", id);
        bool here = tree_has(l->now, device, NULL), wanted = tree_has(l->wanted, device, NULL);
        all = here == wanted && (!here || change_medium(l, id)) && all;
    }
    say(l, option, all, NULL);
}

/* ---- memory ---- */

/* Whether @prop of /memory is another one than the machine was started with. */
static bool memory_differs(const Live *l, const char *prop)
{
    return g_strcmp0(tree_str(l->now, "/memory", prop), tree_str(l->wanted, "/memory", prop)) ||
           tree_has(l->now, "/memory", prop) != tree_has(l->wanted, "/memory", prop);
}

/* The guest's balloon makes it smaller, and larger up to what it was started with. */
static void apply_memory(Live *l, const char *option)
{
    g_autoptr(GError) error = NULL;
    uint64_t size = 0;
    const char *later = NULL;
    Jv told = client_call(l->client, client_begin("x-lodge-stats"),
                          machines_deadline(ANSWER_SECONDS), &error);
    Jv balloon = jv_get(told, "balloon");

    (void)tree_u64(l->wanted, "/memory", "size", &size); /* it has one */
    if (memory_differs(l, "huge") || memory_differs(l, "prefault") || memory_differs(l, "shared"))
        later = "other options of it";
    else if (jv_kind(balloon) != JV_OBJECT)
        later = error ? error->message : "it runs without a balloon";
    else if (size > (uint64_t)jv_int(jv_get(balloon, "ram")))
        later = "it was started with less";
    else if (!jv_bool(jv_get(balloon, "driver")))
        later = "the guest has no driver for its balloon";
    if (!later) {
        JsonOut *call = client_begin("balloon");
        json_number(call, "value", (int64_t)size);
        later = ask(l, call, &error) ? NULL : error->message;
    }
    say(l, option, !later, later ? later : "by the guest's balloon");
}

/* ---- all of it ---- */

static const struct {
    const char *option;
    void (*apply)(Live *l, const char *option); /* says what becomes of it, nothing: all is so */
} rows[] = {
    {"cdrom", apply_media},
    {"disk", apply_disks},
    {"floppy", apply_media},
    {"memory", apply_memory},
    {"net", apply_nets},
    {"publish", apply_forwards},
};

static void apply(Live *l, const char *option)
{
    unsigned i = 0;

    l->said = false;
    while (i < G_N_ELEMENTS(rows) && strcmp(rows[i].option, option))
        i++;
    bool now = i < G_N_ELEMENTS(rows) && l->client && look(l, NULL);
    if (now)
        rows[i].apply(l, option);
    if (!l->said)
        say(l, option, now, NULL);
}

void set_live(const char *name, const GPtrArray *options, const Tree *wanted, const char *folder)
{
    Live l = {.name = name, .folder = folder, .wanted = wanted};

    l.client = machines_reach(name, machines_deadline(ANSWER_SECONDS), NULL);
    for (unsigned i = 0; i < options->len; i++)
        apply(&l, g_ptr_array_index(options, i));
    client_free(l.client);
    tree_free(l.now);
}
