/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A filter's text into a program. One line is one rule, "#" begins a comment:
 *
 *   default allow|deny [in|out]
 *   antispoof[=ADDR[,ADDR]...]
 *   allow|deny [in|out] [CONDITION]...
 *
 * with these conditions, each at most once, all of which must hold:
 *
 *   arp ip ip6 tcp udp icmp icmpv6    what it is
 *   proto N, ethertype 0xN            by number
 *   from|to ADDR[/BITS]               IPv4 or IPv6 source, destination
 *   from|to mac MAC|broadcast|multicast
 *   from|to port LIST, port LIST      source, destination, either: 80,443,8000-8999
 *   vlan N|N.M|none                   the outer tag, and the one within; no tag
 *   fragment, syn, type N             a piece of a packet; a TCP connection's first; ICMP's type
 *
 * A rule that no frame can fit is refused, since its author meant something else. Threads: any.
 */
#include "filter_program.h"

#include <arpa/inet.h>
#include <string.h>

#include "lodge/error.h"
#include "lodge/num.h"
#include "pkt.h"

enum {
    PROTO_ICMP = 1,
    PROTO_ICMP6 = 58,
    VLAN_MAX = 4094,
    TYPE_MIN = 0x600,
    WORD_SHOWN = 40, /* bytes of a word that a message shows */
};

/* Words on one line. */
typedef struct Line {
    const char *name; /* of the text */
    unsigned number;
    char buf[FILTER_LINE_MAX + 1];
    char *at;         /* where the next word is sought */
    const char *word; /* the latest; NULL: there was none */
    size_t len;       /* of the line */
    GError **error;
} Line;

/* ---- words ---- */

