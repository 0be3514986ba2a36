/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where a machine's SSH server is found, and what passes for one. */
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <glib.h>

#include "ssh.h"

#define SOON (g_get_monotonic_time() + G_TIME_SPAN_SECOND / 2)

static void test_forwards(void)
{
    static const struct {
        const char *text, *host;
        unsigned port;
    } cases[] = {
        {"127.0.0.1:2222->22/tcp", "127.0.0.1", 2222},
        {"0.0.0.0:22->22/tcp", "127.0.0.1", 22},
        {":65535->22/tcp", "127.0.0.1", 65535},
        {"10.1.2.3:5->22/tcp", "10.1.2.3", 5},
        {"127.0.0.1:2222->22/udp"},
        {"127.0.0.1:2222->222/tcp"},
        {"127.0.0.1:22->80/tcp"},
        {"127.0.0.1:0->22/tcp"},
        {"127.0.0.1:65536->22/tcp"},
        {"127.0.0.1->22/tcp"},
        {"22/tcp"},
        {""},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *host = NULL;
        unsigned port = 0;
        g_assert_cmpint(ssh_parse_forward(cases[i].text, &host, &port), ==, !!cases[i].host);
        g_assert_cmpstr(host, ==, cases[i].host);
        g_assert_cmpuint(port, ==, cases[i].port);
    }
}

typedef struct Server {
    int fd;
    const char *says;
} Server;

static gpointer serve(gpointer opaque)
{
    Server *s = opaque;
    int fd = accept(s->fd, NULL, NULL);
    for (const char *c = s->says; *c; c++) { /* in pieces, as a network may */
        if (send(fd, c, 1, MSG_NOSIGNAL) != 1)
            break; /* the other has heard enough */
        g_usleep(1000);
    }
    char byte;
    if (!*s->says)
        (void)!recv(fd, &byte, 1, 0); /* says nothing, until the other leaves */
    close(fd);
    return NULL;
}

static bool answers(const char *says)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    Server s = {socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), says};
    g_assert_cmpint(bind(s.fd, (struct sockaddr *)&at, sizeof at), ==, 0);
    g_assert_cmpint(getsockname(s.fd, (struct sockaddr *)&at, &len), ==, 0);
    bool none = ssh_answers("127.0.0.1", ntohs(at.sin_port), SOON);
    g_assert_false(none); /* nobody listens yet */
    g_assert_cmpint(listen(s.fd, 1), ==, 0);
    GThread *t = g_thread_new("server", serve, &s);
    bool ok = ssh_answers("127.0.0.1", ntohs(at.sin_port),
                          *says ? g_get_monotonic_time() + 20 * G_TIME_SPAN_SECOND : SOON);
    g_thread_join(t);
    close(s.fd);
    return ok;
}

static void test_answers(void)
{
    g_assert_true(answers("SSH-2.0-x\r\n"));
    g_assert_false(answers("220 mail\r\n"));
    g_assert_false(answers("SSH"));
    g_assert_false(answers(""));
    g_assert_false(ssh_answers("no address", 22, SOON));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/ssh/forwards", test_forwards);
    g_test_add_func("/ssh/answers", test_answers);
    return g_test_run();
}
