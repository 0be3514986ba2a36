/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_RUN_COMPILE_H
#define LODGE_RUN_COMPILE_H

/*
 * Between the files that compile the words of "lodge run" to a machine description: run_args.c (the
 * whole), run_boot.c, run_disks.c, run_nets.c, run_props.c (devices and their properties). Each
 * compile_*() reads its options of @o and writes its part of @t; false with LODGE_ERROR_CONFIG:
 * WHICH: WHY; what to do.
 */

#include "lodge/device.h"

#include "options.h"
#include "tree.h"

/* What is started: a kernel, or firmware that finds something itself. */
bool compile_boot(Tree *t, const Options *o, GError **error);
/* --boot, --smbios: after the devices, which they name. */
bool compile_firmware(Tree *t, const Options *o, GError **error);
bool run_has_firmware(const Options *o);
bool compile_disks(Tree *t, const Options *o, GError **error);
bool compile_cdroms(Tree *t, const Options *o, GError **error);
bool compile_floppies(Tree *t, const Options *o, GError **error);
bool compile_nets(Tree *t, const Options *o, GError **error);
/* [ADDR:]HOST:GUEST[/udp] in the user network's own form. Transfer full; NULL with the error. */
char *publish_rule(const char *text, GError **error);
/* Likewise of --unpublish, which names the host's end alone. */
char *unpublish_rule(const char *text, GError **error);

/* Rows of a class's table; NULL: none. Transfer none. */
const PropSpec *prop_named(const DeviceClass *cls, const char *name);
const PropSpec *prop_of_kind(const DeviceClass *cls, PropKind kind);
/* A class that can be added; --@option is what asks. */
const DeviceClass *class_for(const char *option, const char *name, GError **error);
/* Whether @value is one for @p. */
bool prop_check(const char *option, const DeviceClass *cls, const PropSpec *p, const char *value,
                GError **error);
/* Names that --disk and --net take besides their own: a class's properties, back ends aside. */
void props_list(GString *out, const DeviceClass *cls);
/* tree_set_str(), told as an error. */
bool put(Tree *t, const char *path, const char *prop, const char *value, GError **error);
/* Add node /devices/@id; its path, transfer full. */
char *device_add(Tree *t, const char *id, const DeviceClass *cls);
/* Whether @name can name a machine, a channel, a device. @what: in the message. */
bool name_check(const char *what, const char *name, GError **error);

#endif
