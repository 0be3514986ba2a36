/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * "lodge switch" without a name: the switches that run. Each is asked in its turn; one that hangs is
 * listed without what it does not say.
 */
#include "switch_list.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lodge/error.h"
#include "lodge/json_out.h"

#include "switch_client.h"

enum { ANSWER_MS = 1000 };

typedef struct Row {
    const char *name; /* borrowed */
    int64_t pid;      /* 0: of another PID namespace */
    int64_t ports;    /* -1: not known */
} Row;

static int64_t ask_ports(int fd)
{
    SwHello h = sw_hello(SW_OP_PORTS, "lodge switch");
    int fds[SW_ATTACH_FDS];
    unsigned nfds;
    SwWelcome w;

    if (!sw_send_hello(fd, &h, NULL, 0, NULL) ||
        !sw_recv_welcome(fd, &w, fds, &nfds, ANSWER_MS, NULL))
        return -1;
    for (unsigned i = 0; i < nfds; i++)
        close(fds[i]);
    return w.port;
}

/* Return: false: none of that name runs. */
static bool look(const char *name, Row *ret_row)
{
    struct ucred who = {0};
    socklen_t len = sizeof who;
    g_autoptr(GError) error = NULL;
    int fd = sw_dial(name, &error);

    *ret_row = (Row){.name = name, .ports = -1};
    if (fd < 0)
        return !g_error_matches(error, LODGE_ERROR, LODGE_ERROR_NOT_FOUND);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) == 0)
        ret_row->pid = who.pid;
    ret_row->ports = ask_ports(fd);
    close(fd);
    return true;
}

static void print_json(const Row *rows, unsigned n)
{
    g_autoptr(JsonOut) j = json_out_new();

    json_object(j, NULL);
    json_number(j, "schema", 1);
    json_array(j, "switches");
    for (unsigned i = 0; i < n; i++) {
        json_object(j, NULL);
        json_string(j, "name", rows[i].name);
        json_number(j, "pid", rows[i].pid);
        if (rows[i].ports < 0)
            json_null(j, "ports");
        else
            json_number(j, "ports", rows[i].ports);
        json_end(j);
    }
    fputs(json_text(j), stdout);
}

static void print_table(const Row *rows, unsigned n)
{
    int width = (int)strlen("NAME");

    for (unsigned i = 0; i < n; i++)
        width = MAX(width, (int)strlen(rows[i].name));
    if (n)
        printf("%-*s  %7s  PORTS\n", width, "NAME", "PID");
    for (unsigned i = 0; i < n; i++) {
        printf("%-*s  %7" PRId64 "  ", width, rows[i].name, rows[i].pid);
        if (rows[i].ports < 0)
            puts("    -");
        else
            printf("%5" PRId64 "\n", rows[i].ports);
    }
}

void switch_list(bool json)
{
    g_autoptr(GPtrArray) names = sw_names();
    g_autofree Row *rows = g_new0(Row, names->len + 1);
    unsigned n = 0;

    for (unsigned i = 0; i < names->len; i++)
        n += look(g_ptr_array_index(names, i), &rows[n]);
    if (json)
        print_json(rows, n);
    else
        print_table(rows, n);
}
