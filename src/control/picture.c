/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The screen as a picture: PPM (netpbm, "P6", by hand) and PNG (libpng's simplified interface,
 * loaded for the one picture; its structure is declared here as libpng 1.6 has it, png.h section
 * "Simplified API"). The pixels are copied while the screen is held still, then packed at leisure.
 */
#include <string.h>

#include "lodge/dynlib.h"
#include "lodge/error.h"

#include "control_internal.h"

#define SONAME "libpng16.so.16"
#define PACKAGE "libpng16-16"

/* png_image, version 1. */
typedef struct PngImage {
    void *opaque;
    uint32_t version, width, height, format, flags, colormap_entries, warning_or_error;
    char message[64];
} PngImage;
#define PNG_VERSION 1u
#define PNG_RGB 2u /* PNG_FORMAT_RGB: three bytes a pixel */

typedef int PngWrite(PngImage *image, void *memory, size_t *bytes, int to_8bit,
                     const void *buffer, int32_t row_stride, const void *colormap);

/* The screen as rows of red, green, blue, behind @head bytes of room; transfer full. */
static uint8_t *grab(Display *d, size_t head, unsigned *ret_width, unsigned *ret_height,
                     GError **error)
{
    display_update(d);
    DisplaySurface s = display_lock(d);
    size_t len = (size_t)s.width * s.height * 3;
    uint8_t *rgb = s.width && s.height ? g_try_malloc(head + len) : NULL, *to = rgb;
    for (unsigned y = 0; rgb && y < s.height; y++) {
        const uint32_t *row = s.pixels + (size_t)y * s.stride;
        if (!y)
            to += head;
        for (unsigned x = 0; x < s.width; x++) {
            *to++ = (uint8_t)(row[x] >> 16);
            *to++ = (uint8_t)(row[x] >> 8);
            *to++ = (uint8_t)row[x];
        }
    }
    display_unlock(d);
    *ret_width = s.width;
    *ret_height = s.height;
    if (!s.width || !s.height)
        lodge_fail(error, LODGE_ERROR_STATE, "there is no picture on the screen yet");
    else if (!rgb)
        lodge_fail(error, LODGE_ERROR_LIMIT, "no memory for a picture of %u by %u", s.width,
                   s.height);
    return rgb;
}

GBytes *picture_ppm(Display *d, GError **error)
{
    char head[64];
    unsigned width, height;
    uint8_t *rgb = grab(d, sizeof head, &width, &height, error);
    if (!rgb)
        return NULL;
    int n = g_snprintf(head, sizeof head, "P6\n%u %u\n255\n", width, height);
    size_t at = sizeof head - (size_t)n;
    memcpy(rgb + at, head, (size_t)n);
    return g_bytes_new_with_free_func(rgb + at, (size_t)n + (size_t)width * height * 3, g_free,
                                      rgb);
}

GBytes *picture_png(Display *d, GError **error)
{
    unsigned width, height;
    g_autoptr(DynLib) lib = dynlib_open(SONAME, PACKAGE, error);
    if (!lib)
        return NULL;
    void *address = dynlib_sym(lib, "png_image_write_to_memory", error);
    g_autofree uint8_t *rgb = address ? grab(d, 0, &width, &height, error) : NULL;
    if (!rgb)
        return NULL;
    PngWrite *write_png = (PngWrite *)address;
    PngImage image = {.version = PNG_VERSION, .width = width, .height = height,
                      .format = PNG_RGB};
    /* A little over the raw size is enough for any picture: rows that do not pack are stored. */
    size_t len = (size_t)width * height * 3 + (size_t)width * height / 64 + height + 65536;
    g_autofree void *out = g_try_malloc(len);
    if (!out || !write_png(&image, out, &len, 0, rgb, 0, NULL)) {
        image.message[sizeof image.message - 1] = '\0';
        lodge_fail(error, LODGE_ERROR_HOST, "cannot make the PNG: %s",
                   out ? image.message : "no memory");
        return NULL;
    }
    return g_bytes_new(out, len);
}
