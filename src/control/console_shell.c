/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A shell of the guest behind its console (POSIX.1-2017, "Shell & Utilities"; and base64, md5sum).
 *
 * We log in where a login prompt stands, by its words, and find the shell by a word that comes back
 * only where a shell has taken the backslash out of it. There /bin/sh is given one line, a loop that
 * takes requests of one line each and answers in frames. It stands in the login shell's place, so
 * that its end is the logout; where somebody was logged in already it is a child of that shell.
 * Any line that is no request ends the loop, which puts the terminal back as it was: so where we die
 * the next Enter of anybody is the end of it.
 *
 * A request is "TOKEN OP NUMBER SUM BASE64", an answer "TOKEN<NUMBER<BASE64:STATUS:SUM>", with line
 * ends anywhere. A console has other writers (the kernel, daemons), and their words get between ours:
 * so sums (MD5) guard both ways, what was spoilt is asked for again, and what has a number that was
 * seen is not done twice, only answered again. A line has less than the 4095 bytes that a terminal
 * takes, and the next one goes out when it was answered, so that none are lost.
 *
 * What the guest says is hostile: INPUT_MAX bytes of it are kept, and every wait has an end. Nothing
 * of it is shown.
 */
#include "console_shell.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lodge/console_log.h"
#include "lodge/error.h"

#define INPUT_MAX 131072u
#define FRAME_MAX 65536u    /* bytes of an answer as it comes */
#define LOOKED_AT 2048u     /* of the end of what was said */
#define REQUEST_BYTES 2496u /* of data: 3328 as base64 */
#define TRIES 12u
#define MS 1000
#define SECOND 1000000
#define QUIET_US (300 * MS)     /* a prompt has come whole */
#define STILL_US (1 * SECOND)   /* nobody is about to say more, as a boot is */
#define KNOCK_US (3 * SECOND)   /* for an answer to a key */
#define AGAIN_US (5 * SECOND)   /* a request is repeated */
#define ANSWER_US (60 * SECOND) /* for an answer */
#define LOGIN_US (60 * SECOND)
#define LEAVE_US (2 * SECOND)
#define CLEAR_LINE "\x15\r" /* Ctrl-U: what somebody has begun is not for us to send */

struct ConsoleShell {
    char *name, *user, *password; /* owned; password may be NULL */
    bool any;
    ConsoleJoinFn join;
    void *opaque;
    int fd;       /* owned; -1: we have no shell */
    bool entered; /* the loop runs */
    bool gone;    /* the connection has ended */
    char token[32];
    unsigned number; /* of the last request */
    GString *in;
};

/* $T and $d are set. A few words at a time: it is typed at a terminal. */
static const char loop[] =
    "k=0; while read -r t o i c x; do [ \"$t\" = \"$T\" ] || break; "
    "if [ \"$i\" != \"$k\" ]; then "
    "printf %s \"$x\" | base64 -d > $d/p 2> /dev/null; set -- $(md5sum < $d/p); "
    "if [ \"$1\" = \"$c\" ]; then k=$i r=0; : > $d/o; "
    "case $o in n) cat $d/p > $d/w || r=$?;; a) cat $d/p >> $d/w || r=$?;; "
    "*) ( . $d/p ) > $d/o 2> $d/q < /dev/null; r=$?; "
    "[ $r = 0 ] || head -c 1000 $d/q > $d/o;; esac; fi; fi; "
    "if [ \"$i\" = \"$k\" ]; then printf '\\n%s<%s<' $T $k; base64 < $d/o; "
    "set -- $(md5sum < $d/o); printf ':%s:%s>\\n' $r $1; "
    "else printf '\\n%s<%s<:>\\n' $T $i; fi; done; ";

ConsoleShell *console_shell_new(const char *name, const ConsoleLogin *login, ConsoleJoinFn join,
                                void *opaque)
{
    ConsoleShell *s = g_new0(ConsoleShell, 1);

    s->name = g_strdup(name);
    s->user = g_strdup(login->user ? login->user : "root");
    s->password = g_strdup(login->password);
    s->any = login->any;
    s->join = join;
    s->opaque = opaque;
    s->fd = -1;
    s->in = g_string_new(NULL);
    return s;
}

const char *console_shell_name(const ConsoleShell *s)
{
    return s->name;
}

