/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Copying a file through the agent (QEMU 7.2, qga/qapi-schema.json: guest-file-*), in pieces that
 * fit its answers. What the agent cannot say or do, where a path leads, permissions, and a file
 * that gets its name when it is whole, a few lines of shell in the guest do. Pieces of zeros are
 * not sent or not written, so holes stay holes.
 */
#include "agent_file.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lodge/error.h"

#include "agent_exec.h"

/* $1 the path, $2 the name in a folder, $3 an ending. Prints "t" or "d", then the path that is
 * meant; "t": a file with the ending was made, to be filled. */
static const char begin_script[] =
    "to=$1\n"
    "[ ! -d \"$to\" ] || to=${to%/}/$2\n"
    "[ ! -L \"$to\" ] || to=$(readlink -f \"$to\") || exit\n"
    "[ ! -d \"$to\" ] || { echo \"$to is a folder\" >&2; exit 1; }\n"
    "if [ -e \"$to\" ] && [ ! -f \"$to\" ]; then printf 'd%s.' \"$to\"; exit; fi\n"
    "umask 077\n"
    ": > \"$to$3\" && printf 't%s.' \"$to\"\n";
/* $1 the file, $2 its name, $3 its mode; no name: it is not wanted. */
static const char end_script[] =
    "[ -n \"$2\" ] && chmod \"$3\" \"$1\" && mv -f \"$1\" \"$2\" || { rm -f \"$1\"; exit 1; }\n";
static const char look_script[] =
    "[ ! -d \"$1\" ] || { echo \"$1 is a folder; copy it with -r\" >&2; exit 1; }\n"
    "stat -L -c '%s %a' \"$1\"\n";

static bool shell(Agent *a, const char *script, const char *const *args, AgentOutput *ret,
                  GError **error)
{
    if (!agent_shell(a, script, args, agent_soon(), ret, error))
        return false;
    if (!ret->status)
        return true;
    char *why = g_strstrip(ret->err), *end = strchr(why, '\n');
    if (end)
        *end = '\0';
    return lodge_fail(error, LODGE_ERROR_HOST, "%s: %s", agent_name(a),
                      *why ? why : "the guest's shell failed");
}


static bool skip(Agent *a, int64_t handle, size_t len, GError **error)
{
    JsonOut *call = agent_begin("guest-file-seek");
    json_number(call, "handle", handle);
    json_number(call, "offset", (int64_t)len);
    json_string(call, "whence", "cur");
    return agent_call(a, call, agent_soon(), error).node;
}

static bool all_zero(const uint8_t *data, size_t len)
{
    return len && !data[0] && !memcmp(data, data + 1, len - 1);
}

/* @len bytes, or fewer at the end. */
static ssize_t read_full(int fd, uint8_t *data, size_t len)
{
    size_t done = 0;
    while (done < len) {
        ssize_t n = read(fd, data + done, len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

static bool stopped(Agent *a, const AgentCopy *c, GError **error)
{
    return c->stop && c->stop(c->opaque) &&
           !lodge_fail(error, LODGE_ERROR_HOST, "%s: the copy was stopped", agent_name(a));
}

static void tell(const AgentCopy *c, uint64_t done, uint64_t all)
{
    if (c->tell)
        c->tell(c->opaque, done, all);
}

/* @holes: what is not written reads as zeros. */
static bool send_pieces(Agent *a, int fd, int64_t handle, bool holes, const AgentCopy *c,
                        GError **error)
{
    g_autofree uint8_t *data = g_malloc(AGENT_PIECE);
    uint64_t done = 0, all;
    struct stat st;
    ssize_t n;
    bool hole = false;

    all = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
    while ((n = read_full(fd, data, AGENT_PIECE)) > 0) {
        if (stopped(a, c, error))
            return false;
        hole = holes && n > 1 && all_zero(data, (size_t)n);
        /* The last byte of a hole is written, so that one at the end has its length. */
        if (hole ? !skip(a, handle, (size_t)n - 1, error) ||
                       !agent_file_write(a, handle, data, 1, error)
                 : !agent_file_write(a, handle, data, (size_t)n, error))
            return false;
        done += (uint64_t)n;
        tell(c, done, all);
    }
    return n == 0 || lodge_fail_errno(error, errno, "cannot read");
}

bool agent_put_file(Agent *a, int fd, const char *path, const char *name, unsigned mode,
                    const AgentCopy *c, GError **error)
{
    g_autofree char *ending = g_strdup_printf(".lodge-%08x%08x", g_random_int(), g_random_int());
    const char *args[] = {path, name, ending, NULL};
    g_auto(AgentOutput) said = {0};

    if (!shell(a, begin_script, args, &said, error))
        return false;
    size_t len = strlen(said.out);
    if (len < 3 || said.out[len - 1] != '.')
        return lodge_fail(error, LODGE_ERROR_HOST, "%s: its shell answers nonsense",
                          agent_name(a));
    said.out[len - 1] = '\0';
    bool direct = said.out[0] == 'd';
    const char *to = said.out + 1;
    g_autofree char *file = g_strconcat(to, direct ? "" : ending, NULL);
    int64_t handle = agent_file_open(a, file, direct ? "r+" : "w", error);
    bool ok = handle >= 0 && send_pieces(a, fd, handle, !direct, c, error);
    if (handle >= 0)
        ok = agent_file_close(a, handle, ok ? error : NULL) && ok;
    if (direct)
        return ok;
    g_autofree char *bits = g_strdup_printf("%o", mode & 0777);
    const char *last[] = {file, ok ? to : "", bits, NULL};
    g_auto(AgentOutput) end = {0};
    return shell(a, end_script, last, &end, ok ? error : NULL) && ok;
}

static bool put_piece(int fd, const uint8_t *data, size_t len, bool regular, uint64_t done)
{
    if (regular && all_zero(data, len))
        return ftruncate(fd, (off_t)(done + len)) == 0 && lseek(fd, (off_t)len, SEEK_CUR) >= 0;
    while (len) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno != EINTR)
            return false;
        data += MAX(n, 0);
        len -= (size_t)MAX(n, 0);
    }
    return true;
}

static bool take_pieces(Agent *a, int fd, int64_t handle, uint64_t all, const AgentCopy *c,
                        GError **error)
{
    struct stat st;
    bool regular = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    uint64_t done = 0;

    while (!stopped(a, c, error)) {
        g_autofree uint8_t *data = NULL;
        size_t len;
        if (!agent_file_read(a, handle, &data, &len, error))
            return false;
        if (!len)
            return true;
        if (!put_piece(fd, data, len, regular, done))
            return lodge_fail_errno(error, errno, "cannot write");
        done += len;
        tell(c, done, all);
    }
    return false;
}

bool agent_get_file(Agent *a, const char *path, int fd, unsigned *ret_mode, const AgentCopy *c,
                    GError **error)
{
    const char *args[] = {path, NULL};
    g_auto(AgentOutput) said = {0};
    unsigned long long size = 0;
    unsigned mode = 0;

    if (!shell(a, look_script, args, &said, error))
        return false;
    if (sscanf(said.out, "%20llu %o", &size, &mode) != 2)
        return lodge_fail(error, LODGE_ERROR_HOST, "%s: its shell answers nonsense",
                          agent_name(a));
    int64_t handle = agent_file_open(a, path, "r", error);
    bool ok = handle >= 0 && take_pieces(a, fd, handle, size, c, error);
    if (handle >= 0)
        (void)agent_file_close(a, handle, NULL); /* of no use any more */
    if (ok)
        *ret_mode = mode & 0777;
    return ok;
}
