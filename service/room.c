#include "room.h"
#include "call.h"

void room_init(struct room *room, size_t max)
{
    *room = (struct room){.max = max};
    pthread_mutex_init(&room->lock, NULL);
}

void room_fini(struct room *room)
{
    pthread_mutex_destroy(&room->lock);
}

void room_pass(struct room *room, size_t bytes)
{
    atomic_fetch_add(&room->passed, bytes);
}

void room_passed(struct room *room, size_t bytes)
{
    atomic_fetch_sub(&room->passed, bytes);
}

void room_force(struct room *room, size_t bytes)
{
    atomic_fetch_add(&room->used, bytes);
}

static bool fits(struct room *room, size_t bytes)
{
    size_t before = atomic_fetch_add(&room->used, bytes);
    if (before == 0 || before + bytes <= room->max)
        return true;
    atomic_fetch_sub(&room->used, bytes);
    return false;
}

/* Requires: the lock, `call` is on the list. */
static void unlist(struct room *room, struct call *call)
{
    struct room_place *place = &call->place;
    if (place->before != NULL)
        place->before->place.next = place->next;
    else
        room->first = place->next;
    if (place->next != NULL)
        place->next->place.before = place->before;
    else
        room->last = place->before;
    place->waits = false;
    atomic_fetch_sub(&room->waiting, 1);
}

/* Requires: the lock. */
static void serve(struct room *room)
{
    while (room->first != NULL && fits(room, room->first->place.bytes)) {
        struct call *call = room->first;
        unlist(room, call);
        call_room(call);
    }
}

bool room_take(struct room *room, struct call *call, size_t bytes)
{
    if (atomic_load(&room->waiting) == 0 && fits(room, bytes))
        return true;
    pthread_mutex_lock(&room->lock);
    call->place = (struct room_place){.before = room->last, .bytes = bytes, .waits = true};
    if (room->last != NULL)
        room->last->place.next = call;
    else
        room->first = call;
    room->last = call;
    atomic_fetch_add(&room->waiting, 1);
    serve(room); /* room given back before `waiting` was seen would wake nobody */
    pthread_mutex_unlock(&room->lock);
    return false;
}

void room_give(struct room *room, size_t bytes)
{
    atomic_fetch_sub(&room->used, bytes);
    if (atomic_load(&room->waiting) == 0)
        return;
    pthread_mutex_lock(&room->lock);
    serve(room);
    pthread_mutex_unlock(&room->lock);
}

bool room_leave(struct room *room, struct call *call)
{
    pthread_mutex_lock(&room->lock);
    bool waits = call->place.waits;
    if (waits)
        unlist(room, call);
    serve(room); /* it may have kept smaller ones behind it waiting */
    pthread_mutex_unlock(&room->lock);
    return waits;
}