/* ---- bytes ---- */

/* Wait for more until @until. Return: whether some came; @error is set where the connection ended. */
static bool hear(ConsoleShell *s, int64_t until, GError **error)
{
    struct pollfd p = {.fd = s->fd, .events = POLLIN};
    char data[4096];
    int64_t left = until - g_get_monotonic_time();
    int n = poll(&p, 1, left > 0 ? (int)MIN((left + 999) / 1000, G_MAXINT) : 0);

    if (n <= 0)
        return false;
    ssize_t len = recv(s->fd, data, sizeof data, MSG_DONTWAIT);
    if (len < 0 && (errno == EINTR || errno == EAGAIN))
        return false;
    if (len <= 0) {
        s->gone = true;
        return lodge_fail(error, LODGE_ERROR_STATE, "%s: the connection to its console ended",
                          s->name);
    }
    if (s->in->len + (size_t)len > INPUT_MAX)
        g_string_erase(s->in, 0, INPUT_MAX / 2);
    for (ssize_t i = 0; i < len; i++) {
        if (data[i]) /* it is looked at as text */
            g_string_append_c(s->in, data[i]);
    }
    return true;
}

/* Hear until nothing has come for @us, or @until. Return: false: the connection ended. */
static bool settle(ConsoleShell *s, int64_t us, int64_t until, GError **error)
{
    g_autoptr(GError) why = NULL;

    while (g_get_monotonic_time() < until &&
           hear(s, MIN(until, g_get_monotonic_time() + us), &why))
        continue;
    if (!why)
        return true;
    g_propagate_error(error, g_steal_pointer(&why));
    return false;
}

static bool type(ConsoleShell *s, const char *text, GError **error)
{
    size_t len = strlen(text);
    int64_t until = g_get_monotonic_time() + ANSWER_US;

    while (len) {
        ssize_t n = send(s->fd, text, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n >= 0) {
            text += n;
            len -= (size_t)n;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            struct pollfd p = {.fd = s->fd, .events = POLLOUT};
            if (g_get_monotonic_time() >= until)
                return lodge_fail(error, LODGE_ERROR_BUSY, "%s: its console takes nothing",
                                  s->name);
            (void)poll(&p, 1, 100);
        } else if (errno != EINTR) {
            s->gone = true;
            return lodge_fail(error, LODGE_ERROR_STATE, "%s: the connection to its console ended",
                              s->name);
        }
    }
    return true;
}

/* ---- the login ---- */

ConsoleSeen console_shell_look(const char *data, size_t len)
{
    size_t from = len > LOOKED_AT ? len - LOOKED_AT : 0;
    g_autofree char *text = console_log_clean(data + from, len - from);
    char *end = strrchr(text, '\n'), *line = g_strchomp(end ? end + 1 : text);

    if (g_str_has_suffix(line, "login:"))
        return CONSOLE_LOGIN;
    if (g_str_has_suffix(line, ":") && strstr(line, "assword"))
        return CONSOLE_PASSWORD;
    return *line && strchr("$#>%", line[strlen(line) - 1]) ? CONSOLE_PROMPT : CONSOLE_OTHER;
}

static ConsoleSeen look(const ConsoleShell *s)
{
    return console_shell_look(s->in->str, s->in->len);
}

/* Whether a login prompt, or one of us who died, is among what was said last. */
static bool may_be_login(const ConsoleShell *s)
{
    size_t from = s->in->len > LOOKED_AT ? s->in->len - LOOKED_AT : 0;

    return g_strrstr(s->in->str + from, "login:") || g_strrstr(s->in->str + from, "lodge-");
}

/* Type @line, and wait for @word in what is said then. Return: whether it came; else perhaps
 * @error. */
static bool ask_for(ConsoleShell *s, const char *line, const char *word, int64_t until,
                    GError **error)
{
    g_autoptr(GError) why = NULL;

    g_string_truncate(s->in, 0);
    if (!type(s, line, error))
        return false;
    while (!strstr(s->in->str, word) && !why && g_get_monotonic_time() < until)
        (void)hear(s, until, &why);
    if (why) {
        g_propagate_error(error, g_steal_pointer(&why));
        return false;
    }
    return strstr(s->in->str, word);
}

