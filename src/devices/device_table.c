/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Every device class that a description can name; a new device adds its two lines here. */
#include <string.h>

#include "lodge/device.h"


const DeviceClass *const device_table[] = {
    NULL,
};

const DeviceClass *device_class_find(const char *name)
{
    for (const DeviceClass *const *c = device_table; *c; c++) {
        if (!strcmp((*c)->name, name))
            return *c;
    }
    return NULL;
}
