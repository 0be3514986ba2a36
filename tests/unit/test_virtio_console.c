/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The virtio console: terminal, named ports, control messages. The channels are the test's. */
#include <string.h>

#include <linux/virtio_console.h>

#include "lodge/chan.h"
#include "lodge/error.h"
#include "virtio.h"
#include "virtio_driver.h"

#define BUF_LEN 128
#define CTRL_RX 2
#define CTRL_TX 3

/* Stands for the channels: this program defines their functions. */
struct Chan {
    const ChanOps *ops;
    void *opaque;
    GString *out;
    unsigned wants;
};

void chan_attach(Chan *c, const ChanOps *ops, void *opaque)
{
    c->ops = ops;
    c->opaque = opaque;
}

void chan_write(Chan *c, const void *data, size_t len)
{
    g_string_append_len(c->out, data, (gssize)len);
}

void chan_want(Chan *c)
{
    c->wants++;
}

typedef struct Fix {
    Chan main, agent;
    TestBoard *tb;
    Drv *d;
    uint64_t out; /* guest address of a buffer */
} Fix;

static void make(Fix *f)
{
    f->main.out = g_string_new(NULL);
    f->agent.out = g_string_new(NULL);
    f->tb = drv_board();
    test_board_backend(f->tb, "tty", &f->main);
    test_board_backend(f->tb, "agent", &f->agent);
    f->d = drv_open(f->tb, "virtio-console-pci", "chan=tty,port2=agent,port2-name=org.lodge.agent");
}

static void start(Fix *f, uint64_t features)
{
    unsigned queues = 8; /* ports 0 to 2 and control */

    g_assert_true(drv_accept(f->d, features));
    drv_msix(f->d, queues);
    for (unsigned q = 0; q < queues; q++)
        drv_queue(f->d, q, 16);
    drv_ready(f->d);
    f->out = drv_alloc(f->d, BUF_LEN);
}

static void fix_up(Fix *f, gconstpointer unused)
{
    make(f);
    start(f, 1 << VIRTIO_CONSOLE_F_MULTIPORT | 1 << VIRTIO_CONSOLE_F_SIZE);
}

static void fix_down(Fix *f, gconstpointer unused)
{
    drv_free(f->d);
    test_board_free(f->tb);
    g_assert_null(f->main.ops); /* detached */
    g_string_free(f->main.out, TRUE);
    g_string_free(f->agent.out, TRUE);
}

static void send(Fix *f, unsigned q, const void *data, uint32_t len)
{
    uint32_t head, used;

    drv_put(f->d, f->out, data, len);
    drv_add(f->d, q, &(DrvSeg){f->out, len, false}, 1);
    drv_kick(f->d, q);
    g_assert_true(drv_used(f->d, q, &head, &used));
}

static void control(Fix *f, uint32_t id, uint16_t event, uint16_t value)
{
    struct virtio_console_control c = {.id = id, .event = event, .value = value};

    send(f, CTRL_TX, &c, sizeof c);
}

static uint64_t give(Fix *f, unsigned q, uint32_t len)
{
    uint64_t gpa = drv_alloc(f->d, len);

    drv_add(f->d, q, &(DrvSeg){gpa, len, true}, 1);
    drv_kick(f->d, q);
    return gpa;
}

/* The next control message is this; the rest of it is in @ret_rest. */
static void expect(Fix *f, uint64_t gpa, uint32_t id, uint16_t event, uint16_t value,
                   char ret_rest[BUF_LEN])
{
    struct virtio_console_control c;
    uint32_t head, len;

    g_assert_true(drv_used(f->d, CTRL_RX, &head, &len));
    drv_get(f->d, gpa, &c, sizeof c);
    g_assert_cmpuint(c.id, ==, id);
    g_assert_cmpuint(c.event, ==, event);
    g_assert_cmpuint(c.value, ==, value);
    memset(ret_rest, 0, BUF_LEN);
    drv_get(f->d, gpa + sizeof c, ret_rest, len - sizeof c);
}

