/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From a request to its reply: check the frame, find the command, make its arguments,
 * take the graph lock where it is needed, run the handler, build the reply.
 *
 * compat: texts, error classes and the order of checks are those of QEMU 7.2, found by
 * asking its storage daemon.
 */
#include <string.h>

#include "block/base/error.h"
#include "qapi/qapi-commands.h"
#include "qapi/qapi-visit.h"
#include "qapi/tables.h"
#include "qdp/qmp/session.h"
#include "qdp/trace.h"

bool dispatch_is_oob(const QmpSession *s, const JsonValue *request)
{
    return s->oob && json_type(request) == JSON_OBJECT &&
           json_object_lookup(request, "exec-oob") &&
           !json_object_lookup(request, "execute");
}

static void set_id(JsonValue *reply, const JsonValue *request)
{
    const JsonValue *id = NULL;

    if (request && json_type(request) == JSON_OBJECT) {
        id = json_object_lookup(request, "id");
    }
    if (id) {
        json_object_set(reply, "id", json_copy(id));
    }
}

JsonValue *dispatch_error_reply(const JsonValue *request, const GError *error)
{
    JsonValue *reply = json_object(), *body = json_object();
    int error_class =
        error->domain == QDP_ERROR ? error->code : ERROR_CLASS_GENERIC_ERROR;

    set_id(reply, request);
    json_object_set_string(body, "class", error_class_name(error_class));
    json_object_set_string(body, "desc", error->message);
    json_object_set(reply, "error", body);
    return reply;
}

/* ---- the frame ---- */

static bool check_string(const JsonValue *value, const char *key, GError **errp)
{
    if (value && json_type(value) != JSON_STRING) {
        error_set(errp, "QMP input member '%s' must be a string", key);
        return false;
    }
    return true;
}

static bool check_member(const JsonValue *request, size_t i, bool oob, GError **errp)
{
    const char *key = json_object_key_at(request, i);
    const JsonValue *value = json_object_value_at(request, i);

    if (!strcmp(key, "id")) {
        return true;
    }
    if (!strcmp(key, "execute") || (oob && !strcmp(key, "exec-oob"))) {
        return check_string(value, key, errp);
    }
    if (!strcmp(key, "arguments")) {
        if (json_type(value) != JSON_OBJECT) {
            error_set(errp, "QMP input member 'arguments' must be an object");
            return false;
        }
        return true;
    }
    error_set(errp, "QMP input member '%s' is unexpected", key);
    return false;
}

/* The command's name (borrowed), or NULL and *errp. */
static const char *check_frame(const JsonValue *request, bool oob, GError **errp)
{
    const JsonValue *execute, *exec_oob;

    if (json_type(request) != JSON_OBJECT) {
        error_set(errp, "QMP input must be a JSON object");
        return NULL;
    }
    execute = json_object_lookup(request, "execute");
    exec_oob = oob ? json_object_lookup(request, "exec-oob") : NULL;
    if (execute && exec_oob) {
        error_set(errp, "QMP input member 'execute' clashes with 'exec-oob'");
        return NULL;
    }
    for (size_t i = 0; i < json_object_size(request); i++) {
        if (!check_member(request, i, oob, errp)) {
            return NULL;
        }
    }
    if (!execute && !exec_oob) {
        error_set(errp, "QMP input lacks member 'execute'");
        return NULL;
    }
    return json_get_string(execute ? execute : exec_oob);
}

static bool check_phase(const QmpSession *s, int command, GError **errp)
{
    if (!s->negotiated && command != QMP_COMMAND_QMP_CAPABILITIES) {
        error_set_class(errp, ERROR_CLASS_COMMAND_NOT_FOUND,
                        "Expecting capabilities negotiation with 'qmp_capabilities'");
        return false;
    }
    if (s->negotiated && command == QMP_COMMAND_QMP_CAPABILITIES) {
        error_set_class(
            errp, ERROR_CLASS_COMMAND_NOT_FOUND,
            "Capabilities negotiation is already complete, command ignored");
        return false;
    }
    return true;
}

