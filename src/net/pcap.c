/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Captures of frames in the pcap file format (draft-ietf-opsawg-pcap: header and record layout),
 * with times in nanoseconds and link type 1 (Ethernet), to a file or to a descriptor that somebody
 * reads from. Frames are taken as they pass the wire: a checksum that is left to the other end is
 * not in them yet, and a segment may be longer than the wire's.
 *
 * Threads: whoever sends frames puts them in a bounded buffer and never waits; a thread of the
 * capture writes them out. What does not fit is counted and left out. A file that reaches its
 * limit becomes FILE.1, whatever was there, and a new one is begun, so that at most twice the limit
 * is on the disk.
 *
 * Invariants: `fill` has whole records only; the writer thread alone touches `out`, the descriptor
 * and the size of the file.
 */
#include "pcap.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "lodge/diag.h"
#include "lodge/error.h"
#include "lodge/lock.h"
#include "lodge/num.h"
#include "pkt.h"

enum {
    MAGIC_NS = 0xa1b23c4d,
    VERSION_MAJOR = 2,
    VERSION_MINOR = 4,
    LINK_ETHERNET = 1,
    FILE_HEADER = 24,
    RECORD_HEADER = 16,
    SNAP_LEN = 262144, /* what readers expect; frames are shorter */
    POLL_MS = 100,     /* how long a stop may go unseen while nobody reads */
};

struct Pcap {
    /* Constant: */
    char *path;     /* owned; NULL: a descriptor without a name */
    uint64_t limit; /* of the file; 0: none */
    pthread_t thread;
    pthread_cond_t cond;

    LodgeLock lock;
    /* guarded by lock */
    GByteArray *fill; /* owned; records that wait */
    bool stop;
    uint64_t frames, dropped;

    /* writer thread */
    int fd;          /* owned */
    GByteArray *out; /* owned */
    uint64_t size;   /* bytes in the file */

    bool ended; /* atomic */
};

static void put_file_header(GByteArray *to)
{
    uint8_t h[FILE_HEADER] = {0};

    store_le32(h, MAGIC_NS);
    store_le16(h + 4, VERSION_MAJOR);
    store_le16(h + 6, VERSION_MINOR);
    store_le32(h + 16, SNAP_LEN);
    store_le32(h + 20, LINK_ETHERNET);
    g_byte_array_append(to, h, sizeof h);
}

static void put_record(GByteArray *to, const NetFrame *f, const struct timespec *now)
{
    guint at = to->len;

    g_byte_array_set_size(to, at + RECORD_HEADER + f->len);
    uint8_t *h = to->data + at;
    store_le32(h, (uint32_t)now->tv_sec);
    store_le32(h + 4, (uint32_t)now->tv_nsec);
    store_le32(h + 8, f->len);
    store_le32(h + 12, f->len);
    if (!pkt_gather(f, 0, h + RECORD_HEADER, f->len))
        g_byte_array_set_size(to, at); /* not all there: no frame */
}

/**
 * pcap_frames() - Note frames that pass
 * Context: any thread, no lock of LOCK_RANK_DIAG held. Never waits for the disk or a reader.
 */
void pcap_frames(Pcap *p, const NetFrame *v, unsigned n)
{
    struct timespec now;
    bool wake;

    if (pcap_ended(p) || clock_gettime(CLOCK_REALTIME, &now) < 0)
        return;
    lodge_lock(&p->lock);
    wake = !p->fill->len;
    for (unsigned i = 0; i < n; i++) {
        if (v[i].len > NET_FRAME_MAX || p->fill->len + RECORD_HEADER + v[i].len > PCAP_BUFFER) {
            p->dropped++;
            continue;
        }
        put_record(p->fill, &v[i], &now);
        p->frames++;
    }
    if (wake && p->fill->len)
        pthread_cond_signal(&p->cond);
    lodge_unlock(&p->lock);
}

static bool stopping(Pcap *p)
{
    lodge_lock(&p->lock);
    bool stop = p->stop;
    lodge_unlock(&p->lock);
    return stop;
}

/* Write all of @data; false: the end. A reader that does not read is waited for until a stop. */
static bool write_all(Pcap *p, const uint8_t *data, size_t len)
{
    while (len) {
        ssize_t n = write(p->fd, data, len);
        if (n > 0) {
            data += n;
            len -= (size_t)n;
            p->size += (uint64_t)n;
            continue;
        }
        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0 || errno != EAGAIN)
            return false;
        struct pollfd pfd = {.fd = p->fd, .events = POLLOUT};
        if (poll(&pfd, 1, POLL_MS) < 0 && errno != EINTR)
            return false;
        if (!(pfd.revents & POLLOUT) && stopping(p))
            return false;
    }
    return true;
}

/* -1 with errno: EWOULDBLOCK where another capture is written there, which stays as it is. */
static int create_file(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    bool busy = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK;

    if (fd >= 0 && !busy && (ftruncate(fd, 0) == 0 || errno == EINVAL)) /* EINVAL: no file */
        return fd;
    int err = errno;
    if (fd >= 0)
        close(fd);
    errno = busy ? EWOULDBLOCK : err;
    return -1;
}

/* The file is full: it becomes FILE.1 and a new one is begun. */
static bool rotate(Pcap *p)
{
    g_autofree char *old = g_strconcat(p->path, ".1", NULL);
    g_autoptr(GByteArray) head = g_byte_array_new();

    if (rename(p->path, old) < 0)
        return false;
    int fd = create_file(p->path);
    if (fd < 0)
        return false;
    close(p->fd);
    p->fd = fd;
    p->size = 0;
    put_file_header(head);
    return write_all(p, head->data, head->len);
}

