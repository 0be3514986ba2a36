/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_IDE_H
#define LODGE_IDE_H

/*
 * Between the files of the IDE controller and its drives. "ATA" is ATA/ATAPI-6 (T13 1410D), "PIIX"
 * the PIIX3 data sheet (290550), "SFF" is SFF-8020i, "MMC" is MMC-3.
 *
 * IdeBus.lock guards the channels and all drives on them, inside of the locks of controller and
 * drives, which guard configuration space and nothing; functions here want it held unless they say
 * otherwise.
 */

#include "lodge/block.h"
#include "pci.h"

enum {
    IDE_CHANNELS = 2,
    IDE_UNITS = 2, /* drives on a channel */
    IDE_SECTOR = 512,
    IDE_BUF = 65536, /* a drive's buffer, bytes */
    IDE_BUF_SECTORS = IDE_BUF / IDE_SECTOR,
    IDE_SERIAL_MAX = 20,
    IDE_MODEL_MAX = 40,
    IDE_MULTIPLE_MAX = 16, /* sectors in a block of READ MULTIPLE */
    IDE_PACKET = 12,
    CD_BLOCK = 2048,
    CD_SECTORS = CD_BLOCK / IDE_SECTOR,
    IDE_IOV_MAX = 1024,
    IDE_PIECES = 1024,      /* parts of bounced sectors in one request */
    IDE_PRDS_MAX = 8192,    /* entries of one table: 64 KiB */
    IDE_PRD_LEN = 8,        /* bytes */
    IDE_PRD_CACHE = 4096,   /* bytes of table copied at once */
};

/* ATA 7.15.6, status register */
enum {
    IDE_ERR = 0x01,
    IDE_DRQ = 0x08,
    IDE_DSC = 0x10,
    IDE_DF = 0x20,
    IDE_DRDY = 0x40,
    IDE_BSY = 0x80,
    IDE_READY = IDE_DRDY | IDE_DSC,
};

/* ATA 7.9, error register */
enum {
    IDE_ABRT = 0x04,
    IDE_IDNF = 0x10,
    IDE_UNC = 0x40,
};

/* ATA 7, device register and device control register */
enum {
    IDE_HEAD = 0x0f,
    IDE_DEV = 0x10,
    IDE_LBA = 0x40,
    IDE_NIEN = 0x02,
    IDE_SRST = 0x04,
    IDE_HOB = 0x80,
};

/* Offsets in the command block; the first four of IdeDriveRegs.reg are these less one. */
enum {
    IDE_REG_DATA,
    IDE_REG_FEATURE, /* read: error */
    IDE_REG_COUNT,   /* PACKET: interrupt reason */
    IDE_REG_LOW,
    IDE_REG_MID, /* PACKET: byte count */
    IDE_REG_HIGH,
    IDE_REG_DEVICE,
    IDE_REG_COMMAND, /* read: status */
    IDE_LATCHED = 5, /* feature to high */
};

#define IDE_CMD_PACKET 0xa0

/* What the running command does next on the host or by the bus master. */
typedef enum IdeStep {
    IDE_STEP_NONE,
    IDE_STEP_READ,    /* medium to buffer */
    IDE_STEP_WRITE,   /* buffer to medium */
    IDE_STEP_VERIFY,  /* medium to buffer, for nobody */
    IDE_STEP_FLUSH,
    IDE_STEP_FIND,    /* a read failed: at which sector? */
    IDE_STEP_DMA_IN,  /* medium to guest memory */
    IDE_STEP_DMA_OUT, /* guest memory to medium */
    IDE_STEP_BUF_IN,  /* buffer to guest memory */
    IDE_STEP_BUF_OUT, /* guest memory to buffer */
    IDE_STEPS,
} IdeStep;

/* What the data port moves while DRQ is set. */
typedef enum IdeData {
    IDE_DATA_NONE,
    IDE_DATA_IN,
    IDE_DATA_OUT,    /* sectors to write */
    IDE_DATA_PACKET, /* a command packet */
    IDE_DATA_PARAM,  /* a parameter list of a packet command */
    IDE_DATAS,
} IdeData;

typedef enum IdeAddress { IDE_CHS, IDE_LBA28, IDE_LBA48, IDE_ADDRESSES } IdeAddress;

/* The sense of a packet command and what the guest was not told yet. */
typedef struct IdeSense {
    uint32_t info; /* block of a medium error */
    uint8_t key, asc, ascq;
    uint8_t info_valid;
} IdeSense;

