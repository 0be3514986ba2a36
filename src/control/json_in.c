/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A window on json-glib 1.0's tree of nodes, with the functions that are used declared here.
 *
 * The library registers types of GObject, so it stays loaded once it was; several users of one
 * process share it. Its printer is not used: QMP wants another spelling (json_out.h).
 */
#include "json_in.h"

#include <glib-object.h> /* G_TYPE_* are constants; nothing of it is linked */

#include "lodge/dynlib.h"
#include "lodge/error.h"

#define SONAME "libjson-glib-1.0.so.0"
#define PACKAGE "libjson-glib-1.0-0"

/* JsonNodeType of json-types.h. */
enum { NODE_OBJECT, NODE_ARRAY, NODE_VALUE, NODE_NULL };

struct Json {
    void *(*from_string)(const char *text, GError **error);
    void (*unref)(void *node);
    int (*node_type)(void *node);
    GType (*value_type)(void *node);
    void *(*get_object)(void *node);
    void *(*get_array)(void *node);
    const char *(*get_string)(void *node);
    gint64 (*get_int)(void *node);
    double (*get_double)(void *node);
    gboolean (*get_boolean)(void *node);
    void *(*member)(void *object, const char *name);
    GList *(*members)(void *object);
    guint (*length)(void *array);
    void *(*element)(void *array, guint i);
};

static const DynSym functions[] = {
    {"json_from_string", offsetof(Json, from_string)},
    {"json_node_unref", offsetof(Json, unref)},
    {"json_node_get_node_type", offsetof(Json, node_type)},
    {"json_node_get_value_type", offsetof(Json, value_type)},
    {"json_node_get_object", offsetof(Json, get_object)},
    {"json_node_get_array", offsetof(Json, get_array)},
    {"json_node_get_string", offsetof(Json, get_string)},
    {"json_node_get_int", offsetof(Json, get_int)},
    {"json_node_get_double", offsetof(Json, get_double)},
    {"json_node_get_boolean", offsetof(Json, get_boolean)},
    {"json_object_get_member", offsetof(Json, member)},
    {"json_object_get_members", offsetof(Json, members)},
    {"json_array_get_length", offsetof(Json, length)},
    {"json_array_get_element", offsetof(Json, element)},
};

Json *json_load(GError **error)
{
    DynLib *lib = dynlib_open(SONAME, PACKAGE, error);
    if (!lib)
        return NULL;
    g_autoptr(Json) j = g_new0(Json, 1);
    bool ok = dynlib_syms(lib, functions, G_N_ELEMENTS(functions), j, error);
    dynlib_keep(lib);
    return ok ? g_steal_pointer(&j) : NULL;
}

void json_unload(Json *j)
{
    g_free(j);
}

Jv jv_parse(const Json *j, const char *text, GError **error)
{
    g_autoptr(GError) why = NULL;
    Jv v = {j, j->from_string(text, &why)};
    if (!v.node)
        lodge_fail(error, LODGE_ERROR_CONFIG, "JSON parse error, %s",
                   why ? why->message : "expecting value");
    return v;
}

void jv_free(Jv v)
{
    if (v.node)
        v.json->unref(v.node);
}

void jv_clear(Jv *v)
{
    jv_free(*v);
    v->node = NULL;
}

JvKind jv_kind(Jv v)
{
    if (!v.node)
        return JV_ABSENT;
    switch (v.json->node_type(v.node)) {
    case NODE_OBJECT:
        return JV_OBJECT;
    case NODE_ARRAY:
        return JV_ARRAY;
    case NODE_VALUE:
        break;
    default:
        return JV_NULL;
    }
    GType type = v.json->value_type(v.node);
    return type == G_TYPE_BOOLEAN ? JV_BOOL
           : type == G_TYPE_INT64 ? JV_INT
           : type == G_TYPE_DOUBLE ? JV_DOUBLE
                                   : JV_STRING;
}

Jv jv_get(Jv v, const char *name)
{
    Jv member = {v.json, NULL};
    if (jv_kind(v) == JV_OBJECT)
        member.node = v.json->member(v.json->get_object(v.node), name);
    return member;
}

size_t jv_length(Jv v)
{
    return jv_kind(v) == JV_ARRAY ? v.json->length(v.json->get_array(v.node)) : 0;
}

Jv jv_at(Jv v, size_t i)
{
    Jv element = {v.json, NULL};
    if (i < jv_length(v))
        element.node = v.json->element(v.json->get_array(v.node), (guint)i);
    return element;
}

GList *jv_names(Jv v)
{
    return jv_kind(v) == JV_OBJECT ? v.json->members(v.json->get_object(v.node)) : NULL;
}

const char *jv_text(Jv v)
{
    return jv_kind(v) == JV_STRING ? v.json->get_string(v.node) : NULL;
}

int64_t jv_int(Jv v)
{
    JvKind kind = jv_kind(v);
    if (kind == JV_INT)
        return v.json->get_int(v.node);
    if (kind != JV_DOUBLE)
        return 0;
    double d = v.json->get_double(v.node);
    return d >= -0x1p62 && d <= 0x1p62 ? (int64_t)d : 0;
}

bool jv_bool(Jv v)
{
    return jv_kind(v) == JV_BOOL && v.json->get_boolean(v.node);
}

/* Recursion is bounded by JSON_SCAN_DEPTH. */
void jv_print(Jv v, JsonOut *out, const char *key)
{
    switch (jv_kind(v)) {
    case JV_ABSENT:
    case JV_NULL:
        json_null(out, key);
        break;
    case JV_BOOL:
        json_bool(out, key, jv_bool(v));
        break;
    case JV_INT:
        json_number(out, key, jv_int(v));
        break;
    case JV_DOUBLE:
        json_double(out, key, v.json->get_double(v.node));
        break;
    case JV_STRING:
        json_string(out, key, jv_text(v));
        break;
    case JV_ARRAY:
        json_array(out, key);
        for (size_t i = 0, n = jv_length(v); i < n; i++)
            jv_print(jv_at(v, i), out, NULL);
        json_end(out);
        break;
    case JV_OBJECT: {
        GList *names = jv_names(v);
        json_object(out, key);
        for (GList *n = names; n; n = n->next)
            jv_print(jv_get(v, n->data), out, n->data);
        json_end(out);
        g_list_free(names);
        break;
    }
    }
}