/* Whether a shell listens. What is typed before a guest reads its terminal may lose its beginning
 * when that is opened: so there are no quotes here, of which one alone would keep the shell waiting
 * for the other, whatever came then. */
static bool shell_answers(ConsoleShell *s, int64_t until, GError **error)
{
    g_autofree char *half = g_strdup_printf("%08x", g_random_int());
    g_autofree char *line = g_strdup_printf(" echo lod\\ge-%s\r", half);
    g_autofree char *word = g_strconcat("lodge-", half, NULL);

    return ask_for(s, line, word, MIN(until, g_get_monotonic_time() + KNOCK_US), error);
}

static bool refused(const ConsoleShell *s, GError **error)
{
    return lodge_fail(error, LODGE_ERROR_CONFIG,
                      "%s: the guest does not let %s log in on its console; give another --user, "
                      "or the password with --password-file", s->name, s->user);
}

/* From the prompt to a shell. */
static bool log_in(ConsoleShell *s, GError **error)
{
    int64_t until = g_get_monotonic_time() + LOGIN_US, still = STILL_US;
    g_autoptr(GError) why = NULL;
    bool told = false;

    g_string_truncate(s->in, 0);
    if (!type(s, s->user, error) || !type(s, "\r", error))
        return false;
    while (g_get_monotonic_time() < until) {
        if (!settle(s, QUIET_US, until, error))
            return false;
        ConsoleSeen seen = look(s);
        if (strstr(s->in->str, "ncorrect") || seen == CONSOLE_LOGIN)
            return refused(s, error);
        if (seen == CONSOLE_PASSWORD) {
            if (!s->password || told) {
                (void)type(s, "\r", NULL); /* not to be left asking */
                return told ? refused(s, error)
                            : lodge_fail(error, LODGE_ERROR_CONFIG,
                                         "%s: the guest asks for the password of %s; give it with "
                                         "--password-file FILE", s->name, s->user);
            }
            told = true;
            g_string_truncate(s->in, 0);
            if (!type(s, s->password, error) || !type(s, "\r", error))
                return false;
            continue;
        }
        /* One that takes its time is not to have the word for a password. */
        if (seen != CONSOLE_PROMPT && still > 0) {
            still -= QUIET_US;
            continue;
        }
        still = STILL_US;
        if (shell_answers(s, until, &why))
            return true;
        if (why) {
            g_propagate_error(error, g_steal_pointer(&why));
            return false;
        }
    }
    return lodge_fail(error, LODGE_ERROR_BUSY, "%s: no shell after the login on its console",
                      s->name);
}

/* Until there is a login prompt, or with `any` a shell. @ret_shell: it is a shell. */
static bool find(ConsoleShell *s, int64_t deadline, bool *ret_shell, GError **error)
{
    g_autoptr(GError) why = NULL;
    int64_t heard = g_get_monotonic_time(), next = 0;

    *ret_shell = false;
    while (!why) {
        int64_t now = g_get_monotonic_time();
        bool last = now >= deadline, quiet = now - heard >= QUIET_US || last;
        ConsoleSeen seen = look(s);
        if (quiet && seen == CONSOLE_LOGIN)
            return true;
        if (last)
            break;
        if (now - heard >= STILL_US && now >= next && (s->any || may_be_login(s))) {
            next = now + KNOCK_US;
            g_string_append_c(s->in, '\n'); /* an answer is a line of its own */
            if (!type(s, CLEAR_LINE, error) || !settle(s, QUIET_US, now + KNOCK_US, error))
                return false;
            seen = look(s);
            if (s->any && seen != CONSOLE_LOGIN && seen != CONSOLE_PASSWORD &&
                shell_answers(s, deadline, &why)) {
                *ret_shell = true;
                return true;
            }
            if (!s->any && seen == CONSOLE_PROMPT)
                break;
        } else if (hear(s, MIN(deadline, now + QUIET_US), &why)) {
            heard = g_get_monotonic_time();
        }
    }
    if (why) {
        g_propagate_error(error, g_steal_pointer(&why));
        return false;
    }
    return lodge_fail(error, LODGE_ERROR_BUSY,
                      s->any ? "%s: neither a login prompt nor a shell answers on its console"
                      : look(s) == CONSOLE_PROMPT
                          ? "%s: somebody is logged in on its console; --via console uses that shell"
                          : "%s: there is no login prompt on its console", s->name);
}

