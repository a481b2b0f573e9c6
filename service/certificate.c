#include "certificate.h"
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Both hold of every reason: which file it is about, and what is the matter with it. */
static bool bad(const char *path, const char *what, char out_why[CERTIFICATE_WHY_MAX])
{
    snprintf(out_why, CERTIFICATE_WHY_MAX, "%s: %s", path, what);
    return false;
}

/* The same with OpenSSL's own words. */
static bool bad_by_library(const char *path, const char *what, char out_why[CERTIFICATE_WHY_MAX])
{
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    snprintf(out_why, CERTIFICATE_WHY_MAX, "%s: %s: %s", path, what, reason != NULL ? reason : "unknown reason");
    return false;
}

/* ---- files ---- */

/* Keys lie in them. */
static void free_text(char *text)
{
    if (text != NULL)
        OPENSSL_cleanse(text, strlen(text));
    free(text);
}

/* All of an open file as text. */
static bool read_text(int fd, const char *path, char **out_text, char out_why[CERTIFICATE_WHY_MAX])
{
    struct stat file;
    if (fstat(fd, &file) != 0)
        return bad(path, strerror(errno), out_why);
    if (!S_ISREG(file.st_mode))
        return bad(path, "it is no regular file, and could not be read again", out_why);
    if (file.st_size > CERTIFICATE_FILE_MAX)
        return bad(path, "it is larger than 1M, which no certificates are", out_why);
    size_t size = (size_t)file.st_size;
    char *text = calloc(1, size + 1);
    size_t used = 0;
    ssize_t got = 1;
    while (text != NULL && used < size && (got = read(fd, text + used, size - used)) > 0)
        used += (size_t)got;
    if (text == NULL || got < 0) {
        free_text(text);
        return bad(path, strerror(text == NULL ? ENOMEM : errno), out_why);
    }
    if (memchr(text, '\0', used) != NULL) {
        OPENSSL_cleanse(text, used);
        free(text);
        return bad(path, "it is not PEM text", out_why);
    }
    *out_text = text;
    return true;
}

static bool read_file(const char *path, char **out_text, char out_why[CERTIFICATE_WHY_MAX])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not stop us */
    if (fd < 0)
        return bad(path, strerror(errno), out_why);
    bool good = read_text(fd, path, out_text, out_why);
    close(fd);
    return good;
}

/* ---- checks ---- */

/* A key with a passphrase must not make OpenSSL ask the terminal for it. */
static int no_passphrase(char *buffer, int size, int writing, void *asked)
{
    (void)buffer;
    (void)size;
    (void)writing;
    *(bool *)asked = true;
    return -1;
}

/* Whether reading stopped because there is no more PEM, and not because what came is broken. */
static bool is_end_of_pem(void)
{
    unsigned long error = ERR_peek_last_error();
    return ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
}

/* Hand each certificate in `pem` to `take`, which borrows it. Returns: whether all were read and taken. */
static bool each_certificate(const char *pem, const char *path, bool (*take)(X509 *, void *), void *taker,
                             size_t *out_count, char out_why[CERTIFICATE_WHY_MAX])
{
    BIO *bytes = BIO_new_mem_buf(pem, -1);
    bool asked = false;
    bool good = true;
    size_t count = 0;
    ERR_clear_error();
    for (X509 *each;
         good && bytes != NULL && (each = PEM_read_bio_X509_AUX(bytes, NULL, no_passphrase, &asked)) != NULL; count++) {
        good = take == NULL || take(each, taker);
        X509_free(each);
    }
    BIO_free(bytes);
    if (bytes == NULL || !good)
        return bad_by_library(path, "its certificate can't be used", out_why);
    if (!is_end_of_pem())
        return bad_by_library(
            path, count == 0 ? "its certificate can't be read" : "not all its certificates can be read", out_why);
    if (count == 0)
        return bad(path, "it holds no certificate; PEM is expected", out_why);
    *out_count = count;
    return true;
}

/* Of the chain: what is taken from its first certificate. */
struct first {
    SSL_CTX *context;
    struct certificate *out;
    bool taken;
};

