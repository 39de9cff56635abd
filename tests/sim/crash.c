/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Crash simulation: random concurrent requests and commands on a chain of qcow2 images over
 * simulated storage, power cuts at random operations, and then: the image opens, our check
 * and stock qemu-img check find no corruption, and every sector reads as the model allows.
 *
 *   crash [--scenario NAME | --all] [--seeds N] [--seed-base M]   (--all: by turns)
 *   crash [--scenario NAME] --seed N [--cut STEP] [--ops I,J,..] [--shrink] [--verbose]
 *   crash --prove [NAME]
 *   crash --list
 *
 * Each seed runs in a process of its own; a failing one is named, replays exactly and is
 * shrunk to the shortest list of operations that fails.
 */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/base/ablate.h"
#include "tests/sim/sim.h"

static int usage(const char *program)
{
    fprintf(stderr,
            "usage: %s [--scenario NAME | --all] [--seeds N] [--seed-base M]\n"
            "       %s [--scenario NAME] --seed N [--cut STEP] [--ops I,J,..] [--shrink] "
            "[--verbose]\n"
            "       %s --prove [RULE]\n"
            "       %s --list\n",
            program, program, program, program);
    return 2;
}

static int list(void)
{
    for (unsigned i = 0; scenario_at(i); i++) {
        printf("%-16s %s\n", scenario_at(i)->name, scenario_at(i)->about);
    }
    return 0;
}

/* With NULL each seed has its scenario's turn. The first failure is shrunk. */
static int run_seeds(const Scenario *only, uint32_t base, uint32_t count)
{
    unsigned failed = 0, nb_scenarios = 0;
    while (scenario_at(nb_scenarios)) {
        nb_scenarios++;
    }
    g_assert(nb_scenarios > 0);
    for (uint32_t seed = base; seed < base + count; seed++) {
        const Scenario *scenario = only ? only : scenario_at(seed % nb_scenarios);
        if (!seed_passes(scenario, seed)) {
            printf("replay: crash --scenario %s --seed %u\n", scenario->name, seed);
            if (failed++ == 0) {
                shrink_seed(scenario, seed);
            }
        }
    }
    printf("%s: %u seeds from %u, %u failed\n", only ? only->name : "all scenarios", count,
           base, failed);
    return failed ? 1 : 0;
}

static GArray *parse_list(const char *text)
{
    GArray *out = g_array_new(FALSE, FALSE, sizeof(guint));
    g_auto(GStrv) parts = g_strsplit(text, ",", -1);
    for (char **p = parts; *p; p++) {
        guint value = (guint)strtoul(*p, NULL, 0);
        g_array_append_val(out, value);
    }
    return out;
}

typedef struct Args {
    const Scenario *scenario;
    uint32_t base, count;
    bool single, all, shrink;
} Args;

/* Options with a value; false: not one of them. */
static bool parse_value(Args *args, const char *name, const char *value)
{
    if (strcmp(name, "--seed") == 0) {
        args->single = true;
        args->base = (uint32_t)strtoul(value, NULL, 0);
    } else if (strcmp(name, "--seeds") == 0) {
        args->count = (uint32_t)strtoul(value, NULL, 0);
    } else if (strcmp(name, "--seed-base") == 0) {
        args->base = (uint32_t)strtoul(value, NULL, 0);
    } else if (strcmp(name, "--cut") == 0) {
        sim_options.only_cut = strtoll(value, NULL, 0);
    } else if (strcmp(name, "--ops") == 0) {
        sim_options.keep = parse_list(value);
        sim_options.every_cut = true;
    } else if (strcmp(name, "--scenario") == 0) {
        args->scenario = scenario_find(value);
        if (!args->scenario) {
            fprintf(stderr, "no scenario '%s'; there are:\n", value);
            list();
            exit(2);
        }
    } else {
        return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    /* Disks come from the kernel as zeros that cost nothing, and go back to it. */
    mallopt(M_MMAP_THRESHOLD, 1 << 20);
    ablate_from_environment();
    Args args = {.scenario = scenario_at(0), .base = 1, .count = 200};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--verbose") == 0) {
            sim_options.verbose = true;
        } else if (strcmp(argv[i], "--all") == 0) {
            args.all = true;
        } else if (strcmp(argv[i], "--shrink") == 0) {
            args.shrink = true;
        } else if (strcmp(argv[i], "--list") == 0) {
            return list();
        } else if (strcmp(argv[i], "--prove") == 0) {
            return prove_all(i + 1 < argc ? argv[i + 1] : NULL);
        } else if (i + 1 < argc && parse_value(&args, argv[i], argv[i + 1])) {
            i++;
        } else {
            return usage(argv[0]);
        }
    }
    sim_options.stock = system("command -v qemu-img >/dev/null 2>&1") == 0;
    if (!sim_options.stock) {
        printf("no stock qemu-img here: only our own check looks at the images\n");
    }
    if (args.single) {
        if (args.shrink) {
            shrink_seed(args.scenario, args.base);
            return 1;
        }
        return seed_passes(args.scenario, args.base) ? 0 : 1;
    }
    return run_seeds(args.all ? NULL : args.scenario, args.base, args.count);
}
