/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The management console's hands in the guest: the process of Lodge's initrd that stays behind
 * (firmware/init/uml_stay.c, which has the protocol), over the virtio port "lodge.mconsole".
 *
 * What the guest says is hostile: it is gathered on the channel's loop up to ASIDE_MAX bytes, taken
 * apart on the main thread, and an answer is TEXT_MAX bytes at most. Anything that is not the
 * protocol counts as nobody being there, until the next "hello". Where nobody is, or nobody answers
 * within ANSWER_SECONDS, a command is answered as by a kernel that cannot do it.
 *
 * Invariants:
 * (1) A request is on the list until it is answered, once.
 * (2) `told` is true exactly while a take_aside() is on its way.
 */
#include <stdlib.h>
#include <string.h>

#include "lodge/chan.h"
#include "lodge/lock.h"

#include "mconsole_internal.h"

#define ASIDE_MAX (256u * 1024u)
#define TEXT_MAX (1024u * 1024u)
#define HEAD_MAX 64u    /* bytes of a line before a piece */
#define PIECE_MAX 65536u
#define ANSWER_SECONDS 5
#define REQUESTS_MAX 32u

typedef struct Request {
    MconsoleGuest *g;
    unsigned id;
    bool stack;
    MconsoleReply *reply;
    GString *text;
    guint timer;
} Request;

struct MconsoleGuest {
    Chan *chan;          /* borrowed */
    GPtrArray *requests; /* owned */
    unsigned last_id;
    /* the guest's bytes, main thread */
    bool present;        /* it said hello */
    char head[HEAD_MAX];
    size_t head_len;
    size_t left;         /* of a piece */
    Request *piece_of;   /* NULL: of nobody */
    /* from the loop, guarded by the lock */
    LodgeLock lock;
    GByteArray *aside;
    bool told, lost;
    GMainContext *context;
    GSource *source;     /* of take_aside(); owned by the main thread once it runs */
};

/* ---- requests ---- */

static void request_free(gpointer opaque)
{
    Request *q = opaque;

    g_clear_handle_id(&q->timer, g_source_remove);
    if (q->g->piece_of == q)
        q->g->piece_of = NULL;
    g_string_free(q->text, TRUE);
    g_free(q);
}

static void refuse(bool stack, MconsoleReply *r)
{
    mconsole_answer(r, 1, stack ? "Couldn't find that pid" : "Proc not available");
}

/* Keeps (1). */
static void end_request(Request *q, char how)
{
    MconsoleReply *r = g_steal_pointer(&q->reply);
    g_autoptr(GString) text = g_string_new("\n");
    bool stack = q->stack;

    g_string_append_len(text, q->text->str, (gssize)q->text->len);
    (void)g_ptr_array_remove(q->g->requests, q);
    if (how == '.')
        mconsole_stream_bytes(r, text->str + stack, text->len - stack);
    else if (how == 'o' && !stack)
        mconsole_answer(r, 1, "Failed to open file");
    else if (how == 'r' && !stack)
        mconsole_answer(r, 1, "Read of file failed");
    else
        refuse(stack, r);
}

static gboolean give_up(gpointer opaque)
{
    Request *q = opaque;

    q->timer = 0;
    end_request(q, 0);
    return G_SOURCE_REMOVE;
}

static Request *find_request(MconsoleGuest *g, unsigned id)
{
    for (guint i = 0; i < g->requests->len; i++) {
        Request *q = g_ptr_array_index(g->requests, i);

        if (q->id == id)
            return q;
    }
    return NULL;
}

static void all_refused(MconsoleGuest *g)
{
    while (g->requests->len)
        end_request(g_ptr_array_index(g->requests, 0), 0);
}

/* A line of the protocol; text from outside has no newline in it. */
static void say(MconsoleGuest *g, const char *line)
{
    if (g->present) {
        chan_inject(g->chan, line, strlen(line));
        chan_inject(g->chan, "\n", 1);
    }
}

static void ask(MconsoleGuest *g, bool stack, const char *what, MconsoleReply *r)
{
    if (!g || !g->present || g->requests->len >= REQUESTS_MAX) {
        refuse(stack, r);
        return;
    }
    Request *q = g_new0(Request, 1);

    *q = (Request){.g = g, .id = ++g->last_id, .stack = stack, .reply = r,
                   .text = g_string_new(NULL)};
    g_ptr_array_add(g->requests, q);
    q->timer = g_timeout_add_seconds(ANSWER_SECONDS, give_up, q);
    g_autofree char *line = g_strdup_printf("%s %u %s", stack ? "stack" : "proc", q->id, what);
    say(g, line);
}

void mconsole_guest_proc(MconsoleGuest *g, const char *file, MconsoleReply *r)
{
    g_autofree char *name = g_strndup(file, strcspn(file, "\n"));

    ask(g, false, name, r);
}

void mconsole_guest_stack(MconsoleGuest *g, const char *pid, MconsoleReply *r)
{
    char *end;
    unsigned long n = strtoul(pid, &end, 10);
    g_autofree char *name = g_strdup_printf("%lu", n);

    if (!g_ascii_isdigit(pid[0]))
        mconsole_answer(r, 1, "Please specify a pid");
    else
        ask(g, true, name, r);
}

