#include <rdrive/error.h>

static const struct {
    int status;
    const char *reason;
    const char *text;
} errors[] = {
#define RD_ERROR_ROW(name, status, reason, text) [name] = {status, reason, text},
    RD_ERRORS(RD_ERROR_ROW)
#undef RD_ERROR_ROW
};

const char *rd_err_text(rd_err err)
{
    return (unsigned)err < RD_ERR_COUNT ? errors[err].text : "an unknown error code";
}

const char *rd_err_reason(rd_err err)
{
    return (unsigned)err < RD_ERR_COUNT ? errors[err].reason : "UNKNOWN";
}

int rd_err_status(rd_err err)
{
    return (unsigned)err < RD_ERR_COUNT ? errors[err].status : 2;
}