static void test_ports(Fix *f, gconstpointer unused)
{
    uint64_t b[8];
    char rest[BUF_LEN];
    uint32_t head, len;

    g_assert_cmpuint(test_peek(f->tb, f->d->config + 4, 4), ==, 3); /* max_nr_ports */
    for (unsigned i = 0; i < 3; i++)
        b[i] = give(f, CTRL_RX, BUF_LEN);
    control(f, VIRTIO_CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1);
    expect(f, b[0], 0, VIRTIO_CONSOLE_PORT_ADD, 1, rest);
    expect(f, b[1], 2, VIRTIO_CONSOLE_PORT_ADD, 1, rest); /* there is no port 1 */
    control(f, 0, VIRTIO_CONSOLE_PORT_READY, 1);
    expect(f, b[2], 0, VIRTIO_CONSOLE_CONSOLE_PORT, 1, rest);
    /* Without buffers messages wait, and are not lost. */
    control(f, 2, VIRTIO_CONSOLE_PORT_READY, 1);
    g_assert_false(drv_used(f->d, CTRL_RX, &head, &len));
    b[3] = give(f, CTRL_RX, BUF_LEN);
    expect(f, b[3], 0, VIRTIO_CONSOLE_PORT_OPEN, 1, rest);
    b[4] = give(f, CTRL_RX, BUF_LEN);
    expect(f, b[4], 2, VIRTIO_CONSOLE_PORT_NAME, 1, rest);
    g_assert_cmpstr(rest, ==, "org.lodge.agent");
    b[5] = give(f, CTRL_RX, BUF_LEN);
    f->agent.ops->connected(f->agent.opaque, true);
    expect(f, b[5], 2, VIRTIO_CONSOLE_PORT_OPEN, 1, rest);
    b[6] = give(f, CTRL_RX, BUF_LEN);
    virtio_console_resize(f->d->dev, 0, 132, 50);
    expect(f, b[6], 0, VIRTIO_CONSOLE_RESIZE, 1, rest);
    g_assert_cmpuint((uint8_t)rest[0], ==, 50);
    g_assert_cmpuint((uint8_t)rest[2], ==, 132);
    g_assert_cmpuint(test_peek(f->tb, f->d->config, 2), ==, 132);
    g_assert_cmpuint(drv_msis(f->d, -1), ==, 1);
    g_assert_cmpuint(f->d->dev->faults, ==, 0);
}

static void test_data(Fix *f, gconstpointer unused)
{
    const uint8_t text[] = "0123456789";
    uint64_t b;
    char got[BUF_LEN] = {0};
    uint32_t head, len;

    send(f, 1, "hello", 5);
    send(f, 7, "agent", 5); /* port 2 */
    g_assert_cmpstr(f->main.out->str, ==, "hello");
    g_assert_cmpstr(f->agent.out->str, ==, "agent");
    /* Input waits until the guest has opened the port and has buffers. */
    b = give(f, 0, 4);
    g_assert_cmpuint(f->main.ops->input(f->main.opaque, text, 10), ==, 0);
    f->main.wants = 0;
    control(f, 0, VIRTIO_CONSOLE_PORT_OPEN, 1);
    g_assert_cmpuint(f->main.wants, ==, 1);
    g_assert_cmpuint(f->main.ops->input(f->main.opaque, text, 10), ==, 4);
    g_assert_true(drv_used(f->d, 0, &head, &len));
    g_assert_cmpuint(len, ==, 4);
    drv_get(f->d, b, got, 4);
    g_assert_cmpstr(got, ==, "0123");
    give(f, 0, 64);
    g_assert_cmpuint(f->main.wants, ==, 2);
    g_assert_cmpuint(f->main.ops->input(f->main.opaque, text + 4, 6), ==, 6);
}

