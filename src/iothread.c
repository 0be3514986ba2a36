/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The event loop of an IoThread.
 *
 * A round: sleep in epoll_pwait2() until a descriptor, a deadline (nanoseconds) or a post; call
 * what is ready; run timers; run posts; run idle hooks. A watch freed during a round is only
 * marked, and reclaimed at its end, so events already fetched for it are harmless.
 *
 * Polls (IoPoll) are looked at before each sleep, for a while unless the kernel is at work
 * for one of them: its threads may want this very CPU. A round that follows found
 * work does not sleep, and asks for events only each EVENTS_EVERY times, or when a callback says
 * that it took long; a wait asks for them now and then too. How long waiting pays is poll_rule.c's.
 *
 * Invariants:
 * (1) Watches, idle hooks and callbacks are touched by the loop's thread only, once it runs;
 *     foreign calls come through the post queue.
 * (2) The wake descriptor is written only when the loop sleeps or is about to: `asleep` is set
 *     before the queue is looked at for the last time.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lodge/error.h"
#include "lodge/iothread.h"
#include "lodge/lock.h"
#include "lodge/num.h"
#include "poll_rule.h"

#define EVENTS_PER_ROUND 64
#define EVENTS_EVERY 16u /* rounds without a sleep */
#define SLICE_NS 100000 /* the shortest that is taken */
#define EVENTS_AFTER_NS 4000 /* of a wait */

/* struct sched_attr of linux/sched/types.h, which cannot stand beside sched.h. */
typedef struct SchedAttr {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime_ns, deadline_ns, period_ns;
} SchedAttr;

typedef struct Call {
    IoCallFn fn;
    void *opaque;
} Call;

struct IoWatch {
    IoThread *thread;
    int fd;
    uint32_t events;
    IoWatchFn fn;
    void *opaque;
    bool dead;
    IoWatch *next_dead;
};

struct IoPoll {
    IoThread *thread;
    const IoPollOps *ops;
    void *opaque;
};

struct IoThread {
    /* Constant: */
    char name[16];
    bool can_spin; /* there is another CPU for those who are waited for */
    LodgeClock *clock; /* borrowed */
    TimerQueue *timers;
    int epoll_fd, wake_fd;
    pthread_t thread;
    /* Guarded by lock: */
    LodgeLock lock;
    GArray *posts; /* Call */
    bool stop;
    /* Atomic: */
    bool asleep; /* pairs with io_thread_wake() */
    bool posted; /* posts is not empty, or stop; written under lock */
    /* The loop's thread only: */
    GArray *running; /* posts of this round, swapped with posts */
    GArray *idle;    /* Call */
    IoWatch *dead;
    GPtrArray *polls; /* IoPoll, borrowed */
    PollRule rule;
    unsigned awake;
};

void io_thread_wake(IoThread *t)
{
    /* Pairs with the store in sleep_round(): either we see asleep, or the loop sees our work. */
    if (__atomic_exchange_n(&t->asleep, false, __ATOMIC_SEQ_CST)) {
        uint64_t one = 1;
        ssize_t n = write(t->wake_fd, &one, sizeof one);
        (void)n; /* a full counter wakes as well */
    }
}

static void wake_for_timer(void *opaque)
{
    IoThread *t = opaque;
    if (!io_thread_is_current(t))
        io_thread_wake(t);
}

bool io_thread_is_current(const IoThread *t)
{
    return pthread_equal(t->thread, pthread_self());
}

TimerQueue *io_thread_timers(IoThread *t)
{
    return t->timers;
}

static bool posts_empty(IoThread *t, bool *ret_stop)
{
    lodge_lock(&t->lock);
    bool empty = !t->posts->len;
    *ret_stop = t->stop;
    lodge_unlock(&t->lock);
    return empty;
}

static int wait_events(IoThread *t, struct epoll_event *ev, int64_t wait_ns)
{
    struct timespec ts = {.tv_sec = wait_ns / NS_PER_SEC, .tv_nsec = wait_ns % NS_PER_SEC};
    int n = epoll_pwait2(t->epoll_fd, ev, EVENTS_PER_ROUND, wait_ns < 0 ? NULL : &ts, NULL);
    if (n < 0 && errno == ENOSYS) {
        int64_t ms = wait_ns < 0 ? -1 : MIN((wait_ns + 999999) / 1000000, 3600000);
        n = epoll_wait(t->epoll_fd, ev, EVENTS_PER_ROUND, (int)ms);
    }
    return n;
}

