/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SMBIOS structures: walked as an operating system walks them, and dmidecode's view. */
#include <string.h>

#include <glib/gstdio.h>

#include "lodge/error.h"
#include "lodge/num.h"
#include "smbios.h"

#define UUID "12345678-9abc-4def-8123-456789abcdef"

static const SmbiosConfig plain = {.sockets = 1, .cores = 2, .ram_below_4g = 512 * MIB};

typedef struct Built {
    GByteArray *anchor, *tables;
} Built;

static void built_clear(Built *b)
{
    g_clear_pointer(&b->anchor, g_byte_array_unref);
    g_clear_pointer(&b->tables, g_byte_array_unref);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Built, built_clear)

static bool build(const SmbiosConfig *c, Built *ret, GError **error)
{
    built_clear(ret);
    *ret = (Built){g_byte_array_new(), g_byte_array_new()};
    return smbios_build(c, ret->anchor, ret->tables, error);
}

static void build_good(const SmbiosConfig *c, Built *ret)
{
    g_autoptr(GError) error = NULL;
    build(c, ret, &error);
    g_assert_no_error(error);
}

static uint8_t sum_of(const uint8_t *p, size_t len)
{
    uint8_t sum = 0;
    for (size_t i = 0; i < len; i++)
        sum += p[i];
    return sum;
}

/* The structure behind @at; NULL at the end. */
static const uint8_t *after(const GByteArray *t, const uint8_t *at)
{
    const uint8_t *limit = t->data + t->len, *p = at + at[1];
    g_assert_true(p + 2 <= limit);
    while (p[0] || p[1]) {
        p++;
        g_assert_true(p + 2 <= limit);
    }
    return p + 2 == limit ? NULL : p + 2;
}

static const uint8_t *find(const Built *b, uint8_t type, unsigned nth)
{
    for (const uint8_t *p = b->tables->data; p; p = after(b->tables, p)) {
        if (p[0] == type && !nth--)
            return p;
    }
    return NULL;
}

/* String number @n of structure @p; "" for 0. */
static const char *string_of(const uint8_t *p, uint8_t n)
{
    const char *s = (const char *)p + p[1];
    if (!n)
        return "";
    while (--n) {
        g_assert_true(*s);
        s += strlen(s) + 1;
    }
    g_assert_true(*s);
    return s;
}

static void test_entry_point(void)
{
    g_auto(Built) b = {0};
    build_good(&plain, &b);
    const uint8_t *e = b.anchor->data;
    g_assert_cmpuint(b.anchor->len, ==, 31);
    g_assert_cmpmem(e, 4, "_SM_", 4);
    g_assert_cmpuint(e[5], ==, 31);
    g_assert_cmpuint(e[6], ==, 2);
    g_assert_cmpuint(e[7], ==, 8);
    g_assert_cmpmem(e + 16, 5, "_DMI_", 5);
    g_assert_cmpuint(sum_of(e, 31), ==, 0);
    g_assert_cmpuint(sum_of(e + 16, 15), ==, 0);
    g_assert_cmpuint(load_le16(e + 22), ==, b.tables->len);
    g_assert_cmpuint(e[30], ==, 0x28);
    static const uint8_t lengths[][2] = {{0, 24}, {1, 27}, {2, 15}, {3, 22}, {4, 42}, {16, 23},
                                         {17, 40}, {19, 31}, {32, 11}, {127, 4}};
    unsigned n = 0, longest = 0;
    uint16_t last_handle = 0;
    for (const uint8_t *p = b.tables->data; p; p = after(b.tables, p)) {
        const uint8_t *next = after(b.tables, p);
        longest = MAX(longest, (unsigned)((next ? next : b.tables->data + b.tables->len) - p));
        g_assert_cmpuint(n, <, G_N_ELEMENTS(lengths));
        g_assert_cmpuint(p[0], ==, lengths[n][0]);
        g_assert_cmpuint(p[1], ==, lengths[n][1]);
        g_assert_true(!n || load_le16(p + 2) > last_handle);
        last_handle = load_le16(p + 2);
        n++;
    }
    g_assert_cmpuint(n, ==, G_N_ELEMENTS(lengths));
    g_assert_cmpuint(load_le16(e + 28), ==, n);
    g_assert_cmpuint(load_le16(e + 8), ==, longest);
}

