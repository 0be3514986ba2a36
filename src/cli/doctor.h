/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_DOCTOR_H
#define LODGE_DOCTOR_H

/* Checks of the host: rows of one table, each fills in a result. */

#include <stdbool.h>

#include <glib.h>

typedef enum CheckStatus { CHECK_OK, CHECK_WARNING, CHECK_FAIL } CheckStatus;

/* Where the host's files are: "" but in tests, which bring a folder with their own. */
typedef struct DoctorHost {
    const char *root; /* borrowed; put before every path */
    int kvm_fd;       /* owned; -1: not open, set by the check "kvm" */
} DoctorHost;

typedef struct CheckResult {
    CheckStatus status;
    char *detail; /* owned; one line, never NULL after a check */
    char *fix;    /* owned; what to do, NULL where there is nothing */
} CheckResult;

typedef struct DoctorCheck {
    const char *name; /* NULL ends a table */
    const char *help; /* what it looks at */
    void (*run)(DoctorHost *h, CheckResult *ret);
} DoctorCheck;

extern const DoctorCheck doctor_checks[];

/* Fill in @ret; @fix may be NULL. Both are copied. */
void check_set(CheckResult *ret, CheckStatus status, const char *fix, const char *fmt, ...)
    G_GNUC_PRINTF(4, 5);
void check_clear(CheckResult *r);
const char *check_status_name(CheckStatus s); /* "ok", "warning", "fail" */

/* @path of the host; transfer full. */
char *doctor_path(const DoctorHost *h, const char *path);
/* First bytes of a small file of the host, blanks at the end cut; NULL: cannot be read. */
char *doctor_read(const DoctorHost *h, const char *path);

/* doctor_kvm.c */
void check_kvm(DoctorHost *h, CheckResult *ret);
void check_kvm_capabilities(DoctorHost *h, CheckResult *ret);
void check_assist(DoctorHost *h, CheckResult *ret);
void check_nested(DoctorHost *h, CheckResult *ret);
/* doctor_host.c */
void check_tun(DoctorHost *h, CheckResult *ret);
void check_huge_pages(DoctorHost *h, CheckResult *ret);
void check_thp(DoctorHost *h, CheckResult *ret);
void check_memory(DoctorHost *h, CheckResult *ret);
void check_disk(DoctorHost *h, CheckResult *ret);
void check_firmware(DoctorHost *h, CheckResult *ret);
void check_libraries(DoctorHost *h, CheckResult *ret);
void check_io_uring(DoctorHost *h, CheckResult *ret);

#endif