/* ---- polls ---- */

static bool look(IoThread *t)
{
    bool found = false;

    for (unsigned i = 0; i < t->polls->len; i++) {
        IoPoll *p = g_ptr_array_index(t->polls, i);
        found |= p->ops->look(p->opaque);
    }
    return found;
}

static bool arm(IoThread *t, bool on)
{
    bool found = false;

    for (unsigned i = 0; i < t->polls->len; i++) {
        IoPoll *p = g_ptr_array_index(t->polls, i);
        found |= p->ops->arm && p->ops->arm(p->opaque, on);
    }
    return found;
}

static bool others_work(IoThread *t)
{
    for (unsigned i = 0; i < t->polls->len; i++) {
        IoPoll *p = g_ptr_array_index(t->polls, i);
        if (p->ops->waits && p->ops->waits(p->opaque))
            return true;
    }
    return false;
}

static int64_t until_timer_ns(IoThread *t)
{
    int64_t host = clock_to_host_ns(t->clock, timer_queue_next(t->timers));

    return host == TIMER_NEVER ? INT64_MAX : MAX(host - clock_host_ns(), 0);
}

/* Look for work, for as long as it pays; whether the next round is not to sleep. @ret_n: of the
 * events that came meanwhile. */
static bool spin(IoThread *t, struct epoll_event *ev, int *ret_n)
{
    int64_t start, most, events_ns = EVENTS_AFTER_NS, now_ns = 0;

    if (look(t)) {
        poll_rule_did(&t->rule, POLL_AFTER_LOOK);
        return true;
    }
    if (__atomic_load_n(&t->posted, __ATOMIC_RELAXED))
        return true;
    if (!poll_rule_window(&t->rule) || others_work(t))
        return false;
    most = MIN(poll_rule_window(&t->rule), until_timer_ns(t));
    start = clock_host_ns();
    do {
        for (unsigned i = 0; i < 8; i++)
            __builtin_ia32_pause();
        if (look(t)) {
            poll_rule_hit(&t->rule, clock_host_ns() - start);
            poll_rule_did(&t->rule, POLL_AFTER_LOOK);
            return true;
        }
        if (__atomic_load_n(&t->posted, __ATOMIC_RELAXED))
            return true;
        now_ns = clock_host_ns() - start;
        if (now_ns > events_ns) {
            *ret_n = wait_events(t, ev, 0);
            if (*ret_n > 0) {
                poll_rule_did(&t->rule, POLL_AFTER_EVENT);
                return true;
            }
            events_ns = now_ns + EVENTS_AFTER_NS;
        }
    } while (now_ns < most && !poll_rule_weary(&t->rule));
    poll_rule_miss(&t->rule);
    return false;
}

static bool can_spin(void)
{
    cpu_set_t set;

    return sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 1;
}

/* Sleep until there is something to do; the events that came. */
static int sleep_round(IoThread *t, struct epoll_event *ev)
{
    bool stop, now = arm(t, true);
    __atomic_store_n(&t->asleep, true, __ATOMIC_SEQ_CST);
    int64_t wait_ns = -1;
    if (!posts_empty(t, &stop) || stop || now) {
        wait_ns = 0;
    } else {
        int64_t until_ns = until_timer_ns(t);
        if (until_ns != INT64_MAX)
            wait_ns = until_ns;
    }
    int64_t start = t->polls->len ? clock_host_ns() : 0;
    int n = wait_events(t, ev, wait_ns);
    __atomic_store_n(&t->asleep, false, __ATOMIC_SEQ_CST);
    if (t->polls->len) {
        int64_t slept_ns = clock_host_ns() - start;
        if (poll_rule_open(&t->rule))
            (void)arm(t, false);
        bool found = look(t);
        poll_rule_slept(&t->rule, slept_ns, found && t->can_spin);
        if (found || n > 0)
            poll_rule_did(&t->rule, found ? POLL_AFTER_LOOK : POLL_AFTER_EVENT);
    }
    return n;
}

static void run_posts(IoThread *t)
{
    if (!__atomic_load_n(&t->posted, __ATOMIC_RELAXED))
        return;
    lodge_lock(&t->lock);
    GArray *batch = t->posts;
    t->posts = t->running;
    t->running = batch;
    __atomic_store_n(&t->posted, t->stop, __ATOMIC_RELAXED);
    lodge_unlock(&t->lock);
    for (unsigned i = 0; i < batch->len; i++) {
        Call c = g_array_index(batch, Call, i);
        c.fn(c.opaque);
    }
    g_array_set_size(batch, 0);
}

