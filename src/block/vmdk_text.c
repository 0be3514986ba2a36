/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The descriptor of a VMDK image: lines of KEY=VALUE, and one line for each extent,
 *
 *   ACCESS SECTORS TYPE ["FILE" [OFFSET]]
 *
 * Lines that are not known are kept as they are. An extent may only name a file in its image's
 * folder or below it, since an image may come from anybody.
 *
 * Threads: any; pure.
 *
 * Spec: VMware, Virtual Disk Format 5.0, "The Descriptor File".
 */
#include <string.h>

#include "lodge/num.h"

#include "vmdk.h"

static void extent_clear(void *opaque)
{
    VmdkExtent *e = opaque;

    g_free(e->type);
    g_free(e->name);
}

void vmdk_text_clear(VmdkText *t)
{
    g_free(t->text);
    g_free(t->type);
    g_free(t->parent);
    if (t->extents)
        g_array_unref(t->extents);
    memset(t, 0, sizeof *t);
}

bool vmdk_name_ok(const char *name)
{
    g_auto(GStrv) parts = g_strsplit(name, "/", -1);

    for (char **p = parts; *p; p++)
        if (strcmp(*p, "..") == 0)
            return false;
    return *name && *name != '/';
}

/* "KEY = VALUE" or "KEY=\"VALUE\""; the value, transfer full, NULL: another line. */
static char *value_of(const char *line, const char *key)
{
    size_t len = strlen(key);

    if (g_ascii_strncasecmp(line, key, len) != 0)
        return NULL;
    line += len;
    line += strspn(line, " \t");
    if (*line != '=')
        return NULL;
    line++;
    line += strspn(line, " \t");
    if (*line != '"')
        return g_strdup(line);
    const char *end = strchr(line + 1, '"');
    return end ? g_strndup(line + 1, end - line - 1) : NULL;
}

/* Cut the next word off *@p; NULL: there is none. Transfer full. */
static char *next_word(const char **p)
{
    *p += strspn(*p, " \t");
    bool quoted = **p == '"';
    const char *start = *p + quoted;
    size_t len = quoted ? strcspn(start, "\"") : strcspn(start, " \t");

    if (!*start || (quoted && start[len] != '"'))
        return NULL;
    *p = start + len + quoted;
    return g_strndup(start, len);
}

static bool next_number(const char **p, uint64_t *ret)
{
    g_autofree char *word = next_word(p);
    guint64 v;

    if (!word || !g_ascii_string_to_unsigned(word, 10, 0, BLK_MAX_SIZE / BLK_SECTOR, &v, NULL))
        return false;
    *ret = v;
    return true;
}

/* Whether @line names an extent; a mistake in one is *ret_bad. */
static bool parse_extent(const char *line, VmdkExtent *e, bool *ret_bad)
{
    static const char *const access[] = {"NOACCESS", "RDONLY", "RW"};
    g_autofree char *word = next_word(&line);
    unsigned i = 0;

    while (i < G_N_ELEMENTS(access) && g_strcmp0(word, access[i]) != 0)
        i++;
    if (i == G_N_ELEMENTS(access))
        return false;
    e->access = (VmdkAccess)i;
    *ret_bad = !next_number(&line, &e->sectors) || !e->sectors || !(e->type = next_word(&line));
    line += strspn(line, " \t");
    if (*ret_bad || !*line)
        return true;
    *ret_bad = !(e->name = next_word(&line));
    line += strspn(line, " \t");
    if (!*ret_bad && *line)
        *ret_bad = !next_number(&line, &e->offset);
    return true;
}

static bool parse_cid(const char *text, uint32_t *ret)
{
    guint64 v;

    if (!g_ascii_string_to_unsigned(text, 16, 0, UINT32_MAX, &v, NULL))
        return false;
    *ret = (uint32_t)v;
    return true;
}

