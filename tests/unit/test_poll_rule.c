/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How long a loop waits: the rule by itself, with times that the tests make up. */
#include <glib.h>

#include "poll_rule.h"

enum { SHORT_NS = 20000, LONG_NS = 1000000, QUICK_NS = 1000, FAR_NS = 60000 };

/* What was done last was followed by a kick, @n times. */
static void kicked(PollRule *r, PollAfter after, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        poll_rule_did(r, after);
        poll_rule_slept(r, SHORT_NS, true);
    }
}

static int64_t window(PollRule *r, PollAfter after)
{
    poll_rule_did(r, after);
    return poll_rule_window(r);
}

static void test_idle(void)
{
    PollRule r = {0};

    g_assert_false(poll_rule_open(&r));
    for (unsigned i = 0; i < 10; i++)
        poll_rule_slept(&r, LONG_NS, true);
    g_assert_false(poll_rule_open(&r));
    for (unsigned i = 0; i < 10; i++)
        poll_rule_slept(&r, SHORT_NS, false); /* a descriptor's, not a poll's */
    g_assert_false(poll_rule_open(&r));
}

static void test_grows_and_shrinks(void)
{
    PollRule r = {0};
    int64_t before, most;

    kicked(&r, POLL_AFTER_LOOK, 1);
    before = window(&r, POLL_AFTER_LOOK);
    g_assert_cmpint(before, >, 0);
    kicked(&r, POLL_AFTER_LOOK, 1);
    g_assert_cmpint(window(&r, POLL_AFTER_LOOK), ==, 2 * before);
    kicked(&r, POLL_AFTER_LOOK, 20);
    most = window(&r, POLL_AFTER_LOOK);
    kicked(&r, POLL_AFTER_LOOK, 1);
    g_assert_cmpint(window(&r, POLL_AFTER_LOOK), ==, most);
    poll_rule_slept(&r, LONG_NS, true);
    g_assert_cmpint(window(&r, POLL_AFTER_LOOK), ==, most / 2);
    for (unsigned i = 0; i < 10; i++)
        poll_rule_slept(&r, LONG_NS, true);
    g_assert_false(poll_rule_open(&r));
}

/* There and back: the guest's frame goes out, others answer it, the guest answers them at once. The loop
 * is to wait for the guest, and never for what only others can bring about. */
static void test_there_and_back(void)
{
    enum { ROUNDS = 1000, MISSES = 8 };
    PollRule r = {0};
    unsigned vain = 0, won = 0, kicks = 0;

    kicked(&r, POLL_AFTER_LOOK, 4); /* as it is after sending in bulk */
    for (unsigned i = 0; i < ROUNDS; i++) {
        poll_rule_did(&r, POLL_AFTER_LOOK); /* sent */
        if (poll_rule_window(&r)) {
            poll_rule_miss(&r);
            vain++;
        }
        poll_rule_slept(&r, SHORT_NS, false);
        poll_rule_did(&r, POLL_AFTER_EVENT); /* the answer */
        if (poll_rule_window(&r)) {
            poll_rule_hit(&r, QUICK_NS);
            won++;
        } else {
            poll_rule_slept(&r, SHORT_NS, true);
            kicks++;
        }
    }
    g_assert_cmpuint(vain, ==, MISSES);
    g_assert_cmpuint(kicks, ==, 1);
    g_assert_cmpuint(won, ==, ROUNDS - 1);
}

static void test_gives_up_and_comes_back(void)
{
    enum { MISSES = 8, HOLD_OFF = 64 };
    PollRule r = {0};
    unsigned held = 0;

    kicked(&r, POLL_AFTER_LOOK, 2);
    for (unsigned i = 0; i < MISSES - 1; i++)
        poll_rule_miss(&r);
    poll_rule_hit(&r, QUICK_NS); /* one that pays counts for the rest */
    for (unsigned i = 0; i < MISSES - 1; i++)
        poll_rule_miss(&r);
    g_assert_true(poll_rule_open(&r));
    poll_rule_hit(&r, FAR_NS); /* one that took too long does not */
    g_assert_true(poll_rule_weary(&r));
    poll_rule_miss(&r);
    g_assert_false(poll_rule_open(&r));
    for (; !poll_rule_open(&r); held++)
        kicked(&r, POLL_AFTER_LOOK, 1);
    g_assert_cmpuint(held, ==, HOLD_OFF + 1);
}

/* What holds after one kind of work says nothing of the other. */
static void test_apart(void)
{
    PollRule r = {0};

    kicked(&r, POLL_AFTER_EVENT, 3);
    g_assert_cmpint(window(&r, POLL_AFTER_LOOK), ==, 0);
    int64_t before = window(&r, POLL_AFTER_EVENT);
    kicked(&r, POLL_AFTER_LOOK, 3);
    for (unsigned i = 0; i < 8; i++)
        poll_rule_miss(&r);
    g_assert_cmpint(window(&r, POLL_AFTER_LOOK), ==, 0);
    g_assert_cmpint(window(&r, POLL_AFTER_EVENT), ==, before);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/poll-rule/idle", test_idle);
    g_test_add_func("/poll-rule/grows-and-shrinks", test_grows_and_shrinks);
    g_test_add_func("/poll-rule/there-and-back", test_there_and_back);
    g_test_add_func("/poll-rule/gives-up-and-comes-back", test_gives_up_and_comes_back);
    g_test_add_func("/poll-rule/apart", test_apart);
    return g_test_run();
}
