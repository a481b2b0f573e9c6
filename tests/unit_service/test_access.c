/* Who may write, against identities that no option lets a real connection have, or that are hard to come by. */
#include "access.h"
#include "server.h"
#include "support.h"

#include <grpc/grpc_security.h>
#include <grpc/grpc_security_constants.h>
#include <string.h>

#define PROPERTIES_MAX 4

/* What the core says of the connection; the linker sends the questions here (--wrap). */
static struct {
    bool none; /* no context at all */
    grpc_auth_property properties[PROPERTIES_MAX];
    size_t count;
    int references; /* contexts given out and not released */
    int asked;
} connection;

grpc_auth_context *__wrap_grpc_call_auth_context(grpc_call *call);
void __wrap_grpc_auth_context_release(grpc_auth_context *context);
grpc_auth_property_iterator __wrap_grpc_auth_context_find_properties_by_name(const grpc_auth_context *context,
                                                                             const char *name);
const grpc_auth_property *__wrap_grpc_auth_property_iterator_next(grpc_auth_property_iterator *at);

grpc_auth_context *__wrap_grpc_call_auth_context(grpc_call *call)
{
    (void)call;
    connection.asked++;
    if (connection.none)
        return NULL;
    connection.references++;
    return (grpc_auth_context *)(void *)&connection;
}

void __wrap_grpc_auth_context_release(grpc_auth_context *context)
{
    assert_ptr_equal(context, &connection);
    connection.references--;
}

grpc_auth_property_iterator __wrap_grpc_auth_context_find_properties_by_name(const grpc_auth_context *context,
                                                                             const char *name)
{
    return (grpc_auth_property_iterator){.ctx = context, .name = name};
}

const grpc_auth_property *__wrap_grpc_auth_property_iterator_next(grpc_auth_property_iterator *at)
{
    if (at->ctx == NULL)
        return NULL;
    while (at->index < connection.count) {
        const grpc_auth_property *property = &connection.properties[at->index++];
        if (strcmp(property->name, at->name) == 0)
            return property;
    }
    return NULL;
}

static void has(const char *name, const char *value, size_t len)
{
    assert_true(connection.count < PROPERTIES_MAX);
    connection.properties[connection.count++] =
        (grpc_auth_property){.name = (char *)(uintptr_t)name, .value = (char *)(uintptr_t)value, .value_length = len};
}

static void has_text(const char *name, const char *value)
{
    has(name, value, strlen(value));
}

/* ---- a call to ask for ---- */

static struct config config;
static struct server server;
static struct queue queue;
static struct call call;

static int setup(void **state)
{
    (void)state;
    memset(&connection, 0, sizeof(connection));
    memset(&call, 0, sizeof(call));
    config = (struct config){.writable = true,
                             .tls_cert = "cert",
                             .tls_key = "key",
                             .tls_client_ca = "ca",
                             .allow_writer = {.at = {"writer.example"}, .count = 1}};
    server.config = &config;
    queue.server = &server;
    call.queue = &queue;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    assert_int_equal(connection.references, 0);
    return 0;
}

static void assert_refused(grpc_status_code status, const char *reason)
{
    assert_false(access_may_write(&call));
    assert_int_equal(call.status, status);
    assert_string_equal(call.reason, reason);
    assert_true(strlen(call.status_text) > 20);
    assert_true(strlen(call.status_text) < STATUS_TEXT_MAX - 1); /* nothing was cut off */
}

static void has_certificate_of(const char *dns)
{
    has_text(GRPC_TRANSPORT_SECURITY_TYPE_PROPERTY_NAME, "ssl");
    has_text(GRPC_X509_PEM_CERT_PROPERTY_NAME, "not looked at where an alternative name is allowed");
    has_text(GRPC_PEER_DNS_PROPERTY_NAME, dns);
}

static void a_verified_certificate_with_an_allowed_name_may_write(void **state)
{
    (void)state;
    has_certificate_of("writer.example");
    assert_true(access_may_write(&call));
}

static void without_a_certificate_there_is_no_identity(void **state)
{
    (void)state;
    has_text(GRPC_TRANSPORT_SECURITY_TYPE_PROPERTY_NAME, "ssl");
    assert_refused(GRPC_STATUS_UNAUTHENTICATED, "NO_IDENTITY");
    has_text(GRPC_PEER_DNS_PROPERTY_NAME, "writer.example"); /* names of nothing */
    assert_refused(GRPC_STATUS_UNAUTHENTICATED, "NO_IDENTITY");
}

