/* SPDX-License-Identifier: GPL-2.0-or-later */
/* qcow2 against qemu-img and a plain buffer: all shapes of images, scribbled on. */
#include <string.h>

#include "lodge/error.h"
#include "lodge/num.h"

#include "block_int.h"
#include "qcow2fix.h"

static bool need_qemu(void)
{
    return block_fix_need("qemu-img", "qemu-utils");
}

typedef struct Shape {
    const char *name, *options, *base;
    uint64_t size;
    unsigned steps;
    uint32_t most;
} Shape;

static const Shape shapes[] = {
    {"default", NULL, NULL, 8 * MIB, 300, 200000},
    {"overlay", NULL, "base.img", 8 * MIB, 300, 200000},
    {"v2", "compat=0.10", NULL, 8 * MIB, 300, 200000},
    {"v2-overlay", "compat=0.10,cluster_size=4K", "base.img", 4 * MIB, 300, 50000},
    {"cluster-512", "cluster_size=512", "base.img", MIB, 400, 20000},
    {"cluster-2M", "cluster_size=2M", "base.img", 16 * MIB + 512, 100, 1000000},
    {"refs-1", "refcount_bits=1,cluster_size=512", NULL, 4 * MIB, 300, 50000},
    {"refs-2", "refcount_bits=2,cluster_size=1K", NULL, 4 * MIB, 200, 50000},
    {"refs-4", "refcount_bits=4,cluster_size=2K", NULL, 4 * MIB, 200, 50000},
    {"refs-8", "refcount_bits=8,cluster_size=512", NULL, 4 * MIB, 200, 50000},
    {"refs-32", "refcount_bits=32,cluster_size=512", NULL, 4 * MIB, 200, 50000},
    {"refs-64", "refcount_bits=64,cluster_size=512", NULL, 16 * MIB, 300, 500000},
    {"lazy", "lazy_refcounts=on,cluster_size=8K", "base.img", 4 * MIB + 1536, 200, 50000},
};

static void test_scribble(gconstpointer opaque)
{
    const Shape *s = opaque;

    if (!need_qemu())
        return;
    g_autoptr(Twin) t = twin_new(s->size, s->options, s->base, s->base ? 5 : 0);
    twin_compare(t);
    for (unsigned round = 0; round < 3; round++) {
        twin_scribble(t, s->steps, s->most);
        twin_compare(t);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(shapes); i++) {
        g_autofree char *path = g_strdup_printf("/qcow2/scribble/%s", shapes[i].name);
        g_test_add_data_func(path, &shapes[i], test_scribble);
    }
    return g_test_run();
}
