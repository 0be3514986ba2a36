/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "switch_fix.h"

#include <glib/gstdio.h>

#include "lodge/iothread.h"

enum { PORTS_DEADLINE_S = 20 };

void host_start(Fix *x)
{
    SwConfig config = {.age_s = SW_AGE_DEFAULT};
    g_autoptr(GError) error = NULL;

    x->name = sw_name_claim("t", &error);
    g_assert_no_error(error);
    x->host = sw_host_new("t", &config, x->clock, &error);
    g_assert_no_error(error);
    int fd = x->name->listen_fd;
    x->name->listen_fd = -1;
    g_assert_true(sw_listen_control(x->host, fd, &error));
}

void host_stop(Fix *x)
{
    sw_name_release(x->name);
    sw_host_free(x->host);
    x->name = NULL;
    x->host = NULL;
}

void fix_open(Fix *x)
{
    g_autoptr(GError) error = NULL;

    *x = (Fix){0};
    x->dir = g_dir_make_tmp("lsw.XXXXXX", NULL);
    g_assert_nonnull(x->dir);
    g_setenv("XDG_RUNTIME_DIR", x->dir, TRUE);
    x->clock = lodge_clock_new();
    host_start(x);
    x->uml = g_build_filename(x->dir, "uml", NULL);
    x->data = g_build_filename(x->dir, "data", NULL);
    x->vde = g_build_filename(x->dir, "vde", NULL);
    g_autofree char *uml = g_strdup_printf("uml:%s,%s", x->uml, x->data);
    g_autofree char *vde = g_strdup_printf("vde:%s", x->vde);
    g_assert_true(sw_listen(x->host, uml, &error));
    g_assert_true(sw_listen(x->host, vde, &error));
}

void fix_close(Fix *x)
{
    if (x->host)
        host_stop(x);
    lodge_clock_free(x->clock);
    /* The switch leaves nothing behind. */
    g_assert_cmpint(g_rmdir(x->dir), ==, 0);
    g_free(x->dir);
    g_free(x->uml);
    g_free(x->data);
    g_free(x->vde);
}

typedef struct Look {
    SwHost *host;
    unsigned port, ports;
    uint64_t value;
    int drop; /* -1: rx frames */
} Look;

static void look(void *opaque)
{
    Look *l = opaque;
    SwPort *p = switch_port(l->host->sw, l->port);

    l->ports = switch_ports(l->host->sw);
    l->value = !p ? 0 : l->drop < 0 ? p->rx_frames : p->drops[l->drop];
}

unsigned ports_of(Fix *x)
{
    Look l = {.host = x->host};

    io_thread_call(x->host->io, look, &l);
    return l.ports;
}

uint64_t count_of(Fix *x, unsigned port, int drop)
{
    Look l = {.host = x->host, .port = port, .drop = drop};

    io_thread_call(x->host->io, look, &l);
    return l.value;
}

void wait_ports(Fix *x, unsigned n)
{
    gint64 end = g_get_monotonic_time() + PORTS_DEADLINE_S * G_TIME_SPAN_SECOND;

    while (ports_of(x) != n) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(1000);
    }
}