static void test_texts(void)
{
    g_autoptr(GHashTable) texts = g_hash_table_new(g_str_hash, g_str_equal);
    g_auto(Built) b = {0};
    SmbiosConfig c = plain;
    build_good(&c, &b);
    const uint8_t *s = find(&b, 1, 0);
    static const uint8_t zeros[16];
    g_assert_cmpstr(string_of(s, s[4]), ==, "Lodge");
    g_assert_cmpstr(string_of(s, s[7]), ==, "");
    g_assert_cmpmem(s + 8, 16, zeros, 16);
    g_assert_cmphex(find(&b, 0, 0)[0x13] & 0x10, !=, 0); /* a virtual machine */

    c.texts = texts;
    c.uuid = UUID;
    for (unsigned i = 0; smbios_keys[i].name; i++) /* each key's own name as its text */
        g_hash_table_insert(texts, (char *)smbios_keys[i].name, (char *)smbios_keys[i].name);
    g_hash_table_insert(texts, (char *)"bios-date", (char *)"12/31/1999");
    build_good(&c, &b);
    static const struct {
        uint8_t type, at;
        const char *text;
    } expected[] = {
        {0, 4, "bios-vendor"}, {0, 5, "bios-version"}, {0, 8, "12/31/1999"},
        {1, 4, "manufacturer"}, {1, 5, "product"}, {1, 6, "version"}, {1, 7, "serial"},
        {1, 25, "sku"}, {1, 26, "family"}, {2, 4, "board-manufacturer"}, {2, 5, "board-product"},
        {2, 6, "board-version"}, {2, 7, "board-serial"}, {2, 8, "asset"}, {3, 4, "manufacturer"},
        {3, 6, "version"}, {3, 7, "chassis-serial"}, {3, 8, "asset"}, {3, 21, "sku"},
        {4, 4, "CPU 0"}, {17, 16, "DIMM 0"},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(expected); i++) {
        const uint8_t *p = find(&b, expected[i].type, 0);
        g_assert_cmpstr(string_of(p, p[expected[i].at]), ==, expected[i].text);
    }
    static const uint8_t wire[] = {0x78, 0x56, 0x34, 0x12, 0xbc, 0x9a, 0xef, 0x4d,
                                   0x81, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef};
    g_assert_cmpmem(find(&b, 1, 0) + 8, 16, wire, 16);
}

static void test_machine(void)
{
    g_auto(Built) b = {0};
    SmbiosConfig c = {.sockets = 3, .cores = 4, .ram_below_4g = 3 * GIB, .ram_above_4g = 5 * GIB};
    build_good(&c, &b);
    const uint8_t *p = find(&b, 4, 2);
    g_assert_cmpstr(string_of(p, p[4]), ==, "CPU 2");
    g_assert_cmpuint(p[0x23], ==, 4);
    g_assert_null(find(&b, 4, 3));
    g_assert_cmpuint(load_le32(find(&b, 16, 0) + 7), ==, 8 * GIB / KIB);
    g_assert_cmpuint(load_le16(find(&b, 17, 0) + 12), ==, 8192);
    p = find(&b, 19, 0);
    g_assert_cmpuint(load_le32(p + 4), ==, 0);
    g_assert_cmpuint(load_le32(p + 8), ==, 3 * GIB / KIB - 1);
    p = find(&b, 19, 1);
    g_assert_cmpuint(load_le32(p + 4), ==, 4 * GIB / KIB);
    g_assert_cmpuint(load_le32(p + 8), ==, 9 * GIB / KIB - 1);
    g_assert_cmpuint(load_le16(p + 12), ==, load_le16(find(&b, 16, 0) + 2));
    c.ram_above_4g = 1024 * GIB - 3 * GIB;
    build_good(&c, &b);
    g_assert_cmpuint(load_le16(find(&b, 17, 0) + 12), ==, 0x7fff);
    g_assert_cmpuint(load_le32(find(&b, 17, 0) + 28), ==, 1024 * 1024);
    c.sockets = c.cores = 255;
    build_good(&c, &b);
    g_assert_nonnull(find(&b, 4, 254));
    g_assert_nonnull(find(&b, 127, 0));
}