/* What the guest lacks, from "...-has:WORDS." */
static bool check_programs(ConsoleShell *s, const char *word, GError **error)
{
    const char *from = strstr(s->in->str, word) + strlen(word), *end = strchr(from, '.');
    g_autofree char *raw = g_strndup(from, end ? (gsize)(end - from) : 0);
    g_autofree char *lacks = console_log_clean(raw, strlen(raw));

    return !*g_strstrip(lacks) ||
           lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                      "%s: what goes by the console needs %s in the guest", s->name, lacks);
}

/* From a shell to our loop. @instead: in the shell's place. */
static bool start_loop(ConsoleShell *s, bool instead, GError **error)
{
    int64_t until = g_get_monotonic_time() + ANSWER_US;
    g_autoptr(GError) why = NULL;
    g_autofree char *first = g_strdup_printf(
        " %s/bin/sh -c 's=$(stty -g 2> /dev/null); stty -echo icanon icrnl 2> /dev/null; "
        "T=%s; echo \"lod\"\"ge-ready-$T\"; read -r l; eval \"$l\"'\r", instead ? "exec " : "",
        s->token);
    g_autofree char *ready = g_strdup_printf("lodge-ready-%s", s->token);
    g_autofree char *has = g_strdup_printf("lodge-has-%s:", s->token);
    g_autofree char *second = g_strdup_printf(
        "umask 077; d=/tmp/.$T; x=; for c in base64 md5sum dd head cat rm mkdir wc; do "
        "command -v $c > /dev/null || x=\"$x $c\"; done; "
        "[ \"$x\" ] || mkdir $d || x=' a /tmp to write to'; echo \"lod\"\"ge-has-$T:$x.\"; "
        "[ \"$x\" ] || { cd /; %s rm -rf $d; }; stty \"$s\" 2> /dev/null\r", loop);

    if (!ask_for(s, first, ready, until, &why) || !ask_for(s, second, has, until, &why) ||
        !settle(s, QUIET_US / 3, until, &why)) {
        if (why)
            g_propagate_error(error, g_steal_pointer(&why));
        return why || lodge_fail(error, LODGE_ERROR_BUSY, "%s: the shell on its console does not "
                                                          "answer any more", s->name);
    }
    s->entered = true;
    return check_programs(s, has, error);
}

static void leave(ConsoleShell *s)
{
    if (s->fd >= 0 && s->entered && !s->gone && type(s, "\r", NULL))
        (void)settle(s, QUIET_US, g_get_monotonic_time() + LEAVE_US, NULL);
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
    s->entered = s->gone = false;
}

bool console_shell_reach(ConsoleShell *s, int64_t deadline, GError **error)
{
    bool shell = false;

    if (s->entered)
        return true;
    g_string_truncate(s->in, 0);
    g_snprintf(s->token, sizeof s->token, "lodge-%08x%08x", g_random_int(), g_random_int());
    s->number = 0;
    s->fd = s->join(s->opaque, deadline, error);
    if (s->fd >= 0 && settle(s, QUIET_US, deadline, error) && find(s, deadline, &shell, error) &&
        (shell || log_in(s, error)) && start_loop(s, !shell, error))
        return true;
    leave(s);
    return false;
}

void console_shell_free(ConsoleShell *s)
{
    if (!s)
        return;
    leave(s);
    g_string_free(s->in, TRUE);
    g_free(s->name);
    g_free(s->user);
    g_free(s->password);
    g_free(s);
}

/* ---- requests ---- */

