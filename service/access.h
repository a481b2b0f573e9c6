/* Who may do what, by how the call came and by the names in its certificate. */
#ifndef ACCESS_H
#define ACCESS_H

#include "call.h"

/**
 * Whether the caller may write. Returns: false with STEP_FAIL's status set.
 * Names are compared byte for byte with --allow-writer: the certificate's DNS and URI names, or, where the option says
 * `cn:NAME` and the certificate has no subject alternative name of any kind, its common name.
 */
bool access_may_write(struct call *call);

/* Whether payloads may go out by reference: what encrypts reads them where it can't be guarded against a cut file. */
bool access_is_plain(const struct call *call);

#endif
