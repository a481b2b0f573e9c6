/* F-10, on the engine's own appender: no file is that long. */
#include "appender.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define OFFSET_LIMIT (UINT64_C(1) << 48)

/* Nothing of these reaches a file: there is none. */
static void write_beyond_256_tib_is_refused_and_one_just_below_is_not(void **state)
{
    (void)state;
    const struct file none = {.fd = -1};
    const rd_span value = {.data = "12345678", .len = 8};
    struct appender appender = {0};
    struct entry entry = {.trailer_off = 5};
    assert_int_equal(appender_begin(&appender, OFFSET_LIMIT - 64), RD_OK);
    assert_int_equal(appender_add(&appender, &none, 1, value, &entry), RD_OK); /* F-10: its trailer begins below */
    assert_true(entry.trailer_off == OFFSET_LIMIT - 56 && appender_tail(&appender) == OFFSET_LIMIT - 36);
    entry.trailer_off = 5;
    assert_int_equal(appender_add(&appender, &none, 1, value, &entry), RD_E_TOO_FAR);
    assert_int_equal(appender_begin(&appender, OFFSET_LIMIT - 64), RD_OK);
    const rd_span large = {.data = "", .len = 64}; /* never looked at */
    assert_int_equal(appender_add_summed(&appender, &none, 1, large, 0, &entry), RD_E_TOO_FAR);
    const rd_span larger = {.data = "", .len = SIZE_MAX};
    assert_int_equal(appender_add_summed(&appender, &none, 1, larger, 0, &entry), RD_E_TOO_FAR);
    assert_int_equal(entry.trailer_off, 5);
    appender_fini(&appender);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(write_beyond_256_tib_is_refused_and_one_just_below_is_not),
    };
    return cmocka_run_group_tests_name("limits", tests, NULL, NULL);
}