static void reap_watches(IoThread *t)
{
    while (t->dead) {
        IoWatch *w = t->dead;
        t->dead = w->next_dead;
        g_free(w);
    }
}

/* A loop works for a moment and sleeps: a short slice lets it go before a vCPU that uses up its own
 * when they are on one CPU. Linux 6.12; others take no notice of it, and any refusal is as well. */
static void ask_for_short_slices(void)
{
    SchedAttr a = {.size = sizeof a};

    if (syscall(SYS_sched_getattr, 0, &a, sizeof a, 0) < 0 || a.policy != SCHED_OTHER)
        return;
    a.runtime_ns = SLICE_NS;
    (void)syscall(SYS_sched_setattr, 0, &a, 0);
}

static void *loop(void *opaque)
{
    IoThread *t = opaque;
    struct epoll_event ev[EVENTS_PER_ROUND];
    pthread_setname_np(pthread_self(), t->name);
    ask_for_short_slices();
    for (;;) {
        int n = 0;
        bool awake = t->polls->len && spin(t, ev, &n);
        bool events = !awake || n > 0 || ++t->awake % EVENTS_EVERY == 0;
        if (!awake)
            n = sleep_round(t, ev);
        else if (events && n <= 0)
            n = wait_events(t, ev, 0);
        for (int i = 0; i < n; i++) {
            IoWatch *w = ev[i].data.ptr;
            if (!w) {
                uint64_t v;
                ssize_t got = read(t->wake_fd, &v, sizeof v);
                (void)got; /* another round may have drained it */
            } else if (!w->dead) {
                w->fn(w->opaque, ev[i].events);
            }
        }
        if (events)
            timer_queue_run(t->timers);
        run_posts(t);
        for (unsigned i = 0; i < t->idle->len; i++) {
            Call c = g_array_index(t->idle, Call, i);
            c.fn(c.opaque);
        }
        reap_watches(t);
        bool stop;
        if (__atomic_load_n(&t->posted, __ATOMIC_RELAXED) && posts_empty(t, &stop) && stop)
            return NULL;
    }
}

IoThread *io_thread_new(const char *name, LodgeClock *clock, GError **error)
{
    IoThread *t = g_new0(IoThread, 1);
    g_strlcpy(t->name, name, sizeof t->name);
    t->clock = clock;
    lodge_lock_init(&t->lock, LOCK_RANK_QUEUE, "iothread");
    t->timers = timer_queue_new(clock, wake_for_timer, t);
    t->posts = g_array_new(FALSE, FALSE, sizeof(Call));
    t->running = g_array_new(FALSE, FALSE, sizeof(Call));
    t->idle = g_array_new(FALSE, FALSE, sizeof(Call));
    t->polls = g_ptr_array_new();
    t->can_spin = can_spin();
    t->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    t->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};
    int err = 0;
    if (t->epoll_fd < 0 || t->wake_fd < 0 ||
        epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, t->wake_fd, &ev) < 0)
        err = errno;
    if (!err) {
        /* Signals are the main thread's; small stacks keep a VM small. */
        sigset_t all, old;
        pthread_attr_t attr;
        sigfillset(&all);
        /* A fault is its own thread's, and reaches the handler that gives the terminal back. */
        const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS};
        for (unsigned i = 0; i < G_N_ELEMENTS(faults); i++)
            sigdelset(&all, faults[i]);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        pthread_attr_init(&attr);
        pthread_attr_setstacksize(&attr, 256 * KIB);
        err = pthread_create(&t->thread, &attr, loop, t);
        pthread_attr_destroy(&attr);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
    }
    if (err) {
        t->thread = pthread_self();
        t->stop = true;
        lodge_fail_errno(error, err, "%s: cannot start its event loop", name);
        if (t->epoll_fd >= 0)
            close(t->epoll_fd);
        if (t->wake_fd >= 0)
            close(t->wake_fd);
        t->epoll_fd = -1;
        io_thread_free(t);
        return NULL;
    }
    return t;
}

