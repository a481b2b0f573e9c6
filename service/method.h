/* What is served: one row a method. */
#ifndef METHOD_H
#define METHOD_H

#include "call.h"

struct method {
    const char *path;                   /* /package.Service/Method */
    enum step (*begin)(struct call *);  /* the request is there: decode it, prepare */
    enum step (*resume)(struct call *); /* what the last step waited for has happened */
    bool never_shed;                    /* served also when too many calls are open, and while there is no store */
    bool watches;                       /* a stream without end: a drain doesn't wait for it */
    bool woken;                         /* the health service's lock guards its `watch`, and wakes it */
    bool needs_engine;
    bool writes;         /* only for those who may (access.h) */
    bool client_streams; /* begin comes before any message; STEP_RECEIVE brings each */
};

#define METHOD_MAX 64

extern const struct method methods[];
extern const size_t method_count;

/* For calls to anything else. */
extern const struct method unknown_method;

/* ---- the methods' functions, by file ---- */

/* read.c */
enum step exists_begin(struct call *call);
enum step exists_hash_begin(struct call *call);
enum step exists_resume(struct call *call);
enum step read_begin(struct call *call);
enum step read_hash_begin(struct call *call);
enum step read_last_begin(struct call *call);
enum step read_resume(struct call *call);
enum step metadata_begin(struct call *call);
enum step metadata_resume(struct call *call);

/* batch.c */
enum step batch_read_begin(struct call *call);
enum step batch_read_resume(struct call *call);
enum step batch_stream_begin(struct call *call);
enum step batch_hashed_begin(struct call *call);
enum step batch_stream_resume(struct call *call);

/* stream.c */
enum step read_stream_begin(struct call *call);
enum step read_stream_resume(struct call *call);

/* write.c */
enum step write_begin(struct call *call);
enum step write_hash_begin(struct call *call);
enum step batch_write_begin(struct call *call);
enum step batch_write_hash_begin(struct call *call);
enum step batch_write_resume(struct call *call);
enum step rename_begin(struct call *call);
enum step write_resume(struct call *call);
enum step delete_begin(struct call *call);
enum step batch_delete_begin(struct call *call);
enum step batch_delete_hash_begin(struct call *call);
enum step batch_delete_resume(struct call *call);
enum step delete_resume(struct call *call);

/* upload.c */
enum step write_stream_begin(struct call *call);
enum step write_stream_resume(struct call *call);

/* compact.c */
enum step compact_begin(struct call *call);
enum step compact_resume(struct call *call);

/* info.c */
enum step len_begin(struct call *call);
enum step len_resume(struct call *call);
enum step is_empty_begin(struct call *call);
enum step is_empty_resume(struct call *call);
enum step file_size_begin(struct call *call);
enum step file_size_resume(struct call *call);
enum step store_info_begin(struct call *call);
enum step store_info_resume(struct call *call);

/* health.c */
enum step health_check_begin(struct call *call);
enum step health_list_begin(struct call *call);
enum step health_watch_begin(struct call *call);
enum step health_watch_resume(struct call *call);

/* reflection.c */
enum step reflection_begin(struct call *call);
enum step reflection_resume(struct call *call);

/* methods.c */
enum step unknown_begin(struct call *call);

#endif
