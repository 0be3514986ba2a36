/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A running switch as others see it: clients of uml_switch's and vde_switch's protocols, the places where
 * it listens, and its control socket. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lodge/error.h"
#include "switch_ends.h"
#include "switch_fix.h"

static void test_versions(void)
{
    Client v3, v1, v0, vde;
    Fix x;

    fix_open(&x);
    g_autofree char *ctl = g_build_filename(x.vde, "ctl", NULL);
    g_autofree char *path = g_build_filename(x.dir, "c", NULL);
    client_begin(&v3, x.uml, NULL, 3);
    client_begin(&v1, x.uml, NULL, 1);
    client_begin(&v0, x.uml, NULL, 0);
    client_begin(&vde, ctl, path, 0);
    g_assert_true(client_ask(&v3, 3, 0, 2)); /* UML pads by two bytes */
    g_assert_true(client_ask(&v1, 1, 0, 0));
    g_assert_true(client_ask(&v0, 0, 0, 0));
    g_strlcpy(v0.peer.sun_path, x.data, sizeof v0.peer.sun_path);
    v0.peer.sun_family = AF_UNIX;
    g_assert_true(client_ask(&vde, 3, 9 << 8, 0)); /* port 9 */
    g_autofree char *want = g_strdup_printf("%s/009.", x.vde);
    g_assert_true(g_str_has_prefix(vde.peer.sun_path, want));
    (void)unlink(path); /* as libvdeplug does */
    g_assert_cmpint(connect(vde.fd, (struct sockaddr *)&vde.peer, sizeof vde.peer), ==, 0);
    wait_ports(&x, 4);
    Client *all[] = {&v3, &v1, &v0, &vde};
    for (unsigned i = 0; i < 4; i++) {
        client_put(all[i], 0, i + 1, 100 + i);
        for (unsigned k = 0; k < 4; k++) {
            if (k != i)
                client_get(all[k], i + 1, 100 + i);
        }
    }
    /* Now all are known, and nobody else hears it. */
    for (unsigned i = 0; i < 4; i++) {
        client_put(all[i], (i + 1) % 4 + 1, i + 1, 200 + i);
        client_get(all[(i + 1) % 4], i + 1, 200 + i);
    }
    client_end(&v1);
    wait_ports(&x, 3);
    client_put(&v3, 2, 1, 300); /* flooded */
    client_get(&v0, 1, 300);
    client_get(&vde, 1, 300);
    client_end(&v3);
    client_end(&v0);
    client_end(&vde);
    wait_ports(&x, 0);
    fix_close(&x);
}

static void test_requests(void)
{
    static const struct {
        const char *what;
        unsigned version;
        uint32_t type;
        int at; /* change this byte, -1: none */
        uint8_t byte;
    } cases[] = {
        {"unknown type", 3, 2, -1, 0},
        {"not a socket's address", 3, 0, 12, AF_INET},
        {"version 1 with a type", 1, 1, -1, 0},
        {"no such port", 3, 300 << 8, -1, 0},
        {"nobody there", 3, 0, 40, 1},
    };
    uint8_t r[SW_REQUEST_MAX];
    Client c;
    Fix x;

    fix_open(&x);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_test_message("%s", cases[i].what);
        client_begin(&c, x.uml, NULL, i);
        size_t len = client_request(r, &c, cases[i].version, cases[i].type);
        if (cases[i].at >= 0)
            r[cases[i].at] = cases[i].byte;
        g_assert_cmpint(send(c.ctl, r, len, 0), ==, (ssize_t)len);
        g_assert_cmpint(recv(c.ctl, r, sizeof r, 0), ==, 0); /* hung up */
        client_end(&c);
    }
    /* In pieces. */
    client_begin(&c, x.uml, NULL, 50);
    size_t len = client_request(r, &c, 3, 0);
    for (size_t i = 0; i < len; i++) {
        g_assert_cmpint(send(c.ctl, r + i, 1, MSG_NOSIGNAL), ==, 1);
        if (i % 16 == 0)
            g_usleep(1000);
    }
    g_assert_cmpint(recv(c.ctl, &c.peer, sizeof c.peer, MSG_WAITALL), ==, sizeof c.peer);
    wait_ports(&x, 1);
    /* One that is taken. */
    Client d;
    client_begin(&d, x.uml, NULL, 51);
    g_assert_false(client_ask(&d, 3, 1 << 8, 0));
    client_end(&d);
    /* More who say nothing than there is room for. */
    Client idle[SW_CLIENTS_MAX + 5];
    for (unsigned i = 0; i < G_N_ELEMENTS(idle); i++)
        client_begin(&idle[i], x.uml, NULL, 100 + i);
    client_begin(&d, x.uml, NULL, 52);
    g_assert_true(client_ask(&d, 3, 0, 0));
    for (unsigned i = 0; i < G_N_ELEMENTS(idle); i++)
        client_end(&idle[i]);
    client_end(&d);
    client_end(&c);
    wait_ports(&x, 0);
    fix_close(&x);
}

