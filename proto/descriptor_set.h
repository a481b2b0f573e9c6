/* A google.protobuf.FileDescriptorSet of all that proto/ holds, comments included: each file behind those it imports.
 */
#ifndef DESCRIPTOR_SET_H
#define DESCRIPTOR_SET_H

#include <stddef.h>
#include <stdint.h>

extern const uint8_t rdrive_descriptor_set[];
extern const size_t rdrive_descriptor_set_size;

#endif
