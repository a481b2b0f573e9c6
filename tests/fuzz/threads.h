/** That recovery on several threads finds in any bytes at all what it finds on one. */
#ifndef RDRIVE_TESTS_THREADS_H
#define RDRIVE_TESTS_THREADS_H

#include "scratch.h"

void threads_check(rd_span bytes);

#endif
