/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The calls of the QEMU guest agent that agent_exec.c and agent_file.c make (QEMU 7.2,
 * qga/qapi-schema.json: guest-exec, guest-exec-status, guest-file-*), done by lines of shell behind
 * the guest's console. So commands and copies are the same code, whichever way they go.
 *
 * The shell has a folder $d of its own. A process N is its command line in the file x.N, its output
 * in o.N and e.N, and its status in r.N once it has ended. A file's handle is a path and a place in
 * it, kept here; each call opens it anew. Files that are neither plain nor disks, as a named pipe,
 * are written for as long as one call takes, and not read.
 *
 * What the shell answers is the guest's: numbers are checked, and at most OUTPUT_MAX bytes of a
 * process's output are taken.
 */
#include "console_agent.h"

#include <stdio.h>
#include <string.h>

#include "lodge/error.h"

#define FILES_MAX 32u
#define OUTPUT_MAX 262144u
#define BLOCK 512u
#define JSON_NUMBER_MAX ((uint64_t)1 << 62)

typedef struct File {
    char *path; /* owned; NULL: free */
    uint64_t at;
} File;

typedef struct Console {
    ConsoleShell *shell; /* owned */
    unsigned processes;
    File files[FILES_MAX];
} Console;

/* Run @script, which is to succeed: what it printed, transfer full; NULL with the error. */
static GByteArray *run(Console *c, const char *script, GError **error)
{
    GByteArray *out = NULL;
    int status = 0;

    if (!console_shell_run(c->shell, script, &status, &out, error))
        return NULL;
    if (!status)
        return out;
    char *why = g_strstrip((char *)out->data), *end = strchr(why, '\n');
    if (end)
        *end = '\0';
    g_autofree char *valid = g_utf8_make_valid(why, -1);
    lodge_fail(error, LODGE_ERROR_HOST, "%s: console: %s", console_shell_name(c->shell),
               *valid ? valid : "its shell failed");
    g_byte_array_unref(out);
    return NULL;
}

static bool nonsense(Console *c, GError **error)
{
    return lodge_fail(error, LODGE_ERROR_HOST, "%s: console: its shell answers nonsense",
                      console_shell_name(c->shell));
}

/* ---- answers ---- */

static char *answer_number(int64_t value)
{
    return g_strdup_printf("{\"return\": %" PRIi64 "}", value);
}

static char *answer_bytes(const void *data, size_t len)
{
    g_autofree char *text = g_base64_encode(data, len);

    return g_strdup_printf("{\"return\": {\"count\": %zu, \"buf-b64\": \"%s\"}}", len, text);
}

/* ---- files ---- */

static File *file_of(Console *c, Jv args, GError **error)
{
    int64_t handle = jv_int(jv_get(args, "handle"));

    if (handle >= 0 && handle < FILES_MAX && c->files[handle].path)
        return &c->files[handle];
    lodge_fail(error, LODGE_ERROR_STATE, "%s: console: no file %" PRIi64,
               console_shell_name(c->shell), handle);
    return NULL;
}

static char *file_open(Console *c, Jv args, GError **error)
{
    const char *path = jv_text(jv_get(args, "path")), *mode = jv_text(jv_get(args, "mode"));
    unsigned i = 0;

    while (i < FILES_MAX && c->files[i].path)
        i++;
    if (i == FILES_MAX || !path || !mode) {
        lodge_fail(error, LODGE_ERROR_LIMIT, "%s: console: too many open files",
                   console_shell_name(c->shell));
        return NULL;
    }
    g_autofree char *quoted = g_shell_quote(path);
    g_autofree char *script =
        !strcmp(mode, "w")   ? g_strdup_printf(": > %s", quoted)
        : !strcmp(mode, "r") ? g_strdup_printf("f=%s; [ ! -e \"$f\" ] || [ -f \"$f\" ] || "
                                               "[ -b \"$f\" ] || { echo \"$f is no file\" >&2; "
                                               "exit 1; }; : < \"$f\"", quoted)
                             : g_strdup_printf("[ -e %s ] || : < %s", quoted, quoted);
    g_autoptr(GByteArray) out = run(c, script, error);
    if (!out)
        return NULL;
    c->files[i] = (File){.path = g_strdup(path)};
    return answer_number(i);
}

