/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The rules of blkdebug, apart from the node that obeys them: what an event does, which
 * request fails, and the config file that rules come from.
 */
#ifndef BLOCK_DRIVER_BLKDEBUG_H
#define BLOCK_DRIVER_BLKDEBUG_H

#include "block/driver.h"

#define DEBUG_CONFIG_MAX (1 * MiB) /* bytes of a config file */
#define DEBUG_RULES_MAX 10000

typedef enum DebugAction {
    DEBUG_INJECT,
    DEBUG_SET_STATE,
    DEBUG_BREAK,
} DebugAction;

typedef struct DebugRule {
    ListLink link;   /* DebugRules.of[event] */
    ListLink active; /* DebugRules.active */
    DebugAction action;
    BlkdebugEvent event;
    int64_t state; /* 0: any */
    /* DEBUG_INJECT */
    unsigned iotypes; /* bits by BlkdebugIOType */
    int64_t error;    /* positive errno; others strike without effect */
    int64_t sector;   /* -1: all */
    bool once, immediately;
    /* DEBUG_SET_STATE */
    int64_t new_state;
    /* DEBUG_BREAK */
    char *tag;
} DebugRule;

typedef struct DebugRules {
    ListLink of[BLKDEBUG_EVENT__MAX];
    ListLink active; /* what the last event that injects has put into force */
    int64_t state;
    unsigned count;
} DebugRules;

void debug_rules_init(DebugRules *rules);
void debug_rules_fini(DebugRules *rules);
/* A copy of @rule, behind those of its event; NULL when there are too many. */
DebugRule *debug_rule_add(DebugRules *rules, const DebugRule *rule);
void debug_rule_free(DebugRules *rules, DebugRule *rule);

/* @event happens: change the state and what is in force. The tag of a breakpoint, which is
 * gone then (the caller frees it), or NULL. */
char *debug_rules_event(DebugRules *rules, BlkdebugEvent event);
/* Does a request fail? 0 or -errno, and whether it fails at once. */
int debug_rules_strike(DebugRules *rules, BlkdebugIOType iotype, uint64_t offset,
                       uint64_t len, bool *ret_immediately);

/* Add the rules of a config file's text. */
bool debug_rules_parse(DebugRules *rules, const char *text, GError **errp);
/* Add those of blockdev-add. */
bool debug_rules_from_options(DebugRules *rules, const BlockdevOptionsBlkdebug *o,
                              GError **errp);

#endif
