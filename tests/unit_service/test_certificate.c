/* What a TLS server's files are taken for. What OpenSSL's command can write is tested with the daemon (tests/e2e). */
#include "certificate.h"
#include "message.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[] = "/tmp/rdrive-certificate-XXXXXX";
static char chain_path[64], key_path[64], other_path[64];

static FILE *create(const char *path)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    return file;
}

static void put_file(const char *path, const void *bytes, size_t len)
{
    FILE *file = create(path);
    assert_int_equal(fwrite(bytes, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

/* A certificate that signs itself, valid for `seconds`, with serial number 0x1234. */
static void make(const char *certificate_path, const char *private_path, long seconds)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();
    assert_non_null(key);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), 0x1234);
    X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
    X509_gmtime_adj(X509_getm_notAfter(certificate), seconds);
    X509_set_pubkey(certificate, key);
    assert_true(X509_sign(certificate, key, EVP_sha256()) > 0);
    FILE *file = create(certificate_path);
    assert_int_equal(PEM_write_X509(file, certificate), 1);
    fclose(file);
    file = create(private_path);
    assert_int_equal(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL), 1);
    fclose(file);
    X509_free(certificate);
    EVP_PKEY_free(key);
}

static int setup(void **state)
{
    (void)state;
    strcpy(strrchr(folder, '-'), "-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(chain_path, sizeof(chain_path), "%s/chain", folder);
    snprintf(key_path, sizeof(key_path), "%s/key", folder);
    snprintf(other_path, sizeof(other_path), "%s/other", folder);
    make(chain_path, key_path, 3600);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(chain_path);
    unlink(key_path);
    unlink(other_path);
    rmdir(folder);
    return 0;
}

static void assert_bad(const char *chain, const char *key, const char *ca, const char *path, const char *what)
{
    const char *const paths[CERTIFICATE_FILES] = {chain, key, ca};
    char why[CERTIFICATE_WHY_MAX];
    struct certificate untouched = {.chain_count = 77};
    assert_false(certificate_load(paths, &untouched, why));
    assert_int_equal(untouched.chain_count, 77);
    assert_int_equal(strncmp(why, path, strlen(path)), 0);
    assert_non_null(strstr(why, what));
    assert_int_equal(ERR_peek_error(), 0); /* the core's connections on this thread would be blamed for it */
}

static void good_files_are_taken_as_they_are(void **state)
{
    (void)state;
    const char *const paths[CERTIFICATE_FILES] = {chain_path, key_path, chain_path};
    char why[CERTIFICATE_WHY_MAX];
    struct certificate one;
    time_t now = time(NULL);
    assert_true(certificate_load(paths, &one, why));
    assert_string_equal(one.serial, "1234");
    assert_int_equal(one.chain_count, 1);
    assert_int_equal(one.client_ca_count, 1);
    assert_true(one.not_before <= now && one.not_before > now - 60);
    assert_int_equal(one.not_after - one.not_before, 3600);
    assert_string_equal(one.pem[CERTIFICATE_CHAIN], one.pem[CERTIFICATE_CLIENT_CA]);
    assert_non_null(strstr(one.pem[CERTIFICATE_KEY], "PRIVATE KEY"));
    assert_int_equal(ERR_peek_error(), 0);
    certificate_fini(&one);
    assert_null(one.pem[CERTIFICATE_KEY]);
}

static void they_are_equal_if_each_file_is(void **state)
{
    (void)state;
    const char *const paths[CERTIFICATE_FILES] = {chain_path, key_path, NULL};
    const char *const more[CERTIFICATE_FILES] = {chain_path, key_path, chain_path};
    char why[CERTIFICATE_WHY_MAX];
    struct certificate one, same, with_ca, next;
    assert_true(certificate_load(paths, &one, why));
    assert_true(certificate_load(paths, &same, why));
    assert_true(certificate_load(more, &with_ca, why));
    make(chain_path, key_path, 3600);
    assert_true(certificate_load(paths, &next, why));
    assert_true(certificate_equal(&one, &same));
    assert_false(certificate_equal(&one, &with_ca));
    assert_false(certificate_equal(&with_ca, &one));
    assert_false(certificate_equal(&one, &next));
    certificate_fini(&one);
    certificate_fini(&same);
    certificate_fini(&with_ca);
    certificate_fini(&next);
}

static void each_file_has_its_own_reason(void **state)
{
    (void)state;
    put_file(other_path, "\0", 1);
    assert_bad(other_path, key_path, NULL, other_path, "not PEM");
    assert_bad(chain_path, other_path, NULL, other_path, "not PEM");
    assert_bad(chain_path, key_path, other_path, other_path, "not PEM");
    put_file(other_path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", 59);
    assert_bad(other_path, key_path, NULL, other_path, "can't be read");
    assert_bad(chain_path, other_path, NULL, other_path, "no private key");
    assert_bad(chain_path, key_path, other_path, other_path, "can't be read");
}

static void a_file_is_read_up_to_its_limit_and_not_beyond(void **state)
{
    (void)state;
    const char *const paths[CERTIFICATE_FILES] = {chain_path, key_path, other_path};
    char why[CERTIFICATE_WHY_MAX];
    struct certificate found;
    char *big = malloc(CERTIFICATE_FILE_MAX + 1);
    FILE *file = fopen(chain_path, "r");
    assert_non_null(big);
    memset(big, '\n', CERTIFICATE_FILE_MAX + 1);
    assert_true(fread(big, 1, 4096, file) > 100);
    fclose(file);
    put_file(other_path, big, CERTIFICATE_FILE_MAX);
    assert_true(certificate_load(paths, &found, why));
    certificate_fini(&found);
    put_file(other_path, big, CERTIFICATE_FILE_MAX + 1);
    assert_bad(chain_path, key_path, other_path, other_path, "larger than");
    free(big);
}

static void memory_that_runs_out_is_a_reason_like_any_other(void **state)
{
    (void)state;
    const char *const paths[CERTIFICATE_FILES] = {chain_path, key_path, chain_path};
    for (uint64_t i = 0; i < CERTIFICATE_FILES; i++) {
        memory_fail_after(i);
        assert_bad(chain_path, key_path, chain_path, paths[i], "memory");
        assert_true(memory_has_failed());
        memory_fail_after(UINT64_MAX);
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(good_files_are_taken_as_they_are),
        TEST(they_are_equal_if_each_file_is),
        TEST(each_file_has_its_own_reason),
        TEST(a_file_is_read_up_to_its_limit_and_not_beyond),
        TEST(memory_that_runs_out_is_a_reason_like_any_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
