/* What one side of TLS shows, and what it asks for, as PEM files hold it: read, and checked as the core would, but with
 * a reason. */
#ifndef CERTIFICATE_H
#define CERTIFICATE_H

#include <stdbool.h>
#include <stddef.h>
#include <time.h>

enum certificate_file { CERTIFICATE_CHAIN, CERTIFICATE_KEY, CERTIFICATE_CLIENT_CA, CERTIFICATE_FILES };

#define CERTIFICATE_FILE_MAX (1u << 20) /* bytes of one */
#define CERTIFICATE_WHY_MAX  512u
#define CERTIFICATE_TEXT_MAX 64u

struct certificate {
    char *pem[CERTIFICATE_FILES]; /* NULL where there is no such file */
    char serial[CERTIFICATE_TEXT_MAX];
    size_t chain_count; /* certificates in the first file */
    size_t client_ca_count;
    time_t not_before; /* of the first */
    time_t not_after;
};

/**
 * Read the files of `paths` (the client CA's may be NULL) and check that the core can serve by them: PEM throughout,
 * the key is that of the chain's first certificate, and strong enough. Dates are not checked. Returns: whether `*out`
 * is filled, to be given back by certificate_fini; else `out_why` names the file and what it is that is wrong. Threads:
 * any; it leaves OpenSSL's list of errors empty.
 */
bool certificate_load(const char *const paths[CERTIFICATE_FILES], struct certificate *out,
                      char out_why[CERTIFICATE_WHY_MAX]);

/**
 * The same check of text that was read by other means: `pem` is filled, where there are such files, and the
 * certificates of CERTIFICATE_CLIENT_CA may be those that any peer's must lead to. `paths` name them in `out_why`.
 * Requires: a chain and a key, or neither.
 */
bool certificate_check(struct certificate *certificate, const char *const paths[CERTIFICATE_FILES],
                       char out_why[CERTIFICATE_WHY_MAX]);

/* Zeroed storage is an empty one. */
void certificate_fini(struct certificate *certificate);

/* Whether their files hold the same bytes. */
bool certificate_equal(const struct certificate *one, const struct certificate *other);

#endif
