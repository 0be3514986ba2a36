/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Commands that look at the screen. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lodge/error.h"

#include "control_internal.h"

static Display *display_of(Control *c, GError **error)
{
    if (!c->config.display)
        lodge_fail(error, LODGE_ERROR_STATE, "There is no console to take a screendump from");
    return c->config.display;
}

/* Only into a plain file: what would block stands still for the whole machine. */
static bool write_file(const char *path, GBytes *bytes, GError **error)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0666);
    struct stat st;
    if (fd < 0)
        return lodge_fail_errno(error, errno, "failed to open file '%s'", path);
    bool ok = false;
    gsize len;
    const char *data = g_bytes_get_data(bytes, &len);
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        lodge_fail(error, LODGE_ERROR_CONFIG, "'%s' is not a plain file", path);
    } else if (ftruncate(fd, 0) < 0) {
        lodge_fail_errno(error, errno, "'%s': cannot be emptied", path);
    } else {
        ssize_t n = 1;
        while (len && n > 0) {
            n = write(fd, data, len);
            if (n > 0) {
                data += n;
                len -= (gsize)n;
            }
        }
        ok = !len || lodge_fail_errno(error, n < 0 ? errno : ENOSPC, "'%s': cannot be written",
                                      path);
    }
    close(fd);
    return ok;
}

bool control_screendump(Control *c, const char *filename, const char *format, GError **error)
{
    Display *d = display_of(c, error);
    if (!d)
        return false;
    g_autoptr(GBytes) bytes =
        format && !strcmp(format, "png") ? picture_png(d, error) : picture_ppm(d, error);
    return bytes && write_file(filename, bytes, error);
}

COMMAND_FN(cmd_screendump)
{
    return control_screendump(c, jv_text(jv_get(args, "filename")),
                              jv_text(jv_get(args, "format")), error);
}

COMMAND_FN(cmd_screen_text)
{
    Display *d = display_of(c, error);
    if (!d)
        return false;
    g_autofree char *text = display_text(d);
    if (!text)
        return lodge_fail(error, LODGE_ERROR_STATE, "the screen is in a graphics mode");
    JsonOut *out = control_return(r);
    json_object(out, "return");
    json_string(out, "text", text);
    json_end(out);
    return true;
}