typedef struct IdeDriveRegs {
    uint64_t lba;       /* next sector of the command, units of 512 bytes */
    uint64_t left;      /* sectors that the command has not moved yet */
    uint64_t find, find_end; /* range that a failed read is looked for in */
    uint32_t buf_pos;   /* next byte at the data port */
    uint32_t block_end; /* where DRQ ends; buf_pos <= block_end <= buf_len <= IDE_BUF */
    uint32_t buf_len;
    uint32_t limit;     /* bytes in one DRQ block, > 0 */
    uint32_t cylinders, heads, sectors; /* of the translation in force; 0: a drive without */
    uint8_t reg[IDE_LATCHED][2]; /* task file: what was written last, and before that */
    uint8_t error, status, command;
    uint8_t irq;        /* INTRQ */
    uint8_t step, data, address;
    uint8_t find_unit;  /* sectors in one look */
    uint8_t multiple;   /* sectors; 0: READ and WRITE MULTIPLE abort */
    uint8_t pio_mode, mwdma, udma; /* bit of the mode chosen; 0: none */
    uint8_t write_cache, look_ahead;
    uint8_t power;      /* as CHECK POWER MODE tells it */
    uint8_t asleep;     /* only a reset wakes it */
    /* Packet commands: */
    uint8_t packet[IDE_PACKET];
    uint8_t dma;        /* the data of this command goes by bus master */
    uint8_t tray_open, locked;
    uint8_t attention;  /* ASC of the unit attention to tell; 0: none */
    uint8_t event;      /* media event to tell */
    uint8_t pad[9];
    IdeSense sense;
    uint8_t buf[IDE_BUF];
} IdeDriveRegs;

typedef struct IdeChannelRegs {
    uint32_t prd_table; /* BMIDTP */
    uint32_t prd_next;  /* where the next descriptor is */
    uint32_t prd_addr, prd_left; /* rest of the one in hand, bytes */
    uint16_t prd_count; /* descriptors taken since the start */
    uint8_t prd_last;   /* the one in hand has EOT */
    uint8_t bm_command, bm_status;
    uint8_t device;  /* device register: select, head */
    uint8_t control; /* IDE_NIEN, IDE_SRST, IDE_HOB */
    uint8_t pad;
} IdeChannelRegs;

typedef struct IdeDrive IdeDrive;

typedef struct IdeChannel {
    /* Constant after realize: */
    IdeBus *bus;
    BusRegion command, control;
    IrqLine *irq; /* owned */
    uint16_t command_port, control_port;
    /* Guarded by bus->lock: */
    IdeChannelRegs *regs; /* in the controller's state */
    IdeDrive *drive[IDE_UNITS]; /* borrowed; a drive leaves in its unrealize */
    bool level;                 /* of irq */
    uint32_t prd_cache_at, prd_cache_len; /* bytes of the table that were copied; from where */
    uint8_t prd_cache[IDE_PRD_CACHE];
} IdeChannel;

struct IdeBus {
    PciDev pci;
    IdeChannelRegs regs[IDE_CHANNELS]; /* behind pci.regs: one range for the StateDesc */
    LodgeLock lock; /* LOCK_RANK_DMA */
    bool ready;     /* main thread: lock and channels are made */
    /* Guarded by lock: */
    bool master; /* bus mastering is on, as the command register has it */
    IdeChannel chan[IDE_CHANNELS];
};

/* A part of a bounced sector and where it lies in guest memory. */
typedef struct IdePiece {
    gpa_t gpa;
    uint32_t at, len; /* in the buffer, bytes */
} IdePiece;

struct IdeDrive {
    Device dev;
    /* Properties: */
    BlkNode *node; /* borrowed; bus->lock; NULL: no medium */
    uint32_t unit;
    char *serial, *model;
    uint32_t cylinders, heads, sectors; /* of IDENTIFY; 0: chosen at realize */
    /* Constant after realize: */
    IdeBus *bus;      /* borrowed, outlives us; NULL: not attached */
    IdeChannel *chan; /* in bus */
    bool cd;
    /* Guarded by bus->lock: */
    uint64_t total;  /* sectors of the medium */
    unsigned max_iov;
    bool read_only;
    BlkReq req;
    bool inflight;   /* req is the block layer's, with iov, pins and perhaps regs.buf */
    bool stale;      /* nobody waits for its result */
    bool reset_wait; /* a reset ends when it is done */
    bool quieting;
    uint64_t chunk;  /* sectors in req */
    struct iovec *iov; /* owned, IDE_IOV_MAX */
    MemPin *pins;      /* owned, one for each iov; empty: into regs.buf */
    IdePiece *pieces;  /* owned, IDE_PIECES */
    unsigned niov, npieces;
    IdeDriveRegs regs;
};

