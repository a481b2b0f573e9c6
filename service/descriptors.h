/* What the server can describe of itself: the files of proto/, as protoc compiled them. */
#ifndef DESCRIPTORS_H
#define DESCRIPTORS_H

#include <rdrive/store.h>
#include <stdint.h>

#define DESCRIPTOR_FILES_MAX    64 /* a set of files is a word of bits */
#define DESCRIPTOR_SERVICES_MAX 32
#define DESCRIPTOR_NAME_MAX     96

struct descriptor_file {
    char name[DESCRIPTOR_NAME_MAX]; /* as an import has it */
    rd_span package;
    rd_span bytes;  /* a FileDescriptorProto */
    uint64_t needs; /* a bit for each file that is needed to understand it; itself and imports of imports included */
};

struct descriptors {
    struct descriptor_file files[DESCRIPTOR_FILES_MAX];
    unsigned file_count;
    char services[DESCRIPTOR_SERVICES_MAX][DESCRIPTOR_NAME_MAX]; /* full names, sorted */
    unsigned service_count;
};

/* The one there is; made at the first call. Any thread. */
const struct descriptors *descriptors(void);

/* The place in `files` of the file of this name; -1 where there is none. */
int descriptors_file(const struct descriptors *all, const char *name);

/* The same of the file that defines `symbol`: a full name, without a leading dot, of a message, field, oneof, enum,
 * enum's value, service or method. */
int descriptors_file_of(const struct descriptors *all, const char *symbol);

#endif
