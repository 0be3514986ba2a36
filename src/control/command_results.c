/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What commands answer, as query-qmp-schema tells it: of each object the members that are sent,
 * with the names and kinds of QEMU's (QAPI schema of 7.2) where a command of QEMU's is meant. A member
 * that is not sent each time is optional.
 */
#include "command_results.h"

#define INT(name) {name, ARG_INT}
#define BOOL(name) {name, ARG_BOOL}
#define STRING(name) {name, ARG_STRING}
#define ENUM(name, which) {name, ARG_STRING, .values = (which)}
#define OBJECT(name, members) {name, ARG_OBJECT, .of = (members)}
#define LIST(name, members) {name, ARG_ARRAY, .of = (members)}
#define END {NULL}

const CommandArg result_any = {.kind = ARG_ANY}, result_string = {.kind = ARG_STRING};

/* ---- the machine ---- */

static const char *const states[] = {"running", "paused", "prelaunch", "io-error", "shutdown",
                                     "guest-panicked", "watchdog", NULL};
const CommandArg status_result[] = {
    ENUM("status", states), BOOL("singlestep"), BOOL("running"), END};
const CommandArg kvm_result[] = {BOOL("enabled"), BOOL("present"), END};
const CommandArg name_result[] = {{"name", ARG_STRING, true}, END};
const CommandArg uuid_result[] = {STRING("UUID"), END};
const CommandArg balloon_result[] = {INT("actual"), END};
const CommandArg memory_result[] = {
    INT("base-memory"), {"plugged-memory", ARG_INT, true}, END};
const CommandArg target_result[] = {STRING("arch"), END};
const CommandArg current_machine_result[] = {BOOL("wakeup-suspend-support"), END};
const CommandArg machine_result[] = {
    BOOL("hotpluggable-cpus"),
    STRING("name"),
    BOOL("numa-mem-supported"),
    {"default-cpu-type", ARG_STRING, true},
    INT("cpu-max"),
    {"is-default", ARG_BOOL, true},
    BOOL("deprecated"),
    END,
};

static const char *const targets[] = {"x86_64", NULL};
static const CommandArg cpu_props[] = {
    {"core-id", ARG_INT, true},
    {"thread-id", ARG_INT, true},
    {"socket-id", ARG_INT, true},
    END,
};
const CommandArg cpu_result[] = {
    INT("thread-id"),
    {"props", ARG_OBJECT, true, .of = cpu_props},
    STRING("qom-path"),
    INT("cpu-index"),
    ENUM("target", targets),
    END,
};

/* ---- the protocol ---- */

static const CommandArg version_triple[] = {INT("micro"), INT("minor"), INT("major"), END};
const CommandArg version_result[] = {OBJECT("qemu", version_triple), STRING("package"), END};
const CommandArg command_result[] = {STRING("name"), END};

/* The kinds of entries have members of their own; here all of them are optional. */
static const char *const meta_types[] = {"command", "event", "object", "enum",
                                         "array", "builtin", NULL};
static const CommandArg schema_member[] = {
    STRING("name"),
    {"default", ARG_ANY, true},
    {"type", ARG_STRING, true},
    END,
};
const CommandArg schema_result[] = {
    STRING("name"),
    ENUM("meta-type", meta_types),
    {"arg-type", ARG_STRING, true},
    {"ret-type", ARG_STRING, true},
    {"allow-oob", ARG_BOOL, true},
    {"members", ARG_ARRAY, true, .of = schema_member},
    {"values", ARG_ARRAY, true, .of = command_strings},
    {"element-type", ARG_STRING, true},
    {"json-type", ARG_STRING, true},
    END,
};

/* ---- disks ---- */