static void test_refusals(void)
{
    g_autofree char *most = g_strnfill(64, 'x'), *over = g_strnfill(65, 'x');
    const struct {
        const char *key, *text, *word;
    } cases[] = {
        {"colour", "blue", "bios-vendor"}, {"serial", over, "64"},
        {"serial", "a\nb", "printable"},   {"serial", "\xc3\xa4", "printable"},
        {"bios-date", "1999-12-31", "MM/DD/YYYY"}, {"bios-date", "12/31/99", "MM/DD/YYYY"},
    };
    g_auto(Built) b = {0};
    g_autoptr(GError) error = NULL;
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GHashTable) texts = g_hash_table_new(g_str_hash, g_str_equal);
        SmbiosConfig c = plain;
        c.texts = texts;
        g_hash_table_insert(texts, (char *)cases[i].key, (char *)cases[i].text);
        g_assert_false(build(&c, &b, &error));
        g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
        g_assert_nonnull(strstr(error->message, cases[i].key));
        g_assert_nonnull(strstr(error->message, cases[i].word));
        g_assert_cmpuint(b.tables->len, ==, 0);
        g_clear_error(&error);
    }
    g_autoptr(GHashTable) texts = g_hash_table_new(g_str_hash, g_str_equal);
    SmbiosConfig c = plain;
    c.texts = texts;
    g_hash_table_insert(texts, (char *)"serial", most);
    g_hash_table_insert(texts, (char *)"version", (char *)""); /* takes a text away */
    build_good(&c, &b);
    c.uuid = "12345678";
    g_assert_false(build(&c, &b, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
    g_clear_error(&error);
    const SmbiosConfig counts[] = {{.sockets = 0, .cores = 1}, {.sockets = 256, .cores = 1},
                                   {.sockets = 1, .cores = 0}, {.sockets = 1, .cores = 256}};
    for (unsigned i = 0; i < G_N_ELEMENTS(counts); i++) {
        g_assert_false(build(&counts[i], &b, &error));
        g_assert_error(error, LODGE_ERROR, LODGE_ERROR_LIMIT);
        g_clear_error(&error);
    }
}

/* dmidecode reads a dump whose tables follow the entry point at 32. */
static void test_dmidecode(void)
{
    g_autofree char *program = g_find_program_in_path("dmidecode");
    if (!program)
        program = g_file_test("/usr/sbin/dmidecode", G_FILE_TEST_IS_EXECUTABLE)
                      ? g_strdup("/usr/sbin/dmidecode")
                      : NULL;
    if (!program) {
        g_test_skip("dmidecode is not installed");
        return;
    }
    g_autoptr(GHashTable) texts = g_hash_table_new(g_str_hash, g_str_equal);
    g_hash_table_insert(texts, (char *)"serial", (char *)"S-1234");
    g_auto(Built) b = {0};
    SmbiosConfig c = plain;
    c.uuid = UUID;
    c.texts = texts;
    c.ram_above_4g = 1 * GIB;
    build_good(&c, &b);
    g_autofree char *dir = g_dir_make_tmp("lodge-smbios-XXXXXX", NULL), *out = NULL, *err = NULL;
    g_autofree char *path = g_build_filename(dir, "dump", NULL);
    g_autoptr(GByteArray) dump = g_byte_array_new();
    g_autoptr(GError) error = NULL;
    int status;
    g_byte_array_append(dump, b.anchor->data, b.anchor->len);
    g_byte_array_set_size(dump, 32);
    dump->data[31] = 0;
    dump->data[24] = 32; /* where the tables are, which both sums count */
    dump->data[21] = (uint8_t)(dump->data[21] - 32);
    g_byte_array_append(dump, b.tables->data, b.tables->len);
    g_file_set_contents(path, (const char *)dump->data, dump->len, &error);
    g_assert_no_error(error);
    const char *argv[] = {program, "--from-dump", path, NULL};
    g_spawn_sync(NULL, (char **)argv, NULL, 0, NULL, NULL, &out, &err, &status, &error);
    g_assert_no_error(error);
    static const char *const words[] = {
        "SMBIOS 2.8 present", "11 structures occupying", "Vendor: Lodge",
        "System is a virtual machine",
        "Serial Number: S-1234", "UUID: 12345678-9abc-4def-8123-456789abcdef",
        "Socket Designation: CPU 0", "Core Count: 2", "Maximum Capacity: 1536 MB",
        "Locator: DIMM 0", "Range Size: 1 GB", "Wake-up Type: Power Switch", "End Of Table",
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(words); i++) {
        if (!strstr(out, words[i]))
            g_error("dmidecode does not say '%s':\n%s%s", words[i], out, err);
    }
    static const char *const bad[] = {"BAD INDEX", "OUT OF SPEC", "truncated", "Wrong", "Invalid",
                                      "broken"};
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        if (strstr(out, bad[i]) || strstr(err, bad[i]))
            g_error("dmidecode says '%s':\n%s%s", bad[i], out, err);
    }
    g_unlink(path);
    g_assert_cmpint(g_rmdir(dir), ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/smbios/entry-point", test_entry_point);
    g_test_add_func("/smbios/texts", test_texts);
    g_test_add_func("/smbios/machine", test_machine);
    g_test_add_func("/smbios/refusals", test_refusals);
    g_test_add_func("/smbios/dmidecode", test_dmidecode);
    return g_test_run();
}