ConsoleFrame console_shell_take(GString *in, const char *head, int *ret_status, GByteArray *data)
{
    char *at = strstr(in->str, head), *from = at ? at + strlen(head) : NULL;
    char *end = from ? strchr(from, '>') : NULL;

    if (!at || (!end && in->len - (size_t)(from - in->str) <= FRAME_MAX))
        return CONSOLE_FRAME_NONE;
    g_autofree char *text = g_strndup(from, end ? (gsize)(end - from) : 0);
    g_string_erase(in, 0, (end ? end + 1 : from) - in->str);
    g_autofree char *plain = g_malloc(strlen(text) + 1);
    size_t len = 0;
    for (const char *c = text; *c; c++) {
        if (!g_ascii_isspace(*c))
            plain[len++] = *c;
    }
    plain[len] = '\0';
    g_auto(GStrv) parts = g_strsplit(plain, ":", 4);
    if (g_strv_length(parts) != 3 || !g_ascii_isdigit(parts[1][0]))
        return CONSOLE_FRAME_BAD;
    gsize got = 0;
    g_autofree guchar *bytes = *parts[0] ? g_base64_decode(parts[0], &got) : NULL;
    g_autofree char *sum = g_compute_checksum_for_data(G_CHECKSUM_MD5, bytes ? bytes : (guchar *)"",
                                                       got);
    if (strcmp(sum, parts[2]))
        return CONSOLE_FRAME_BAD;
    if (got)
        g_byte_array_append(data, bytes, (guint)got);
    *ret_status = atoi(parts[1]) & 0xff;
    return CONSOLE_FRAME_GOOD;
}

/* Send one request until it is answered. */
static bool request(ConsoleShell *s, char op, const void *data, size_t len, int *ret_status,
                    GByteArray *out, GError **error)
{
    g_autofree char *text = g_base64_encode(data, len);
    g_autofree char *sum = g_compute_checksum_for_data(G_CHECKSUM_MD5, data, len);
    g_autofree char *line =
        g_strdup_printf("%s %c %u %s %s\r", s->token, op, ++s->number, sum, text);
    g_autofree char *head = g_strdup_printf("%s<%u<", s->token, s->number);
    int64_t until = g_get_monotonic_time() + ANSWER_US;
    g_autoptr(GError) why = NULL;

    for (unsigned i = 0; i < TRIES && g_get_monotonic_time() < until; i++) {
        int64_t next = MIN(until, g_get_monotonic_time() + AGAIN_US);
        ConsoleFrame what = CONSOLE_FRAME_NONE;
        if (!type(s, line, error))
            return false;
        while (what == CONSOLE_FRAME_NONE && g_get_monotonic_time() < next) {
            if (hear(s, next, &why))
                next = MIN(until, g_get_monotonic_time() + AGAIN_US);
            if (why) {
                g_propagate_error(error, g_steal_pointer(&why));
                return false;
            }
            what = console_shell_take(s->in, head, ret_status, out);
        }
        if (what == CONSOLE_FRAME_GOOD)
            return true;
        if (i + 1 == TRIES && what == CONSOLE_FRAME_BAD)
            return lodge_fail(error, LODGE_ERROR_HOST,
                              "%s: too much else is said on its console to hear an answer", s->name);
    }
    return lodge_fail(error, LODGE_ERROR_BUSY,
                      "%s: the shell on its console does not answer any more", s->name);
}

static bool not_there(const ConsoleShell *s, GError **error)
{
    return lodge_fail(error, LODGE_ERROR_STATE, "%s: there is no shell on its console", s->name);
}

bool console_shell_put(ConsoleShell *s, const void *data, size_t len, GError **error)
{
    const uint8_t *from = data;
    size_t done = 0;

    if (!s->entered || s->gone)
        return not_there(s, error);
    do {
        g_autoptr(GByteArray) out = g_byte_array_new();
        size_t n = MIN(len - done, REQUEST_BYTES);
        int status;
        if (!request(s, done ? 'a' : 'n', from + done, n, &status, out, error))
            return false;
        if (status)
            return lodge_fail(error, LODGE_ERROR_HOST, "%s: the guest's /tmp is full", s->name);
        done += n;
    } while (done < len);
    return true;
}

bool console_shell_run(ConsoleShell *s, const char *script, int *ret_status, GByteArray **ret_out,
                       GError **error)
{
    g_autoptr(GByteArray) out = g_byte_array_new();
    size_t len = strlen(script);

    if (!s->entered || s->gone)
        return not_there(s, error);
    if (len > CONSOLE_SCRIPT_MAX)
        return lodge_fail(error, LODGE_ERROR_LIMIT, "%s: a path is too long for its console",
                          s->name);
    if (!request(s, 'e', script, len, ret_status, out, error))
        return false;
    g_byte_array_append(out, (const guint8 *)"", 1);
    *ret_out = g_steal_pointer(&out);
    (*ret_out)->len--;
    return true;
}
