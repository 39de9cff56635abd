/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The proof of the detectors: each rule is switched off in turn, and the simulation must
 * notice in at least a tenth of the seeds of the rule's scenario (cut four times as often).
 */
#include <stdio.h>
#include <string.h>

#include "tests/sim/sim.h"

#define SEEDS  60u /* at most; measured rates are a tenth and more, chance has its share */
#define NEEDED 4u

typedef struct Proof {
    BlockBreak rule;
    const char *name;
    const char *scenario;
} Proof;

static const Proof proofs[] = {
    {BREAK_Q1, "q1", "order"},
    {BREAK_Q2, "q2", "copy-order"},
    {BREAK_Q2_ZERO, "q2-zero", "reuse"},
    {BREAK_Q3, "q3", "reuse-early"},
    {BREAK_Q4_TABLE, "q4-table", "shared-tables"},
    {BREAK_Q4_BLOCK, "q4-block", "order-tables"},
    {BREAK_Q4_REUSED, "q4-reused", "order-reused"},
    {BREAK_Q5, "q5", "allocate"},
    {BREAK_Q6, "q6", "reuse-slow"},
    {BREAK_SPACE, "space", "tight"},
    {BREAK_Q7, "q7", "failed-writes"},
    {BREAK_Q8, "q8", "start"},
    {BREAK_Q9, "q9", "rebase"},
    {BREAK_Q10, "q10", "order-tables"},
    {BREAK_Q11, "q11", "last-writer"},
    {BREAK_Q11_STALE, "q11-stale", "lend"},
    {BREAK_Q12, "q12", "order"},
    {BREAK_Q12_BITMAP, "q12-bitmap", "start"},
    {BREAK_Q12_TABLE, "q12-table", "rebase"},
    {BREAK_Q13, "q13", "failed-epochs"},
    {BREAK_Q13_SYNC, "q13-sync", "failed-syncs"},
    {BREAK_FUA, "fua", "fua"},
    {BREAK_ROOT, "root", "resize-failed"},
    {BREAK_COW_OVERLAP, "cow-overlap", "copy"},
    {BREAK_COW_OFFSET, "cow-offset", "copy"},
    {BREAK_COW_WIDE, "cow-wide", "copy-wide"},
    {BREAK_DISCARD_RACE, "discard-race", "discard-zero"},
    {BREAK_LATE_PUNCH, "late-punch", "reuse-early"},
    {BREAK_BLOCK_ON_DATA, "block-on-data", "order-tables"},
    {BREAK_L1_ENOSPC, "l1-enospc", "full"},
    {BREAK_TABLE_FREED, "table-freed", "order-tables"},
    {BREAK_NO_COPIED, "no-copied", "order"},
    {BREAK_REST_WAITS, "rest-waits", "two-disks"},
    {BREAK_REPAIR_WINDOW, "repair-window", "start"},
    {BREAK_STALE_TAIL, "stale-tail", "resize"},
    {BREAK_STALE_END, "stale-end", "resize-failed"},
    {BREAK_SHRINK_EARLY, "shrink-early", "resize"},
    {BREAK_FLAT_WAYS, "flat-ways", "layers"},
};

static bool prove(const Proof *proof)
{
    const Scenario *scenario = scenario_find(proof->scenario);
    unsigned noticed = 0, seeds = 0;

    block_break = proof->rule;
    while (seeds < SEEDS && noticed < NEEDED) {
        noticed += !seed_passes(scenario, ++seeds);
    }
    block_break = BREAK_NONE;
    bool ok = noticed >= NEEDED;
    printf("%-14s off: noticed in %u of %u seeds of %s%s\n", proof->name, noticed, seeds,
           proof->scenario, ok ? "" : ": TOO FEW");
    fflush(stdout);
    return ok;
}

int prove_all(const char *only)
{
    int failed = 0;
    sim_options.silent = true;
    sim_options.cut_more = true;
    for (unsigned i = 0; i < G_N_ELEMENTS(proofs); i++) {
        if (!only || strcmp(only, proofs[i].name) == 0) {
            failed += !prove(&proofs[i]);
        }
    }
    return failed ? 1 : 0;
}