/* Terminals beside the first, and ports that come and go. */
static void test_plug(void)
{
    Fix f = {0};
    uint64_t b[9];
    char rest[BUF_LEN];
    uint32_t head, len;
    g_autoptr(GError) error = NULL;

    f.main.out = g_string_new(NULL);
    f.agent.out = g_string_new(NULL);
    f.tb = drv_board();
    test_board_backend(f.tb, "tty", &f.main);
    f.d = drv_open(f.tb, "virtio-console-pci", "chan=tty,max-ports=3");
    start(&f, 1 << VIRTIO_CONSOLE_F_MULTIPORT);
    g_assert_cmpuint(test_peek(f.tb, f.d->config + 4, 4), ==, 3); /* max_nr_ports */
    for (unsigned i = 0; i < 9; i++)
        b[i] = give(&f, CTRL_RX, BUF_LEN);
    control(&f, VIRTIO_CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1);
    expect(&f, b[0], 0, VIRTIO_CONSOLE_PORT_ADD, 1, rest);
    control(&f, 0, VIRTIO_CONSOLE_PORT_READY, 1);
    expect(&f, b[1], 0, VIRTIO_CONSOLE_CONSOLE_PORT, 1, rest);
    expect(&f, b[2], 0, VIRTIO_CONSOLE_PORT_OPEN, 1, rest);
    g_assert_true(virtio_console_add_port(f.d->dev, "tty1", true, &f.agent, &error));
    expect(&f, b[3], 1, VIRTIO_CONSOLE_PORT_ADD, 1, rest);
    control(&f, 1, VIRTIO_CONSOLE_PORT_READY, 1);
    expect(&f, b[4], 1, VIRTIO_CONSOLE_CONSOLE_PORT, 1, rest);
    expect(&f, b[5], 1, VIRTIO_CONSOLE_PORT_NAME, 1, rest);
    g_assert_cmpstr(rest, ==, "tty1");
    send(&f, 5, "there", 5);
    g_assert_cmpstr(f.agent.out->str, ==, "there");
    g_assert_false(virtio_console_remove_port(f.d->dev, "tty2"));
    g_assert_true(virtio_console_remove_port(f.d->dev, "tty1"));
    g_assert_null(f.agent.ops);
    expect(&f, b[6], 1, VIRTIO_CONSOLE_PORT_REMOVE, 1, rest);
    send(&f, 5, "gone", 4);
    g_assert_cmpstr(f.agent.out->str, ==, "there");
    g_assert_false(virtio_console_remove_port(f.d->dev, "tty1"));
    /* Its place is free again, and the places are counted. */
    g_assert_true(virtio_console_add_port(f.d->dev, "a", false, &f.agent, &error));
    expect(&f, b[7], 1, VIRTIO_CONSOLE_PORT_ADD, 1, rest);
    Chan more = {.out = f.agent.out}, none = {0};
    g_assert_true(virtio_console_add_port(f.d->dev, "b", false, &more, &error));
    g_assert_false(virtio_console_add_port(f.d->dev, "c", false, &none, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_LIMIT);
    g_assert_null(none.ops);
    /* The place of one that went is free when the driver was told. */
    expect(&f, b[8], 2, VIRTIO_CONSOLE_PORT_ADD, 1, rest);
    g_assert_true(virtio_console_remove_port(f.d->dev, "b"));
    g_assert_false(drv_used(f.d, CTRL_RX, &head, &len)); /* no buffer: the place is taken still */
    g_assert_false(virtio_console_add_port(f.d->dev, "c", false, &none, NULL));
    drv_free(f.d);
    test_board_free(f.tb);
    g_assert_null(f.main.ops);
    g_assert_null(f.agent.ops);
    g_string_free(f.main.out, TRUE);
    g_string_free(f.agent.out, TRUE);
}

/* A driver that knows one port only. */
static void test_single(void)
{
    Fix f = {0};
    const uint8_t text[] = "x";

    make(&f);
    start(&f, 0);
    give(&f, 0, 16);
    g_assert_cmpuint(f.main.ops->input(f.main.opaque, text, 1), ==, 1);
    send(&f, 1, "y", 1);
    g_assert_cmpstr(f.main.out->str, ==, "y");
    fix_down(&f, NULL);
}

static void test_emergency(void)
{
    Fix f = {0};

    make(&f);
    test_poke(f.tb, f.d->config + 8, 4, '!');
    g_assert_cmpstr(f.main.out->str, ==, "!");
    fix_down(&f, NULL);
}

static void test_hostile(Fix *f, gconstpointer unused)
{
    control(f, 1, VIRTIO_CONSOLE_PORT_READY, 1);
    control(f, 3, VIRTIO_CONSOLE_PORT_OPEN, 1);
    control(f, UINT32_MAX, VIRTIO_CONSOLE_PORT_READY, 1);
    control(f, 0, 99, 1);
    send(f, CTRL_TX, "abc", 3);
    g_assert_cmpuint(f->d->dev->faults, ==, 5);
    g_assert_false(drv_needs_reset(f->d));
    control(f, 0, VIRTIO_CONSOLE_PORT_OPEN, 1);
    drv_add(f->d, 0, &(DrvSeg){f->out, 8, false}, 1); /* a receive buffer to read from */
    g_assert_cmpuint(f->main.ops->input(f->main.opaque, (const uint8_t *)"x", 1), ==, 0);
    g_assert_true(drv_needs_reset(f->d));
}

static void test_props(void)
{
    g_autoptr(TestBoard) tb = drv_board();
    g_autoptr(Device) d = device_new(device_class_find("virtio-console-pci"), NULL, &tb->board);
    GError *error = NULL;

    g_assert_true(device_set(d, "port1-name", "lonely", &error));
    g_assert_false(device_realize(d, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
    g_clear_error(&error);
}

static void test_state(Fix *f, gconstpointer unused)
{
    g_autoptr(GByteArray) saved = g_byte_array_new();
    GError *error = NULL;
    size_t used;

    g_assert_true(state_check(f->d->dev->cls->state, &error));
    g_assert_no_error(error);
    control(f, 0, VIRTIO_CONSOLE_PORT_OPEN, 1);
    give(f, 0, 16);
    state_save(f->d->dev->cls->state, f->d->dev, saved);
    device_reset(f->d->dev, RESET_COLD);
    g_assert_cmpuint(f->main.ops->input(f->main.opaque, (const uint8_t *)"x", 1), ==, 0);
    g_assert_true(
        state_load(f->d->dev->cls->state, f->d->dev, saved->data, saved->len, &used, &error));
    g_assert_no_error(error);
    g_assert_cmpuint(f->main.ops->input(f->main.opaque, (const uint8_t *)"x", 1), ==, 1);
}

#define ADD(name, fn) g_test_add("/virtio-console/" name, Fix, NULL, fix_up, fn, fix_down)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("ports", test_ports);
    ADD("data", test_data);
    ADD("hostile", test_hostile);
    ADD("state", test_state);
    g_test_add_func("/virtio-console/plug", test_plug);
    g_test_add_func("/virtio-console/single", test_single);
    g_test_add_func("/virtio-console/emergency", test_emergency);
    g_test_add_func("/virtio-console/props", test_props);
    return g_test_run();
}
