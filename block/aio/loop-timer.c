/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Timers: a binary heap of pointers to embedded timers, ordered by deadline. */
#include <limits.h>

#include "block/aio/loop-private.h"

static void place(Loop *loop, int i, LoopTimer *timer)
{
    loop->timers[i] = timer;
    timer->heap_index = i;
}

static void sift_up(Loop *loop, int i, LoopTimer *timer)
{
    while (i > 0) {
        LoopTimer *parent = loop->timers[(i - 1) / 2];
        if (parent->deadline_ns <= timer->deadline_ns) {
            break;
        }
        place(loop, i, parent);
        i = (i - 1) / 2;
    }
    place(loop, i, timer);
}

static void sift_down(Loop *loop, int i, LoopTimer *timer)
{
    for (;;) {
        int child = 2 * i + 1;
        if (child >= loop->nb_timers) {
            break;
        }
        if (child + 1 < loop->nb_timers &&
            loop->timers[child + 1]->deadline_ns < loop->timers[child]->deadline_ns) {
            child++;
        }
        if (loop->timers[child]->deadline_ns >= timer->deadline_ns) {
            break;
        }
        place(loop, i, loop->timers[child]);
        i = child;
    }
    place(loop, i, timer);
}

void loop_timer_init(LoopTimer *timer, Loop *loop, LoopTimerFn *fn)
{
    timer->loop = loop;
    timer->fn = fn;
    timer->deadline_ns = 0;
    timer->heap_index = -1;
}

void loop_timer_cancel(LoopTimer *timer)
{
    Loop *loop = timer->loop;
    int i = timer->heap_index;
    if (i < 0) {
        return;
    }
    timer->heap_index = -1;
    LoopTimer *last = loop->timers[--loop->nb_timers];
    if (last != timer) {
        sift_up(loop, i, last);
        sift_down(loop, last->heap_index, last);
    }
}

void loop_timer_arm(LoopTimer *timer, int64_t deadline_ns)
{
    Loop *loop = timer->loop;
    loop_timer_cancel(timer);
    timer->deadline_ns = deadline_ns;
    if (loop->nb_timers == loop->max_timers) {
        loop->max_timers = loop->max_timers ? 2 * loop->max_timers : 8;
        loop->timers = g_renew(LoopTimer *, loop->timers, loop->max_timers);
    }
    sift_up(loop, loop->nb_timers++, timer);
}

int64_t loop_timers_next(const Loop *loop)
{
    return loop->nb_timers ? loop->timers[0]->deadline_ns : INT64_MAX;
}

void loop_timers_run(Loop *loop)
{
    /* At most as many as there are now, so that one that re-arms itself for the past
     * cannot keep the loop here. */
    for (int n = loop->nb_timers; n > 0; n--) {
        if (!loop->nb_timers || loop->timers[0]->deadline_ns > loop->now_ns) {
            return;
        }
        LoopTimer *timer = loop->timers[0];
        loop_timer_cancel(timer);
        timer->fn(timer); /* may free the timer */
    }
}
