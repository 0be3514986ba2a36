/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the management console hears: first a byte that says what there is (FAKE_*, and two of our
 * own), then steps, each a kind, the length of its bytes in two, and these: a datagram, one behind
 * magic, version and length, what the guest's helper says, or what happens to the machine.
 */
#include <string.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "lodge/num.h"

#include "mconsole_internal.h"
#include "mconsole_machine.h"
#include "replay.h"

#define DATAGRAM_MAX 600u
#define WAITS_MAX 12u /* ms */

enum { NO_MACHINE = 64, SOCKET = 128 }; /* SOCKET: datagrams go through one, as a client's */
enum { STEP_RAW, STEP_FRAMED, STEP_DEAF, STEP_GUEST, STEP_GONE, STEP_STAYS, STEP_NEWS, STEPS };

typedef struct Fuzz {
    Control control;
    Mconsole *m;
    char *dir;  /* NULL: there is no socket */
    int client; /* -1: none */
    int notices; /* a socket that hears them; -1: none */
    bool deaf;  /* the client does not read */
    unsigned waits;
} Fuzz;

static void serve(Fuzz *f)
{
    uint8_t buf[600];

    while (g_main_context_iteration(NULL, FALSE)) {
    }
    while (f->client >= 0 && !f->deaf && recv(f->client, buf, sizeof buf, MSG_DONTWAIT) > 0) {
    }
    while (f->notices >= 0 && recv(f->notices, buf, sizeof buf, MSG_DONTWAIT) > 0) {
    }
}

static struct sockaddr_un address(const Fuzz *f)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};

    g_strlcpy(at.sun_path, mconsole_path(f->m), sizeof at.sun_path);
    return at;
}

/* A client reads again, or not; a connected one has a longer queue. */
static void listen_or_not(Fuzz *f, bool deaf, bool connected)
{
    f->deaf = deaf;
    if (f->client < 0)
        return;
    struct sockaddr_un at = address(f);
    if (connected)
        g_assert_cmpint(connect(f->client, (struct sockaddr *)&at, sizeof at), ==, 0);
    for (; !deaf && f->waits < WAITS_MAX; f->waits++) { /* the console looks for room by a clock */
        serve(f);
        g_usleep(1000);
    }
}

static void datagram(Fuzz *f, const uint8_t *data, size_t len)
{
    static const struct sockaddr_un from = {.sun_family = AF_UNIX};

    if (f->client >= 0) {
        struct sockaddr_un at = address(f);
        (void)sendto(f->client, data, len, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&at, sizeof at);
    } else {
        mconsole_datagram(f->m, data, len, &from, sizeof from);
    }
}

static void framed(Fuzz *f, const uint8_t *data, size_t len)
{
    uint8_t d[DATAGRAM_MAX + 12];

    store_le32(d, 0xcafebabe);
    store_le32(d + 4, 2);
    store_le32(d + 8, (uint32_t)len);
    memcpy(d + 12, data, len);
    datagram(f, d, 12 + len);
}

static void news(Fuzz *f, unsigned what)
{
    static const MachineResult result = {.why = MACHINE_END_RESET};
    MachineNews n = {.what = (MachineEvent)(what % (MACHINE_EVENT_ENDED + 1)), .result = &result};

    mconsole_news(f->m, &n);
}

static void step(Fuzz *f, unsigned kind, const uint8_t *data, size_t len)
{
    Machine *machine = f->control.config.machine;

    switch (kind) {
    case STEP_RAW:
        datagram(f, data, len);
        break;
    case STEP_FRAMED:
        framed(f, data, len);
        break;
    case STEP_DEAF:
        listen_or_not(f, len > 0, len > 1);
        break;
    case STEP_GUEST:
        if (f->m->guest)
            mconsole_guest_bytes(f->m->guest, data, len);
        break;
    case STEP_GONE:
    case STEP_STAYS:
        if (machine)
            fake_machine_settle(machine, kind == STEP_GONE);
        break;
    case STEP_NEWS:
        console_log_append(f->control.config.console_log, data, len);
        news(f, len ? data[len - 1] : 0);
        break;
    }
    serve(f);
}

static void open_socket(Fuzz *f)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    GError *error = NULL;

    f->dir = g_dir_make_tmp("lodge-fuzz-XXXXXX", &error);
    g_assert_no_error(error);
    f->client = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    f->notices = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    g_assert_cmpint(bind(f->client, (struct sockaddr *)&at, sizeof at.sun_family), ==, 0);
    g_snprintf(at.sun_path, sizeof at.sun_path, "%s/notices", f->dir);
    g_assert_cmpint(bind(f->notices, (struct sockaddr *)&at, sizeof at), ==, 0);
    MconsoleConfig config = {.uml_dir = f->dir, .umid = "vm", .notify = at.sun_path};
    f->m = mconsole_open(&f->control, &config, &error);
    g_assert_no_error(error);
}

static void close_socket(Fuzz *f)
{
    g_autofree char *heard = g_build_filename(f->dir, "notices", NULL);

    close(f->client);
    close(f->notices);
    g_assert_cmpint(g_unlink(heard), ==, 0);
    g_assert_cmpint(g_rmdir(f->dir), ==, 0); /* nothing was left in it */
    g_free(f->dir);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned flags = size ? data[0] : NO_MACHINE;
    Fuzz f = {.client = -1, .notices = -1};

    f.control.config.name = "vm";
    f.control.config.console_log = console_log_open(NULL, 4096, NULL);
    f.control.config.machine = flags & NO_MACHINE ? NULL : fake_machine_new(flags);
    f.control.config.input = flags & FAKE_KEYS ? input_new() : NULL;
    if (flags & SOCKET) {
        open_socket(&f);
    } else {
        f.m = g_new0(Mconsole, 1);
        mconsole_init(f.m, &f.control);
    }
    for (size_t at = 1; at + 3 <= size;) {
        size_t n = MIN(MIN((size_t)load_le16(data + at + 1), size - at - 3), (size_t)DATAGRAM_MAX);

        step(&f, data[at] % STEPS, data + at + 3, n);
        at += 3 + n;
    }
    mconsole_close(f.m);
    if (f.dir)
        close_socket(&f);
    if (f.control.config.machine)
        fake_machine_free(f.control.config.machine);
    input_free(f.control.config.input);
    console_log_close(f.control.config.console_log);
    return 0;
}