static const char *const zeroes[] = {"off", "on", "unmap", NULL};
static const CommandArg image[] = {
    STRING("filename"),
    STRING("format"),
    INT("virtual-size"),
    {"backing-filename", ARG_STRING, true},
    {"backing-filename-format", ARG_STRING, true},
    {"backing-image", ARG_OBJECT, true, .of = image},
    END,
};
static const CommandArg cache[] = {BOOL("writeback"), BOOL("direct"), BOOL("no-flush"), END};
const CommandArg node_result[] = {
    INT("bps"), INT("bps_rd"), INT("bps_wr"), INT("iops"), INT("iops_rd"), INT("iops_wr"),
    ENUM("detect_zeroes", zeroes),
    OBJECT("cache", cache),
    BOOL("encrypted"),
    INT("write_threshold"),
    BOOL("ro"),
    STRING("drv"),
    {"node-name", ARG_STRING, true},
    STRING("file"),
    {"backing_file", ARG_STRING, true},
    INT("backing_file_depth"),
    OBJECT("image", image),
    END,
};
const CommandArg block_result[] = {
    STRING("device"),
    BOOL("locked"),
    BOOL("removable"),
    {"inserted", ARG_OBJECT, true, .of = node_result},
    {"qdev", ARG_STRING, true},
    STRING("type"),
    END,
};

static const CommandArg blockstats[] = {
    INT("rd_operations"), INT("failed_rd_operations"), INT("invalid_rd_operations"),
    INT("rd_bytes"), INT("rd_merged"), INT("rd_total_time_ns"),
    INT("wr_operations"), INT("failed_wr_operations"), INT("invalid_wr_operations"),
    INT("wr_bytes"), INT("wr_merged"), INT("wr_total_time_ns"),
    INT("flush_operations"), INT("failed_flush_operations"), INT("invalid_flush_operations"),
    INT("flush_total_time_ns"),
    INT("unmap_operations"), INT("failed_unmap_operations"), INT("invalid_unmap_operations"),
    INT("unmap_bytes"), INT("unmap_merged"), INT("unmap_total_time_ns"),
    INT("wr_highest_offset"),
    BOOL("account_invalid"),
    BOOL("account_failed"),
    {"timed_stats", ARG_ARRAY}, /* always empty */
    END,
};
const CommandArg blockstats_result[] = {
    {"device", ARG_STRING, true},
    OBJECT("stats", blockstats),
    {"node-name", ARG_STRING, true},
    {"qdev", ARG_STRING, true},
    END,
};

static const char *const job_states[] = {"running", "ready", "concluded", NULL};
static const char *const job_types[] = {"commit", NULL};
static const char *const io_states[] = {"ok", NULL};
const CommandArg block_job_result[] = {
    STRING("device"),
    INT("len"),
    INT("offset"),
    INT("speed"),
    STRING("type"),
    ENUM("status", job_states),
    ENUM("io-status", io_states),
    BOOL("ready"),
    BOOL("busy"),
    BOOL("paused"),
    BOOL("auto-finalize"),
    BOOL("auto-dismiss"),
    END,
};
const CommandArg job_result[] = {
    STRING("id"),
    ENUM("type", job_types),
    ENUM("status", job_states),
    INT("current-progress"),
    INT("total-progress"),
    END,
};

/* ---- other hardware ---- */

static const CommandArg pci_class[] = {INT("class"), {"desc", ARG_STRING, true}, END};
static const CommandArg pci_id[] = {
    INT("device"),
    {"subsystem-vendor", ARG_INT, true},
    INT("vendor"),
    {"subsystem", ARG_INT, true},
    END,
};
static const CommandArg pci_region[] = {
    {"prefetch", ARG_BOOL, true},
    {"mem_type_64", ARG_BOOL, true},
    INT("bar"),
    INT("size"),
    INT("address"),
    STRING("type"),
    END,
};
static const CommandArg pci_function[] = {
    INT("irq_pin"),
    INT("bus"),
    STRING("qdev_id"),
    {"irq", ARG_INT, true},
    INT("slot"),
    OBJECT("class_info", pci_class),
    OBJECT("id", pci_id),
    INT("function"),
    LIST("regions", pci_region),
    END,
};
const CommandArg pci_result[] = {INT("bus"), LIST("devices", pci_function), END};

const CommandArg chardev_result[] = {
    BOOL("frontend-open"), STRING("filename"), STRING("label"), END};
