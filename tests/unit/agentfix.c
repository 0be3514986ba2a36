/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agentfix.h"

#include <sys/socket.h>
#include <unistd.h>

static gpointer run_loop(gpointer opaque)
{
    g_main_loop_run(((AgentFix *)opaque)->loop);
    return NULL;
}

typedef struct Call {
    AgentFix *f;
    int fd;
    const char *request; /* of a will */
    void (*fn)(void *opaque);
    void *opaque;
    bool ok, done;
    GError *error;
    GMutex mutex;
    GCond cond;
} Call;

static void done(Call *call)
{
    g_mutex_lock(&call->mutex);
    call->done = true;
    g_cond_signal(&call->cond);
    g_mutex_unlock(&call->mutex);
}

static gboolean add_on_loop(gpointer opaque)
{
    Call *call = opaque;
    call->ok = agent_port_add(call->f->port, call->fd, &call->error);
    done(call);
    return G_SOURCE_REMOVE;
}

static gboolean add_will_on_loop(gpointer opaque)
{
    Call *call = opaque;
    call->ok = agent_port_add_will(call->f->port, call->fd, call->request, &call->error);
    done(call);
    return G_SOURCE_REMOVE;
}

static gboolean new_on_loop(gpointer opaque)
{
    Call *call = opaque;
    call->f->port = agent_port_new(call->fd);
    done(call);
    return G_SOURCE_REMOVE;
}

static gboolean call_on_loop(gpointer opaque)
{
    Call *call = opaque;
    call->fn(call->opaque);
    done(call);
    return G_SOURCE_REMOVE;
}

static gboolean free_on_loop(gpointer opaque)
{
    Call *call = opaque;
    g_clear_pointer(&call->f->port, agent_port_free);
    done(call);
    return G_SOURCE_REMOVE;
}

static void on_loop(AgentFix *f, GSourceFunc fn, Call *call)
{
    call->f = f;
    g_mutex_init(&call->mutex);
    g_cond_init(&call->cond);
    g_idle_add_full(G_PRIORITY_DEFAULT, fn, call, NULL);
    g_mutex_lock(&call->mutex);
    while (!call->done)
        g_cond_wait(&call->cond, &call->mutex);
    g_mutex_unlock(&call->mutex);
    g_mutex_clear(&call->mutex);
    g_cond_clear(&call->cond);
}

/* A connection that @fn gives to the port. */
static int connect_by(AgentFix *f, GSourceFunc fn, const char *request, GError **error)
{
    int pair[2];
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
    Call call = {.fd = pair[1], .request = request};
    on_loop(f, fn, &call);
    if (call.ok)
        return pair[0];
    close(pair[0]);
    g_propagate_error(error, call.error);
    return -1;
}

int agent_fix_join(void *opaque, int64_t deadline, GError **error)
{
    return connect_by(opaque, add_on_loop, NULL, error);
}

int agent_fix_add_will(void *opaque, const char *request, GError **error)
{
    AgentFix *f = opaque;
    f->will = connect_by(f, add_will_on_loop, request, error);
    return f->will;
}

static int leave_will(void *opaque, const char *request)
{
    return agent_fix_add_will(opaque, request, NULL);
}

void agent_fix_add_port(AgentFix *f, int fd)
{
    Call call = {.fd = fd};
    on_loop(f, new_on_loop, &call);
}

void agent_fix_open(AgentFix *f, int fd)
{
    f->loop = g_main_loop_new(NULL, FALSE);
    f->loop_thread = g_thread_new("loop", run_loop, f);
    agent_fix_add_port(f, fd);
}

void agent_fix_free_port(AgentFix *f)
{
    Call call = {0};
    on_loop(f, free_on_loop, &call);
}

void agent_fix_call(AgentFix *f, void (*fn)(void *opaque), void *opaque)
{
    Call call = {.fn = fn, .opaque = opaque};
    on_loop(f, call_on_loop, &call);
}

void agent_fix_close(AgentFix *f)
{
    agent_fix_free_port(f);
    g_main_loop_quit(f->loop);
    g_thread_join(f->loop_thread);
    g_main_loop_unref(f->loop);
}

Agent *agent_fix_client(AgentFix *f)
{
    g_autoptr(GError) error = NULL;
    Agent *a = agent_new("vm", agent_fix_join, leave_will, f, &error);
    g_assert_no_error(error);
    return a;
}
