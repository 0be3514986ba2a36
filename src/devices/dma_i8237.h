/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_DMA_I8237_H
#define LODGE_DMA_I8237_H

#include "lodge/device.h"

/*
 * What an ISA device asks of the DMA controller (Board.dma). Calls move what the device's FIFO
 * holds at once; the part would do it in as many bus cycles. Context of all: any thread, the
 * caller's device lock may be held.
 */

/**
 * isa_dma_read() - Move bytes from guest memory to the device on channel @ch
 * @ch:     0..3 by bytes, 5..7 by words (an odd last byte stays behind)
 * @ret_tc: whether the terminal count was reached with the last unit; then no more is moved
 * Return:  bytes moved; 0 while the channel is masked, disabled, a cascade, or programmed for the
 *          other direction. A verifying channel counts and gives ones.
 */
size_t isa_dma_read(IsaDma *dma, unsigned ch, void *buf, size_t len, bool *ret_tc);
/* Likewise from the device into guest memory; a verifying channel counts and drops. */
size_t isa_dma_write(IsaDma *dma, unsigned ch, const void *buf, size_t len, bool *ret_tc);
/* Level of the device's DREQ, which the guest sees in the status register. */
void isa_dma_request(IsaDma *dma, unsigned ch, bool asserted);

#endif