const CommandArg property_result[] = {
    {"default-value", ARG_ANY, true},
    STRING("name"),
    {"description", ARG_STRING, true},
    STRING("type"),
    END,
};
/* Where it is, where it can be said; its properties have the names of its class. */
const CommandArg device_result[] = {
    STRING("id"),
    STRING("class"),
    {"bus", ARG_ANY},
    STRING("help"),
    {"address", ARG_ANY},
    {"properties", ARG_ANY},
    END,
};
const CommandArg description_result[] = {STRING("tree"), END};

/* ---- the screen ---- */

static const char *const families[] = {"ipv4", "ipv6", "unix", NULL};
static const char *const auths[] = {"none", "vnc", NULL};
#define PLACE STRING("host"), ENUM("family", families), STRING("service")
static const CommandArg viewer[] = {PLACE, BOOL("websocket"), END};
static const CommandArg vnc_socket[] = {ENUM("auth", auths), PLACE, BOOL("websocket"), END};
const CommandArg vnc_result[] = {
    BOOL("enabled"),
    {"auth", ARG_STRING, true},
    {"host", ARG_STRING, true},
    {"family", ARG_STRING, true, families},
    {"service", ARG_STRING, true},
    {"clients", ARG_ARRAY, true, .of = viewer},
    END,
};
const CommandArg vnc_server_result[] = {
    ENUM("auth", auths),
    LIST("clients", viewer),
    LIST("server", vnc_socket),
    STRING("id"),
    END,
};
const CommandArg screen_text_result[] = {STRING("text"), END};

/* ---- networks ---- */

#define COUNTERS                                                                                   \
    INT("rx-frames"), INT("rx-bytes"), INT("rx-dropped"), INT("tx-frames"), INT("tx-bytes"),       \
        INT("tx-dropped")
static const char *const filter_actions[] = {"allow", "deny", NULL};
static const CommandArg net_drop[] = {STRING("reason"), INT("frames"), END};
static const CommandArg net_address[] = {STRING("address"), STRING("mac"), STRING("how"), END};
static const char *const transports[] = {"tcp", "udp", NULL};
static const CommandArg net_forward[] = {
    ENUM("protocol", transports),
    STRING("host"),
    INT("host-port"),
    {"guest", ARG_STRING, true},
    INT("guest-port"),
    END,
};
static const CommandArg net_queue[] = {BOOL("used"), COUNTERS, END};
static const CommandArg net_rule[] = {
    {"line", ARG_INT, true},
    STRING("rule"),
    ENUM("action", filter_actions),
    INT("frames"),
    INT("bytes"),
    END,
};
static const CommandArg net_filter[] = {STRING("name"), LIST("rules", net_rule), END};
const CommandArg net_result[] = {
    STRING("id"),
    STRING("driver"),
    STRING("to"),
    BOOL("link"),
    {"device", ARG_STRING, true},
    {"model", ARG_STRING, true},
    {"mac", ARG_STRING, true},
    COUNTERS,
    {"queues", ARG_ARRAY, true, .of = net_queue},
    LIST("drops", net_drop),
    LIST("addresses", net_address),
    {"forwards", ARG_ARRAY, true, .of = net_forward},
    {"filter", ARG_OBJECT, true, .of = net_filter},
    END,
};
const CommandArg hostfwd_result[] = {STRING("host"), END};

/* ---- the guest ---- */

static const CommandArg balloon[] = {
    INT("ram"), INT("actual"), INT("wanted"), BOOL("driver"), INT("inflated"), INT("reported"),
    INT("stats-at"),
    {"stats", ARG_ANY}, /* what the guest tells, by the names of virtio's tags */
    END,
};
const CommandArg stats_result[] = {
    INT("exits"),
    INT("rx-bytes"),
    INT("tx-bytes"),
    {"balloon", ARG_OBJECT, true, .of = balloon},
    END,
};
const CommandArg console_result[] = {INT("id"), BOOL("writes"), BOOL("terminal"), END};
const CommandArg gdb_result[] = {STRING("address"), END};
