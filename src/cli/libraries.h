/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_LIBRARIES_H
#define LODGE_LIBRARIES_H

#include <stdbool.h>

/* A library that is loaded when it is needed, by its soname. */
typedef struct OptionalLibrary {
    const char *name;    /* NULL ends the table */
    const char *soname;
    const char *package; /* of Debian and Ubuntu */
    const char *use;     /* what does not work without it */
} OptionalLibrary;
extern const OptionalLibrary optional_libraries[];

/* Whether it can be loaded; loads and lets go of it. */
bool library_there(const OptionalLibrary *l);

/* A library that is linked; @version is asked at run time where the library tells. */
typedef struct LinkedLibrary {
    const char *name; /* NULL ends the table */
    const char *built; /* version of its headers, or NULL where they do not say */
    char *(*version)(void); /* transfer full; NULL: it does not tell */
} LinkedLibrary;
extern const LinkedLibrary linked_libraries[];

#endif
