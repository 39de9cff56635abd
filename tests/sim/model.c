/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The shadow model; see model.h. */
#include "tests/sim/model.h"

typedef struct Event {
    uint32_t stamp;
    bool maybe;    /* discard, failed write: it may not have happened */
    uint64_t ended; /* the model's clock; 0: still going on */
} Event;

typedef struct Sector {
    GArray *events; /* Event, oldest first; the first is always there */
    bool locked;
} Sector;

struct Model {
    uint32_t nb_sectors;
    Sector *sectors;
    uint64_t clock;
    uint32_t next_stamp;
};

Model *model_new(uint32_t nb_sectors, const uint32_t *initial)
{
    Model *m = g_new0(Model, 1);
    m->nb_sectors = nb_sectors;
    m->sectors = g_new0(Sector, nb_sectors);
    m->clock = 1;
    m->next_stamp = 1;
    for (uint32_t i = 0; i < nb_sectors; i++) {
        Event first = {initial ? initial[i] : 0, false, 1};
        m->sectors[i].events = g_array_new(FALSE, FALSE, sizeof(Event));
        g_array_append_val(m->sectors[i].events, first);
    }
    return m;
}

uint32_t model_new_stamp(Model *m)
{
    return m->next_stamp++;
}

bool model_lock(Model *m, uint32_t first, uint32_t count)
{
    for (uint32_t i = first; i < first + count; i++) {
        if (m->sectors[i].locked) {
            return false;
        }
    }
    for (uint32_t i = first; i < first + count; i++) {
        m->sectors[i].locked = true;
    }
    return true;
}

void model_unlock(Model *m, uint32_t first, uint32_t count)
{
    for (uint32_t i = first; i < first + count; i++) {
        m->sectors[i].locked = false;
    }
}

static void begin(Model *m, uint32_t first, uint32_t count, uint32_t stamp, bool maybe)
{
    Event event = {stamp, maybe, 0};
    for (uint32_t i = first; i < first + count; i++) {
        g_array_append_val(m->sectors[i].events, event);
    }
}

static void end(Model *m, uint32_t first, uint32_t count, bool ok)
{
    m->clock++;
    for (uint32_t i = first; i < first + count; i++) {
        GArray *events = m->sectors[i].events;
        Event *last = &g_array_index(events, Event, events->len - 1);
        last->ended = m->clock;
        last->maybe |= !ok;
    }
}

void model_write_begin(Model *m, uint32_t first, uint32_t count, uint32_t stamp)
{
    begin(m, first, count, stamp, false);
}

void model_write_end(Model *m, uint32_t first, uint32_t count, uint32_t stamp, bool ok)
{
    end(m, first, count, ok);
}

void model_discard_begin(Model *m, uint32_t first, uint32_t count)
{
    begin(m, first, count, 0, true);
}

void model_discard_end(Model *m, uint32_t first, uint32_t count)
{
    end(m, first, count, true);
}

uint64_t model_flush_begin(Model *m)
{
    return m->clock;
}

void model_flush_end(Model *m, uint64_t token)
{
    for (uint32_t i = 0; i < m->nb_sectors; i++) {
        GArray *events = m->sectors[i].events;
        guint keep = 0;
        for (guint k = 1; k < events->len; k++) {
            const Event *e = &g_array_index(events, Event, k);
            if (e->ended && e->ended <= token && !e->maybe) {
                keep = k; /* a sure write hides all before it */
            }
        }
        if (keep) {
            g_array_remove_range(events, 0, keep);
        }
    }
}

bool model_read_ok(const Model *m, uint32_t sector, uint32_t stamp)
{
    const GArray *events = m->sectors[sector].events;
    for (guint k = events->len; k > 0; k--) {
        const Event *e = &g_array_index(events, Event, k - 1);
        if (e->stamp == stamp) {
            return true;
        }
        if (!e->maybe) {
            return false;
        }
    }
    return false;
}

bool model_crash_ok(const Model *m, uint32_t sector, uint32_t stamp)
{
    const GArray *events = m->sectors[sector].events;
    for (guint k = 0; k < events->len; k++) {
        if (g_array_index(events, Event, k).stamp == stamp) {
            return true;
        }
    }
    return false;
}

char *model_describe(const Model *m, uint32_t sector)
{
    const GArray *events = m->sectors[sector].events;
    GString *out = g_string_new("allowed:");
    for (guint k = 0; k < events->len; k++) {
        const Event *e = &g_array_index(events, Event, k);
        g_string_append_printf(out, " %u%s%s", e->stamp, e->maybe ? "?" : "",
                               e->ended ? "" : "*");
    }
    return g_string_free(out, FALSE);
}