/* The number of the command, or -1 and *errp. */
static int check_request(const QmpSession *s, const JsonValue *request, GError **errp)
{
    const char *name = check_frame(request, s->oob, errp);
    int command;

    if (!name) {
        return -1;
    }
    command = qapi_command_lookup(name);
    if (!check_phase(s, command, errp)) {
        return -1;
    }
    if (command < 0) {
        error_set_class(errp, ERROR_CLASS_COMMAND_NOT_FOUND,
                        "The command %s has not been found", name);
        return -1;
    }
    if (dispatch_is_oob(s, request) && !(qapi_commands[command].flags & QAPI_CMD_OOB)) {
        error_set(errp, "The command %s does not support OOB", name);
        return -1;
    }
    return command;
}

/* ---- running ---- */

/* The two that need the session, or JSON that no handler should have to type. */
static JsonValue *negotiate(QmpSession *s, const QmpCapabilitiesArgs *args)
{
    for (const QMPCapabilityList *it = args->enable; it; it = it->next) {
        s->oob |= it->value == QMP_CAPABILITY_OOB;
    }
    s->negotiated = true;
    return json_object();
}

static JsonValue *coroutine_fn co_run(QmpSession *s, const QapiCommand *c,
                                      const void *args, GError **errp)
{
    unsigned index = (unsigned)(c - qapi_commands);
    bool lock = !(c->flags & (QAPI_CMD_QUERY | QAPI_CMD_OOB)) || s->monitor->starting;
    JsonValue *result;
    void *value = NULL;
    bool ok;

    if (index == QMP_COMMAND_QMP_CAPABILITIES) {
        return negotiate(s, args);
    }
    if (index == QMP_COMMAND_QUERY_QMP_SCHEMA) {
        return qapi_introspect();
    }
    if (lock) {
        monitor_co_lock(s->monitor);
    }
    if (lock && s->monitor->ended) {
        error_set(errp, "The daemon is shutting down");
        ok = false;
    } else {
        ok = qapi_co_dispatch(index, args, &value, errp);
    }
    if (lock) {
        monitor_unlock(s->monitor);
    }
    if (!ok) {
        return NULL;
    }
    result = c->ret == QAPI_NO_TYPE ? json_object() : qapi_to_json(c->ret, value);
    if (c->ret != QAPI_NO_TYPE) {
        qapi_free(c->ret, value);
    }
    return result;
}

/* Arguments of a command that has none: an empty object or nothing. */
static bool check_no_args(const JsonValue *json, GError **errp)
{
    if (json && json_object_size(json)) {
        error_set(errp, "Parameter '%s' is unexpected", json_object_key_at(json, 0));
        return false;
    }
    return true;
}

static JsonValue *coroutine_fn co_execute(QmpSession *s, const JsonValue *request,
                                          GError **errp)
{
    int index = check_request(s, request, errp);
    g_autoptr(JsonValue) none = NULL;
    const JsonValue *json;
    const QapiCommand *c;
    JsonValue *result;
    void *args;

    if (index < 0) {
        return NULL;
    }
    c = &qapi_commands[index];
    json = json_object_lookup(request, "arguments");
    if (c->arg == QAPI_NO_TYPE) {
        return check_no_args(json, errp) ? co_run(s, c, NULL, errp) : NULL;
    }
    if (!json) {
        none = json_object();
        json = none;
    }
    args = qapi_from_json(c->arg, json, NULL, QAPI_STRICT, errp);
    if (!args) {
        return NULL;
    }
    result = co_run(s, c, args, errp);
    qapi_free(c->arg, args);
    return result;
}

static void trace_value(TraceEvent event, const QmpSession *s, const JsonValue *value)
{
    if (G_UNLIKELY(trace_mask & (1u << event))) {
        g_autofree char *text = json_to_string(value);
        trace_write(event, "fd=%d %s", s->fd, text);
    }
}

JsonValue *coroutine_fn dispatch_co_execute(QmpSession *s, const JsonValue *request)
{
    g_autoptr(GError) error = NULL;
    JsonValue *result, *reply;

    trace_value(TRACE_QMP_COMMAND, s, request);
    result = co_execute(s, request, &error);
    if (!result) {
        reply = dispatch_error_reply(request, error);
    } else {
        reply = json_object();
        json_object_set(reply, "return", result);
        set_id(reply, request);
    }
    trace_value(TRACE_QMP_REPLY, s, reply);
    return reply;
}
