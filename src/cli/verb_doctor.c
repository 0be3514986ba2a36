/* SPDX-License-Identifier: GPL-2.0-or-later */
/* "lodge doctor": run the checks in the order of their table, one line each. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "doctor.h"
#include "lodge/json_out.h"

const OptSpec doctor_options_table[] = {OPT_JSON, {NULL}};

/* "kvm" stands first: others use the descriptor that it opens. */
const DoctorCheck doctor_checks[] = {
    {"kvm", "/dev/kvm is there and can be opened", check_kvm},
    {"kvm-capabilities", "what KVM offers of what Lodge uses", check_kvm_capabilities},
    {"assist", "guest kernel mode runs on the CPU or is emulated", check_assist},
    {"nested", "guests can run guests", check_nested},
    {"tun", "taps can be made", check_tun},
    {"huge-pages", "reserved huge pages", check_huge_pages},
    {"thp", "transparent huge pages", check_thp},
    {"memory", "memory for guests", check_memory},
    {"disk", "room for overlays and caches", check_disk},
    {"firmware", "firmware files", check_firmware},
    {"libraries", "libraries that are loaded at first use", check_libraries},
    {"io-uring", "io_uring for disks", check_io_uring},
    {NULL},
};

static const struct {
    const char *name, *colour;
} statuses[] = {
    [CHECK_OK] = {"ok", "\033[32m"},
    [CHECK_WARNING] = {"warning", "\033[33m"},
    [CHECK_FAIL] = {"fail", "\033[31m"},
};

const char *check_status_name(CheckStatus s)
{
    return statuses[s].name;
}

void check_set(CheckResult *ret, CheckStatus status, const char *fix, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    ret->status = status;
    ret->detail = g_strdup_vprintf(fmt, ap);
    ret->fix = g_strdup(fix);
    va_end(ap);
}

void check_clear(CheckResult *r)
{
    g_clear_pointer(&r->detail, g_free);
    g_clear_pointer(&r->fix, g_free);
}

char *doctor_path(const DoctorHost *h, const char *path)
{
    return g_strconcat(h->root, path, NULL);
}

char *doctor_read(const DoctorHost *h, const char *path)
{
    g_autofree char *full = doctor_path(h, path);
    char *text;

    return g_file_get_contents(full, &text, NULL, NULL) ? g_strchomp(text) : NULL;
}

static void print_line(const DoctorCheck *c, const CheckResult *r, bool colour)
{
    printf("%s%-8s%s%s: %s%s%s\n", colour ? statuses[r->status].colour : "",
           check_status_name(r->status), colour ? "\033[0m" : "", c->name, r->detail,
           r->fix ? "; " : "", r->fix ? r->fix : "");
}

static void add_json(JsonOut *j, const DoctorCheck *c, const CheckResult *r)
{
    json_object(j, NULL);
    json_string(j, "name", c->name);
    json_string(j, "status", check_status_name(r->status));
    json_string(j, "detail", r->detail);
    json_string(j, "fix", r->fix);
    json_end(j);
}

int verb_doctor(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Options) o = options_parse(self->opts, argc, argv, 0, &error);
    const char *no_colour = getenv("NO_COLOR");
    bool colour = isatty(STDOUT_FILENO) && !(no_colour && no_colour[0]);
    DoctorHost host = {.root = "", .kvm_fd = -1};
    g_autoptr(JsonOut) j = json_out_new();
    bool failed = false;

    if (!o)
        return cli_fail(self->name, error, false);
    json_object(j, NULL);
    json_number(j, "schema", 1);
    json_array(j, "checks");
    for (const DoctorCheck *c = doctor_checks; c->name; c++) {
        CheckResult r = {0};

        c->run(&host, &r);
        failed = failed || r.status == CHECK_FAIL;
        if (options_has(o, "json"))
            add_json(j, c, &r);
        else
            print_line(c, &r, colour);
        check_clear(&r);
    }
    if (host.kvm_fd >= 0)
        close(host.kvm_fd);
    if (options_has(o, "json"))
        fputs(json_text(j), stdout);
    return cli_finish(failed ? STATUS_FAILURE : STATUS_OK);
}
