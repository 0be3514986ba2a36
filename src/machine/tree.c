/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The machine description.
 *
 * Held as nodes with lists, written and read as a flattened device tree by libfdt's sequential
 * calls (the read-write ones put new nodes first, which would turn every list of devices round).
 * Spec: Devicetree Specification v0.4, chapters 2.2 (names), 5 (flat format), 6 (source format).
 *
 * What differs from the specification: node names may be longer than 31 characters, up to
 * TREE_NAME_MAX, as file-derived names need it; dtc and libfdt take that.
 *
 * Invariants:
 *  (1) Every name in the tree matches name_ok(), no two siblings and no two properties of a node
 *      share one, and the ceilings below hold. A flat tree that breaks this is refused.
 *  (2) A property of kind PROP_TEXT ends in NUL.
 */
#include "tree.h"

#include <libfdt.h>
#include <string.h>

#include "lodge/error.h"
#include "lodge/num.h"

#define TREE_NODES_MAX 4096
#define TREE_DEPTH_MAX 16
#define TREE_PROPS_MAX 256
#define TREE_PROP_BYTES_MAX ((size_t)MIB)
#define TREE_BLOB_MAX ((size_t)(16 * MIB))
#define TREE_NAME_MAX 127
#define TREE_BLOB_FIRST ((size_t)(4 * KIB))

typedef enum TreeKind { TREE_TEXT, TREE_CELLS, TREE_EMPTY, TREE_BYTES } TreeKind;

typedef struct TreeProp {
    char *name; /* owned */
    TreeKind kind;
    GByteArray *data; /* owned */
} TreeProp;

typedef struct TreeNode TreeNode;
struct TreeNode {
    char *name;          /* owned; "" for the root */
    GPtrArray *props;    /* TreeProp, owned, in order */
    GPtrArray *children; /* TreeNode, owned, in order */
};

struct Tree {
    TreeNode *root; /* owned */
    unsigned nodes;
    void *blob; /* owned; NULL: not made since the last change */
    size_t blob_len;
};

static void prop_free(gpointer p)
{
    TreeProp *prop = p;

    g_free(prop->name);
    g_byte_array_unref(prop->data);
    g_free(prop);
}

static void node_free(gpointer p)
{
    TreeNode *n = p;

    g_free(n->name);
    g_ptr_array_unref(n->props);
    g_ptr_array_unref(n->children);
    g_free(n);
}

static TreeNode *node_new(const char *name, size_t len)
{
    TreeNode *n = g_new0(TreeNode, 1);

    n->name = g_strndup(name, len);
    n->props = g_ptr_array_new_with_free_func(prop_free);
    n->children = g_ptr_array_new_with_free_func(node_free);
    return n;
}

static unsigned node_count(const TreeNode *n)
{
    unsigned sum = 1;

    for (guint i = 0; i < n->children->len; i++)
        sum += node_count(g_ptr_array_index(n->children, i));
    return sum;
}

Tree *tree_new(void)
{
    Tree *t = g_new0(Tree, 1);

    t->root = node_new("", 0);
    t->nodes = 1;
    return t;
}

void tree_free(Tree *t)
{
    if (!t)
        return;
    node_free(t->root);
    g_free(t->blob);
    g_free(t);
}

/* Spec: 2.2.1 (node names), 2.2.4 (property names): the union of both sets. */
static bool name_ok(const char *name, size_t len)
{
    if (!len || len > TREE_NAME_MAX)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (!g_ascii_isalnum(name[i]) && !strchr(",._+-@?#", name[i]))
            return false;
        if (!name[i])
            return false;
    }
    return true;
}

/* "name" was the node's own name in flat trees before version 16; dtc refuses another value. */
static bool prop_name_ok(const char *name)
{
    return name_ok(name, strlen(name)) && strcmp(name, "name");
}

static TreeNode *child_find(const TreeNode *n, const char *name, size_t len)
{
    for (guint i = 0; i < n->children->len; i++) {
        TreeNode *c = g_ptr_array_index(n->children, i);

        if (strlen(c->name) == len && !memcmp(c->name, name, len))
            return c;
    }
    return NULL;
}

static TreeProp *prop_find(const TreeNode *n, const char *name)
{
    for (guint i = 0; i < n->props->len; i++) {
        TreeProp *p = g_ptr_array_index(n->props, i);

        if (!strcmp(p->name, name))
            return p;
    }
    return NULL;
}

