/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Snapshot records from hostile bytes: what is taken keeps every bound of its table, and saves to a
 * record that is taken again. */
#include <string.h>

#include "lodge/state.h"
#include "replay.h"

typedef struct Cell {
    uint16_t x, y;
} Cell;

typedef struct Regs {
    uint64_t wide;
    uint32_t index;
    uint16_t many[3];
    bool flag;
    uint8_t raw[5];
    Cell cells[2];
} Regs;

#define INDEX_MAX 7u
#define MANY_MAX 1000u

static const StateField cell_fields[] = {ST_U(Cell, x, UINT16_MAX), ST_U(Cell, y, 9), ST_END};
static const StateDesc cell_state = {.name = "cell", .version = 1, .oldest = 1,
                                     .regs_size = sizeof(Cell), .fields = cell_fields};
static const StateField fields[] = {
    ST_U(Regs, wide, UINT64_MAX),
    ST_U(Regs, index, INDEX_MAX),
    ST_U_ARRAY(Regs, many, MANY_MAX),
    ST_B(Regs, flag),
    ST_RAW(Regs, raw),
    ST_SUBS(Regs, cells, 2, &cell_state),
    ST_END,
};
static const StateDesc desc = {.name = "thing", .version = 3, .oldest = 2,
                               .regs_size = sizeof(Regs), .fields = fields};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Regs regs, again;
    size_t used, used_again;
    uint8_t flag;

    memset(&regs, 0, sizeof regs);
    memset(&again, 0, sizeof again);
    if (!state_load(&desc, &regs, data, size, &used, NULL))
        return 0;
    memcpy(&flag, &regs.flag, 1);
    g_assert_true(used <= size && regs.index <= INDEX_MAX && flag <= 1);
    for (unsigned i = 0; i < G_N_ELEMENTS(regs.many); i++)
        g_assert_cmpuint(regs.many[i], <=, MANY_MAX);
    g_autoptr(GByteArray) out = g_byte_array_new();
    state_save(&desc, &regs, out);
    g_assert_true(state_load(&desc, &again, out->data, out->len, &used_again, NULL));
    g_assert_cmpuint(used_again, ==, out->len);
    g_assert_true(!memcmp(&regs, &again, sizeof regs));
    return 0;
}
