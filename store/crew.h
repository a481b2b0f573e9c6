/* Recovery on several threads, where entries are many and in order. RECOVERY.md says why nothing comes out otherwise.
 */
#ifndef RD_CREW_H
#define RD_CREW_H

#include "recover_internal.h"

/* Walk down as far as that pays, damage on the way judged as ever; the rest is left to recovery_walk. Makes
   `recovery->crew`. Returns: as recovery_walk. */
RD_MUST_CHECK rd_err crew_walk(struct recovery *recovery);

/* NULL is fine. */
void crew_destroy(struct crew *crew);

#endif
