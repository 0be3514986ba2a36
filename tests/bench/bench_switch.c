/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * bench_switch LODGE [FRAME-BYTES [SECONDS [PORTS]]]
 *
 * Frames a second between pairs of ports through lodge switch, by Lodge's own link, by
 * uml_switch's protocol and by vde_switch's, and through uml_switch and vde_switch themselves, with
 * 2, 8 and 64 ports. One thread sends on all even ports as fast as it is let, one receives on all
 * odd ones; both in batches, the same code for each switch. What counts is what arrives; what was
 * sent and did not is lost. A client of vde_switch's protocol connects its socket, as libvdeplug
 * does, and one of uml_switch's does not, as User-Mode Linux does: the kernel lets eleven datagrams
 * wait for it.
 *
 * The kinds take turns, ROUNDS times; said are the medians, of rates and of each round's ratios,
 * and the memory of lodge switch with Lodge's links (Pss, so shared libraries and rings count by
 * halves), idle, right after the traffic, and 11 s later. KINDS=01 in the environment leaves all
 * but the first two out.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "lodge/clock.h"
#include "lodge/num.h"
#include "link_client.h"

enum { ROUNDS = 7, BATCH = 32, PORTS_MAX = 64, FRAME_MAX = 1514, START_MS = 5000, WARM_MS = 50,
       TRIM_MS = 11000 };

typedef enum Kind { LODGE_LINK, LODGE_UML, UML_SWITCH, LODGE_VDE, VDE_SWITCH, KINDS } Kind;
static const char *const kind_names[KINDS] = {"lodge link", "lodge uml", "uml_switch",
                                              "lodge vde", "vde_switch"};
static const unsigned sizes[] = {2, 8, 64};
enum { SIZES = G_N_ELEMENTS(sizes) };

static bool is_vde(Kind k)
{
    return k == LODGE_VDE || k == VDE_SWITCH;
}

typedef struct Port {
    int ctl, fd;
    struct sockaddr_un own, peer;
    LinkClient link;
} Port;

typedef struct Bench {
    const char *lodge;
    char *dir;
    unsigned frame;
    double seconds;
    Kind kind;
    unsigned ports;
    Port port[PORTS_MAX];
    uint8_t data[PORTS_MAX][FRAME_MAX];
    bool stop; /* atomic */
    uint64_t got, sent; /* of the whole run; each by its thread, until that has ended */
    double lost;        /* of each hundred that were sent */
    pid_t pid; /* of the switch */
    bool wait;  /* for the switch to give back memory */
    long idle_kib, after_kib, later_kib;
} Bench;

static void die(const char *what)
{
    fprintf(stderr, "bench_switch: %s: %s\n", what, strerror(errno));
    exit(1);
}

static pid_t start(const char *const *argv)
{
    pid_t pid = fork();

    if (pid < 0)
        die("fork");
    if (!pid) {
        int null = open("/dev/null", O_WRONLY), in[2];

        if (null < 0 || pipe(in) < 0 || dup2(in[0], 0) < 0 || dup2(null, 1) < 0 ||
            dup2(null, 2) < 0)
            _exit(1);
        execvp(argv[0], (char *const *)argv);
        _exit(127);
    }
    return pid;
}

static char *path_of(const Bench *b, const char *name)
{
    return g_build_filename(b->dir, name, NULL);
}

static void start_switch(Bench *b)
{
    g_autofree char *sock = path_of(b, "sock"), *listen = NULL;
    listen = g_strdup_printf("%s:%s", is_vde(b->kind) ? "vde" : "uml", sock);
    const char *ours[] = {b->lodge, "switch", "bench", "--listen", listen, NULL};
    const char *uml[] = {"uml_switch", "-unix", sock, NULL};
    const char *vde[] = {"vde_switch", "-n", "70", "-s", sock, NULL};

    b->pid = start(b->kind == UML_SWITCH ? uml : b->kind == VDE_SWITCH ? vde : ours);
}

