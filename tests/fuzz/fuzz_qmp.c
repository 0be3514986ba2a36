/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What clients of the control socket may send, through the scanner, the parser and the commands, of
 * a control without a machine and a screen but with a keyboard and mouse. The first byte says whether the
 * client negotiates first, and in what pieces the rest arrives. In that, OP and a letter do something
 * else: see operation().
 */
#include <fcntl.h>
#include <linux/input-event-codes.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "control_internal.h"
#include "replay.h"

#define BYTES_MAX 16384u
#define OP 0xf9 /* in no UTF-8 */
#define OTHERS_MAX 20u /* clients that only come; more than a machine takes */
#define EVENT_UNIT 65536u
#define WAITS_MAX 40u /* ms */

typedef struct Fuzz {
    Control *control;
    int listener;      /* the control's */
    int in, out;       /* the client's ends, equal for a socket */
    int other[OTHERS_MAX];
    unsigned others, waits;
    size_t step;
    bool deaf;         /* the client does not read */
    bool passes;       /* the next piece carries a descriptor */
} Fuzz;

static void press(void *opaque, unsigned code, bool down)
{
    g_assert_cmpuint(code, <=, KEY_MAX);
}

static void move(void *opaque, int dx, int dy, int dz, unsigned buttons)
{
}

static const InputOps keyboard = {.key = press, .rel = move};

static void serve(Fuzz *f)
{
    char buf[65536];

    while (g_main_context_iteration(NULL, FALSE)) {
        while (!f->deaf && read(f->in, buf, sizeof buf) > 0) {
        }
    }
}

static ssize_t send_piece(Fuzz *f, const uint8_t *data, size_t len)
{
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr aligned;
    } control = {0};
    struct iovec iov = {.iov_base = (void *)data, .iov_len = len};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

    if (f->in != f->out)
        return write(f->out, data, len);
    if (f->passes) {
        m.msg_control = &control;
        m.msg_controllen = sizeof control;
        struct cmsghdr *h = CMSG_FIRSTHDR(&m);
        *h = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
                              .cmsg_len = CMSG_LEN(sizeof(int))};
        memcpy(CMSG_DATA(h), &f->out, sizeof(int));
        f->passes = false;
    }
    return sendmsg(f->out, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void say(Fuzz *f, const uint8_t *data, size_t size)
{
    for (size_t at = 0; at < size;) {
        ssize_t n = send_piece(f, data + at, MIN(f->step, size - at));

        serve(f);
        if (n < 0)
            return;
        at += (size_t)n;
    }
}

static void hang_up(Fuzz *f)
{
    close(f->in);
    if (f->out != f->in)
        close(f->out);
    f->in = f->out = -1;
    serve(f);
}

/* From here on the client is one over two pipes. */
static void over_streams(Fuzz *f)
{
    int there[2], back[2];

    hang_up(f);
    g_assert_true(!pipe2(there, O_NONBLOCK | O_CLOEXEC) && !pipe2(back, O_NONBLOCK | O_CLOEXEC));
    qmp_add_client(f->control->qmp, there[0], back[1]);
    f->in = back[0];
    f->out = there[1];
}

static void another(Fuzz *f)
{
    struct sockaddr_un at;
    socklen_t len = sizeof at;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    g_assert_true(fd >= 0 && !getsockname(f->listener, (struct sockaddr *)&at, &len));
    if (f->others < OTHERS_MAX && !connect(fd, (struct sockaddr *)&at, len))
        f->other[f->others++] = fd;
    else
        close(fd);
}

static void tell_event(Fuzz *f, unsigned units)
{
    g_autofree char *line = g_strnfill((gsize)units * EVENT_UNIT + 1, 'e');

    qmp_event(f->control->qmp, line);
}

static void operation(Fuzz *f, uint8_t what, uint8_t arg)
{
    switch (what) {
    case 'e':
        tell_event(f, arg & 0x1f);
        break;
    case 'd':
        f->deaf = arg & 1;
        break;
    case 'p':
        f->passes = true;
        break;
    case 's':
        over_streams(f);
        break;
    case 'o':
        another(f);
        break;
    case 'w': /* keys are held that long */
        for (unsigned i = 0; i < (arg & 0x0fu) && f->waits < WAITS_MAX; i++, f->waits++) {
            g_usleep(1000);
            serve(f);
        }
        break;
    }
    serve(f);
}

/* Names no file. */
static int listen_somewhere(void)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    g_assert_true(fd >= 0 && !bind(fd, (struct sockaddr *)&at, sizeof at.sun_family) && !listen(fd, 8));
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char hello[] = "{\"execute\":\"qmp_capabilities\"}";
    g_autoptr(Input) in = input_new();
    ControlConfig config = {.name = "vm", .input = in};
    Fuzz f = {.control = control_open(&config, NULL), .listener = listen_somewhere(),
              .step = sizeof hello};
    int ends[2];

    signal(SIGPIPE, SIG_IGN); /* as in the tool */

    g_assert_true(f.control && !socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends));
    f.in = f.out = ends[1];
    input_attach(in, &keyboard, NULL);
    f.control->qmp = qmp_new(f.control, f.listener);
    qmp_add_client(f.control->qmp, ends[0], ends[0]);
    if (size && !(data[0] & 1))
        say(&f, (const uint8_t *)hello, sizeof hello - 1);
    f.step = size && data[0] & 2 ? 1 + data[0] / 4 : BYTES_MAX;
    size = MIN(size, BYTES_MAX);
    for (size_t at = 1; at < size;) {
        const uint8_t *op = memchr(data + at, OP, size - at);
        size_t end = op ? (size_t)(op - data) : size;

        say(&f, data + at, end - at);
        if (end + 2 < size)
            operation(&f, data[end + 1], data[end + 2]);
        at = end + 3;
    }
    hang_up(&f);
    for (unsigned i = 0; i < f.others; i++)
        close(f.other[i]);
    serve(&f);
    control_close(f.control);
    input_detach(in, &keyboard, NULL);
    return 0;
}
