/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_NBD_LIB_H
#define LODGE_NBD_LIB_H

/*
 * What is used of libnbd, which is loaded when a disk over NBD is opened and stays loaded. Its
 * soname stands for a frozen ABI (libnbd(3), "API and ABI stability"), so a build needs no headers.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <glib.h>

#define NBD_LIB_SONAME "libnbd.so.0"
#define NBD_LIB_PACKAGE "libnbd0"

typedef struct nbd_handle NbdHandle;

/* Callbacks are passed by value; free may be NULL. None may call the library for its handle. */
typedef struct NbdLibDone {
    int (*callback)(void *user_data, int *error); /* 1: the command needs no retirement */
    void *user_data;
    void (*free)(void *user_data);
} NbdLibDone;

typedef struct NbdLibExtents {
    int (*callback)(void *user_data, const char *context, uint64_t offset, uint32_t *entries,
                    size_t n_entries, int *error);
    void *user_data;
    void (*free)(void *user_data);
} NbdLibExtents;

typedef struct NbdLibList {
    int (*callback)(void *user_data, const char *name, const char *description);
    void *user_data;
    void (*free)(void *user_data);
} NbdLibList;

enum { NBD_LIB_TLS_REQUIRE = 2 };                                        /* set_tls */
enum { NBD_LIB_FUA = 1, NBD_LIB_NO_HOLE = 2, NBD_LIB_REQ_ONE = 8 };      /* command flags */
enum { NBD_LIB_READ = 1, NBD_LIB_WRITE = 2 };                            /* aio_get_direction */
enum { NBD_LIB_SIZE_MIN, NBD_LIB_SIZE_PREFERRED, NBD_LIB_SIZE_MAX };     /* get_block_size */

#define NBD_LIB_FUNCTIONS(F)                                                                      \
    F(NbdHandle *, create, (void))                                                                \
    F(void, close, (NbdHandle * h))                                                               \
    F(const char *, get_error, (void))                                                            \
    F(int, set_export_name, (NbdHandle * h, const char *name))                                    \
    F(int, add_meta_context, (NbdHandle * h, const char *name))                                   \
    F(int, set_opt_mode, (NbdHandle * h, bool on))                                                \
    F(int, set_tls, (NbdHandle * h, int mode))                                                    \
    F(int, set_tls_certificates, (NbdHandle * h, const char *dir))                                \
    F(int, set_tls_psk_file, (NbdHandle * h, const char *file))                                   \
    F(int, set_tls_username, (NbdHandle * h, const char *name))                                   \
    F(int, aio_connect_tcp, (NbdHandle * h, const char *host, const char *port))                  \
    F(int, aio_connect_socket, (NbdHandle * h, int fd))                                           \
    F(int, aio_opt_list, (NbdHandle * h, NbdLibList list, NbdLibDone done))                       \
    F(int, aio_is_connecting, (NbdHandle * h))                                                    \
    F(int, aio_is_negotiating, (NbdHandle * h))                                                   \
    F(int, aio_is_ready, (NbdHandle * h))                                                         \
    F(int, aio_is_dead, (NbdHandle * h))                                                          \
    F(int, aio_is_closed, (NbdHandle * h))                                                        \
    F(int, aio_get_fd, (NbdHandle * h))                                                           \
    F(unsigned, aio_get_direction, (NbdHandle * h))                                               \
    F(int, aio_notify_read, (NbdHandle * h))                                                      \
    F(int, aio_notify_write, (NbdHandle * h))                                                     \
    F(int, aio_disconnect, (NbdHandle * h, uint32_t flags))                                       \
    F(int, poll, (NbdHandle * h, int timeout_ms))                                                 \
    F(int64_t, get_size, (NbdHandle * h))                                                         \
    F(int64_t, get_block_size, (NbdHandle * h, int kind))                                         \
    F(int, is_read_only, (NbdHandle * h))                                                         \
    F(int, can_flush, (NbdHandle * h))                                                            \
    F(int, can_fua, (NbdHandle * h))                                                              \
    F(int, can_trim, (NbdHandle * h))                                                             \
    F(int, can_zero, (NbdHandle * h))                                                             \
    F(int, can_meta_context, (NbdHandle * h, const char *name))                                   \
    F(int64_t, aio_pread,                                                                         \
      (NbdHandle * h, void *buf, size_t len, uint64_t at, NbdLibDone done, uint32_t flags))       \
    F(int64_t, aio_pwrite,                                                                        \
      (NbdHandle * h, const void *buf, size_t len, uint64_t at, NbdLibDone done, uint32_t flags)) \
    F(int64_t, aio_flush, (NbdHandle * h, NbdLibDone done, uint32_t flags))                       \
    F(int64_t, aio_trim,                                                                          \
      (NbdHandle * h, uint64_t len, uint64_t at, NbdLibDone done, uint32_t flags))                \
    F(int64_t, aio_zero,                                                                          \
      (NbdHandle * h, uint64_t len, uint64_t at, NbdLibDone done, uint32_t flags))                \
    F(int64_t, aio_block_status,                                                                  \
      (NbdHandle * h, uint64_t len, uint64_t at, NbdLibExtents extents, NbdLibDone done,          \
       uint32_t flags))

typedef struct NbdLib {
#define F(type, name, args) type(*name) args;
    NBD_LIB_FUNCTIONS(F)
#undef F
    gint refs; /* atomic */
} NbdLib;

/**
 * nbd_lib_new() - The functions of libnbd, which is loaded now if it is not yet
 * Return: transfer full; NULL with LODGE_ERROR_UNSUPPORTED that names the package.
 */
NbdLib *nbd_lib_new(GError **error);
NbdLib *nbd_lib_ref(NbdLib *lib);
/* Any thread; NULL is fine. */
void nbd_lib_unref(NbdLib *lib);

#endif
