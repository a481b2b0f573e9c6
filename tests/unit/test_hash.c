/* F-07, F-11, E-12 through the public calls; and the one list of errors. */
#include "manifest.h"

#include <string.h>

static void empty_key_has_the_hash_of_xxh3(void **state)
{
    (void)state;
    assert_int_equal(rd_hash((rd_span){NULL, 0}), UINT64_C(0x2d06800538d394c2));
    assert_int_equal(rd_hash(text_span("")), UINT64_C(0x2d06800538d394c2));
}

static void hash_fixture(const struct fixture *fixture, void *arg)
{
    size_t *hashed = arg;
    size_t i;
    json_t *key;
    json_array_foreach(field(fixture->manifest, "keys"), i, key)
    {
        if (json_is_null(field(key, "key_hex")))
            continue;
        AUTO_BYTES bytes = bytes_of_hex(field_text(key, "key_hex"));
        EXPECT(rd_hash(bytes_span(&bytes)) == field_hash(key, "key_hash"), "%s: %s", fixture->name,
               field_text(key, "key_hex"));
        (*hashed)++;
    }
}

static void every_fixture_key_hashes_as_the_crate_hashed_it(void **state)
{
    (void)state;
    size_t hashed = 0;
    fixture_each(hash_fixture, &hashed);
    assert_true(hashed > 1000);
}

static void two_keys_of_one_hash_are_one_key_to_the_format(void **state)
{
    AUTO_BYTES one = bytes_of_hex("b93942ea7b738267d59f3d805cf975ae"); /* E-12 */
    AUTO_BYTES two = bytes_of_hex("b81a078df2d84f883a5296093bbc56af");
    assert_int_equal(rd_hash(bytes_span(&one)), UINT64_C(0xca981008c76b313c));
    assert_int_equal(rd_hash(bytes_span(&two)), UINT64_C(0xca981008c76b313c));

    rd_store *store = store_make(state, "s");
    rd_written done;
    assert_int_equal(rd_store_write(store, bytes_span(&one), text_span("one"), &done), RD_OK);
    rd_entry entry;
    assert_int_equal(rd_store_read(store, bytes_span(&two), &entry), RD_OK);
    assert_true(span_equal(entry.payload, "one", 3));
    rd_entry_release(&entry);
    assert_int_equal(rd_store_len(store), 1);
    rd_store_close(store);
}

static void namespaced_keys_are_those_of_fixture_14(void **state)
{
    (void)state;
    const char *names[] = {"users", "orders", ""};
    const char *keys[] = {"1", "2", "name", ""};
    AUTO_FIXTURE fixture = fixture_get("14_namespaced.srd");
    json_t *ops = field(fixture.manifest, "ops");
    for (size_t n = 0; n < 3; n++) {
        for (size_t k = 0; k < 4; k++) {
            json_t *op = json_array_get(ops, 4 * n + k);
            AUTO_BYTES want = bytes_of_hex(field_text(op, "key"));
            uint8_t key[16];
            rd_namespace_key(text_span(names[n]), text_span(keys[k]), key);
            EXPECT(want.len == sizeof key && memcmp(key, want.data, sizeof key) == 0, "%s/%s", names[n], keys[k]);
        }
    }
}

static void namespaced_key_finds_its_value(void **state)
{
    (void)state;
    char *path = fixture_path("valid/14_namespaced.srd");
    rd_store *store = store_open_ok(path, &open_reading);
    uint8_t key[16];
    rd_entry entry;
    rd_namespace_key(text_span("orders"), text_span("name"), key);
    assert_int_equal(rd_store_read(store, (rd_span){key, sizeof key}, &entry), RD_OK);
    assert_true(span_equal(entry.payload, "orders/name", 11));
    rd_entry_release(&entry);
    rd_namespace_key(text_span("users"), text_span("2"), key); /* deleted */
    assert_int_equal(rd_store_read(store, (rd_span){key, sizeof key}, &entry), RD_ABSENT);
    rd_store_close(store);
    free(path);
}

static void every_error_says_what_it_is(void **state)
{
    (void)state;
    for (int i = 0; i < RD_ERR_COUNT; i++) {
        rd_err err = (rd_err)i;
        EXPECT(rd_err_text(err) != NULL && strlen(rd_err_text(err)) > 3, "error %d", i);
        EXPECT(rd_err_text(err)[strlen(rd_err_text(err)) - 1] != '.', "error %d: %s", i, rd_err_text(err));
        EXPECT(rd_err_reason(err) != NULL && rd_err_reason(err)[0] != '\0', "error %d", i);
        EXPECT(rd_err_status(err) >= 0 && rd_err_status(err) <= 16, "error %d", i);
        EXPECT((rd_err_status(err) == 0) == (err == RD_OK || err == RD_ABSENT), "error %d", i);
    }
    assert_int_equal(rd_err_status(RD_E_DAMAGED), 15);
    assert_string_equal(rd_err_reason(RD_E_DAMAGED), "DAMAGED");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(empty_key_has_the_hash_of_xxh3),
        cmocka_unit_test(every_fixture_key_hashes_as_the_crate_hashed_it),
        TEMP_TEST(two_keys_of_one_hash_are_one_key_to_the_format),
        cmocka_unit_test(namespaced_keys_are_those_of_fixture_14),
        cmocka_unit_test(namespaced_key_finds_its_value),
        cmocka_unit_test(every_error_says_what_it_is),
    };
    return cmocka_run_group_tests_name("hash", tests, NULL, NULL);
}
