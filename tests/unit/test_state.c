/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Snapshot tables: there and back, and every way in which a stream can be wrong. */
#include <string.h>

#include "lodge/error.h"
#include "lodge/num.h"
#include "lodge/state.h"

typedef struct Cell {
    uint16_t x;
    uint16_t y;
} Cell;

typedef struct Regs {
    uint64_t wide;
    uint32_t index;
    uint16_t many[3];
    bool flag;
    uint8_t raw[5];
    Cell cells[2];
    uint32_t derived;
} Regs;

typedef struct Thing {
    int host_side;
    Regs regs;
    unsigned saves, loads, version;
} Thing;

static const StateField cell_fields[] = {
    ST_U(Cell, x, UINT16_MAX),
    ST_U(Cell, y, 9),
    ST_END,
};
static const StateDesc cell_state = {.name = "cell", .version = 1, .oldest = 1,
                                     .regs_size = sizeof(Cell), .fields = cell_fields};

static const StateField fields[] = {
    ST_U(Regs, wide, UINT64_MAX),
    ST_U(Regs, index, 7),
    ST_U_ARRAY(Regs, many, 1000),
    ST_B(Regs, flag),
    ST_RAW(Regs, raw),
    ST_SUBS(Regs, cells, 2, &cell_state),
    ST_SKIPPED(Regs, derived, "computed from index"),
    ST_END,
};

static void pre_save(void *obj)
{
    ((Thing *)obj)->saves++;
}

static bool post_load(void *obj, unsigned version, GError **error)
{
    Thing *t = obj;
    t->loads++;
    t->version = version;
    t->regs.derived = t->regs.index * 2;
    if (t->regs.wide == 13)
        return lodge_fail(error, LODGE_ERROR_IMAGE, "thirteen");
    return true;
}

static const StateDesc desc = {.name = "thing", .version = 3, .oldest = 2,
                               .regs_offset = offsetof(Thing, regs), .regs_size = sizeof(Regs),
                               .fields = fields, .pre_save = pre_save, .post_load = post_load};

static const Regs sample = {
    .wide = UINT64_C(0x0123456789abcdef), .index = 7, .many = {0, 1, 1000}, .flag = true,
    .raw = {1, 2, 3, 4, 255}, .cells = {{65535, 9}, {1, 0}}, .derived = 14};

static GByteArray *saved(void)
{
    Thing t = {.regs = sample};
    GByteArray *out = g_byte_array_new();
    state_save(&desc, &t, out);
    g_assert_cmpuint(t.saves, ==, 1);
    return out;
}

static void refused(const GByteArray *b, size_t len, const char *says)
{
    Thing t = {0};
    g_autoptr(GError) error = NULL;
    size_t used = 12345;
    g_assert_false(state_load(&desc, &t, b->data, len, &used, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_IMAGE);
    g_assert_cmpuint(used, ==, 12345);
    if (!strstr(error->message, says))
        g_error("'%s' lacks '%s'", error->message, says);
}

/* Where the bytes after field @name's own name begin: kind (1), width (4), count (4), elements. */
static size_t behind(const GByteArray *b, const char *name)
{
    size_t len = strlen(name);
    for (size_t i = 0; i + 1 + len <= b->len; i++) {
        if (b->data[i] == len && !memcmp(b->data + i + 1, name, len))
            return i + 1 + len;
    }
    g_assert_not_reached();
}

static void test_round_trip(void)
{
    g_autoptr(GByteArray) b = saved();
    g_autoptr(GError) error = NULL;
    Thing t = {.host_side = 42};
    size_t used = 0;
    g_byte_array_append(b, (const uint8_t *)"next", 4);
    g_assert_true(state_load(&desc, &t, b->data, b->len, &used, &error));
    g_assert_no_error(error);
    g_assert_cmpuint(used, ==, b->len - 4);
    g_assert_cmpmem(&t.regs, sizeof t.regs, &sample, sizeof sample);
    g_assert_cmpint(t.host_side, ==, 42);
    g_assert_cmpuint(t.loads, ==, 1);
    g_assert_cmpuint(t.version, ==, 3);
}

static void test_values(void)
{
    static const struct {
        const char *field, *says;
        size_t element, width;
        uint64_t value;
    } bad[] = {
        {"index", "thing.index: 8 is over 7", 0, 4, 8},
        {"index", "thing.index", 0, 4, UINT32_MAX},
        {"many", "thing.many: 1001", 2, 2, 1001},
        {"flag", "thing.flag: 2", 0, 1, 2},
        {"flag", "thing.flag: 255", 0, 1, 255},
        {"y", "cell.y: 10", 0, 2, 10},
        {"wide", "thirteen", 0, 8, 13},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GByteArray) b = saved();
        uint8_t le[8];
        store_le64(le, bad[i].value);
        memcpy(b->data + behind(b, bad[i].field) + 9 + bad[i].element * bad[i].width, le,
               bad[i].width);
        refused(b, b->len, bad[i].says);
    }
}