/* ide.c */
/* Bring the channel's interrupt line in line with the selected drive. */
void ide_update_irq(IdeChannel *c);
void ide_raise(IdeDrive *d);
static inline IdeDrive *ide_selected(const IdeChannel *c)
{
    return c->drive[!!(c->regs->device & IDE_DEV)];
}

/* ide_dma.c */
uint64_t ide_bm_read(void *owner, uint64_t off, unsigned size);
void ide_bm_write(void *owner, uint64_t off, unsigned size, uint64_t val);
void ide_bm_reset(IdeChannel *c);
void ide_dma_step(IdeDrive *d);
void ide_dma_done(IdeDrive *d, int err);
void ide_dma_unpin(IdeDrive *d);
void ide_dma_buffer(IdeDrive *d);

/* ide_xfer.c */
void ide_step(IdeDrive *d);
void ide_submit(IdeDrive *d, BlkOp op, uint64_t lba, uint64_t sectors);
void ide_read_failed(IdeDrive *d);
void ide_data_in(IdeDrive *d, uint32_t len);
void ide_open_block(IdeDrive *d, bool irq);
void ide_moved(IdeDrive *d);
void ide_done(IdeDrive *d);
void ide_fail(IdeDrive *d, uint8_t error);
void ide_idle(IdeDrive *d);
void ide_abandon(IdeDrive *d);
uint32_t ide_port_read(IdeDrive *d, unsigned size);
void ide_port_write(IdeDrive *d, unsigned size, uint32_t val);
void ide_soft_reset(IdeDrive *d, bool asserted);
void ide_signature(IdeDrive *d);
void ide_power_on(IdeDrive *d);

/* ide_drive.c */
void ide_set_medium(IdeDrive *d, BlkNode *node);

/* ide_ata.c */
void ide_command(IdeDrive *d, uint8_t command);
void ide_ata_media_error(IdeDrive *d, uint64_t lba, bool write);
bool ide_set_features(IdeDrive *d);
bool ide_power_command(IdeDrive *d, uint8_t command);

/* ide_identify.c */
void ide_identify(IdeDrive *d);
bool ide_choose_geometry(IdeDrive *d, GError **error);
bool ide_translate(IdeDrive *d, uint32_t heads, uint32_t sectors);

/* atapi.c */
void atapi_command(IdeDrive *d);
void atapi_packet(IdeDrive *d);
void atapi_done(IdeDrive *d);
void atapi_fail(IdeDrive *d, uint8_t key, uint8_t asc, uint8_t ascq);
void atapi_media_error(IdeDrive *d, uint64_t lba);
void atapi_reply(IdeDrive *d, uint32_t len, uint32_t room);
void atapi_set_count(IdeDrive *d, uint32_t bytes);
void atapi_medium_changed(IdeDrive *d);
void atapi_eject_pressed(IdeDrive *d);
static inline uint32_t atapi_blocks(const IdeDrive *d)
{
    uint64_t n = d->total / CD_SECTORS;
    return n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
}
static inline bool atapi_has_medium(const IdeDrive *d)
{
    return d->node && d->total && !d->regs.tray_open;
}

/* atapi_info.c: each answers the packet in regs.packet. */
void atapi_inquiry(IdeDrive *d);
void atapi_request_sense(IdeDrive *d);
void atapi_read_toc(IdeDrive *d);
void atapi_mode_sense(IdeDrive *d);
void atapi_mode_select(IdeDrive *d);
void atapi_mode_selected(IdeDrive *d); /* the parameter list is in the buffer */
void atapi_get_configuration(IdeDrive *d);
void atapi_get_event(IdeDrive *d);
void atapi_mechanism_status(IdeDrive *d);
void atapi_disc_information(IdeDrive *d);
void atapi_track_information(IdeDrive *d);

/* MMC annex A: the sense that several commands give; key, ASC, ASCQ. */
#define SENSE_INVALID_FIELD 0x05, 0x24, 0x00
#define SENSE_OUT_OF_RANGE 0x05, 0x21, 0x00
#define SENSE_INVALID_COMMAND 0x05, 0x20, 0x00
#define SENSE_NO_MEDIUM_ASC 0x3a
#define SENSE_MEDIUM_CHANGED_ASC 0x28
#define SENSE_POWER_ON_ASC 0x29

#endif