/* About the latest word, or the line's end. */
static bool bad(const Line *l, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
static bool bad(const Line *l, const char *fmt, ...)
{
    const char *at = l->word ? l->word : l->buf + l->len;
    va_list ap;

    va_start(ap, fmt);
    g_autofree char *what = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    return lodge_fail(l->error, LODGE_ERROR_CONFIG, "%s:%u:%u: %s", l->name, l->number,
                      (unsigned)(at - l->buf) + 1, what);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* The next word, or NULL at the line's end. */
static const char *next_word(Line *l)
{
    char *p = l->at;

    while (is_blank(*p))
        p++;
    l->word = *p ? p : NULL;
    while (*p && !is_blank(*p))
        p++;
    if (*p)
        *p++ = '\0';
    l->at = p;
    return l->word;
}

/* As next_word(), where there has to be one; @what: what. */
static const char *need_word(Line *l, const char *after, const char *what)
{
    const char *w = next_word(l);

    if (!w)
        bad(l, "\"%s\" needs %s", after, what);
    return w;
}

static bool is_word(const char *w, const char *is)
{
    return w && !strcmp(w, is);
}

static bool number(const char *text, uint64_t max, uint64_t *ret)
{
    guint64 v;
    bool hex = g_str_has_prefix(text, "0x");

    if (!g_ascii_string_to_unsigned(hex ? text + 2 : text, hex ? 16 : 10, 0, max, &v, NULL))
        return false;
    *ret = v;
    return true;
}

/* ---- values ---- */

static bool read_mac(Line *l, const char *w, FilterMac *ret)
{
    if (is_word(w, "broadcast")) {
        memset(ret, 0xff, sizeof *ret);
        return true;
    }
    memset(ret, 0, sizeof *ret);
    if (is_word(w, "multicast")) { /* every group, that of all among them */
        ret->addr[0] = ret->mask[0] = 1;
        return true;
    }
    for (unsigned i = 0; i < 6; i++) {
        if (!g_ascii_isxdigit(w[0]) || !g_ascii_isxdigit(w[1]) || w[2] != (i < 5 ? ':' : '\0'))
            return bad(l, "\"%.*s\" is no hardware address; write 52:54:00:12:34:56, broadcast or "
                          "multicast", WORD_SHOWN, l->word);
        ret->addr[i] = (uint8_t)(g_ascii_xdigit_value(w[0]) << 4 | g_ascii_xdigit_value(w[1]));
        w += 3;
    }
    memset(ret->mask, 0xff, sizeof ret->mask);
    return true;
}

/* An address of either family. Return: 4, 6, or 0 for neither. */
static uint8_t read_addr(const char *w, uint8_t *ret)
{
    return inet_pton(AF_INET, w, ret) == 1 ? 4 : inet_pton(AF_INET6, w, ret) == 1 ? 6 : 0;
}

static bool read_prefix(Line *l, const char *w, FilterRule *r, FilterPrefix *ret)
{
    g_autofree char *addr = g_strdup(w);
    char *slash = strchr(addr, '/');
    uint64_t bits;

    if (slash)
        *slash++ = '\0';
    memset(ret, 0, sizeof *ret);
    uint8_t ip = read_addr(addr, ret->addr);
    if (!ip)
        return bad(l, "\"%.*s\" is neither an address nor mac or port", WORD_SHOWN, w);
    bits = ip == 4 ? 32 : 128;
    if (slash && !number(slash, bits, &bits))
        return bad(l, "\"%.*s\": the prefix has 0 to %d bits", WORD_SHOWN, w, ip == 4 ? 32 : 128);
    if (r->ip && r->ip != ip)
        return bad(l, "\"%.*s\" is an address of IPv%u in a rule about IPv%u", WORD_SHOWN, w, ip,
                   r->ip);
    r->ip = ip;
    ret->bits = (uint8_t)bits;
    for (unsigned i = 0; i < 16; i++) {
        unsigned keep = bits > i * 8 ? MIN((unsigned)bits - i * 8, 8) : 0;
        uint8_t mask = (uint8_t)(0xff << (8 - keep));
        if (ret->addr[i] & ~mask)
            return bad(l, "\"%.*s\" has bits behind its prefix; clear them", WORD_SHOWN, w);
    }
    return true;
}

static bool read_ports(Line *l, const char *w, FilterPorts *ret)
{
    g_auto(GStrv) parts = g_strsplit(w, ",", -1);

    ret->count = 0;
    for (char **p = parts; *p; p++) {
        char *dash = strchr(*p, '-');
        uint64_t first, last;
        if (dash)
            *dash++ = '\0';
        if (!number(*p, UINT16_MAX, &first) || !number(dash ? dash : *p, UINT16_MAX, &last) ||
            first > last)
            return bad(l, "\"%.*s\" is no list of ports; write 80,443,8000-8999", WORD_SHOWN, w);
        if (ret->count == FILTER_PORTS_MAX)
            return bad(l, "a list has at most %d ports or ranges; use two rules",
                       FILTER_PORTS_MAX);
        ret->first[ret->count] = (uint16_t)first;
        ret->last[ret->count++] = (uint16_t)last;
    }
    return true;
}

static bool read_vlan(Line *l, const char *w, FilterRule *r)
{
    g_auto(GStrv) tag = g_strsplit(w, ".", -1);
    uint64_t outer, inner = 0;

    if (!number(tag[0], VLAN_MAX, &outer) ||
        (tag[1] && (tag[2] || !number(tag[1], VLAN_MAX, &inner))))
        return bad(l, "\"%.*s\" is no VLAN; write 0 to %d, 5.7 for 7 within 5, or none",
                   WORD_SHOWN, w, VLAN_MAX);
    r->vlan = (uint16_t)outer;
    r->inner = (uint16_t)inner;
    r->need |= tag[1] ? FILTER_NEED_VLAN | FILTER_NEED_INNER : FILTER_NEED_VLAN;
    return true;
}

/* ---- conditions ---- */

/* Note that the rule asks for @need; false: it did already. */
static bool once(Line *l, FilterRule *r, uint16_t need)
{
    if (r->need & need)
        return bad(l, "\"%s\": the rule has said that already", l->word);
    r->need |= need;
    return true;
}

/* It is @ip (0: of either version), of protocol @proto. */
static bool set_proto(Line *l, FilterRule *r, uint8_t ip, uint8_t proto)
{
    if (!once(l, r, FILTER_NEED_PROTO))
        return false;
    if (ip && r->ip && r->ip != ip)
        return bad(l, "\"%s\" is of IPv%u in a rule about IPv%u", l->word, ip, r->ip);
    r->ip = ip ? ip : r->ip;
    r->proto = proto;
    return true;
}

static bool set_type(Line *l, FilterRule *r, uint16_t type)
{
    r->type = type;
    return once(l, r, FILTER_NEED_TYPE);
}

static bool set_version(Line *l, FilterRule *r, uint8_t ip)
{
    if (r->ip)
        return bad(l, "\"%s\": the rule is about IPv%u already", l->word, r->ip);
    r->ip = ip;
    return true;
}

/* What comes behind "from" or "to". */
static bool side(Line *l, FilterRule *r, bool from)
{
    const char *which = from ? "from" : "to";
    const char *w = need_word(l, which, "an address, mac or port");

    if (!w)
        return false;
    if (is_word(w, "mac"))
        return once(l, r, from ? FILTER_NEED_SRC_MAC : FILTER_NEED_DST_MAC) &&
               (w = need_word(l, "mac", "a hardware address")) &&
               read_mac(l, w, from ? &r->src_mac : &r->dst_mac);
    if (is_word(w, "port"))
        return once(l, r, from ? FILTER_NEED_SPORT : FILTER_NEED_DPORT) &&
               (w = need_word(l, "port", "ports")) &&
               read_ports(l, w, from ? &r->sport : &r->dport);
    return once(l, r, from ? FILTER_NEED_SRC : FILTER_NEED_DST) &&
           read_prefix(l, w, r, from ? &r->src : &r->dst);
}

static bool numbered(Line *l, FilterRule *r, const char *word)
{
    const char *w = need_word(l, word, "a number");
    uint64_t v;

    if (!w)
        return false;
    if (!strcmp(word, "proto"))
        return number(w, UINT8_MAX, &v) ? set_proto(l, r, 0, (uint8_t)v)
                                        : bad(l, "\"%.*s\" is no protocol from 0 to 255",
                                              WORD_SHOWN, w);
    if (!strcmp(word, "type")) {
        if (!number(w, UINT8_MAX, &v))
            return bad(l, "\"%.*s\" is no type from 0 to 255", WORD_SHOWN, w);
        r->icmp_type = (uint8_t)v;
        return once(l, r, FILTER_NEED_ICMP);
    }
    if (!number(w, UINT16_MAX, &v) || v < TYPE_MIN)
        return bad(l, "\"%.*s\" is no type from 0x600 to 0xffff", WORD_SHOWN, w);
    return set_type(l, r, (uint16_t)v);
}

static bool condition(Line *l, FilterRule *r, const char *w)
{
    if (is_word(w, "from") || is_word(w, "to"))
        return side(l, r, is_word(w, "from"));
    if (is_word(w, "port"))
        return once(l, r, FILTER_NEED_PORT) && (w = need_word(l, "port", "ports")) &&
               read_ports(l, w, &r->port);
    if (is_word(w, "arp"))
        return set_type(l, r, PKT_TYPE_ARP);
    if (is_word(w, "ip") || is_word(w, "ip6"))
        return set_version(l, r, is_word(w, "ip") ? 4 : 6);
    if (is_word(w, "tcp") || is_word(w, "udp"))
        return set_proto(l, r, 0, is_word(w, "tcp") ? PKT_PROTO_TCP : PKT_PROTO_UDP);
    if (is_word(w, "icmp"))
        return set_proto(l, r, 4, PROTO_ICMP);
    if (is_word(w, "icmpv6"))
        return set_proto(l, r, 6, PROTO_ICMP6);
    if (is_word(w, "proto") || is_word(w, "type") || is_word(w, "ethertype"))
        return numbered(l, r, w);
    if (is_word(w, "fragment"))
        return once(l, r, FILTER_NEED_FRAGMENT);
    if (is_word(w, "syn"))
        return once(l, r, FILTER_NEED_SYN);
    if (is_word(w, "vlan")) {
        if (r->need & FILTER_NEED_UNTAGGED || !once(l, r, FILTER_NEED_VLAN))
            return bad(l, "\"vlan\": the rule has said that already");
        r->need &= (uint16_t)~FILTER_NEED_VLAN;
        if (!(w = need_word(l, "vlan", "a number or none")))
            return false;
        if (is_word(w, "none"))
            return once(l, r, FILTER_NEED_UNTAGGED);
        return read_vlan(l, w, r);
    }
    return bad(l, "\"%.*s\" is no condition; there are arp, ip, ip6, tcp, udp, icmp, icmpv6, "
                  "proto, ethertype, from, to, port, vlan, fragment, syn, type",
               WORD_SHOWN, w);
}

/* Whether any frame can fit. */
static bool sense(Line *l, const FilterRule *r)
{
    enum {
        PORTS = FILTER_NEED_SPORT | FILTER_NEED_DPORT | FILTER_NEED_PORT,
        BEHIND = FILTER_NEED_PROTO | FILTER_NEED_SRC | FILTER_NEED_DST | PORTS |
                 FILTER_NEED_FRAGMENT | FILTER_NEED_SYN | FILTER_NEED_ICMP
    };
    bool proto = r->need & FILTER_NEED_PROTO;

    l->word = l->buf;
    if (r->need & FILTER_NEED_TYPE && (r->ip || r->need & BEHIND))
        return bad(l, "arp and ethertype go with mac and vlan only; what ARP says is antispoof's");
    if (r->need & PORTS && proto && r->proto != PKT_PROTO_TCP && r->proto != PKT_PROTO_UDP)
        return bad(l, "only tcp and udp have ports");
    if (r->need & FILTER_NEED_SYN && (!proto || r->proto != PKT_PROTO_TCP))
        return bad(l, "\"syn\" goes with tcp");
    if (r->need & FILTER_NEED_ICMP &&
        (!proto || (r->proto != PROTO_ICMP && r->proto != PROTO_ICMP6)))
        return bad(l, "\"type\" goes with icmp or icmpv6");
    return true;
}

/* ---- lines ---- */

static bool line_default(Line *l, FilterProgram *p, bool said[2])
{
    const char *w = need_word(l, "default", "allow or deny");
    bool allow = is_word(w, "allow"), in = true, out = true;

    if (!w)
        return false;
    if (!allow && !is_word(w, "deny"))
        return bad(l, "\"%.*s\" is neither allow nor deny", WORD_SHOWN, w);
    if ((w = next_word(l))) {
        in = is_word(w, "in");
        out = is_word(w, "out");
        if (!in && !out)
            return bad(l, "\"%.*s\" is neither in nor out", WORD_SHOWN, w);
    }
    if ((in && said[0]) || (out && said[1]))
        return bad(l, "there is a default already");
    if (w && next_word(l))
        return bad(l, "\"%.*s\": nothing comes behind in or out", WORD_SHOWN, l->word);
    p->allow_in = in ? allow : p->allow_in;
    p->allow_out = out ? allow : p->allow_out;
    said[0] |= in;
    said[1] |= out;
    return true;
}

static bool line_antispoof(Line *l, FilterProgram *p, const char *list)
{
    g_auto(GStrv) addr = list ? g_strsplit(list, ",", -1) : NULL;

    p->antispoof = true;
    for (char **a = addr; a && *a; a++) {
        uint8_t bytes[16];
        uint8_t ip = read_addr(*a, bytes);
        if (!ip)
            return bad(l, "\"%.*s\" is no address; write antispoof=10.0.0.5,fd00::5", WORD_SHOWN,
                       *a);
        if ((ip == 4 ? p->ip4s : p->ip6s) == FILTER_ADDRS_MAX)
            return bad(l, "antispoof has at most %d addresses of a kind", FILTER_ADDRS_MAX);
        p->addresses = true;
        if (ip == 4)
            memcpy(p->ip4[p->ip4s++], bytes, 4);
        else
            memcpy(p->ip6[p->ip6s++], bytes, 16);
    }
    return !next_word(l) || bad(l, "\"%.*s\": write antispoof=ADDR,ADDR without blanks",
                                WORD_SHOWN, l->word);
}

static bool line_rule(Line *l, FilterProgram *p, bool allow, const char *text)
{
    FilterRule r = {.allow = allow, .dirs = FILTER_IN | FILTER_OUT};
    const char *w = next_word(l);

    if (is_word(w, "in") || is_word(w, "out")) {
        r.dirs = is_word(w, "in") ? FILTER_IN : FILTER_OUT;
        w = next_word(l);
    }
    for (; w; w = next_word(l)) {
        if (!condition(l, &r, w))
            return false;
    }
    if (!sense(l, &r))
        return false;
    if (p->rules == FILTER_RULES_MAX)
        return lodge_fail(l->error, LODGE_ERROR_LIMIT, "%s:%u: there are at most %d rules",
                          l->name, l->number, FILTER_RULES_MAX);
    if (!(p->rules & (p->rules - 1))) { /* full at each power of two */
        unsigned room = p->rules ? 2 * p->rules : 1;
        p->rule = g_renew(FilterRule, p->rule, room);
        p->text = g_renew(char *, p->text, room);
        p->line = g_renew(unsigned, p->line, room);
    }
    p->rule[p->rules] = r;
    p->text[p->rules] = g_strdup(text);
    p->line[p->rules++] = l->number;
    return true;
}

/* The line without its comment, and blanks at its ends. */
static bool line_take(Line *l, const char *text, size_t len)
{
    const char *hash = memchr(text, '#', len);

    len = hash ? (size_t)(hash - text) : len;
    while (len && (is_blank(text[len - 1]) || text[len - 1] == '\r'))
        len--;
    l->word = NULL;
    l->len = 0;
    if (len > FILTER_LINE_MAX)
        return bad(l, "the line is longer than %d bytes", FILTER_LINE_MAX);
    for (size_t i = 0; i < len; i++) {
        if (text[i] != '\t' && (text[i] < ' ' || text[i] > '~')) {
            l->len = i;
            return bad(l, "a rule has letters, digits and blanks only");
        }
    }
    memcpy(l->buf, text, len);
    l->buf[len] = '\0';
    l->len = len;
    l->at = l->buf;
    return true;
}

static bool compile_line(Line *l, FilterProgram *p, bool said[2])
{
    g_autofree char *text = g_strstrip(g_strdup(l->buf));
    const char *w = next_word(l);

    if (!w)
        return true;
    if (is_word(w, "allow") || is_word(w, "deny"))
        return line_rule(l, p, is_word(w, "allow"), text);
    if (is_word(w, "default"))
        return line_default(l, p, said);
    if (is_word(w, "antispoof"))
        return line_antispoof(l, p, NULL);
    if (g_str_has_prefix(w, "antispoof="))
        return line_antispoof(l, p, w + strlen("antispoof="));
    return bad(l, "\"%.*s\" is no rule; a line begins with allow, deny, default or antispoof",
               WORD_SHOWN, w);
}

FilterProgram *filter_compile(const char *name, const char *text, size_t len, GError **error)
{
    g_autoptr(FilterProgram) p = g_new0(FilterProgram, 1);
    Line l = {.name = name, .error = error};
    bool said[2] = {false, false};

    p->name = g_strdup(name);
    p->allow_in = p->allow_out = true;
    if (len > FILTER_TEXT_MAX) {
        lodge_fail(error, LODGE_ERROR_LIMIT, "%s: is longer than %d KiB", name,
                   FILTER_TEXT_MAX >> 10);
        return NULL;
    }
    while (len) {
        const char *end = memchr(text, '\n', len);
        size_t n = end ? (size_t)(end - text) : len;
        l.number++;
        if (!line_take(&l, text, n) || !compile_line(&l, p, said))
            return NULL;
        n += end ? 1 : 0;
        text += n;
        len -= n;
    }
    p->counter = g_new0(FilterCounter, p->rules + FILTER_BYS - FILTER_RULES_MAX);
    return g_steal_pointer(&p);
}

void filter_program_free(FilterProgram *p)
{
    if (!p)
        return;
    for (unsigned i = 0; i < p->rules; i++)
        g_free(p->text[i]);
    g_free(p->text);
    g_free(p->line);
    g_free(p->rule);
    g_free(p->counter);
    g_free(p->name);
    g_free(p);
}

/* ---- what is in force ---- */

static void describe_row(const FilterProgram *p, NetFilterInfo *i, unsigned by, unsigned line,
                         bool allow, const char *text)
{
    const FilterCounter *c = filter_counter(p, by);

    i->row[i->rows++] = (NetFilterRow){
        .line = line,
        .text = g_strdup(text),
        .allow = allow,
        .frames = __atomic_load_n(&c->frames, __ATOMIC_RELAXED),
        .bytes = __atomic_load_n(&c->bytes, __ATOMIC_RELAXED),
    };
}

NetFilterInfo *filter_describe(const FilterProgram *p)
{
    NetFilterInfo *i = g_new0(NetFilterInfo, 1);

    i->name = g_strdup(p->name);
    i->row = g_new0(NetFilterRow, p->rules + FILTER_BYS - FILTER_RULES_MAX);
    if (p->antispoof)
        describe_row(p, i, FILTER_BY_ANTISPOOF, 0, false, "antispoof");
    for (unsigned k = 0; k < p->rules; k++)
        describe_row(p, i, k, p->line[k], p->rule[k].allow, p->text[k]);
    describe_row(p, i, FILTER_BY_UNCLEAR, 0, false, "unclear to a rule");
    describe_row(p, i, FILTER_BY_DEFAULT_IN, 0, p->allow_in,
                 p->allow_in ? "default allow in" : "default deny in");
    describe_row(p, i, FILTER_BY_DEFAULT_OUT, 0, p->allow_out,
                 p->allow_out ? "default allow out" : "default deny out");
    return i;
}

void net_filter_info_free(NetFilterInfo *i)
{
    if (!i)
        return;
    for (unsigned k = 0; k < i->rows; k++)
        g_free(i->row[k].text);
    g_free(i->row);
    g_free(i->name);
    g_free(i);
}
