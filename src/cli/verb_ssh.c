/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * "lodge ssh", ssh-config: the distribution's ssh(1), joined to the port of the host that leads to
 * the guest's port 22. A host key is remembered by the machine's name (HostKeyAlias), since many
 * machines have one address, and ports change.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lodge/device.h"
#include "lodge/error.h"

#include "machines.h"
#include "ssh.h"

#define ARROW "->"
#define SSH_PORT "22/tcp"
#define BANNER "SSH-"
#define ALIAS "lodge-" /* before the name, so that it is no host's */

const OptSpec ssh_options_table[] = {{NULL}};

bool ssh_parse_forward(const char *text, char **ret_host, unsigned *ret_port)
{
    const char *arrow = strstr(text, ARROW);
    uint64_t port;

    if (!arrow || strcmp(arrow + strlen(ARROW), SSH_PORT))
        return false;
    g_autofree char *from = g_strndup(text, (gsize)(arrow - text));
    char *colon = strrchr(from, ':');
    if (!colon || !parse_u64(colon + 1, &port) || !port || port > UINT16_MAX)
        return false;
    *colon = '\0';
    *ret_host = g_strdup(*from && strcmp(from, "0.0.0.0") ? from : "127.0.0.1");
    *ret_port = (unsigned)port;
    return true;
}

bool ssh_find(const char *name, char **ret_host, unsigned *ret_port, GError **error)
{
    g_autoptr(MachineLook) l = machines_running(name, error);

    for (char **f = l ? l->status->forwards : NULL; f && *f; f++) {
        if (ssh_parse_forward(*f, ret_host, ret_port))
            return true;
    }
    return l && lodge_fail(error, LODGE_ERROR_CONFIG,
                           "%s: no port of this host leads to its port 22; make one: lodge net %s "
                           "--publish 2222:22", name, name);
}

/* Wait for @events until @deadline. */
static bool wait_socket(int fd, short events, int64_t deadline)
{
    int64_t left = deadline - g_get_monotonic_time();
    struct pollfd p = {.fd = fd, .events = events};

    return left > 0 && poll(&p, 1, (int)MIN((left + 999) / 1000, G_MAXINT)) > 0;
}

bool ssh_answers(const char *host, unsigned port, int64_t deadline)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    char said[sizeof BANNER] = "";
    size_t n = 0;

    if (inet_pton(AF_INET, host, &at.sin_addr) != 1)
        return false;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool open = fd >= 0 && (connect(fd, (struct sockaddr *)&at, sizeof at) == 0 ||
                            errno == EINPROGRESS);
    while (open && n < strlen(BANNER) && wait_socket(fd, POLLIN, deadline)) {
        ssize_t got = recv(fd, said + n, strlen(BANNER) - n, MSG_DONTWAIT);
        open = got > 0;
        n += got > 0 ? (size_t)got : 0;
    }
    if (fd >= 0)
        close(fd);
    return !strcmp(said, BANNER);
}

/* Become ssh; returns only where that failed. */
static bool become_ssh(const char *name, const char *host, unsigned port, int argc, char **argv,
                       GError **error)
{
    g_autoptr(GPtrArray) words = g_ptr_array_new();
    g_autofree char *number = g_strdup_printf("%u", port);
    g_autofree char *alias = g_strdup_printf("HostKeyAlias=" ALIAS "%s", name);
    const char *first[] = {"ssh", "-p", number, "-o", alias};
    int options = 0;

    for (unsigned i = 0; i < G_N_ELEMENTS(first); i++)
        g_ptr_array_add(words, (gpointer)first[i]);
    /* The host stands between ssh's options and the command. */
    while (options < argc && argv[options][0] == '-' && strcmp(argv[options], "--")) {
        bool value = strchr("BbcDEeFIiJLlmOopQRSWw", argv[options][1]) && !argv[options][2];
        g_ptr_array_add(words, argv[options++]);
        if (value && argv[options - 1][1] && options < argc)
            g_ptr_array_add(words, argv[options++]);
    }
    g_ptr_array_add(words, (gpointer)host);
    for (int i = options; i < argc; i++)
        g_ptr_array_add(words, argv[i]);
    g_ptr_array_add(words, NULL);
    fflush(stdout);
    execvp("ssh", (char *const *)words->pdata);
    if (errno == ENOENT)
        return lodge_fail(error, LODGE_ERROR_NOT_FOUND,
                          "there is no ssh; install openssh-client, or see lodge exec");
    return lodge_fail_errno(error, errno, "cannot start ssh");
}

/* The words behind the name are ssh's and not ours to read. */
int verb_ssh(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Options) o = options_parse(self->opts, MIN(argc, 1), argv, 1, &error);
    const char *name = o ? machines_one(o, &error) : NULL;
    g_autofree char *host = NULL;
    unsigned port;

    if (name && ssh_find(name, &host, &port, &error))
        (void)become_ssh(name, host, port, argc - 1, argv + 1, &error);
    return cli_fail(self->name, error, false);
}

int verb_ssh_config(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Options) o = options_parse(self->opts, argc, argv, 1, &error);
    const char *name = o ? machines_one(o, &error) : NULL;
    g_autofree char *host = NULL;
    unsigned port;

    if (!name || !ssh_find(name, &host, &port, &error))
        return cli_fail(self->name, error, false);
    printf("Host %s\n    HostName %s\n    Port %u\n    HostKeyAlias " ALIAS "%s\n", name, host,
           port, name);
    return cli_finish(STATUS_OK);
}
