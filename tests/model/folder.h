/** A temporary folder: in TMPDIR, else in memory where there is such a place (a disk makes every sync wait), else /tmp.
 */
#ifndef RDRIVE_TESTS_FOLDER_H
#define RDRIVE_TESTS_FOLDER_H

#include <stdbool.h>

#define FOLDER_MAX 256

/* Returns: whether it was made. */
bool folder_make(const char *name, char out_folder[FOLDER_MAX]);

/* Remove every file in it; and the folder. */
void folder_clear(const char *folder);
bool folder_remove(const char *folder);

#endif