static void stop_switch(Bench *b)
{
    g_autofree char *sock = path_of(b, "sock");

    kill(b->pid, b->kind == UML_SWITCH || b->kind == VDE_SWITCH ? SIGKILL : SIGTERM);
    waitpid(b->pid, NULL, 0);
    if (b->kind == VDE_SWITCH) {
        g_autoptr(GDir) d = g_dir_open(sock, 0, NULL);
        const char *name;
        while (d && (name = g_dir_read_name(d))) {
            g_autofree char *file = g_build_filename(sock, name, NULL);
            (void)g_unlink(file);
        }
    }
    (void)g_remove(sock);
}

static bool dial_stream(int fd, const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int64_t end = clock_host_ns() + START_MS * INT64_C(1000000);

    g_strlcpy(a.sun_path, path, sizeof a.sun_path);
    while (connect(fd, (struct sockaddr *)&a, sizeof a) < 0) {
        if (clock_host_ns() > end)
            return false;
        g_usleep(5000);
    }
    return true;
}

static void open_dgram(Bench *b, Port *p, unsigned n)
{
    g_autofree char *sock = path_of(b, "sock"), *ctl = g_build_filename(sock, "ctl", NULL);
    uint8_t request[124] = {0};
    int pid = getpid();

    p->ctl = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    p->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    p->own = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(p->own.sun_path + 4, &pid, sizeof pid);
    memcpy(p->own.sun_path + 8, &n, sizeof n);
    struct timeval wait = {.tv_usec = 100000};
    (void)setsockopt(p->fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait); /* so that it ends */
    if (bind(p->fd, (struct sockaddr *)&p->own, sizeof p->own) < 0 ||
        !dial_stream(p->ctl, is_vde(b->kind) ? ctl : sock))
        die("switch");
    store_le32(request, 0xfeedface);
    store_le32(request + 4, 3);
    memcpy(request + 12, &p->own, sizeof p->own);
    if (send(p->ctl, request, sizeof request, 0) != sizeof request ||
        recv(p->ctl, &p->peer, sizeof p->peer, MSG_WAITALL) != sizeof p->peer)
        die("request");
    if (is_vde(b->kind) && connect(p->fd, (struct sockaddr *)&p->peer, sizeof p->peer) < 0)
        die("data socket");
}

static void open_link(Port *p)
{
    g_autoptr(GError) error = NULL;

    if (!link_client_open(&p->link, "bench", "bench", START_MS, &error)) {
        fprintf(stderr, "bench_switch: %s\n", error->message);
        exit(1);
    }
    p->fd = p->link.fds[1];
}

static void open_port(Bench *b, unsigned n)
{
    Port *p = &b->port[n];

    if (b->kind == LODGE_LINK)
        open_link(p);
    else
        open_dgram(b, p, n);
    /* To the pair's other port, from this one. */
    memset(b->data[n], 0, FRAME_MAX);
    b->data[n][0] = b->data[n][6] = 2;
    b->data[n][5] = (uint8_t)(n ^ 1);
    b->data[n][11] = (uint8_t)n;
    store_be16(b->data[n] + 12, 0x88b5);
}

static void close_port(Bench *b, Port *p)
{
    if (b->kind == LODGE_LINK) {
        link_client_close(&p->link);
        return;
    }
    close(p->fd);
    close(p->ctl);
}

/* Return: whether anything went. */
static bool send_batch(Bench *b, unsigned n, unsigned most)
{
    Port *p = &b->port[n];
    struct iovec iov = {b->data[n], b->frame};
    bool any = false;

    if (b->kind == LODGE_LINK) {
        NetFrame f = {.iov = &iov, .niov = 1, .len = b->frame};
        for (unsigned i = 0; i < most && link_tx_put(&p->link.tx, &f); i++) {
            b->sent++;
            any = true;
        }
        link_client_flush(&p->link);
        return any;
    }
    struct mmsghdr m[BATCH];
    for (unsigned i = 0; i < BATCH; i++) {
        m[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &iov, .msg_iovlen = 1}};
        if (!is_vde(b->kind)) {
            m[i].msg_hdr.msg_name = &p->peer;
            m[i].msg_hdr.msg_namelen = sizeof p->peer;
        }
    }
    int sent = sendmmsg(p->fd, m, most, 0);
    b->sent += sent > 0 ? (unsigned)sent : 0;
    return sent > 0;
}