static char *file_close(Console *c, Jv args, GError **error)
{
    File *f = file_of(c, args, error);

    if (!f)
        return NULL;
    g_clear_pointer(&f->path, g_free);
    return g_strdup("{\"return\": {}}");
}

/* Bytes from @at on, CONSOLE_PIECE at most. A file that was removed since it was opened has no
 * more, and takes what is written to it. */
static GByteArray *read_at(Console *c, const char *path, uint64_t at, GError **error)
{
    g_autofree char *quoted = g_shell_quote(path);
    g_autofree char *script =
        g_strdup_printf("f=%s; dd if=\"$f\" bs=%u skip=%" PRIu64 " count=%u 2> $d/z || "
                        "[ ! -e \"$f\" ] || { cat $d/z >&2; exit 1; }",
                        quoted, BLOCK, at / BLOCK, CONSOLE_PIECE / BLOCK);
    GByteArray *out = run(c, script, error);
    unsigned skip = (unsigned)(at % BLOCK);

    if (out)
        g_byte_array_remove_range(out, 0, MIN(skip, out->len));
    return out;
}

static char *file_read(Console *c, Jv args, GError **error)
{
    File *f = file_of(c, args, error);
    g_autoptr(GByteArray) out = f ? read_at(c, f->path, f->at, error) : NULL;
    int64_t most = jv_int(jv_get(args, "count"));

    if (!out)
        return NULL;
    guint len = (guint)CLAMP(most, 0, (int64_t)out->len);
    f->at += len;
    return answer_bytes(out->data, len);
}

static char *file_write(Console *c, Jv args, GError **error)
{
    File *f = file_of(c, args, error);
    const char *text = jv_text(jv_get(args, "buf-b64"));
    gsize len = 0;
    g_autofree guchar *data = text && *text ? g_base64_decode(text, &len) : NULL;

    if (!f || (len && !console_shell_put(c->shell, data, len, error)))
        return NULL;
    unsigned block = f->at % BLOCK ? 1 : BLOCK;
    g_autofree char *quoted = g_shell_quote(f->path);
    /* A pipe is opened for both, so that it does not wait for a reader. */
    g_autofree char *script = g_strdup_printf(
        "f=%s; [ -e \"$f\" ] || exit 0; if [ -f \"$f\" ] || [ -b \"$f\" ]; then dd if=$d/w "
        "of=\"$f\" bs=%u seek=%" PRIu64 " conv=notrunc 2> $d/z || { cat $d/z >&2; exit 1; }; "
        "else cat $d/w 1<> \"$f\"; fi",
        quoted, block, f->at / block);
    g_autoptr(GByteArray) out = len ? run(c, script, error) : g_byte_array_new();
    if (!out)
        return NULL;
    f->at += len;
    return g_strdup_printf("{\"return\": {\"count\": %zu}}", len);
}

static char *file_seek(Console *c, Jv args, GError **error)
{
    File *f = file_of(c, args, error);
    int64_t by = jv_int(jv_get(args, "offset"));

    if (!f)
        return NULL;
    if (by < 0 || f->at + (uint64_t)by > JSON_NUMBER_MAX) {
        nonsense(c, error);
        return NULL;
    }
    f->at += (uint64_t)by;
    return answer_number((int64_t)f->at);
}

/* ---- processes ---- */

static char *start(Console *c, Jv args, GError **error)
{
    Jv words = jv_get(args, "arg");
    const char *path = jv_text(jv_get(args, "path"));
    g_autofree char *program = g_shell_quote(path ? path : "");
    g_autoptr(GString) line = g_string_new(program);
    unsigned n = ++c->processes;

    for (size_t i = 0; i < jv_length(words); i++) {
        const char *word = jv_text(jv_at(words, i));
        g_autofree char *quoted = g_shell_quote(word ? word : "");
        g_string_append_c(line, ' ');
        g_string_append(line, quoted);
    }
    g_string_append_c(line, '\n');
    g_autofree char *script = g_strdup_printf(
        "n=%u; cat $d/w > $d/x.$n || exit; { /bin/sh $d/x.$n > $d/o.$n 2> $d/e.$n; "
        "echo $? > $d/t.$n; mv $d/t.$n $d/r.$n; } < /dev/null > /dev/null 2>&1 &", n);
    g_autoptr(GByteArray) out = console_shell_put(c->shell, line->str, line->len, error)
                                    ? run(c, script, error)
                                    : NULL;
    return out ? g_strdup_printf("{\"return\": {\"pid\": %u}}", n) : NULL;
}

