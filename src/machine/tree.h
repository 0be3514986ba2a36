/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_TREE_H
#define LODGE_TREE_H

/*
 * The machine description: one tree of nodes with properties that is the VM. Everything that
 * starts a machine compiles to it, and it travels as a flattened device tree. Nodes are named by
 * absolute path ("/devices/disk0"), so no offset of the flat form leaks. No property is called
 * "name": dtc takes that for the node's own name.
 *
 * Schema, version 1 (strings unless said otherwise; a bool is an empty property that is there):
 *   /                    compatible = "lodge,machine-1"; vm-name; uuid (absent: none was asked for)
 *   /memory              size (u64, bytes); huge = "on" | "thp" | "off"; prefault, shared (bools)
 *   /cpus                count (u32); model
 *   /boot                kernel; initrd (list); append; protocol; modules; cache (bool); or
 *                        firmware; order (letters a, c, d, n), menu (bool), menu-timeout (u32, ms)
 *   /smbios              texts by their keys, see smbios.h
 *   /rtc                 base = "utc" | "localtime" | seconds since the epoch
 *   /options             debug-exit, no-reboot, ephemeral (bools); on-panic, watchdog-action =
 *                        "poweroff" | "reset" | "pause" | "none" | "shutdown"
 *   /backends/block/ID   file; base; format; read-only, snapshot (bools); cache; aio
 *   /backends/net/ID     driver; then the driver's options, each a list of strings
 *   /backends/chan/ID    spec, as chan_open() takes it; con0 is the first serial port's, con1 the
 *                        second's
 *   /devices/ID          compatible = name of a device class; then its properties as strings
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <glib.h>

typedef struct Tree Tree;

#define TREE_COMPATIBLE "lodge,machine-1"

/* A tree with an empty root; transfer full. */
Tree *tree_new(void);
void tree_free(Tree *t); /* NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Tree, tree_free)

/**
 * tree_set_str() - Give property @prop of node @path the text @value, copied
 * @path: absolute; nodes that are not there are made, after their siblings
 * Context: the tree's thread, as for all of these; a tree has no lock.
 * @value: any bytes; but of three or seven bytes only what can be shown, since with its NUL it would
 *         be read back as a number from the flat form
 * Return: false, and nothing is changed, when @path, @prop or @value is not legal, or the tree is
 *         at its ceiling (4096 nodes, 16 deep, 256 properties a node, 1 MiB a property).
 */
bool tree_set_str(Tree *t, const char *path, const char *prop, const char *value);
bool tree_set_u32(Tree *t, const char *path, const char *prop, uint32_t value);
bool tree_set_u64(Tree *t, const char *path, const char *prop, uint64_t value);
/* False takes the property away. */
bool tree_set_bool(Tree *t, const char *path, const char *prop, bool value);
/* Append @value to a list of strings. */
bool tree_add_str(Tree *t, const char *path, const char *prop, const char *value);
/* Make a node and those above it. */
bool tree_add_node(Tree *t, const char *path);
/* Take away a property, or with @prop NULL the node and all under it. Absent: nothing. */
void tree_remove(Tree *t, const char *path, const char *prop);

/* Put a copy of node @from_path of @from, and of all under it, at @path of @t, for what is there.
 * False: as tree_set_str(), and then a part may be there; or there is no such node. */
bool tree_graft(Tree *t, const char *path, const Tree *from, const char *from_path);

/* Whether node @path has @prop; with @prop NULL, whether the node is there. Reads a bool. */
bool tree_has(const Tree *t, const char *path, const char *prop);
/* The property's text (of a list: the first); NULL: absent or not text. Transfer none, until the
 * property is set again. */
const char *tree_str(const Tree *t, const char *path, const char *prop);
/* A u32 or u64 property; false: absent or another length. */
bool tree_u64(const Tree *t, const char *path, const char *prop, uint64_t *ret_value);
/* All strings of a list, NULL-terminated, transfer full; the count. Absent or not text: 0, and an
 * empty list. */
guint tree_strv(const Tree *t, const char *path, const char *prop, GStrv *ret_list);
/* Names (char *) of the nodes under @path, or of its properties, in order; transfer full. */
GPtrArray *tree_children(const Tree *t, const char *path);
GPtrArray *tree_props(const Tree *t, const char *path);

/* Device-tree source, as dtc reads it; transfer full. */
char *tree_source(const Tree *t);
/* The flat form, owned by the tree until it changes; NULL only when memory ran out. */
const void *tree_blob(Tree *t, size_t *ret_len);
/**
 * tree_from_blob() - Read a flat tree that somebody else made
 * @data: any bytes, any alignment; read, never kept
 * Return: transfer full, or NULL: LODGE_ERROR_IMAGE (malformed; names what), LODGE_ERROR_LIMIT.
 */
Tree *tree_from_blob(const void *data, size_t len, GError **error);

#endif
