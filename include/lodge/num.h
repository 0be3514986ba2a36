/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_NUM_H
#define LODGE_NUM_H

/* Arithmetic on numbers from guests, files and wires: sums and products that report overflow,
 * ranges, alignment, and loads and stores of a stated byte order at any alignment. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define KIB ((uint64_t)1 << 10)
#define MIB ((uint64_t)1 << 20)
#define GIB ((uint64_t)1 << 30)
#define NS_PER_SEC INT64_C(1000000000)

static inline bool u64_add_ok(uint64_t a, uint64_t b, uint64_t *ret_sum)
{
    return !__builtin_add_overflow(a, b, ret_sum);
}

static inline bool u64_mul_ok(uint64_t a, uint64_t b, uint64_t *ret_product)
{
    return !__builtin_mul_overflow(a, b, ret_product);
}

/* Whether [@off, @off + @len) lies in [0, @size); right for every value. */
static inline bool range_within(uint64_t off, uint64_t len, uint64_t size)
{
    return off <= size && len <= size - off;
}

/* Whether [@a, @a + @alen) and [@b, @b + @blen) share a byte; sums must not overflow. */
static inline bool ranges_overlap(uint64_t a, uint64_t alen, uint64_t b, uint64_t blen)
{
    return alen && blen && a < b + blen && b < a + alen;
}

static inline bool is_power_of_two(uint64_t v)
{
    return v && !(v & (v - 1));
}

/* @align is a power of two; align_up wraps to 0 past the top, which callers exclude by a
 * ceiling. */
static inline uint64_t align_down(uint64_t v, uint64_t align)
{
    return v & ~(align - 1);
}

static inline uint64_t align_up(uint64_t v, uint64_t align)
{
    return align_down(v + align - 1, align);
}

#define LODGE_LOAD_STORE(bits)                                                                    \
    static inline uint##bits##_t load_le##bits(const void *p)                                     \
    {                                                                                             \
        uint##bits##_t v;                                                                         \
        memcpy(&v, p, sizeof v);                                                                  \
        return v;                                                                                 \
    }                                                                                             \
    static inline uint##bits##_t load_be##bits(const void *p)                                     \
    {                                                                                             \
        return __builtin_bswap##bits(load_le##bits(p));                                           \
    }                                                                                             \
    static inline void store_le##bits(void *p, uint##bits##_t v)                                  \
    {                                                                                             \
        memcpy(p, &v, sizeof v);                                                                  \
    }                                                                                             \
    static inline void store_be##bits(void *p, uint##bits##_t v)                                  \
    {                                                                                             \
        store_le##bits(p, __builtin_bswap##bits(v));                                              \
    }
LODGE_LOAD_STORE(16)
LODGE_LOAD_STORE(32)
LODGE_LOAD_STORE(64)
#undef LODGE_LOAD_STORE

/* Lodge runs on x86-64 only; the loads above lean on it. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "little-endian host");

#endif