static unsigned take(Bench *b, Port *p)
{
    static uint8_t bytes[BATCH][2048];
    struct iovec iov[BATCH];
    struct mmsghdr m[BATCH];
    unsigned n = 0;

    if (b->kind == LODGE_LINK) {
        NetFrame f;
        while (link_rx_next(&p->link.rx, &f, iov)) {
            memcpy(bytes[0], iov[0].iov_base, MIN(iov[0].iov_len, sizeof bytes[0]));
            n++;
        }
        if (link_rx_release(&p->link.rx))
            link_client_poke(p->link.fds[2]);
        if (!n)
            link_client_rest(&p->link);
        return n;
    }
    for (unsigned i = 0; i < BATCH; i++) {
        iov[i] = (struct iovec){bytes[i], sizeof bytes[i]};
        m[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &iov[i], .msg_iovlen = 1}};
    }
    int got = recvmmsg(p->fd, m, BATCH, MSG_DONTWAIT, NULL);
    return got > 0 ? (unsigned)got : 0;
}

static void *sender(void *opaque)
{
    Bench *b = opaque;

    while (!__atomic_load_n(&b->stop, __ATOMIC_RELAXED)) {
        bool any = false;
        for (unsigned n = 0; n < b->ports; n += 2)
            any |= send_batch(b, n, BATCH);
        if (!any)
            g_usleep(50); /* all rings are full */
    }
    return NULL;
}

static void receive_until(Bench *b, int set, int64_t end)
{
    while (clock_host_ns() < end) {
        struct epoll_event ev[PORTS_MAX];
        int n = epoll_wait(set, ev, PORTS_MAX, 10);
        for (int i = 0; i < n; i++)
            b->got += take(b, &b->port[ev[i].data.u32]);
    }
}

static long pss_of(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/smaps_rollup", (int)pid), *text = NULL;
    const char *at;

    if (!g_file_get_contents(path, &text, NULL, NULL) || !(at = strstr(text, "\nPss:")))
        return 0;
    return strtol(at + 5, NULL, 10);
}