/* The next component of *path, which moves past it; NULL at the end. */
static const char *path_next(const char **path, size_t *ret_len)
{
    const char *s = *path;

    while (*s == '/')
        s++;
    *ret_len = strcspn(s, "/");
    *path = s + *ret_len;
    return *ret_len ? s : NULL;
}

static TreeNode *node_find(const Tree *t, const char *path)
{
    TreeNode *n = t->root;
    const char *name;
    size_t len;

    if (path[0] != '/')
        return NULL;
    while (n && (name = path_next(&path, &len)))
        n = child_find(n, name, len);
    return n;
}

/* Checks the whole of @path before it makes anything, so that a refusal changes nothing. */
static TreeNode *node_ensure(Tree *t, const char *path)
{
    TreeNode *n = t->root;
    const char *rest = path, *name;
    unsigned depth = 0;
    size_t len;

    if (path[0] != '/')
        return NULL;
    while ((name = path_next(&rest, &len))) {
        if (!name_ok(name, len) || ++depth > TREE_DEPTH_MAX)
            return NULL;
    }
    if (t->nodes + depth > TREE_NODES_MAX && !node_find(t, path))
        return NULL;
    rest = path;
    while ((name = path_next(&rest, &len))) {
        TreeNode *c = child_find(n, name, len);

        if (!c) {
            c = node_new(name, len);
            g_ptr_array_add(n->children, c);
            t->nodes++;
        }
        n = c;
    }
    return n;
}

static void tree_changed(Tree *t)
{
    g_clear_pointer(&t->blob, g_free);
    t->blob_len = 0;
}

static bool tree_put(Tree *t, const char *path, const char *prop, TreeKind kind, const void *data,
                     size_t len, bool add)
{
    TreeNode *n;
    TreeProp *p;

    if (!prop_name_ok(prop) || len > TREE_PROP_BYTES_MAX)
        return false;
    n = node_find(t, path);
    p = n ? prop_find(n, prop) : NULL;
    if (!p && n && n->props->len >= TREE_PROPS_MAX)
        return false;
    if (p && add && (p->kind != TREE_TEXT || p->data->len > TREE_PROP_BYTES_MAX - len))
        return false;
    if (!n && !(n = node_ensure(t, path)))
        return false;
    if (!p) {
        p = g_new0(TreeProp, 1);
        p->name = g_strdup(prop);
        p->data = g_byte_array_new();
        g_ptr_array_add(n->props, p);
    } else if (!add) {
        g_byte_array_set_size(p->data, 0);
    }
    p->kind = kind;
    if (len)
        g_byte_array_append(p->data, data, (guint)len);
    tree_changed(t);
    return true;
}

/* Whether a property of the flat form, which does not say what it holds, is text: it ends in NUL, and
 * no string of it is empty unless it is the only one. Four or eight bytes may be a number: they are
 * text where all of it can be shown. */
static bool is_text(const char *data, size_t len)
{
    bool number = len == sizeof(uint32_t) || len == sizeof(uint64_t);
    bool text = len && data[len - 1] == '\0';

    for (size_t at = 0; text && at < len;) {
        size_t n = strlen(data + at);

        text = (n || len == 1) && (!number || g_utf8_validate(data + at, (gssize)n, NULL));
        for (size_t i = 0; text && number && i < n; i++)
            text = !g_ascii_iscntrl(data[at + i]);
        at += n + 1;
    }
    return text;
}

bool tree_set_str(Tree *t, const char *path, const char *prop, const char *value)
{
    size_t len = strlen(value) + 1;

    return is_text(value, len) && tree_put(t, path, prop, TREE_TEXT, value, len, false);
}

bool tree_add_str(Tree *t, const char *path, const char *prop, const char *value)
{
    size_t len = strlen(value) + 1;

    return is_text(value, len) && tree_put(t, path, prop, TREE_TEXT, value, len, true);
}

bool tree_set_u32(Tree *t, const char *path, const char *prop, uint32_t value)
{
    uint8_t be[sizeof value];

    store_be32(be, value);
    return tree_put(t, path, prop, TREE_CELLS, be, sizeof be, false);
}

