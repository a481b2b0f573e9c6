/* What loading an index file and judging it share. */
#ifndef RD_INDEX_FILE_INTERNAL_H
#define RD_INDEX_FILE_INTERNAL_H

#include "index_file.h"
#include "index_file_format.h"

/* A file on its way to be trusted. */
struct loading {
    const struct index_file_call *call;
    int fd;
    uint64_t file_len; /* by fstat */
    uint8_t *front;    /* all up to the slots */
    const struct raw_index_head *head;
    struct index_places places;
    uint64_t tail_off;
    rd_index_source source; /* why it is refused */
    struct recovered found;
    struct mapping below; /* the store below T, with the layout that the file has of it */
};

static inline rd_err refuse(struct loading *loading, rd_index_source source)
{
    loading->source = source;
    return RD_ABSENT;
}

/* What came is no fault of the file: memory, or the caller's change of mind. */
static inline rd_err refuse_for(struct loading *loading, rd_err err)
{
    return err == RD_E_CANCELLED ? err : refuse(loading, RD_INDEX_UNREADABLE);
}

/* I-06 to I-08: whether the file is of this store. Returns: RD_OK; RD_ABSENT, refused; RD_E_CANCELLED. */
RD_MUST_CHECK rd_err loading_compare(struct loading *loading);

/* I-09: what lies above T, all of it and nothing else. Returns: RD_OK, to be given back with recovered_fini; as above.
 */
RD_MUST_CHECK rd_err loading_recover_above(struct loading *loading, struct recovered *out_above);

#endif
