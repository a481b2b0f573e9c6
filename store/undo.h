/* What slots of the index had before the writer changed them, for batches that look keys up as of an earlier tail.
   Records are found by the offset of the entry that came; they are kept until nobody reads who began before it was
   published. */
#ifndef RD_UNDO_H
#define RD_UNDO_H

#include <rdrive/error.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct undo_chunk;

struct undo {
    struct undo_chunk *_Atomic newest;
};

/* Zeros are an empty one. Nobody reads any more. */
void undo_fini(struct undo *undo);

/* ---- the writer's ---- */

/* Make room for `count` records, which is what one publication has at most. Returns: RD_OK, RD_E_NOMEM. */
RD_MUST_CHECK rd_err undo_reserve(struct undo *undo, size_t count);

/* The slot that is about to get the word of the entry at `trailer_off` has `before`. Offsets ascend. */
void undo_note(struct undo *undo, uint64_t trailer_off, uint64_t before);

/* The tail is beyond all that was noted. Gives back what nobody can ask for any more.
   Returns: an offset up to which nobody will ask what came before an entry. */
uint64_t undo_published(struct undo *undo, uint64_t tail_off);

/* ---- the readers' ---- */

/* What a slot had before it got the entry at `trailer_off`, which lies at or beyond the tail as the reader found it
   after it entered its epoch. */
uint64_t undo_before(const struct undo *undo, uint64_t trailer_off);

#endif