void io_thread_free(IoThread *t)
{
    if (!t)
        return;
    if (t->epoll_fd >= 0) {
        lodge_lock(&t->lock);
        t->stop = true;
        __atomic_store_n(&t->posted, true, __ATOMIC_RELAXED);
        lodge_unlock(&t->lock);
        io_thread_wake(t);
        pthread_join(t->thread, NULL);
        close(t->epoll_fd);
        close(t->wake_fd);
    }
    timer_queue_free(t->timers);
    g_array_free(t->posts, TRUE);
    g_array_free(t->running, TRUE);
    g_array_free(t->idle, TRUE);
    g_ptr_array_free(t->polls, TRUE);
    lodge_lock_clear(&t->lock);
    g_free(t);
}

void io_thread_post(IoThread *t, IoCallFn fn, void *opaque)
{
    Call c = {fn, opaque};
    lodge_lock(&t->lock);
    g_array_append_val(t->posts, c);
    __atomic_store_n(&t->posted, true, __ATOMIC_RELAXED);
    lodge_unlock(&t->lock);
    io_thread_wake(t);
}

void io_thread_others_first(IoThread *t)
{
    t->awake = EVENTS_EVERY - 1;
}

typedef struct SyncCall {
    Call call;
    GMutex mutex;
    GCond cond;
    bool done;
} SyncCall;

static void run_sync(void *opaque)
{
    SyncCall *s = opaque;
    s->call.fn(s->call.opaque);
    g_mutex_lock(&s->mutex);
    s->done = true;
    g_cond_signal(&s->cond);
    g_mutex_unlock(&s->mutex);
}

void io_thread_call(IoThread *t, IoCallFn fn, void *opaque)
{
    if (io_thread_is_current(t)) {
        fn(opaque);
        return;
    }
    lock_assert_none();
    SyncCall s = {.call = {fn, opaque}};
    g_mutex_init(&s.mutex);
    g_cond_init(&s.cond);
    io_thread_post(t, run_sync, &s);
    g_mutex_lock(&s.mutex);
    while (!s.done)
        g_cond_wait(&s.cond, &s.mutex);
    g_mutex_unlock(&s.mutex);
    g_mutex_clear(&s.mutex);
    g_cond_clear(&s.cond);
}

IoWatch *io_watch_new(IoThread *t, int fd, uint32_t events, IoWatchFn fn, void *opaque,
                      GError **error)
{
    IoWatch *w = g_new0(IoWatch, 1);
    w->thread = t;
    w->fd = fd;
    w->events = events;
    w->fn = fn;
    w->opaque = opaque;
    struct epoll_event ev = {.events = events, .data.ptr = w};
    if (epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0) {
        lodge_fail_errno(error, errno, "%s: cannot watch descriptor %d", t->name, fd);
        g_free(w);
        return NULL;
    }
    return w;
}

void io_watch_set(IoWatch *w, uint32_t events)
{
    if (w->events == events)
        return;
    w->events = events;
    struct epoll_event ev = {.events = events, .data.ptr = w};
    epoll_ctl(w->thread->epoll_fd, EPOLL_CTL_MOD, w->fd, &ev);
}

static void watch_kill(void *opaque)
{
    IoWatch *w = opaque;
    epoll_ctl(w->thread->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
    w->dead = true;
    w->next_dead = w->thread->dead;
    w->thread->dead = w;
}

void io_watch_free(IoWatch *w)
{
    if (w)
        io_thread_call(w->thread, watch_kill, w);
}

static void poll_add(void *opaque)
{
    IoPoll *p = opaque;
    g_ptr_array_add(p->thread->polls, p);
}

static void poll_remove(void *opaque)
{
    IoPoll *p = opaque;
    g_ptr_array_remove(p->thread->polls, p);
}

IoPoll *io_poll_new(IoThread *t, const IoPollOps *ops, void *opaque)
{
    IoPoll *p = g_new0(IoPoll, 1);
    *p = (IoPoll){.thread = t, .ops = ops, .opaque = opaque};
    io_thread_call(t, poll_add, p);
    return p;
}

void io_poll_free(IoPoll *p)
{
    if (!p)
        return;
    io_thread_call(p->thread, poll_remove, p);
    g_free(p);
}

void io_thread_add_idle(IoThread *t, IoCallFn fn, void *opaque)
{
    Call c = {fn, opaque};
    g_array_append_val(t->idle, c);
}

void io_thread_remove_idle(IoThread *t, IoCallFn fn, void *opaque)
{
    for (unsigned i = 0; i < t->idle->len; i++) {
        Call c = g_array_index(t->idle, Call, i);
        if (c.fn == fn && c.opaque == opaque) {
            g_array_remove_index(t->idle, i);
            return;
        }
    }
}