static double run(Bench *b)
{
    pthread_t thread;
    int set = epoll_create1(EPOLL_CLOEXEC);

    start_switch(b);
    for (unsigned n = 0; n < b->ports; n++)
        open_port(b, n);
    b->idle_kib = pss_of(b->pid);
    for (unsigned n = 0; n < b->ports; n++) {
        struct epoll_event ev = {.events = EPOLLIN, .data.u32 = n};
        (void)send_batch(b, n, 1); /* they learn where everybody is */
        if (b->kind == LODGE_LINK)
            link_client_poke(b->port[n].link.fds[1]);
        if (epoll_ctl(set, EPOLL_CTL_ADD, b->port[n].fd, &ev) < 0)
            die("epoll");
    }
    receive_until(b, set, clock_host_ns() + WARM_MS * INT64_C(1000000));
    b->got = b->sent = 0;
    b->stop = false;
    pthread_create(&thread, NULL, sender, b);
    int64_t now = clock_host_ns();
    receive_until(b, set, now + WARM_MS * INT64_C(1000000));
    uint64_t before = b->got;
    now = clock_host_ns();
    receive_until(b, set, now + (int64_t)(b->seconds * 1e9));
    double rate = (double)(b->got - before) / ((double)(clock_host_ns() - now) / 1e9);
    __atomic_store_n(&b->stop, true, __ATOMIC_RELAXED);
    receive_until(b, set, clock_host_ns() + 3 * WARM_MS * INT64_C(1000000)); /* lets it end */
    pthread_join(thread, NULL);
    b->lost = b->sent > b->got ? (double)(b->sent - b->got) * 100 / (double)b->sent : 0;
    b->after_kib = pss_of(b->pid);
    if (b->wait) {
        g_usleep(TRIM_MS * 1000);
        b->later_kib = pss_of(b->pid);
    }
    for (unsigned n = 0; n < b->ports; n++)
        close_port(b, &b->port[n]);
    close(set);
    stop_switch(b);
    return rate;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static bool have(const char *program)
{
    g_autofree char *path = g_find_program_in_path(program);

    return path;
}

static double middle(const double *v)
{
    double sorted[ROUNDS];

    memcpy(sorted, v, sizeof sorted);
    qsort(sorted, ROUNDS, sizeof(double), compare);
    return sorted[ROUNDS / 2];
}

/* Median of the rounds' ratios. */
static double ratio(const double *v, const double *to)
{
    double r[ROUNDS];

    for (unsigned i = 0; i < ROUNDS; i++)
        r[i] = to[i] > 0 ? v[i] / to[i] : 0;
    return middle(r);
}

static const unsigned pairs[][2] = {{LODGE_LINK, UML_SWITCH}, {LODGE_LINK, VDE_SWITCH},
                                    {LODGE_UML, UML_SWITCH}, {LODGE_VDE, VDE_SWITCH},
                                    {LODGE_UML, VDE_SWITCH}};

typedef struct Result {
    double rate[KINDS][ROUNDS], lost[KINDS][ROUNDS];
    long kib[3];
} Result;

static void report(const Bench *b, unsigned ports, const Result *r)
{
    printf("%u bytes, %u ports:\n", b->frame, ports);
    for (unsigned k = 0; k < KINDS; k++)
        printf("    %-12s %12.0f a second, %5.1f %% lost\n", kind_names[k], middle(r->rate[k]),
               middle(r->lost[k]));
    for (unsigned i = 0; i < G_N_ELEMENTS(pairs); i++)
        printf("    %s / %s: %.2f\n", kind_names[pairs[i][0]], kind_names[pairs[i][1]],
               ratio(r->rate[pairs[i][0]], r->rate[pairs[i][1]]));
    printf("    KiB idle, after, later: %ld %ld %ld\n", r->kib[0], r->kib[1], r->kib[2]);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    g_autofree Bench *b = g_new0(Bench, 1);

    if (argc < 2) {
        fprintf(stderr, "bench_switch LODGE [FRAME-BYTES [SECONDS [PORTS]]]\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    b->lodge = argv[1];
    b->frame = argc > 2 ? (unsigned)CLAMP(atoi(argv[2]), 60, FRAME_MAX) : 64;
    b->seconds = argc > 3 ? g_ascii_strtod(argv[3], NULL) : 0.5;
    const unsigned only = argc > 4 ? (unsigned)atoi(argv[4]) : 0;
    b->dir = g_dir_make_tmp("bsw.XXXXXX", NULL);
    if (!b->dir)
        die("temporary folder");
    g_setenv("XDG_RUNTIME_DIR", b->dir, TRUE);
    bool there[KINDS] = {true, true, have("uml_switch"), true, have("vde_switch")};
    const char *kinds = g_getenv("KINDS");
    for (unsigned k = 0; kinds && k < KINDS; k++)
        there[k] = strchr(kinds, (char)('0' + k)) != NULL;
    for (unsigned s = 0; s < SIZES; s++) {
        Result r = {0};
        if (only && only != sizes[s])
            continue;
        b->ports = sizes[s];
        for (unsigned round = 0; round < ROUNDS; round++) {
            for (unsigned k = 0; k < KINDS; k++) {
                b->kind = (Kind)k;
                b->wait = k == LODGE_LINK && round == ROUNDS - 1;
                if (there[k]) {
                    r.rate[k][round] = run(b);
                    r.lost[k][round] = b->lost;
                }
                if (k == LODGE_LINK) {
                    r.kib[0] = b->idle_kib;
                    r.kib[1] = b->after_kib;
                    r.kib[2] = b->later_kib;
                }
            }
        }
        report(b, sizes[s], &r);
    }
    (void)g_rmdir(b->dir);
    g_free(b->dir);
    return 0;
}
