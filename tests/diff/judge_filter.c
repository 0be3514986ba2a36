/* SPDX-License-Identifier: GPL-2.0-or-later */
/* For tests: judge_filter RULES FRAMES.pcap MAC: what rules say of each frame, out of the guest and
 * into it, a line each: "allow", "deny", or "unclear". */
#include <stdio.h>
#include <string.h>

#include "filter.h"
#include "lodge/num.h"

enum { FILE_HEAD = 24, RECORD_HEAD = 16 };

static const char *word(FilterVerdict v)
{
    return v.allow ? "allow" : v.by == FILTER_BY_UNCLEAR ? "unclear" : "deny";
}

int main(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *rules = NULL, *frames = NULL;
    gsize len, have;
    unsigned m[6];
    uint8_t mac[6];

    if (argc != 4 || sscanf(argv[3], "%x:%x:%x:%x:%x:%x", &m[0], &m[1], &m[2], &m[3], &m[4], &m[5]) != 6 ||
        !g_file_get_contents(argv[1], &rules, &len, &error) ||
        !g_file_get_contents(argv[2], &frames, &have, &error)) {
        fprintf(stderr, "judge_filter: %s\n", error ? error->message : "usage");
        return 2;
    }
    for (unsigned i = 0; i < 6; i++)
        mac[i] = (uint8_t)m[i];
    g_autoptr(FilterProgram) p = filter_compile(argv[1], rules, len, &error);
    if (!p) {
        fprintf(stderr, "%s\n", error->message);
        return 1;
    }
    for (gsize at = FILE_HEAD; range_within(at, RECORD_HEAD, have);) {
        uint32_t n = load_le32(frames + at + 8);
        at += RECORD_HEAD;
        if (!range_within(at, n, have))
            return 2;
        NetFrame f = {.len = n};
        g_autofree uint8_t *head = g_memdup2(frames + at, MIN(n, (uint32_t)FILTER_HEAD));
        printf("%s %s\n", word(filter_judge(p, head, &f, true, mac)),
               word(filter_judge(p, head, &f, false, mac)));
        at += n;
    }
    return 0;
}
