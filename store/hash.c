#include "format.h"
#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t rd_hash(rd_span key)
{
    return XXH3_64bits(key.len == 0 ? "" : key.data, key.len);
}

void rd_namespace_key(rd_span name, rd_span key, uint8_t out_key[16])
{
    store_le64(out_key, rd_hash(name));
    store_le64(out_key + 8, rd_hash(key));
}