bool mconsole_guest_log(MconsoleGuest *g, const char *text)
{
    if (!g || !g->present)
        return false;
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line; line++) {
        g_autofree char *out = g_strconcat("log ", *line, NULL);

        if (**line)
            say(g, out);
    }
    return true;
}

bool mconsole_guest_cad(MconsoleGuest *g)
{
    if (!g || !g->present)
        return false;
    say(g, "cad .");
    return true;
}

void mconsole_guest_expect(MconsoleGuest *g, const char *kind, const char *name, const char *value)
{
    g_autofree char *line = g_strdup_printf("%s %s %s", kind, name, value);

    if (g && !strchr(line, '\n'))
        say(g, line);
}

/* ---- what the guest says ---- */

static void piece_done(MconsoleGuest *g, char status)
{
    if (g->piece_of && (status != '+' || g->piece_of->text->len >= TEXT_MAX))
        end_request(g->piece_of, status == '+' ? '.' : status);
    g->piece_of = NULL;
}

/* "ID STATUS LENGTH" or "hello 1"; false: it is neither. */
static bool take_head(MconsoleGuest *g)
{
    char *end;

    g->head[g->head_len] = '\0';
    if (!strcmp(g->head, "hello 1")) {
        all_refused(g); /* those were asked of one who is no more */
        g->present = true;
        return true;
    }
    if (!g->present || !g_ascii_isdigit(g->head[0]))
        return false;
    unsigned long id = strtoul(g->head, &end, 10);
    if (end[0] != ' ' || !end[1] || !strchr("+.or", end[1]) || end[2] != ' ' ||
        !g_ascii_isdigit(end[3]))
        return false;
    char status = end[1];
    unsigned long len = strtoul(end + 3, &end, 10);
    if (*end || len > PIECE_MAX || (len && status != '+'))
        return false;
    g->piece_of = id <= G_MAXUINT ? find_request(g, (unsigned)id) : NULL;
    g->left = len;
    if (!len)
        piece_done(g, status);
    return true;
}

static void nonsense(MconsoleGuest *g)
{
    g->present = false;
    g->left = 0;
    all_refused(g);
}

void mconsole_guest_bytes(MconsoleGuest *g, const uint8_t *data, size_t len)
{
    while (len) {
        if (g->left) {
            size_t n = MIN(len, g->left);

            if (g->piece_of)
                g_string_append_len(g->piece_of->text, (const char *)data, (gssize)n);
            g->left -= n;
            data += n;
            len -= n;
            if (!g->left)
                piece_done(g, '+');
            continue;
        }
        char c = (char)*data++;
        len--;
        if (c != '\n' && g->head_len < HEAD_MAX - 1) {
            g->head[g->head_len++] = c;
        } else {
            if (c != '\n' || !take_head(g))
                nonsense(g);
            g->head_len = 0;
        }
    }
}

static gboolean take_aside(gpointer opaque)
{
    MconsoleGuest *g = opaque;
    g_autoptr(GByteArray) fresh = g_byte_array_new();
    bool lost;

    lodge_lock(&g->lock);
    GByteArray *taken = g->aside;
    g->aside = g_steal_pointer(&fresh);
    fresh = taken;
    lost = g->lost;
    g->lost = g->told = false;
    g_clear_pointer(&g->source, g_source_unref);
    lodge_unlock(&g->lock);
    if (lost)
        nonsense(g);
    else
        mconsole_guest_bytes(g, fresh->data, fresh->len);
    return G_SOURCE_REMOVE;
}

/* The channel's loop. Keeps (2). */
static void on_output(void *opaque, const uint8_t *data, size_t len)
{
    MconsoleGuest *g = opaque;

    lodge_lock(&g->lock);
    if (g->aside->len + len <= ASIDE_MAX)
        g_byte_array_append(g->aside, data, (guint)len);
    else
        g->lost = true;
    bool tell = !g->told;
    if (tell) {
        g->told = true;
        g->source = g_idle_source_new();
        g_source_set_priority(g->source, G_PRIORITY_DEFAULT);
        g_source_set_callback(g->source, take_aside, g, NULL);
    }
    GSource *source = tell ? g_source_ref(g->source) : NULL;
    lodge_unlock(&g->lock);
    if (source) {
        g_source_attach(source, g->context);
        g_source_unref(source);
    }
}

void mconsole_guest_restarted(MconsoleGuest *g)
{
    if (!g)
        return;
    nonsense(g);
    g->head_len = 0;
}

MconsoleGuest *mconsole_guest_new(Chan *chan)
{
    MconsoleGuest *g = g_new0(MconsoleGuest, 1);

    g->chan = chan;
    g->requests = g_ptr_array_new_with_free_func(request_free);
    g->aside = g_byte_array_new();
    g->context = g_main_context_ref_thread_default();
    lodge_lock_init(&g->lock, LOCK_RANK_QUEUE, "mconsole guest");
    chan_set_tap(chan, on_output, g);
    return g;
}

void mconsole_guest_free(MconsoleGuest *g)
{
    if (!g)
        return;
    chan_set_tap(g->chan, NULL, NULL); /* the loop says nothing after this */
    if (g->source) {
        g_source_destroy(g->source);
        g_source_unref(g->source);
    }
    all_refused(g);
    g_ptr_array_free(g->requests, TRUE);
    g_byte_array_unref(g->aside);
    g_main_context_unref(g->context);
    lodge_lock_clear(&g->lock);
    g_free(g);
}