bool tree_set_u64(Tree *t, const char *path, const char *prop, uint64_t value)
{
    uint8_t be[sizeof value];

    store_be64(be, value);
    return tree_put(t, path, prop, TREE_CELLS, be, sizeof be, false);
}

bool tree_set_bool(Tree *t, const char *path, const char *prop, bool value)
{
    if (value)
        return tree_put(t, path, prop, TREE_EMPTY, NULL, 0, false);
    tree_remove(t, path, prop);
    return true;
}

bool tree_add_node(Tree *t, const char *path)
{
    tree_changed(t);
    return node_ensure(t, path) != NULL;
}

void tree_remove(Tree *t, const char *path, const char *prop)
{
    TreeNode *n = node_find(t, path);

    if (!n)
        return;
    tree_changed(t);
    if (prop) {
        TreeProp *p = prop_find(n, prop);

        if (p)
            g_ptr_array_remove(n->props, p);
    } else if (n != t->root) {
        g_autofree char *up = g_path_get_dirname(path);
        TreeNode *parent = node_find(t, up);

        t->nodes -= node_count(n);
        g_ptr_array_remove(parent->children, n);
    }
}

static bool graft(Tree *t, const char *path, const TreeNode *from)
{
    bool ok = tree_add_node(t, path);

    for (guint i = 0; ok && i < from->props->len; i++) {
        const TreeProp *p = g_ptr_array_index(from->props, i);

        ok = tree_put(t, path, p->name, p->kind, p->data->data, p->data->len, false);
    }
    for (guint i = 0; ok && i < from->children->len; i++) {
        const TreeNode *c = g_ptr_array_index(from->children, i);
        g_autofree char *under = g_strdup_printf("%s/%s", path, c->name);

        ok = graft(t, under, c); /* as deep as a tree can be */
    }
    return ok;
}

bool tree_graft(Tree *t, const char *path, const Tree *from, const char *from_path)
{
    const TreeNode *n = node_find(from, from_path);

    if (!n)
        return false;
    tree_remove(t, path, NULL);
    return graft(t, path, n);
}

bool tree_has(const Tree *t, const char *path, const char *prop)
{
    TreeNode *n = node_find(t, path);

    return n && (!prop || prop_find(n, prop));
}

static const TreeProp *prop_of_kind(const Tree *t, const char *path, const char *prop,
                                    TreeKind kind)
{
    TreeNode *n = node_find(t, path);
    TreeProp *p = n ? prop_find(n, prop) : NULL;

    return p && p->kind == kind ? p : NULL;
}

const char *tree_str(const Tree *t, const char *path, const char *prop)
{
    const TreeProp *p = prop_of_kind(t, path, prop, TREE_TEXT);

    return p ? (const char *)p->data->data : NULL;
}

bool tree_u64(const Tree *t, const char *path, const char *prop, uint64_t *ret_value)
{
    TreeNode *n = node_find(t, path);
    TreeProp *p = n ? prop_find(n, prop) : NULL;

    /* By length, not by kind: of a flat tree the kind is a guess. */
    if (p && p->data->len == sizeof(uint32_t))
        *ret_value = load_be32(p->data->data);
    else if (p && p->data->len == sizeof(uint64_t))
        *ret_value = load_be64(p->data->data);
    else
        return false;
    return true;
}

guint tree_strv(const Tree *t, const char *path, const char *prop, GStrv *ret_list)
{
    const TreeProp *p = prop_of_kind(t, path, prop, TREE_TEXT);
    GPtrArray *list = g_ptr_array_new();
    guint count;

    for (guint at = 0; p && at < p->data->len;) {
        const char *s = (const char *)p->data->data + at;

        g_ptr_array_add(list, g_strdup(s));
        at += (guint)strlen(s) + 1; /* keeps in bounds: invariant (2) */
    }
    count = list->len;
    g_ptr_array_add(list, NULL);
    *ret_list = (GStrv)g_ptr_array_free(list, FALSE);
    return count;
}

GPtrArray *tree_children(const Tree *t, const char *path)
{
    GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
    TreeNode *n = node_find(t, path);

    for (guint i = 0; n && i < n->children->len; i++)
        g_ptr_array_add(names, g_strdup(((TreeNode *)g_ptr_array_index(n->children, i))->name));
    return names;
}

