/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Values in text form, as options, properties and descriptions write them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lodge/device.h"
#include "lodge/num.h"

bool parse_bool(const char *text, bool *ret_value)
{
    static const char *const yes[] = {"on", "yes", "true", "1"};
    static const char *const no[] = {"off", "no", "false", "0"};
    for (unsigned i = 0; i < G_N_ELEMENTS(yes); i++) {
        if (!strcmp(text, yes[i]) || !strcmp(text, no[i])) {
            *ret_value = !strcmp(text, yes[i]);
            return true;
        }
    }
    return false;
}

/* Leading digits of @text; @ret_end is the first character after them. */
static bool parse_digits(const char *text, uint64_t *ret_value, const char **ret_end)
{
    if (!g_ascii_isdigit(text[0]))
        return false;
    int base = text[0] == '0' && (text[1] == 'x' || text[1] == 'X') ? 16 : 10;
    char *end = NULL;
    errno = 0;
    guint64 v = g_ascii_strtoull(text, &end, (guint)base);
    if (errno || end == text || (base == 16 && end <= text + 2))
        return false;
    *ret_value = v;
    *ret_end = end;
    return true;
}

bool parse_u64(const char *text, uint64_t *ret_value)
{
    const char *end;
    uint64_t v;
    if (!parse_digits(text, &v, &end) || *end)
        return false;
    *ret_value = v;
    return true;
}

bool parse_size(const char *text, uint64_t *ret_bytes)
{
    static const char units[] = "KMGT";
    const char *end;
    uint64_t v, unit = 1;
    if (!parse_digits(text, &v, &end))
        return false;
    if (*end) {
        const char *u = strchr(units, g_ascii_toupper(*end));
        if (u) {
            unit = UINT64_C(1) << (10 * (u - units + 1));
            end++;
        } else if (*end == 'B') {
            end++;
        }
        if (*end)
            return false;
    }
    return u64_mul_ok(v, unit, ret_bytes);
}

bool parse_mac(const char *text, uint8_t ret_mac[6])
{
    uint8_t mac[6];
    for (unsigned i = 0; i < 6; i++) {
        if (!g_ascii_isxdigit(text[0]) || !g_ascii_isxdigit(text[1]) ||
            text[2] != (i < 5 ? ':' : '\0'))
            return false;
        mac[i] = (uint8_t)(g_ascii_xdigit_value(text[0]) << 4 | g_ascii_xdigit_value(text[1]));
        text += 3;
    }
    memcpy(ret_mac, mac, 6);
    return true;
}