static bool parse_line(const char *line, size_t at, VmdkText *t, const char **ret_field)
{
    g_autofree char *cid = value_of(line, "CID"), *parent_cid = value_of(line, "parentCID");
    char *type = value_of(line, "createType"), *parent = value_of(line, "parentFileNameHint");
    VmdkExtent e = {.at = at};
    bool bad = false;

    t->noted = t->noted || strcmp(line, VMDK_NOTE) == 0;
    if (type) {
        g_free(t->type);
        t->type = type;
    }
    if (parent) {
        g_free(t->parent);
        t->parent = parent;
        t->parent_at = at;
    }
    *ret_field = cid ? "CID" : "parentCID";
    if ((cid && !parse_cid(cid, &t->cid)) || (parent_cid && !parse_cid(parent_cid, &t->parent_cid)))
        return false;
    *ret_field = "extent";
    if (!parse_extent(line, &e, &bad))
        return true;
    if (bad || t->extents->len >= VMDK_EXTENTS_MAX) {
        extent_clear(&e);
        return false;
    }
    g_array_append_val(t->extents, e);
    return true;
}

bool vmdk_text_parse(const char *text, const char *path, uint64_t base, VmdkText *ret,
                     GError **error)
{
    const char *line = text;

    ret->text = g_strdup(text);
    ret->parent_cid = VMDK_NO_PARENT;
    ret->extents = g_array_new(FALSE, FALSE, sizeof(VmdkExtent));
    g_array_set_clear_func(ret->extents, extent_clear);
    if (!g_str_has_prefix(text, VMDK_TEXT_MAGIC))
        return lodge_fail(error, LODGE_ERROR_IMAGE,
                          "'%s': descriptor at offset %" G_GUINT64_FORMAT
                          ": does not begin with '" VMDK_TEXT_MAGIC "'",
                          path, base);
    while (*line) {
        size_t len = strcspn(line, "\n");
        g_autofree char *one = g_strstrip(g_strndup(line, len));
        const char *field;
        if (!parse_line(one, line - text, ret, &field))
            return lodge_fail(error, LODGE_ERROR_IMAGE,
                              "'%s': descriptor, %s at offset %" G_GUINT64_FORMAT
                              ": cannot be read, or is one too many: %.60s",
                              path, field, base + (line - text), one);
        line += len + (line[len] == '\n');
    }
    if (!ret->type)
        return lodge_fail(error, LODGE_ERROR_IMAGE,
                          "'%s': descriptor at offset %" G_GUINT64_FORMAT ": has no createType",
                          path, base);
    return true;
}

char *vmdk_text_replace(const char *text, const char *key, const char *value)
{
    GString *s = g_string_new(NULL);
    bool done = false;

    while (*text) {
        size_t len = strcspn(text, "\n"), whole = len + (text[len] == '\n');
        g_autofree char *one = g_strstrip(g_strndup(text, len));
        g_autofree char *old = value_of(one, key);
        if (!old)
            g_string_append_len(s, text, whole);
        else if (*value && !done)
            g_string_append_printf(s, "%s=%s\n", key, value);
        done = done || old;
        text += whole;
        /* A key that is new goes behind the first ones. */
        if (!done && *value && g_str_has_prefix(one, "createType")) {
            g_string_append_printf(s, "%s=%s\n", key, value);
            done = true;
        }
    }
    return g_string_free(s, FALSE);
}

char *vmdk_text_note(const char *text, bool noted)
{
    const char *old = strstr(text, VMDK_NOTE);
    g_autofree char *bare = old ? g_strndup(text, old - text) : g_strdup(text);
    const char *rest = old ? old + strlen(VMDK_NOTE) : "";
    g_autofree char *whole = g_strconcat(bare, *rest == '\n' ? rest + 1 : rest, NULL);

    if (!noted)
        return g_steal_pointer(&whole);
    return g_strconcat(whole, g_str_has_suffix(whole, "\n") ? "" : "\n", VMDK_NOTE "\n", NULL);
}