/* Write what was gathered, record by record where the file has a limit. */
static bool write_out(Pcap *p)
{
    size_t at = 0;

    if (!p->limit)
        return write_all(p, p->out->data, p->out->len);
    while (at < p->out->len) {
        size_t end = at, room = p->limit > p->size ? (size_t)(p->limit - p->size) : 0;
        while (end < p->out->len) {
            size_t next = end + RECORD_HEADER + load_le32(p->out->data + end + 8);
            if (next - at > room)
                break;
            end = next;
        }
        if (end == at) {
            if (!rotate(p))
                return false;
            if (p->limit - p->size < RECORD_HEADER + load_le32(p->out->data + at + 8))
                return false; /* excluded by PCAP_LIMIT_MIN and NET_FRAME_MAX */
            continue;
        }
        if (!write_all(p, p->out->data + at, end - at))
            return false;
        at = end;
    }
    return true;
}

static void *writer_main(void *opaque)
{
    Pcap *p = opaque;
    sigset_t pipe_signal;
    bool stop = false;

    /* A reader that goes away is an errno here, not the end of the process. */
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_signal, NULL);
    while (!stop) {
        lodge_lock(&p->lock);
        while (!p->fill->len && !p->stop)
            lodge_cond_wait(&p->cond, &p->lock);
        stop = p->stop;
        GByteArray *full = p->fill;
        p->fill = p->out;
        p->out = full;
        lodge_unlock(&p->lock);
        if (!write_out(p)) {
            if (p->path && !stop)
                lodge_warn("%s: the capture ends: %s", p->path, g_strerror(errno));
            __atomic_store_n(&p->ended, true, __ATOMIC_RELEASE);
            break;
        }
        g_byte_array_set_size(p->out, 0);
    }
    return NULL;
}

bool pcap_ended(Pcap *p)
{
    return __atomic_load_n(&p->ended, __ATOMIC_ACQUIRE);
}

void pcap_counts(Pcap *p, uint64_t *ret_frames, uint64_t *ret_dropped)
{
    lodge_lock(&p->lock);
    *ret_frames = p->frames;
    *ret_dropped = p->dropped;
    lodge_unlock(&p->lock);
}

static Pcap *pcap_start(int fd, const char *path, uint64_t limit, GError **error)
{
    Pcap *p = g_new0(Pcap, 1);

    p->fd = fd;
    p->path = g_strdup(path);
    p->limit = limit;
    p->fill = g_byte_array_new();
    p->out = g_byte_array_new();
    /* A descriptor's reader may be gone: that is for the writer thread to find. */
    put_file_header(path ? p->out : p->fill);
    lodge_lock_init(&p->lock, LOCK_RANK_DIAG, "capture");
    pthread_cond_init(&p->cond, NULL);
    int err = 0;
    if (!write_all(p, p->out->data, p->out->len))
        err = errno;
    g_byte_array_set_size(p->out, 0);
    if (!err)
        err = pthread_create(&p->thread, NULL, writer_main, p);
    if (!err)
        return p;
    lodge_fail_errno(error, err, "%s: cannot begin a capture", path ? path : "capture");
    p->ended = true;
    lodge_lock_clear(&p->lock);
    pthread_cond_destroy(&p->cond);
    g_byte_array_unref(p->fill);
    g_byte_array_unref(p->out);
    close(p->fd);
    g_free(p->path);
    g_free(p);
    return NULL;
}

/**
 * pcap_open_fd() - Capture into a pipe, a socket or a file that somebody opened
 * @fd: taken over, closed on failure too
 * Context: main thread. Return: transfer full, or NULL with LODGE_ERROR_HOST.
 */
Pcap *pcap_open_fd(int fd, GError **error)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
        lodge_fail_errno(error, errno, "capture: cannot use the descriptor");
        close(fd);
        return NULL;
    }
    return pcap_start(fd, NULL, 0, error);
}

/**
 * pcap_open_file() - Capture into a new file at @path; what was there is gone
 * @limit: bytes, at least PCAP_LIMIT_MIN, after which the file becomes @path.1
 * Context: main thread. Return: transfer full, or NULL with LODGE_ERROR_HOST, or LODGE_ERROR_BUSY
 *          where another capture is written there.
 */
Pcap *pcap_open_file(const char *path, uint64_t limit, GError **error)
{
    int fd = create_file(path);

    if (fd < 0 && errno == EWOULDBLOCK)
        lodge_fail(error, LODGE_ERROR_BUSY,
                   "%s: another capture is written there; name another file", path);
    else if (fd < 0)
        lodge_fail_errno(error, errno, "%s: cannot create the capture", path);
    if (fd < 0)
        return NULL;
    return pcap_start(fd, path, MAX(limit, (uint64_t)PCAP_LIMIT_MIN), error);
}

void pcap_free(Pcap *p)
{
    if (!p)
        return;
    lodge_lock(&p->lock);
    p->stop = true;
    pthread_cond_signal(&p->cond);
    lodge_unlock(&p->lock);
    pthread_join(p->thread, NULL);
    close(p->fd);
    lodge_lock_clear(&p->lock);
    pthread_cond_destroy(&p->cond);
    g_byte_array_unref(p->fill);
    g_byte_array_unref(p->out);
    g_free(p->path);
    g_free(p);
}