/* Others cannot put frames into a client's port. */
static void test_stranger(void)
{
    Client a, b;
    uint8_t f[FRAME];
    Fix x;

    fix_open(&x);
    client_begin(&a, x.uml, NULL, 1);
    client_begin(&b, x.uml, NULL, 2);
    g_assert_true(client_ask(&a, 3, 0, 0));
    frame_make(f, 0, 66, 0);
    g_assert_cmpint(sendto(b.fd, f, sizeof f, 0, (struct sockaddr *)&a.peer, sizeof a.peer), <, 0);
    g_assert_cmpint(errno, ==, EPERM);
    client_end(&a);
    client_end(&b);
    wait_ports(&x, 0);
    fix_close(&x);
}

static void test_doors(void)
{
    g_autoptr(GError) error = NULL;
    Fix x;

    fix_open(&x);
    g_autofree char *again = g_strdup_printf("uml:%s", x.uml);
    g_assert_false(sw_listen(x.host, again, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_BUSY);
    g_clear_error(&error);
    g_assert_false(sw_listen(x.host, "udp:1", &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
    g_clear_error(&error);
    /* A file that is no socket is somebody's. */
    g_autofree char *file = g_build_filename(x.dir, "file", NULL);
    g_autofree char *at = g_strdup_printf("uml:%s", file);
    g_assert_true(g_file_set_contents(file, "x", 1, NULL));
    g_assert_false(sw_listen(x.host, at, &error));
    g_assert_true(g_file_test(file, G_FILE_TEST_EXISTS));
    (void)unlink(file);
    g_clear_error(&error);
    g_assert_null(sw_name_claim("t", &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_EXISTS);
    g_clear_error(&error);
    g_assert_null(sw_name_claim("../t", &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
    fix_close(&x);
}

static void test_control(void)
{
    static const struct {
        size_t len;
        uint32_t magic;
        uint16_t op;
        uint16_t status; /* of the answer; 0xffff: hung up without one */
    } cases[] = {
        {sizeof(SwHello), SW_HELLO_MAGIC, 99, 1 + LODGE_ERROR_UNSUPPORTED},
        {sizeof(SwHello), SW_HELLO_MAGIC, 0, 1 + LODGE_ERROR_UNSUPPORTED},
        {sizeof(SwHello), SW_HELLO_MAGIC, SW_OP_UNPLUG, 1 + LODGE_ERROR_NOT_FOUND},
        {sizeof(SwHello), SW_HELLO_MAGIC, SW_OP_PLUG, 1 + LODGE_ERROR_CONFIG},
        {sizeof(SwHello), 1, SW_OP_PORTS, 0xffff},
        {20, SW_HELLO_MAGIC, SW_OP_PORTS, 0xffff},
    };
    Fix x;

    fix_open(&x);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        SwHello h = sw_hello((SwOp)cases[i].op, "test");
        SwWelcome w;
        int fd = sw_dial("t", NULL);

        g_test_message("%u", i);
        fcntl(fd, F_SETFL, 0);
        set_deadline(fd);
        h.magic = cases[i].magic;
        g_assert_cmpint(send(fd, &h, cases[i].len, 0), ==, (ssize_t)cases[i].len);
        ssize_t n = recv(fd, &w, sizeof w, 0);
        g_assert_cmpint(n, ==, cases[i].status == 0xffff ? 0 : (ssize_t)sizeof w);
        if (n > 0)
            g_assert_cmpuint(w.status, ==, cases[i].status);
        close(fd);
    }
    fix_close(&x);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/switch-host/versions", test_versions);
    g_test_add_func("/switch-host/requests", test_requests);
    g_test_add_func("/switch-host/stranger", test_stranger);
    g_test_add_func("/switch-host/doors", test_doors);
    g_test_add_func("/switch-host/control", test_control);
    return g_test_run();
}
