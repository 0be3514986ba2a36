/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_SWITCH_LIST_H
#define LODGE_SWITCH_LIST_H

#include <stdbool.h>

/* Print the switches that run, by their names: process and ports of each. Nothing where there is none
 * (without @json). Any thread. */
void switch_list(bool json);

#endif
