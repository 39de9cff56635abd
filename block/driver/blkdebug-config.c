/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where blkdebug's rules come from: options, and config files, which are lines of
 *
 *     # a comment
 *     [inject-error]          or [inject-error "id"], or [set-state]
 *     event = "l2_load"
 *     once = "on"
 *
 * compat: messages are stock's.
 */
#include <errno.h>
#include <string.h>

#include "block/base/error.h"
#include "block/driver/blkdebug.h"

static const unsigned all_iotypes =
    1u << BLKDEBUG_IO_TYPE_READ | 1u << BLKDEBUG_IO_TYPE_WRITE |
    1u << BLKDEBUG_IO_TYPE_WRITE_ZEROES | 1u << BLKDEBUG_IO_TYPE_DISCARD |
    1u << BLKDEBUG_IO_TYPE_FLUSH;

static DebugRule rule_of(DebugAction action)
{
    return (DebugRule){.action = action,
                       .event = BLKDEBUG_EVENT__MAX,
                       .iotypes = all_iotypes,
                       .error = EIO,
                       .sector = -1};
}

static bool add(DebugRules *rules, const DebugRule *rule, GError **errp)
{
    if (!debug_rule_add(rules, rule)) {
        error_set(errp, "blkdebug: more than %d rules", DEBUG_RULES_MAX);
        return false;
    }
    return true;
}

/* ---- options ---- */

bool debug_rules_from_options(DebugRules *rules, const BlockdevOptionsBlkdebug *o,
                              GError **errp)
{
    for (const BlkdebugInjectErrorOptionsList *i = o->inject_error; i; i = i->next) {
        const BlkdebugInjectErrorOptions *v = i->value;
        DebugRule rule = rule_of(DEBUG_INJECT);
        rule.event = v->event;
        rule.state = v->has_state ? v->state : 0;
        rule.iotypes = v->has_iotype ? 1u << v->iotype : all_iotypes;
        rule.error = v->has_q_errno ? v->q_errno : EIO;
        rule.sector = v->has_sector ? v->sector : -1;
        rule.once = v->has_once && v->once;
        rule.immediately = v->has_immediately && v->immediately;
        if (!add(rules, &rule, errp)) {
            return false;
        }
    }
    for (const BlkdebugSetStateOptionsList *i = o->set_state; i; i = i->next) {
        const BlkdebugSetStateOptions *v = i->value;
        DebugRule rule = rule_of(DEBUG_SET_STATE);
        rule.event = v->event;
        rule.state = v->has_state ? v->state : 0;
        rule.new_state = v->new_state;
        if (!add(rules, &rule, errp)) {
            return false;
        }
    }
    return true;
}

/* ---- config files ---- */

static bool to_number(const char *key, const char *value, int64_t *ret, GError **errp)
{
    gint64 number;
    if (!g_ascii_string_to_signed(value, 10, INT64_MIN, INT64_MAX, &number, NULL)) {
        error_set(errp, "Parameter '%s' expects a number", key);
        return false;
    }
    *ret = number;
    return true;
}

static bool to_bool(const char *key, const char *value, bool *ret, GError **errp)
{
    *ret = strcmp(value, "on") == 0;
    if (!*ret && strcmp(value, "off") != 0) {
        error_set(errp, "Parameter '%s' expects 'on' or 'off'", key);
        return false;
    }
    return true;
}

static bool set_member(DebugRule *rule, const char *key, const char *value, GError **errp)
{
    bool injects = rule->action == DEBUG_INJECT;

    if (strcmp(key, "event") == 0) {
        if (!BlkdebugEvent_parse(value, &rule->event)) {
            error_set(errp, "invalid parameter value: %s", value);
            return false;
        }
        return true;
    }
    if (strcmp(key, "state") == 0) {
        return to_number(key, value, &rule->state, errp);
    }
    if (injects && strcmp(key, "errno") == 0) {
        return to_number(key, value, &rule->error, errp);
    }
    if (injects && strcmp(key, "sector") == 0) {
        return to_number(key, value, &rule->sector, errp);
    }
    if (injects && strcmp(key, "iotype") == 0) {
        BlkdebugIOType iotype;
        if (!BlkdebugIOType_parse(value, &iotype)) {
            error_set(errp, "invalid parameter value: %s", value);
            return false;
        }
        rule->iotypes = 1u << iotype;
        return true;
    }
    if (injects && strcmp(key, "once") == 0) {
        return to_bool(key, value, &rule->once, errp);
    }
    if (injects && strcmp(key, "immediately") == 0) {
        return to_bool(key, value, &rule->immediately, errp);
    }
    if (!injects && strcmp(key, "new_state") == 0) {
        return to_number(key, value, &rule->new_state, errp);
    }
    error_set(errp, "Invalid parameter '%s'", key);
    return false;
}

/* A rule of the last group is complete. */
static bool end_group(DebugRules *rules, const DebugRule *rule, GError **errp)
{
    if (rule->event == BLKDEBUG_EVENT__MAX) {
        error_set(errp, "Missing event name for rule");
        return false;
    }
    return add(rules, rule, errp);
}

static bool begin_group(DebugRule *rule, const char *line, GError **errp)
{
    g_autofree char *name = g_strndup(line + 1, strcspn(line + 1, "] "));

    if (strcmp(name, "inject-error") == 0) {
        *rule = rule_of(DEBUG_INJECT);
    } else if (strcmp(name, "set-state") == 0) {
        *rule = rule_of(DEBUG_SET_STATE);
    } else {
        error_set(errp, "There is no option group '%s'", name);
        return false;
    }
    if (!strchr(line, ']')) {
        error_set(errp, "Invalid parameter '%s'", line);
        return false;
    }
    return true;
}

/* key = "value"; what follows the second quote is passed over. */
static bool parse_member(DebugRule *rule, const char *line, GError **errp)
{
    const char *start = line + strspn(line, " \t");
    const char *equals = strchr(start, '=');
    const char *quote = equals ? equals + 1 + strspn(equals + 1, " \t") : NULL;
    const char *end = quote && *quote == '"' ? strchr(quote + 1, '"') : NULL;

    if (!end) {
        error_set(errp, "Invalid parameter '%s'", line);
        return false;
    }
    g_autofree char *key = g_strchomp(g_strndup(start, (gsize)(equals - start)));
    g_autofree char *value = g_strndup(quote + 1, (gsize)(end - quote - 1));
    return set_member(rule, key, value, errp);
}

bool debug_rules_parse(DebugRules *rules, const char *text, GError **errp)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    DebugRule rule;
    bool in_group = false;

    for (size_t i = 0; lines[i]; i++) {
        const char *line = g_strchomp(lines[i]);
        if (!line[0] || line[0] == '#') {
            continue;
        }
        if (line[0] == '[') {
            if ((in_group && !end_group(rules, &rule, errp)) ||
                !begin_group(&rule, line, errp)) {
                return false;
            }
            in_group = true;
        } else if (!in_group) {
            error_set(errp, "no group defined");
            return false;
        } else if (!parse_member(&rule, line, errp)) {
            return false;
        }
    }
    return !in_group || end_group(rules, &rule, errp);
}
