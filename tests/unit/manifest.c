#include "manifest.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *json_load_path(const char *name)
{
    char *path = fixture_path(name);
    json_error_t error;
    json_t *json = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    EXPECT(json != NULL, "%s:%d: %s", path, error.line, error.text);
    free(path);
    return json;
}

struct fixture fixture_get(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "valid/%s", name);
    struct fixture fixture = {.name = name, .file = fixture_load(path)};
    snprintf(path, sizeof path, "valid/%s.json", name);
    fixture.manifest = json_load_path(path);
    EXPECT(field_u64(fixture.manifest, "file_size") == fixture.file.len, "%s", name);
    return fixture;
}

void fixture_fini(struct fixture *fixture)
{
    bytes_free(&fixture->file);
    json_decref(fixture->manifest);
}

static int is_store(const struct dirent *at)
{
    const char *dot = strrchr(at->d_name, '.');
    return dot != NULL && strcmp(dot, ".srd") == 0;
}

void fixture_each(void (*visit)(const struct fixture *fixture, void *arg), void *arg)
{
    char *path = fixture_path("valid");
    struct dirent **names = NULL;
    int count = scandir(path, &names, is_store, alphasort);
    EXPECT(count >= FIXTURES_MIN, "%s holds %d stores", path, count);
    for (int i = 0; i < count; i++) {
        AUTO_FIXTURE fixture = fixture_get(names[i]->d_name);
        visit(&fixture, arg);
        free(names[i]);
    }
    free(names);
    free(path);
}

json_t *field(const json_t *object, const char *name)
{
    json_t *value = json_object_get(object, name);
    EXPECT(value != NULL, "field %s is missing", name);
    return value;
}

uint64_t field_u64(const json_t *object, const char *name)
{
    json_t *value = field(object, name);
    EXPECT(json_is_integer(value), "field %s is no integer", name);
    return (uint64_t)json_integer_value(value);
}

const char *field_text(const json_t *object, const char *name)
{
    json_t *value = field(object, name);
    EXPECT(json_is_string(value), "field %s is no text", name);
    return json_string_value(value);
}

bool field_is(const json_t *object, const char *name, const char *text)
{
    return strcmp(field_text(object, name), text) == 0;
}

bool field_true(const json_t *object, const char *name)
{
    return json_is_true(field(object, name));
}

uint64_t hash_of_hex(const char *hex)
{
    char *end = NULL;
    uint64_t value = strtoull(hex, &end, 16);
    EXPECT(*hex != '\0' && *end == '\0', "%s is no hex number", hex);
    return value;
}

uint64_t field_hash(const json_t *object, const char *name)
{
    return hash_of_hex(field_text(object, name));
}

struct bytes payload_make(const json_t *payload)
{
    if (json_object_get(payload, "hex") != NULL)
        return bytes_of_hex(field_text(payload, "hex"));
    if (json_object_get(payload, "file") != NULL) {
        char name[128];
        snprintf(name, sizeof name, "valid/%s", field_text(payload, "file"));
        struct bytes bytes = fixture_load(name);
        EXPECT(bytes.len == field_u64(payload, "len"), "%s", name);
        return bytes;
    }
    return bytes_xorshift(field_u64(payload, "xorshift_seed"), field_u64(payload, "len"));
}

bool payload_matches(const json_t *object, rd_span payload)
{
    if (json_object_get(object, "payload_hex") != NULL) {
        AUTO_BYTES want = bytes_of_hex(field_text(object, "payload_hex"));
        return span_equal(payload, want.data, want.len);
    }
    char sum[65];
    sum_sha256(payload.data, payload.len, sum);
    return field_is(object, "payload_sha256", sum);
}

json_t *expect_load(void)
{
    return json_load_path("damaged/expect.json");
}