static bool to_time(const ASN1_TIME *date, time_t *out_time)
{
    struct tm parts;
    if (ASN1_TIME_to_tm(date, &parts) != 1)
        return false;
    *out_time = timegm(&parts);
    return true;
}

static bool take_first(X509 *certificate, void *argument)
{
    struct first *first = argument;
    struct certificate *out = first->out;
    if (first->taken)
        return true;
    first->taken = true;
    BIGNUM *serial = ASN1_INTEGER_to_BN(X509_get0_serialNumber(certificate), NULL);
    char *text = serial != NULL ? BN_bn2hex(serial) : NULL;
    snprintf(out->serial, sizeof(out->serial), "%s", text != NULL ? text : "");
    OPENSSL_free(text);
    BN_free(serial);
    return to_time(X509_get0_notBefore(certificate), &out->not_before) &&
           to_time(X509_get0_notAfter(certificate), &out->not_after) &&
           SSL_CTX_use_certificate(first->context, certificate) == 1; /* refuses weak keys, as it will for the core */
}

static bool check_key(SSL_CTX *context, const char *pem, const char *path, char out_why[CERTIFICATE_WHY_MAX])
{
    BIO *bytes = BIO_new_mem_buf(pem, -1);
    bool asked = false;
    ERR_clear_error();
    EVP_PKEY *key = bytes != NULL ? PEM_read_bio_PrivateKey(bytes, NULL, no_passphrase, &asked) : NULL;
    BIO_free(bytes);
    if (key == NULL)
        return asked ? bad(path, "its key has a passphrase; give one without, readable by its user alone", out_why)
                     : bad_by_library(path, "it holds no private key in PEM", out_why);
    bool matches = SSL_CTX_use_PrivateKey(context, key) == 1 && SSL_CTX_check_private_key(context) == 1;
    EVP_PKEY_free(key);
    return matches ||
           bad_by_library(path, "it is not the key of the first certificate in the certificate's file", out_why);
}

bool certificate_check(struct certificate *found, const char *const paths[CERTIFICATE_FILES],
                       char out_why[CERTIFICATE_WHY_MAX])
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    if (context == NULL)
        return bad_by_library(paths[CERTIFICATE_CHAIN], "no TLS", out_why);
    struct first first = {.context = context, .out = found};
    const char *chain = found->pem[CERTIFICATE_CHAIN], *ca = found->pem[CERTIFICATE_CLIENT_CA];
    bool good = (chain == NULL ||
                 (each_certificate(chain, paths[CERTIFICATE_CHAIN], take_first, &first, &found->chain_count, out_why) &&
                  check_key(context, found->pem[CERTIFICATE_KEY], paths[CERTIFICATE_KEY], out_why))) &&
                (ca == NULL ||
                 each_certificate(ca, paths[CERTIFICATE_CLIENT_CA], NULL, NULL, &found->client_ca_count, out_why));
    SSL_CTX_free(context);
    ERR_clear_error();
    return good;
}

bool certificate_load(const char *const paths[CERTIFICATE_FILES], struct certificate *out,
                      char out_why[CERTIFICATE_WHY_MAX])
{
    struct certificate found = {.chain_count = 0};
    bool good = true;
    for (int i = 0; good && i < CERTIFICATE_FILES; i++)
        good = paths[i] == NULL || read_file(paths[i], &found.pem[i], out_why);
    if (!good || !certificate_check(&found, paths, out_why)) {
        certificate_fini(&found);
        return false;
    }
    *out = found;
    return true;
}

void certificate_fini(struct certificate *certificate)
{
    for (int i = 0; i < CERTIFICATE_FILES; i++)
        free_text(certificate->pem[i]);
    *certificate = (struct certificate){.chain_count = 0};
}

bool certificate_equal(const struct certificate *one, const struct certificate *other)
{
    for (int i = 0; i < CERTIFICATE_FILES; i++) {
        const char *left = one->pem[i];
        const char *right = other->pem[i];
        if ((left == NULL) != (right == NULL) || (left != NULL && strcmp(left, right) != 0))
            return false;
    }
    return true;
}
