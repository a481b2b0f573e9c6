#include "child.h"
#include "report.h"

#include <string.h>
#include <sys/statfs.h>
#include <sys/utsname.h>
#include <unistd.h>

/* The rest of the first line of `path` that begins with `prefix`, without blanks and a colon before it. */
static void line_of(const char *path, const char *prefix, char *out_text, size_t size)
{
    char line[512];
    snprintf(out_text, size, "unknown");
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return;
    while (fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, prefix, strlen(prefix)) != 0)
            continue;
        char *text = line + strlen(prefix);
        text += strspn(text, " \t:");
        text[strcspn(text, "\n")] = '\0';
        snprintf(out_text, size, "%.*s", (int)size - 1, text);
        break;
    }
    fclose(file);
}

static const char *file_system(const char *folder)
{
    static char number[32];
    static const struct {
        unsigned long magic;
        const char *name;
    } known[] = {
        {0xef53, "ext4"},        {0x58465342, "xfs"}, {0x9123683e, "btrfs"}, {0x01021994, "tmpfs"},
        {0x794c7630, "overlay"}, {0x6969, "nfs"},     {0x2fc12fc1, "zfs"},   {0xf2f52010, "f2fs"},
    };
    struct statfs facts;
    if (statfs(folder, &facts) != 0)
        return "unknown";
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if ((unsigned long)facts.f_type == known[i].magic)
            return known[i].name;
    snprintf(number, sizeof number, "%#lx", (unsigned long)facts.f_type);
    return number;
}

void report_machine(const char *folder)
{
    char text[128];
    struct utsname system;
    CHECK(uname(&system) == 0);
    line_of("/proc/cpuinfo", "model name", text, sizeof text);
    printf("machine      %s, %ld cores, %s %s\n", text, sysconf(_SC_NPROCESSORS_ONLN), system.sysname, system.release);
    line_of("/proc/meminfo", "MemTotal", text, sizeof text);
    printf("memory       %s", text);
    line_of("/sys/kernel/mm/transparent_hugepage/enabled", "", text, sizeof text);
    printf("; huge pages: %s\n", text);
    printf("files        %s\n", file_system(folder));
    line_of("/proc/loadavg", "", text, sizeof text);
    printf("load before  %s\n", text);
#ifndef __OPTIMIZE__
    printf("warning      built without optimization: build with -DCMAKE_BUILD_TYPE=Release\n");
#endif
}
