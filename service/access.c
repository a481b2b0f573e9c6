#include "access.h"
#include "server.h"
#include <grpc/grpc_security.h>
#include <grpc/grpc_security_constants.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>

#define NAMES_SHOWN_MAX 120u
#define COMMON_NAME     "cn:"

static const grpc_auth_property *first_property(const grpc_auth_context *context, const char *name)
{
    grpc_auth_property_iterator at = grpc_auth_context_find_properties_by_name(context, name);
    return grpc_auth_property_iterator_next(&at);
}

/* Of a connection: the core's contexts are counted, and may be missing. */
static bool came_plain(const grpc_auth_context *context)
{
    static const char plain[] = "insecure";
    const grpc_auth_property *type = first_property(context, GRPC_TRANSPORT_SECURITY_TYPE_PROPERTY_NAME);
    return type != NULL && type->value_length == strlen(plain) && memcmp(type->value, plain, strlen(plain)) == 0;
}

bool access_is_plain(const struct call *call)
{
    if (call->queue->server->config->tls_cert == NULL)
        return true;
    grpc_auth_context *context = grpc_call_auth_context(call->call);
    bool plain = context != NULL && came_plain(context);
    if (context != NULL)
        grpc_auth_context_release(context);
    return plain;
}

/* ---- names ---- */

static bool is_common_name_entry(const char *entry)
{
    return strncmp(entry, COMMON_NAME, strlen(COMMON_NAME)) == 0;
}

/* By length and bytes: what a certificate says may hold a NUL. */
static bool is_listed(const struct texts *allowed, bool common_name, const grpc_auth_property *name)
{
    for (size_t i = 0; i < allowed->count; i++) {
        const char *entry = allowed->at[i];
        if (is_common_name_entry(entry) != common_name)
            continue; /* a URI may begin with "cn:" too */
        if (common_name)
            entry += strlen(COMMON_NAME);
        if (strlen(entry) == name->value_length && memcmp(entry, name->value, name->value_length) == 0)
            return true;
    }
    return false;
}

/* Names as a refusal shows them. */
struct shown {
    char text[NAMES_SHOWN_MAX];
    size_t used;
};

static void show(struct shown *shown, const char *kind, const grpc_auth_property *name)
{
    size_t room = sizeof(shown->text) - shown->used;
    int len = snprintf(shown->text + shown->used, room, "%s%s", shown->used > 0 ? ", " : "", kind);
    if (len < 0 || (size_t)len + name->value_length >= room) {
        shown->text[shown->used] = '\0'; /* whole names only */
        return;
    }
    shown->used += (size_t)len;
    for (size_t i = 0; i < name->value_length; i++) /* call_refuse sees to all other bytes */
        shown->text[shown->used++] = name->value[i] != '\0' ? name->value[i] : '?';
    shown->text[shown->used] = '\0';
}

static bool any_is_listed(const grpc_auth_context *context, const char *property, const char *kind,
                          const struct texts *allowed, struct shown *shown)
{
    grpc_auth_property_iterator at = grpc_auth_context_find_properties_by_name(context, property);
    for (const grpc_auth_property *name; (name = grpc_auth_property_iterator_next(&at)) != NULL;) {
        if (is_listed(allowed, false, name))
            return true;
        show(shown, kind, name);
    }
    return false;
}

/* Whether the certificate names its holder by one common name and nothing else. The core's properties don't tell: it
 * passes over the rarer kinds of alternative names. */
static bool has_common_name_only(const grpc_auth_property *pem)
{
    BIO *bytes = BIO_new_mem_buf(pem->value, (int)pem->value_length);
    X509 *certificate = bytes != NULL ? PEM_read_bio_X509(bytes, NULL, NULL, NULL) : NULL;
    bool only = false;
    if (certificate != NULL && X509_get_ext_by_NID(certificate, NID_subject_alt_name, -1) < 0) {
        const X509_NAME *subject = X509_get_subject_name(certificate);
        int first = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
        only = first >= 0 && X509_NAME_get_index_by_NID(subject, NID_commonName, first) < 0;
    }
    X509_free(certificate);
    BIO_free(bytes);
    ERR_clear_error(); /* the core, on this thread, would take what is left there for a failure of its connection */
    return only;
}

static bool common_name_is_listed(const grpc_auth_context *context, const grpc_auth_property *pem,
                                  const struct texts *allowed, struct shown *shown)
{
    const grpc_auth_property *name = first_property(context, GRPC_X509_CN_PROPERTY_NAME);
    if (name == NULL || !has_common_name_only(pem))
        return false;
    show(shown, COMMON_NAME, name);
    return is_listed(allowed, true, name);
}

/* ---- writing ---- */

static bool refuse_plain(struct call *call)
{
    call_refuse(call, REFUSE_NOT_ALLOWED,
                "a plain connection may not write where the server has --allow-writer; connect with TLS and a "
                "certificate that has one of the names given there");
    return false;
}

/* The callers of a TLS listener. */
static bool certificate_may_write(struct call *call, const grpc_auth_context *context)
{
    const struct config *config = call->queue->server->config;
    const grpc_auth_property *pem = first_property(context, GRPC_X509_PEM_CERT_PROPERTY_NAME);
    struct shown shown = {.used = 0};
    if (config->tls_client_ca == NULL || pem == NULL) { /* the core was told to verify all that it asks for */
        call_refuse(call, REFUSE_NO_IDENTITY,
                    "no verified certificate came with this connection, and writing needs one that has a name in the "
                    "server's --allow-writer; connect with one");
        return false;
    }
    if (any_is_listed(context, GRPC_PEER_DNS_PROPERTY_NAME, "dns ", &config->allow_writer, &shown) ||
        any_is_listed(context, GRPC_PEER_URI_PROPERTY_NAME, "uri ", &config->allow_writer, &shown) ||
        common_name_is_listed(context, pem, &config->allow_writer, &shown))
        return true;
    call_refuse(call, REFUSE_NOT_ALLOWED,
                "none of the certificate's names may write: %s; use another certificate, or have one of its names "
                "added to the server's --allow-writer",
                shown.used > 0 ? shown.text : "it has none that count");
    return false;
}

bool access_may_write(struct call *call)
{
    const struct config *config = call->queue->server->config;
    if (!config->writable) {
        call_refuse(call, REFUSE_READ_ONLY_SERVER,
                    "this server only reads; write to one that was started with --writable");
        return false;
    }
    if (config->tls_cert == NULL)
        return config->allow_writer.count == 0 || refuse_plain(call);
    grpc_auth_context *context = grpc_call_auth_context(call->call);
    bool may;
    if (context != NULL && came_plain(context))
        may = config->allow_writer.count == 0 || refuse_plain(call);
    else
        may = certificate_may_write(call, context);
    if (context != NULL)
        grpc_auth_context_release(context);
    return may;
}