/* What it printed; NULL with the error. */
static char *output_of(Console *c, char which, unsigned n, uint64_t len, GError **error)
{
    g_autoptr(GByteArray) all = g_byte_array_new();

    while (all->len < MIN(len, OUTPUT_MAX)) {
        g_autofree char *more =
            g_strdup_printf("dd if=$d/%c.%u bs=%u skip=%u count=1 2> /dev/null", which, n,
                            CONSOLE_PIECE, all->len / CONSOLE_PIECE);
        g_autoptr(GByteArray) out = run(c, more, error);
        if (!out)
            return NULL;
        if (!out->len || all->len % CONSOLE_PIECE)
            break; /* it is shorter than it was */
        g_byte_array_append(all, out->data, out->len);
    }
    return g_base64_encode(all->data, all->len);
}

static char *look(Console *c, Jv args, GError **error)
{
    unsigned n = (unsigned)jv_int(jv_get(args, "pid"));
    g_autofree char *script = g_strdup_printf(
        "n=%u; [ ! -e $d/r.$n ] || { cat $d/r.$n; wc -c < $d/o.$n; wc -c < $d/e.$n; }", n);
    g_autoptr(GByteArray) said = run(c, script, error);
    unsigned status;
    unsigned long long out_len, err_len;

    if (!said)
        return NULL;
    if (!said->len)
        return g_strdup("{\"return\": {\"exited\": false}}");
    if (sscanf((char *)said->data, "%3u %19llu %19llu", &status, &out_len, &err_len) != 3) {
        nonsense(c, error);
        return NULL;
    }
    g_autofree char *out = output_of(c, 'o', n, out_len, error);
    g_autofree char *err = out ? output_of(c, 'e', n, err_len, error) : NULL;
    g_autofree char *forget = g_strdup_printf("rm -f $d/?.%u", n);
    g_autoptr(GByteArray) gone = err ? run(c, forget, error) : NULL;
    return gone ? g_strdup_printf("{\"return\": {\"exited\": true, \"exitcode\": %u, "
                                  "\"out-data\": \"%s\", \"err-data\": \"%s\"}}",
                                  status, out, err)
                : NULL;
}

/* ---- the agent ---- */

static char *nothing(Console *c, Jv args, GError **error)
{
    return g_strdup("{\"return\": {}}");
}

static const struct {
    const char *name;
    char *(*run)(Console *c, Jv args, GError **error);
} calls[] = {
    {"guest-exec", start},          {"guest-exec-status", look},   {"guest-file-close", file_close},
    {"guest-file-flush", nothing},  {"guest-file-open", file_open}, {"guest-file-read", file_read},
    {"guest-file-seek", file_seek}, {"guest-file-write", file_write},
};

static bool reach(void *opaque, int64_t deadline, GError **error)
{
    return console_shell_reach(((Console *)opaque)->shell, deadline, error);
}

static char *call(void *opaque, Jv request, GError **error)
{
    Console *c = opaque;
    const char *name = jv_text(jv_get(request, "execute"));

    for (unsigned i = 0; i < G_N_ELEMENTS(calls); i++) {
        if (!g_strcmp0(name, calls[i].name))
            return calls[i].run(c, jv_get(request, "arguments"), error);
    }
    lodge_fail(error, LODGE_ERROR_UNSUPPORTED, "%s: console: cannot do %s",
               console_shell_name(c->shell), name ? name : "nothing");
    return NULL;
}

static void console_free(void *opaque)
{
    Console *c = opaque;

    console_shell_free(c->shell);
    for (unsigned i = 0; i < FILES_MAX; i++)
        g_free(c->files[i].path);
    g_free(c);
}

Agent *console_agent_new(ConsoleShell *s, GError **error)
{
    static const AgentOther other = {.reach = reach, .call = call, .free = console_free};
    Console *c = g_new0(Console, 1);

    c->shell = s;
    return agent_new_other(console_shell_name(s), &other, c, error);
}
