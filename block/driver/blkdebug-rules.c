/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * blkdebug's rules: a small state machine, without I/O.
 *
 * R1 an event changes what is in force only when one of its own rules injects: an error
 *    that was put into force stays, for all later requests, until another comes;
 * R2 all rules of an event see the state as it was before the event.
 */
#include <string.h>

#include "block/base/error.h"
#include "block/base/math.h"
#include "block/driver/blkdebug.h"

void debug_rules_init(DebugRules *rules)
{
    for (int i = 0; i < BLKDEBUG_EVENT__MAX; i++) {
        list_init(&rules->of[i]);
    }
    list_init(&rules->active);
    rules->state = 1;
    rules->count = 0;
}

void debug_rules_fini(DebugRules *rules)
{
    for (int i = 0; i < BLKDEBUG_EVENT__MAX; i++) {
        while (!list_empty(&rules->of[i])) {
            debug_rule_free(rules, list_first(&rules->of[i], DebugRule, link));
        }
    }
}

DebugRule *debug_rule_add(DebugRules *rules, const DebugRule *rule)
{
    if (rules->count >= DEBUG_RULES_MAX) {
        return NULL;
    }
    DebugRule *copy = g_memdup(rule, sizeof(*rule));
    copy->tag = g_strdup(rule->tag);
    list_init(&copy->active);
    list_append(&rules->of[rule->event], &copy->link);
    rules->count++;
    return copy;
}

void debug_rule_free(DebugRules *rules, DebugRule *rule)
{
    list_remove(&rule->link);
    list_remove(&rule->active);
    rules->count--;
    g_free(rule->tag);
    g_free(rule);
}

static void put_into_force(DebugRules *rules, DebugRule *rule, bool *first)
{
    while (*first && !list_empty(&rules->active)) {
        list_remove(&list_first(&rules->active, DebugRule, active)->active);
    }
    *first = false;
    list_append(&rules->active, &rule->active);
}

char *debug_rules_event(DebugRules *rules, BlkdebugEvent event)
{
    int64_t new_state = rules->state;
    bool first = true;
    char *tag = NULL;

    list_foreach_safe(it, next, &rules->of[event]) {
        DebugRule *rule = container_of(it, DebugRule, link);
        if (rule->state && rule->state != rules->state) {
            continue;
        }
        switch (rule->action) {
        case DEBUG_INJECT:
            put_into_force(rules, rule, &first);
            break;
        case DEBUG_SET_STATE:
            new_state = rule->new_state;
            break;
        case DEBUG_BREAK:
            if (!tag) {
                tag = g_steal_pointer(&rule->tag);
                debug_rule_free(rules, rule);
            }
            break;
        }
    }
    rules->state = new_state;
    return tag;
}

static bool strikes(const DebugRule *rule, BlkdebugIOType iotype, uint64_t offset,
                    uint64_t len)
{
    if (!(rule->iotypes & (1u << iotype))) {
        return false;
    }
    if (rule->sector == -1) {
        return true;
    }
    return rule->sector >= 0 && (uint64_t)rule->sector >= offset / 512 &&
           (uint64_t)rule->sector < div_round_up(offset + len, 512) && len > 0;
}

int debug_rules_strike(DebugRules *rules, BlkdebugIOType iotype, uint64_t offset,
                       uint64_t len, bool *ret_immediately)
{
    list_foreach(it, &rules->active) {
        DebugRule *rule = container_of(it, DebugRule, active);
        if (strikes(rule, iotype, offset, len)) {
            int error = rule->error > 0 && rule->error <= INT32_MAX ? (int)rule->error : 0;
            *ret_immediately = rule->immediately;
            if (rule->once) {
                debug_rule_free(rules, rule);
            }
            return -error;
        }
    }
    return 0;
}
