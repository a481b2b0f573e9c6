/**
 * The one list of error codes. Their texts, the reasons that clients see, and the status a service answers with
 * all come from it.
 */
#ifndef RDRIVE_ERROR_H
#define RDRIVE_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

/* X(name, canonical status number as google.rpc.Code has it, reason, what it says) */
#define RD_ERRORS(X)                                                                                                   \
    X(RD_OK, 0, "OK", "no error")                                                                                      \
    X(RD_ABSENT, 0, "ABSENT", "the key has no value: never written, or deleted")                                       \
    X(RD_E_CANCELLED, 1, "CANCELLED", "cancelled by the caller")                                                       \
    X(RD_E_INVALID, 3, "MALFORMED", "an argument is not allowed")                                                      \
    X(RD_E_PAYLOAD, 3, "PAYLOAD_REFUSED", "a payload is empty or the single byte 0x00, which the format can't hold")   \
    X(RD_E_TOO_LARGE, 3, "PAYLOAD_REFUSED", "a payload is larger than the largest value this store may take")          \
    X(RD_E_TOO_FAR, 8, "NO_SPACE", "the file would grow beyond 256 TiB, the largest offset the format can name")       \
    X(RD_E_NO_SPACE, 8, "NO_SPACE", "no room to write: disk full, quota or file-size limit")                           \
    X(RD_E_READ_ONLY, 9, "READ_ONLY", "the store is open for reading only")                                            \
    X(RD_E_ENDED, 9, "READ_ONLY",                                                                                      \
      "writing ended: a sync or cut failed, or the file was removed or changed by something else; reopen the store")   \
    X(RD_E_BUSY, 9, "BUSY", "a compaction already runs")                                                               \
    X(RD_E_LOCKED, 9, "BUSY", "another writer has the store open")                                                     \
    X(RD_E_NOT_FILE, 9, "NOT_A_STORE", "not a regular file")                                                           \
    X(RD_E_NOT_STORE, 9, "NOT_A_STORE", "not a simd-r-drive store: no entry holds anywhere in it")                     \
    X(RD_E_ALIGNMENT, 9, "OLD_ALIGNMENT", "written by simd-r-drive 0.14 or older, with another alignment")             \
    X(RD_E_UNSUPPORTED, 12, "UNSUPPORTED", "this engine does not offer the operation")                                 \
    X(RD_E_IO, 13, "IO", "the operating system reported a read or write error")                                        \
    X(RD_E_SYNC, 13, "IO", "the sync failed: whether the write survives is unknown until the store is reopened")       \
    X(RD_E_NOMEM, 14, "OVERLOADED", "out of memory")                                                                   \
    X(RD_E_UNAVAILABLE, 14, "NOT_READY", "the engine can't answer now; try again")                                     \
    X(RD_E_TRUNCATED, 15, "TRUNCATED", "the file was cut while it was open: these bytes are gone")                     \
    X(RD_E_DAMAGED, 15, "DAMAGED", "damaged: the stored bytes do not match their checksum")

#define RD_ERROR_ENUM(name, status, reason, text) name,
typedef enum rd_err { RD_ERRORS(RD_ERROR_ENUM) RD_ERR_COUNT } rd_err;
#undef RD_ERROR_ENUM

/** What `err` says, one sentence without a full stop. Never NULL. Threads: any. */
const char *rd_err_text(rd_err err);

/** The reason a client may switch on, such as "DAMAGED". Never NULL. Threads: any. */
const char *rd_err_reason(rd_err err);

/** The canonical status number (google.rpc.Code) that a service answers with. Threads: any. */
int rd_err_status(rd_err err);

#define RD_MUST_CHECK __attribute__((warn_unused_result))

#ifdef __cplusplus
}
#endif

#endif
