/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Ranked locks: the order is enforced, and a breach stops the process naming the lock. */
#include <glib.h>

#include "lodge/lock.h"

typedef struct Breach {
    const char *path, *says;
    void (*run)(LodgeLock *low, LodgeLock *high);
} Breach;

static void in_order(LodgeLock *low, LodgeLock *high)
{
    lodge_lock(low);
    lodge_lock(high);
    lock_assert_held(low);
    lock_assert_held(high);
    lodge_unlock(high);
    lodge_unlock(low);
    lodge_lock(high);
    lodge_unlock(high);
    lock_assert_none();
}

static void falling(LodgeLock *low, LodgeLock *high)
{
    lodge_lock(high);
    lodge_lock(low);
}

static void twice(LodgeLock *low, LodgeLock *high)
{
    lodge_lock(low);
    lodge_lock(low);
}

static void crossed(LodgeLock *low, LodgeLock *high)
{
    lodge_lock(low);
    lodge_lock(high);
    lodge_unlock(low);
}

static void not_held(LodgeLock *low, LodgeLock *high)
{
    lodge_unlock(low);
}

static void *take(void *lock)
{
    lodge_lock(lock);
    return NULL;
}

static void held_by_another(LodgeLock *low, LodgeLock *high)
{
    pthread_t t;
    pthread_create(&t, NULL, take, low);
    pthread_join(t, NULL);
    lock_assert_held(low);
}

static void callback_with_lock(LodgeLock *low, LodgeLock *high)
{
    lodge_lock(high);
    lock_assert_none();
}

static const Breach breaches[] = {
    {"/lock/falling", "*lock low (rank 20): taken after a lock*", falling},
    {"/lock/twice", "*lock low (rank 20): taken after a lock*", twice},
    {"/lock/crossed", "*lock low (rank 20): released before*", crossed},
    {"/lock/not-held", "*lock low (rank 20): not held*", not_held},
    {"/lock/another", "*lock low (rank 20): not held*", held_by_another},
    {"/lock/callback", "*callback started with a lock held*", callback_with_lock},
};

static void run(const Breach *b)
{
    LodgeLock low, high;
    lodge_lock_init(&low, LOCK_RANK_DEVICE, "low");
    lodge_lock_init(&high, LOCK_RANK_IRQ, "high");
    b->run(&low, &high);
    lodge_lock_clear(&low);
    lodge_lock_clear(&high);
}

static void test_order(void)
{
    static const Breach fine = {"", "", in_order};
    run(&fine);
}

static void test_breach(gconstpointer data)
{
    const Breach *b = data;
    if (g_test_subprocess()) {
        run(b);
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_failed();
    g_test_trap_assert_stderr(b->says);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/lock/order", test_order);
    for (gsize i = 0; i < G_N_ELEMENTS(breaches); i++)
        g_test_add_data_func(breaches[i].path, &breaches[i], test_breach);
    return g_test_run();
}
