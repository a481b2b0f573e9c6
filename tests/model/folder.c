#include "folder.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

bool folder_make(const char *name, char out_folder[FOLDER_MAX])
{
    const char *given = getenv("TMPDIR");
    const char *const parents[3] = {given != NULL ? given : "/dev/shm", "/dev/shm", "/tmp"};
    for (size_t i = 0; i < 3; i++) {
        int len = snprintf(out_folder, FOLDER_MAX, "%s/rdrive-%s-XXXXXX", parents[i], name);
        if (len > 0 && len < FOLDER_MAX && mkdtemp(out_folder) != NULL)
            return true;
    }
    return false;
}

void folder_clear(const char *folder)
{
    DIR *dir = opendir(folder);
    if (dir == NULL)
        return;
    for (const struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir))
        (void)unlinkat(dirfd(dir), entry->d_name, 0); /* not "." and "..", which no unlink takes */
    closedir(dir);
}

bool folder_remove(const char *folder)
{
    folder_clear(folder);
    return rmdir(folder) == 0;
}
