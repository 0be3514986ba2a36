/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Hardware addresses that nobody chose.
 *
 * They are drawn from the machine's name, so that a card has the same one at each start, whatever
 * else the machine has, and machines on one network differ: 52:54:00, which is locally administered
 * and what people know as a virtual machine's, and 24 bits of the name's SHA-256, to which the
 * card's number is added. So the cards of one name never meet, and of a hundred machines with
 * four cards two meet with a chance of one in four hundred.
 */
#include <string.h>

#include "lodge/error.h"
#include "lodge/net.h"

void net_mac_of(const char *name, unsigned n, uint8_t *ret_mac)
{
    static const uint8_t prefix[] = {0x52, 0x54, 0x00};
    uint8_t digest[32];
    gsize len = sizeof digest;
    g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);

    g_checksum_update(sum, (const guchar *)name, (gssize)strlen(name));
    g_checksum_get_digest(sum, digest, &len);
    uint32_t low = ((uint32_t)digest[0] << 16 | (uint32_t)digest[1] << 8 | digest[2]) + n;
    memcpy(ret_mac, prefix, sizeof prefix);
    ret_mac[3] = (uint8_t)(low >> 16);
    ret_mac[4] = (uint8_t)(low >> 8);
    ret_mac[5] = (uint8_t)low;
}

bool net_mac_check(const uint8_t *mac, const char *id, GError **error)
{
    static const uint8_t none[6];
    g_autofree char *text = net_mac_text(mac);

    if (mac[0] & 1)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "%s: mac: %s is a group address; make its first byte even", id, text);
    if (!memcmp(mac, none, sizeof none))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "%s: mac: %s is no card's address; leave it out, or write one like "
                          "52:54:00:12:34:56",
                          id, text);
    return true;
}

char *net_mac_text(const uint8_t *mac)
{
    return g_strdup_printf("%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4],
                           mac[5]);
}
