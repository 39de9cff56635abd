/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Grace periods: when may a cluster that was unmapped be used again?
 *
 * A request counts in the epoch it began in.  Only two epochs are counted at a time: the
 * current one, E, and E-1.  E advances when nothing is left of E-1, which keeps the cost
 * of a request at one increment and one decrement.
 *
 * E1: a resource dropped in epoch D is unreachable for all requests once
 *     epoch_oldest() > D, because every request that may have seen it began in D or before.
 */
#include "block/graph-private.h"

uint64_t epoch_now(Graph *graph)
{
    return graph->epoch;
}

static void advance(Graph *graph)
{
    if (graph->epoch_requests[(graph->epoch + 1) & 1] == 0) {
        graph->epoch++;
    }
}

uint64_t epoch_oldest(Graph *graph)
{
    /* Two attempts: with nothing in flight at all both counts are 0. */
    advance(graph);
    advance(graph);
    bool previous_running = graph->epoch_requests[(graph->epoch - 1) & 1] != 0;
    return previous_running ? graph->epoch - 1 : graph->epoch;
}

uint8_t epoch_enter(Graph *graph)
{
    graph->epoch_requests[graph->epoch & 1]++;
    return graph->epoch & 1;
}

void epoch_leave(Graph *graph, uint8_t epoch)
{
    graph->epoch_requests[epoch]--;
}
