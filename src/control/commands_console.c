/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Commands about the first serial port: who looks at it, and who of them types. */
#include <unistd.h>

#include "lodge/error.h"

#include "control_internal.h"

COMMAND_FN(cmd_console)
{
    unsigned id = 0;
    bool writes = false;
    int fd = control_fds_take_connection(r->fds, jv_text(jv_get(args, "fdname")), error);
    if (fd < 0)
        return false;
    if (!c->config.add_console) {
        close(fd);
        return lodge_fail(error, LODGE_ERROR_STATE, "there is no serial port");
    }
    if (!c->config.add_console(c->config.opaque, fd, jv_bool(jv_get(args, "write")), &id, &writes,
                               error))
        return false;
    JsonOut *out = control_return(r);
    json_object(out, "return");
    json_number(out, "id", id);
    json_bool(out, "writes", writes);
    json_bool(out, "terminal", c->config.console_on_terminal);
    json_end(out);
    return true;
}

COMMAND_FN(cmd_console_take)
{
    int64_t id = jv_int(jv_get(args, "id"));
    if (!c->config.take_console || id < 1 || id > G_MAXUINT)
        return lodge_fail(error, LODGE_ERROR_NOT_FOUND, "Console '%" PRIi64 "' not found", id);
    return c->config.take_console(c->config.opaque, (unsigned)id, error);
}
