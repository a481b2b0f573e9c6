#include "descriptors.h"
#include "log.h"
#include "wire.h"
#include <descriptor_set.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

/* What the compiler has built in is checked as it is read, once: a bug of the build if it ever fires. */
#define BUILD_REQUIRE(condition)                                                                                       \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            LOG(LOG_ERROR, "bug", LOG_TEXT("not", #condition));                                                        \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* Fields of google/protobuf/descriptor.proto. */
enum { SET_FILE = 1 };
enum { FILE_NAME = 1, FILE_PACKAGE = 2, FILE_DEPENDENCY = 3, FILE_SERVICE = 6 };
enum { ANY_NAME = 1 }; /* of a message, field, oneof, enum, value, service or method */

/* What has a name. */
enum kind { KIND_NONE, KIND_FILE, KIND_MESSAGE, KIND_ENUM, KIND_SERVICE, KIND_LEAF, KIND_COUNT };

#define FIELDS_MAX 9

/* Which fields of a kind's descriptor are named things within it, and of which kind. */
static const enum kind kinds[KIND_COUNT][FIELDS_MAX] = {
    [KIND_FILE] = {[4] = KIND_MESSAGE, [5] = KIND_ENUM, [FILE_SERVICE] = KIND_SERVICE, [7] = KIND_LEAF},
    [KIND_MESSAGE] =
        {[2] = KIND_LEAF, [3] = KIND_MESSAGE, [4] = KIND_ENUM, [6] = KIND_LEAF, [8] = KIND_LEAF}, /* 8: oneofs */
    [KIND_ENUM] = {[2] = KIND_LEAF},
    [KIND_SERVICE] = {[2] = KIND_LEAF},
    [KIND_LEAF] = {KIND_NONE},
};

/* The next field that is a string or a message; numbers are passed over. False at the end. */
static bool next_field(struct wire_cursor *cursor, uint32_t *out_field, rd_span *out_value)
{
    while (cursor->left > 0) {
        enum wire_type type;
        BUILD_REQUIRE(wire_read_tag(cursor, out_field, &type));
        if (type != WIRE_LEN) {
            BUILD_REQUIRE(wire_skip_field(cursor, type));
            continue;
        }
        uint64_t len;
        BUILD_REQUIRE(wire_read_varint(cursor, &len) && len <= cursor->left);
        *out_value = (rd_span){.data = cursor->at, .len = (size_t)len};
        return wire_skip(cursor, len);
    }
    return false;
}

static rd_span name_of(rd_span descriptor)
{
    struct wire_cursor cursor = wire_cursor_over(descriptor.data, descriptor.len);
    uint32_t field;
    rd_span value;
    do {
        BUILD_REQUIRE(next_field(&cursor, &field, &value));
    } while (field != ANY_NAME);
    return value;
}

/* ---- the index ---- */

static bool equals(rd_span span, const char *text)
{
    return span.len == strlen(text) && memcmp(span.data, text, span.len) == 0;
}

static void add_service(struct descriptors *all, rd_span package, rd_span service)
{
    rd_span name = name_of(service);
    BUILD_REQUIRE(all->service_count < DESCRIPTOR_SERVICES_MAX);
    int len = snprintf(all->services[all->service_count], DESCRIPTOR_NAME_MAX, "%.*s.%.*s", (int)package.len,
                       (const char *)package.data, (int)name.len, (const char *)name.data);
    BUILD_REQUIRE(len > 0 && len < DESCRIPTOR_NAME_MAX);
    all->service_count++;
}

static int named(const struct descriptors *all, rd_span name)
{
    for (unsigned i = 0; i < all->file_count; i++)
        if (equals(name, all->files[i].name))
            return (int)i;
    return -1;
}

static void add_file(struct descriptors *all, rd_span bytes)
{
    BUILD_REQUIRE(all->file_count < DESCRIPTOR_FILES_MAX);
    struct descriptor_file *file = &all->files[all->file_count];
    *file = (struct descriptor_file){.bytes = bytes, .needs = UINT64_C(1) << all->file_count};
    struct wire_cursor cursor = wire_cursor_over(bytes.data, bytes.len);
    uint32_t field;
    rd_span value;
    while (next_field(&cursor, &field, &value)) {
        if (field == FILE_NAME) {
            BUILD_REQUIRE(value.len < sizeof(file->name));
            memcpy(file->name, value.data, value.len);
        } else if (field == FILE_PACKAGE) {
            file->package = value;
        } else if (field == FILE_DEPENDENCY) {
            int at = named(all, value);
            BUILD_REQUIRE(at >= 0); /* protoc writes a file behind those it imports */
            file->needs |= all->files[at].needs;
        } else if (field == FILE_SERVICE) {
            add_service(all, file->package, value);
        }
    }
    all->file_count++;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(a, b);
}

static struct descriptors index_of_all;

static void make_index(void)
{
    struct wire_cursor cursor = wire_cursor_over(rdrive_descriptor_set, rdrive_descriptor_set_size);
    uint32_t field;
    rd_span value;
    while (next_field(&cursor, &field, &value))
        if (field == SET_FILE)
            add_file(&index_of_all, value);
    qsort(index_of_all.services, index_of_all.service_count, sizeof(index_of_all.services[0]), compare_names);
}

const struct descriptors *descriptors(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_index);
    return &index_of_all;
}

/* ---- looking up ---- */

int descriptors_file(const struct descriptors *all, const char *name)
{
    return named(all, (rd_span){.data = name, .len = strlen(name)});
}

/* Whether `symbol` is `name`, or goes on behind it with a dot; then *out_rest is what comes behind that, or NULL. */
static bool begins_with(const char *symbol, rd_span name, const char **out_rest)
{
    if (strncmp(symbol, name.data, name.len) != 0 || (symbol[name.len] != '\0' && symbol[name.len] != '.'))
        return false;
    *out_rest = symbol[name.len] == '.' ? symbol + name.len + 1 : NULL;
    return true;
}

/* Whether a thing of this kind has something named `symbol` in it. It goes no deeper than the files' messages do. */
static bool holds(rd_span descriptor, enum kind kind, const char *symbol)
{
    struct wire_cursor cursor = wire_cursor_over(descriptor.data, descriptor.len);
    uint32_t field;
    rd_span value;
    while (next_field(&cursor, &field, &value)) {
        enum kind inner = field < FIELDS_MAX ? kinds[kind][field] : KIND_NONE;
        const char *rest;
        if (inner == KIND_NONE)
            continue;
        bool begins = begins_with(symbol, name_of(value), &rest);
        if (begins && rest == NULL)
            return true;
        /* the full name of an enum's value is as if it stood beside the enum, not in it */
        if (inner == KIND_ENUM ? holds(value, inner, symbol) : begins && holds(value, inner, rest))
            return true;
    }
    return false;
}

int descriptors_file_of(const struct descriptors *all, const char *symbol)
{
    for (unsigned i = 0; i < all->file_count; i++) {
        const struct descriptor_file *file = &all->files[i];
        const char *rest;
        if (begins_with(symbol, file->package, &rest) && rest != NULL && holds(file->bytes, KIND_FILE, rest))
            return (int)i;
    }
    return -1;
}
