/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An intrusive, circular, doubly linked list.  A ListLink is embedded in its element;
 * a list head is a ListLink too.  An unlinked element's links point to itself, so that
 * list_remove() of an unlinked element is legal and does nothing.
 */
#ifndef BLOCK_BASE_LIST_H
#define BLOCK_BASE_LIST_H

#include <stdbool.h>
#include "block/base/math.h"

typedef struct ListLink ListLink;
struct ListLink {
    ListLink *next, *prev;
};

static inline void list_init(ListLink *link)
{
    link->next = link->prev = link;
}

static inline bool list_empty(const ListLink *head)
{
    return head->next == head;
}

static inline bool list_linked(const ListLink *link)
{
    return link->next != link;
}

static inline void list_append(ListLink *head, ListLink *link)
{
    link->prev = head->prev;
    link->next = head;
    head->prev->next = link;
    head->prev = link;
}

static inline void list_prepend(ListLink *head, ListLink *link)
{
    list_append(head->next, link);
}

static inline void list_remove(ListLink *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    list_init(link);
}

/* Move all of @from to the end of @to; @from is empty afterwards. */
static inline void list_splice(ListLink *to, ListLink *from)
{
    if (list_empty(from)) {
        return;
    }
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    list_init(from);
}

#define list_first(head, type, member) container_of((head)->next, type, member)
#define list_foreach(it, head) for (ListLink *it = (head)->next; it != (head); it = it->next)
#define list_foreach_safe(it, nxt, head)                                               \
    for (ListLink *it = (head)->next, *nxt = it->next; it != (head);                   \
         it = nxt, nxt = it->next)

#endif