GPtrArray *tree_props(const Tree *t, const char *path)
{
    GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
    TreeNode *n = node_find(t, path);

    for (guint i = 0; n && i < n->props->len; i++)
        g_ptr_array_add(names, g_strdup(((TreeProp *)g_ptr_array_index(n->props, i))->name));
    return names;
}

/* Spec: 6.3: a string takes C escapes; bytes past ASCII stand as they are where they are UTF-8. */
static void source_string(GString *out, const char *s)
{
    bool utf8 = g_utf8_validate(s, -1, NULL);

    g_string_append_c(out, '"');
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;

        if (c == '"' || c == '\\')
            g_string_append_printf(out, "\\%c", c);
        else if (c < 0x20 || c == 0x7f || (c >= 0x80 && !utf8))
            g_string_append_printf(out, "\\x%02x", c);
        else
            g_string_append_c(out, (char)c);
    }
    g_string_append_c(out, '"');
}

static void source_prop(GString *out, const TreeProp *p)
{
    const uint8_t *data = p->data->data;
    guint len = p->data->len;

    g_string_append(out, p->name);
    switch (p->kind) {
    case TREE_EMPTY:
        break;
    case TREE_TEXT:
        g_string_append(out, " = ");
        for (guint at = 0; at < len; at += (guint)strlen((const char *)data + at) + 1) {
            if (at)
                g_string_append(out, ", ");
            source_string(out, (const char *)data + at);
        }
        break;
    case TREE_CELLS:
        g_string_append(out, " = <");
        for (guint at = 0; at < len; at += sizeof(uint32_t))
            g_string_append_printf(out, "%s0x%x", at ? " " : "", load_be32(data + at));
        g_string_append_c(out, '>');
        break;
    case TREE_BYTES:
        g_string_append(out, " = [");
        for (guint at = 0; at < len; at++)
            g_string_append_printf(out, "%s%02x", at ? " " : "", data[at]);
        g_string_append_c(out, ']');
        break;
    }
    g_string_append(out, ";\n");
}

static void source_indent(GString *out, unsigned depth)
{
    for (unsigned i = 0; i < depth; i++)
        g_string_append_c(out, '\t');
}

static void source_node(GString *out, const TreeNode *n, unsigned depth)
{
    source_indent(out, depth);
    g_string_append_printf(out, "%s {\n", depth ? n->name : "/");
    for (guint i = 0; i < n->props->len; i++) {
        source_indent(out, depth + 1);
        source_prop(out, g_ptr_array_index(n->props, i));
    }
    for (guint i = 0; i < n->children->len; i++) {
        if (i || n->props->len)
            g_string_append_c(out, '\n');
        source_node(out, g_ptr_array_index(n->children, i), depth + 1);
    }
    source_indent(out, depth);
    g_string_append(out, "};\n");
}

char *tree_source(const Tree *t)
{
    GString *out = g_string_new("/dts-v1/;\n\n");

    source_node(out, t->root, 0);
    return g_string_free(out, FALSE);
}

static int blob_node(void *fdt, const TreeNode *n)
{
    int err = fdt_begin_node(fdt, n->name);

    for (guint i = 0; !err && i < n->props->len; i++) {
        const TreeProp *p = g_ptr_array_index(n->props, i);

        err = fdt_property(fdt, p->name, p->data->data, (int)p->data->len);
    }
    for (guint i = 0; !err && i < n->children->len; i++)
        err = blob_node(fdt, g_ptr_array_index(n->children, i));
    return err ? err : fdt_end_node(fdt);
}

static int blob_write(const Tree *t, void *buf, size_t size)
{
    int err = fdt_create(buf, (int)size);

    if (!err)
        err = fdt_finish_reservemap(buf);
    if (!err)
        err = blob_node(buf, t->root);
    return err ? err : fdt_finish(buf);
}

const void *tree_blob(Tree *t, size_t *ret_len)
{
    for (size_t size = TREE_BLOB_FIRST; !t->blob && size <= TREE_BLOB_MAX; size *= 2) {
        g_autofree void *buf = g_try_malloc(size);

        if (!buf)
            return NULL;
        if (blob_write(t, buf, size))
            continue;
        t->blob_len = fdt_totalsize(buf);
        t->blob = g_steal_pointer(&buf);
    }
    if (t->blob)
        *ret_len = t->blob_len;
    return t->blob;
}

