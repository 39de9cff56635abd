/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The shadow model; see model.h. */
#include "tests/sim/model.h"

#include "tests/sim/tag.h"

typedef struct Event {
    uint32_t serial, stamp;
    uint64_t begin, end; /* the model's clock; end 0: still going on */
    bool sure;           /* succeeded, and leaves no choice */
    bool ok;
    bool durable;
} Event;

struct Model {
    uint32_t nb_sectors;
    GArray **sectors; /* of Event, in order of their beginning */
    uint64_t clock;
    uint32_t next_stamp, next_serial;
};

Model *model_new(uint32_t nb_sectors, const uint32_t *initial)
{
    Model *m = g_new0(Model, 1);
    m->nb_sectors = nb_sectors;
    m->sectors = g_new0(GArray *, nb_sectors);
    m->clock = 1;
    m->next_stamp = 1;
    m->next_serial = 1;
    for (uint32_t i = 0; i < nb_sectors; i++) {
        Event first = {.stamp = initial ? initial[i] : 0, .begin = 1, .end = 1,
                       .sure = true, .ok = true, .durable = true};
        m->sectors[i] = g_array_new(FALSE, FALSE, sizeof(Event));
        g_array_append_val(m->sectors[i], first);
    }
    return m;
}

uint8_t *model_contents(const Model *m, uint32_t nb_sectors)
{
    uint8_t *all = g_malloc((gsize)nb_sectors * 512);
    for (uint32_t i = 0; i < nb_sectors; i++) {
        tag_fill(all + (gsize)i * 512, i, 1, g_array_index(m->sectors[i], Event, 0).stamp);
    }
    return all;
}

uint32_t model_new_stamp(Model *m)
{
    return m->next_stamp++;
}

uint32_t model_begin(Model *m, uint32_t first, uint32_t count, uint32_t stamp, bool sure)
{
    Event event = {.serial = m->next_serial++, .stamp = stamp, .begin = ++m->clock,
                   .sure = sure};
    for (uint32_t i = first; i < first + count; i++) {
        g_array_append_val(m->sectors[i], event);
    }
    return event.serial;
}

void model_end(Model *m, uint32_t first, uint32_t count, uint32_t serial, bool ok,
               bool durable)
{
    m->clock++;
    for (uint32_t i = first; i < first + count; i++) {
        GArray *events = m->sectors[i];
        for (guint k = events->len; k > 0; k--) {
            Event *e = &g_array_index(events, Event, k - 1);
            if (e->serial == serial) {
                e->end = m->clock;
                e->ok = ok;
                e->sure &= ok;
                e->durable = durable && ok;
                break;
            }
        }
    }
}

uint64_t model_flush_begin(Model *m)
{
    return ++m->clock;
}

void model_flush_end(Model *m, uint64_t token)
{
    for (uint32_t i = 0; i < m->nb_sectors; i++) {
        GArray *events = m->sectors[i];
        for (guint k = 0; k < events->len; k++) {
            Event *e = &g_array_index(events, Event, k);
            e->durable |= e->ok && e->end && e->end <= token;
        }
    }
}

void model_doubt(Model *m)
{
    for (uint32_t i = 0; i < m->nb_sectors; i++) {
        GArray *events = m->sectors[i];
        for (guint k = 0; k < events->len; k++) {
            Event *e = &g_array_index(events, Event, k);
            e->sure &= e->durable;
        }
    }
}

uint64_t model_read_begin(Model *m)
{
    return ++m->clock;
}

/* M2: does @by hide @e from a read that began then? */
static bool hides(const Event *by, const Event *e, uint64_t began)
{
    return by->sure && by->end && by->end < began && e->end && e->end < by->begin;
}

bool model_read_ok(const Model *m, uint32_t sector, uint32_t stamp, uint64_t began)
{
    const GArray *events = m->sectors[sector];
    for (guint i = 0; i < events->len; i++) {
        const Event *e = &g_array_index(events, Event, i);
        bool hidden = e->stamp != stamp && e->stamp != STAMP_ANY;
        for (guint k = i + 1; k < events->len && !hidden; k++) {
            hidden = hides(&g_array_index(events, Event, k), e, began);
        }
        if (!hidden) {
            return true;
        }
    }
    return false;
}

bool model_crash_ok(const Model *m, uint32_t sector, uint32_t stamp)
{
    const GArray *events = m->sectors[sector];
    for (guint i = 0; i < events->len; i++) {
        const Event *e = &g_array_index(events, Event, i);
        bool hidden = e->stamp != stamp && e->stamp != STAMP_ANY;
        for (guint k = i + 1; k < events->len && !hidden; k++) {
            const Event *by = &g_array_index(events, Event, k);
            hidden = by->durable && hides(by, e, UINT64_MAX);
        }
        if (!hidden) {
            return true;
        }
    }
    return false;
}

char *model_describe(const Model *m, uint32_t sector)
{
    const GArray *events = m->sectors[sector];
    GString *out = g_string_new("history:");
    for (guint k = 0; k < events->len; k++) {
        const Event *e = &g_array_index(events, Event, k);
        g_string_append_printf(out, " %u[%" G_GUINT64_FORMAT "-%" G_GUINT64_FORMAT "]%s%s",
                               e->stamp, e->begin, e->end, e->sure ? "" : "?",
                               e->durable ? "!" : "");
    }
    return g_string_free(out, FALSE);
}
