/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Commands about the machine as a whole: its life, and what it is. */
#include "lodge/error.h"

#include "control_internal.h"

COMMAND_FN(cmd_query_version)
{
    qmp_print_version(control_return(r), "return");
    return true;
}

COMMAND_FN(cmd_query_commands)
{
    JsonOut *out = control_return(r);
    json_array(out, "return");
    json_object(out, NULL);
    json_string(out, "name", command_negotiate.name);
    json_end(out);
    for (const Command *cmd = command_table; cmd->name; cmd++) {
        json_object(out, NULL);
        json_string(out, "name", cmd->name);
        json_end(out);
    }
    json_end(out);
    return true;
}

/* RunState of QEMU's run-state.json. */
static const char *const states[] = {
    [MACHINE_BUILT] = "prelaunch",
    [MACHINE_RUNNING] = "running",
    [MACHINE_PAUSED] = "paused",
    [MACHINE_ENDED] = "shutdown",
};

COMMAND_FN(cmd_query_status)
{
    Machine *m = control_machine(c, error);
    if (!m)
        return false;
    JsonOut *out = control_return(r);
    json_object(out, "return");
    json_string(out, "status",
                machine_stalled(m)      ? "io-error"
                : machine_paused_by(m) ? machine_paused_by(m)
                                       : states[machine_state(m)]);
    json_bool(out, "singlestep", false);
    json_bool(out, "running", machine_state(m) == MACHINE_RUNNING);
    json_end(out);
    return true;
}

COMMAND_FN(cmd_query_name)
{
    JsonOut *out = control_return(r);
    json_object(out, "return");
    if (c->config.name)
        json_string(out, "name", c->config.name);
    json_end(out);
    return true;
}

COMMAND_FN(cmd_query_uuid)
{
    JsonOut *out = control_return(r);
    json_object(out, "return");
    json_string(out, "UUID",
                c->config.uuid ? c->config.uuid : "00000000-0000-0000-0000-000000000000");
    json_end(out);
    return true;
}

COMMAND_FN(cmd_query_kvm)
{
    JsonOut *out = control_return(r);
    json_object(out, "return");
    json_bool(out, "enabled", true);
    json_bool(out, "present", true);
    json_end(out);
    return true;
}

COMMAND_FN(cmd_stop)
{
    Machine *m = control_machine(c, error);
    if (!m)
        return false;
    return machine_state(m) == MACHINE_PAUSED || machine_pause(m, error);
}

COMMAND_FN(cmd_cont)
{
    Machine *m = control_machine(c, error);
    if (!m)
        return false;
    if (machine_state(m) == MACHINE_ENDED)
        return lodge_fail(error, LODGE_ERROR_STATE, "the machine has ended");
    machine_resume(m);
    return true;
}

COMMAND_FN(cmd_powerdown)
{
    Machine *m = control_machine(c, error);
    if (!m)
        return false;
    machine_power_button(m);
    return true;
}

static void forget_reset(ControlReply *r)
{
    Control *c = r->opaque;
    (void)g_ptr_array_remove(c->resets, r);
}

COMMAND_FN(cmd_reset)
{
    Machine *m = control_machine(c, error);
    if (!m)
        return false;
    if (machine_state(m) == MACHINE_RUNNING) { /* a paused machine is reset when it goes on */
        g_ptr_array_add(c->resets, r);
        control_reply_later(r, forget_reset, c);
    }
    machine_reset(m);
    return true;
}

COMMAND_FN(cmd_quit)
{
    Machine *m = control_machine(c, error);
    if (!m)
        return false;
    c->end_reason = "host-qmp-quit";
    machine_kill(m, 0);
    return true;
}