static void test_truncated(void)
{
    g_autoptr(GByteArray) b = saved();
    for (size_t len = 0; len < b->len; len++) {
        g_autofree uint8_t *part = g_memdup2(b->data, len); /* its end is its allocation's */
        GByteArray cut = {.data = part, .len = (guint)len};
        refused(&cut, len, "ends early");
    }
}

static void test_shapes(void)
{
    static const struct {
        const char *field;
        size_t at;
        uint8_t value;
    } bad[] = {
        {"index", 0, ST_BYTES}, {"index", 1, 8}, {"many", 5, 2}, {"many", 5, 4}, {"raw", 8, 255},
        {"cells", 5, 3},        {"flag", 0, ST_UINT},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GByteArray) b = saved();
        b->data[behind(b, bad[i].field) + bad[i].at] = bad[i].value;
        refused(b, b->len, "another shape");
    }
}

static void test_names(void)
{
    g_autoptr(GByteArray) b = saved(), c = saved();
    b->data[1] ^= 1;
    refused(b, b->len, "where 'thing' should be");
    c->data[behind(c, "raw") - 1] ^= 1;
    refused(c, c->len, "no field 'rav'");
}

static void test_versions(void)
{
    g_autoptr(GByteArray) b = saved();
    uint8_t *version = b->data + 1 + strlen("thing");
    version[0] = 1;
    refused(b, b->len, "version 1");
    version[0] = 4;
    refused(b, b->len, "version 4");
    version[1] = 1;
    refused(b, b->len, "version 260");
    version[0] = 2;
    version[1] = 0;
    Thing t = {0};
    size_t used;
    g_assert_true(state_load(&desc, &t, b->data, b->len, &used, NULL));
    g_assert_cmpuint(t.version, ==, 2);
}

/* One field fewer, and then another one twice in its place. */
static void test_missing(void)
{
    g_autoptr(GByteArray) b = saved();
    size_t wide = behind(b, "wide") - 5, index = behind(b, "index") - 6;
    size_t count = 1 + strlen("thing") + 2;
    g_autofree uint8_t *index_field = g_memdup2(b->data + index, 6 + 9 + 4);
    g_byte_array_remove_range(b, (guint)wide, (guint)(index - wide));
    b->data[count]--;
    refused(b, b->len, "1 of 6 fields are missing");
    b->data[count]++;
    g_byte_array_append(b, index_field, 6 + 9 + 4);
    refused(b, b->len, "thing.index: is there twice");
}

static void test_check(void)
{
    static const StateField hole[] = {ST_U(Cell, x, 1), ST_END};
    static const StateField twice[] = {ST_U(Cell, x, 1), ST_U(Cell, x, 1), ST_U(Cell, y, 1), ST_END};
    static const StateField outside[] = {ST_U(Regs, wide, 1), ST_END};
    static const StateField silent[] = {ST_U(Cell, x, 1), ST_SKIPPED(Cell, y, NULL), ST_END};
    static const struct {
        const StateField *fields;
        const char *says;
    } bad[] = {{hole, "byte 2 is not covered"}, {twice, "covered twice"},
               {outside, "lies outside"}, {silent, "without a reason"}};
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        StateDesc d = cell_state;
        g_autoptr(GError) error = NULL;
        d.fields = bad[i].fields;
        g_assert_false(state_check(&d, &error));
        g_assert_nonnull(strstr(error->message, bad[i].says));
    }
    g_assert_true(state_check(&cell_state, NULL));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/state/round-trip", test_round_trip);
    g_test_add_func("/state/values", test_values);
    g_test_add_func("/state/truncated", test_truncated);
    g_test_add_func("/state/shapes", test_shapes);
    g_test_add_func("/state/names", test_names);
    g_test_add_func("/state/versions", test_versions);
    g_test_add_func("/state/missing", test_missing);
    g_test_add_func("/state/check", test_check);
    return g_test_run();
}
