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

static gboolean new_on_loop(gpointer opaque)
{
    Call *call = opaque;
    call->f->port = agent_port_new(call->fd);
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

int agent_fix_join(void *opaque, int64_t deadline, GError **error)
{
    int pair[2];
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
    Call call = {.fd = pair[1]};
    on_loop(opaque, add_on_loop, &call);
    if (call.ok)
        return pair[0];
    close(pair[0]);
    g_propagate_error(error, call.error);
    return -1;
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
    Agent *a = agent_new("vm", agent_fix_join, f, &error);
    g_assert_no_error(error);
    return a;
}