static void a_certificate_that_nobody_was_to_verify_is_no_identity(void **state)
{
    (void)state;
    config.tls_client_ca = NULL;
    has_certificate_of("writer.example");
    assert_refused(GRPC_STATUS_UNAUTHENTICATED, "NO_IDENTITY");
}

static void a_connection_that_says_nothing_of_itself_has_no_identity(void **state)
{
    (void)state;
    assert_refused(GRPC_STATUS_UNAUTHENTICATED, "NO_IDENTITY");
    connection.none = true;
    assert_refused(GRPC_STATUS_UNAUTHENTICATED, "NO_IDENTITY");
    assert_false(access_is_plain(&call));
}

static void only_the_core_s_own_word_makes_a_connection_plain(void **state)
{
    (void)state;
    static const struct {
        const char *type;
        size_t len;
        bool plain;
    } types[] = {{"insecure", 8, true},  {"insecure2", 9, false}, {"insecur", 7, false},
                 {"Insecure", 8, false}, {"ssl", 3, false},       {"", 0, false}};
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        connection.count = 0;
        has(GRPC_TRANSPORT_SECURITY_TYPE_PROPERTY_NAME, types[i].type, types[i].len);
        assert_int_equal(access_is_plain(&call), types[i].plain);
        assert_false(access_may_write(&call));
        assert_string_equal(call.reason, types[i].plain ? "NOT_ALLOWED" : "NO_IDENTITY");
    }
}

static void without_tls_the_connection_is_not_asked(void **state)
{
    (void)state;
    config.tls_cert = NULL;
    assert_true(access_is_plain(&call));
    assert_refused(GRPC_STATUS_PERMISSION_DENIED, "NOT_ALLOWED");
    config.allow_writer.count = 0;
    assert_true(access_may_write(&call));
    assert_int_equal(connection.asked, 0);
}

static void a_server_that_only_reads_asks_nobody_who_they_are(void **state)
{
    (void)state;
    config.writable = false;
    has_certificate_of("writer.example");
    assert_refused(GRPC_STATUS_PERMISSION_DENIED, "READ_ONLY_SERVER");
    assert_int_equal(connection.asked, 0);
}

static void a_certificate_that_cannot_be_read_has_no_common_name(void **state)
{
    (void)state;
    config.allow_writer.at[0] = "cn:writer";
    has_text(GRPC_TRANSPORT_SECURITY_TYPE_PROPERTY_NAME, "ssl");
    has_text(GRPC_X509_PEM_CERT_PROPERTY_NAME, "garbage");
    has_text(GRPC_X509_CN_PROPERTY_NAME, "writer");
    assert_refused(GRPC_STATUS_PERMISSION_DENIED, "NOT_ALLOWED");
}

static void a_name_that_does_not_fit_the_message_is_left_out_whole(void **state)
{
    (void)state;
    static char name[400];
    memset(name, 'n', sizeof(name));
    has_text(GRPC_TRANSPORT_SECURITY_TYPE_PROPERTY_NAME, "ssl");
    has_text(GRPC_X509_PEM_CERT_PROPERTY_NAME, "");
    for (size_t len = 0; len < sizeof(name); len++) {
        connection.count = 2;
        has(GRPC_PEER_URI_PROPERTY_NAME, name, len);
        has_text(GRPC_PEER_DNS_PROPERTY_NAME, "b");
        assert_refused(GRPC_STATUS_PERMISSION_DENIED, "NOT_ALLOWED");
        assert_non_null(strstr(call.status_text, "dns b"));
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_verified_certificate_with_an_allowed_name_may_write),
        TEST(without_a_certificate_there_is_no_identity),
        TEST(a_certificate_that_nobody_was_to_verify_is_no_identity),
        TEST(a_connection_that_says_nothing_of_itself_has_no_identity),
        TEST(only_the_core_s_own_word_makes_a_connection_plain),
        TEST(without_tls_the_connection_is_not_asked),
        TEST(a_server_that_only_reads_asks_nobody_who_they_are),
        TEST(a_certificate_that_cannot_be_read_has_no_common_name),
        TEST(a_name_that_does_not_fit_the_message_is_left_out_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