static TreeKind kind_guess(const char *data, size_t len)
{
    if (!len)
        return TREE_EMPTY;
    if (is_text(data, len))
        return TREE_TEXT;
    return len % sizeof(uint32_t) ? TREE_BYTES : TREE_CELLS;
}

static bool read_props(TreeNode *n, const void *fdt, int node, GError **error)
{
    int off;

    fdt_for_each_property_offset(off, fdt, node)
    {
        int len;
        const char *name;
        const char *data = fdt_getprop_by_offset(fdt, off, &name, &len);
        TreeProp *p;

        if (!data)
            return lodge_fail(error, LODGE_ERROR_IMAGE, "machine description: node \"%s\": %s",
                              n->name, fdt_strerror(len));
        if (!prop_name_ok(name) || prop_find(n, name))
            return lodge_fail(error, LODGE_ERROR_IMAGE,
                              "machine description: node \"%s\": a property's name is illegal or "
                              "stands twice",
                              n->name);
        if (n->props->len >= TREE_PROPS_MAX || (size_t)len > TREE_PROP_BYTES_MAX)
            return lodge_fail(error, LODGE_ERROR_LIMIT,
                              "machine description: node \"%s\": property \"%s\" is over the limit "
                              "of %d properties or %zu bytes",
                              n->name, name, TREE_PROPS_MAX, TREE_PROP_BYTES_MAX);
        p = g_new0(TreeProp, 1);
        p->name = g_strdup(name);
        p->kind = kind_guess(data, (size_t)len);
        p->data = g_byte_array_new();
        if (len)
            g_byte_array_append(p->data, (const guint8 *)data, (guint)len);
        g_ptr_array_add(n->props, p);
    }
    return true;
}

static bool read_nodes(Tree *t, const void *fdt, GError **error)
{
    TreeNode *at[TREE_DEPTH_MAX + 1] = {t->root};
    int depth = 0;

    /* One walk in the order of the bytes: linear, where a look-up of each child would not be. */
    for (int node = fdt_next_node(fdt, 0, &depth); node >= 0 && depth > 0;
         node = fdt_next_node(fdt, node, &depth)) {
        int len;
        const char *name = fdt_get_name(fdt, node, &len);

        if (depth > TREE_DEPTH_MAX || t->nodes >= TREE_NODES_MAX)
            return lodge_fail(error, LODGE_ERROR_LIMIT,
                              "machine description: over %d nodes or %d levels", TREE_NODES_MAX,
                              TREE_DEPTH_MAX);
        if (!name || !name_ok(name, (size_t)len) || child_find(at[depth - 1], name, (size_t)len))
            return lodge_fail(error, LODGE_ERROR_IMAGE,
                              "machine description: under node \"%s\": a name is illegal or stands "
                              "twice",
                              at[depth - 1]->name);
        at[depth] = node_new(name, (size_t)len);
        g_ptr_array_add(at[depth - 1]->children, at[depth]);
        t->nodes++;
        if (!read_props(at[depth], fdt, node, error))
            return false;
    }
    return true;
}

Tree *tree_from_blob(const void *data, size_t len, GError **error)
{
    g_autofree void *copy = NULL;
    g_autoptr(Tree) t = tree_new();
    int err;

    if (len > TREE_BLOB_MAX) {
        lodge_fail(error, LODGE_ERROR_LIMIT,
                   "machine description: %zu bytes, over the limit of %zu", len, TREE_BLOB_MAX);
        return NULL;
    }
    /* libfdt wants 8-byte alignment, and the checks must hold for the bytes that are used. */
    copy = g_try_malloc(MAX(len, sizeof(struct fdt_header)));
    if (!copy) {
        lodge_fail(error, LODGE_ERROR_LIMIT, "machine description: no memory for %zu bytes", len);
        return NULL;
    }
    memset(copy, 0, sizeof(struct fdt_header));
    if (len) /* data may be NULL then */
        memcpy(copy, data, len);
    err = fdt_check_full(copy, len);
    if (err) {
        lodge_fail(error, LODGE_ERROR_IMAGE, "machine description: %s", fdt_strerror(err));
        return NULL;
    }
    if (!read_props(t->root, copy, 0, error) || !read_nodes(t, copy, error))
        return NULL;
    return g_steal_pointer(&t);
}
