/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_FDC_INTERNAL_H
#define LODGE_FDC_INTERNAL_H

/* What the floppy controller's files know of each other: fdc_82077.c has the ports and the commands
 * that move no data, fdc_xfer.c those that do, floppy.c the drives. */

#include "fdc_82077.h"
#include "lodge/block.h"

enum {
    FDC_UNITS = 4, /* drive selects; the cable has two of them */
    FDC_SECTOR = 512,
    FDC_SIZE_CODE = 2, /* N of 512-byte sectors */
    FDC_COMMAND_MAX = 9,
    FDC_RESULT_MAX = 10,
    FDC_TRACK_MAX = 82, /* where the drive's head stops */
};

/* 82077, 5.0 "Command set"; order of fdc_commands[]. */
typedef enum FdcCommand {
    FDC_READ,
    FDC_READ_DELETED,
    FDC_WRITE,
    FDC_WRITE_DELETED,
    FDC_READ_TRACK,
    FDC_VERIFY,
    FDC_FORMAT,
    FDC_READ_ID, /* last of those with an execution phase */
    FDC_RECALIBRATE,
    FDC_SENSE_INTERRUPT,
    FDC_SPECIFY,
    FDC_SENSE_DRIVE,
    FDC_SEEK,
    FDC_RELATIVE_SEEK,
    FDC_VERSION,
    FDC_CONFIGURE,
    FDC_DUMPREG,
    FDC_PERPENDICULAR,
    FDC_LOCK,
    FDC_INVALID,
} FdcCommand;

typedef enum FdcPhase {
    FDC_PHASE_COMMAND, /* takes command bytes */
    FDC_PHASE_START,   /* the disk turns to the first sector */
    FDC_PHASE_NEXT,    /* the next step is due, as soon as nothing holds it up */
    FDC_PHASE_IO,      /* a block request is in flight */
    FDC_PHASE_DATA,    /* non-DMA: data goes through the FIFO */
    FDC_PHASE_RESULT,
    FDC_PHASES,
} FdcPhase;

/* 82077, 2.1.2 "Digital output register" */
#define DOR_SELECT 0x03
#define DOR_NOT_RESET 0x04
#define DOR_GATE 0x08 /* IRQ and DRQ reach the bus */
#define DOR_MOTOR(unit) (0x10u << (unit))
/* 82077, 6.0 "Status register encoding" */
#define ST0_ABNORMAL 0x40
#define ST0_INVALID 0x80
#define ST0_POLLED 0xc0
#define ST0_SEEK_END 0x20
#define ST0_EQUIPMENT 0x10
#define ST0_HEAD 0x04
#define ST1_MISSING_MARK 0x01
#define ST1_NOT_WRITABLE 0x02
#define ST1_NO_DATA 0x04
#define ST1_OVERRUN 0x10
#define ST1_DATA_ERROR 0x20
#define ST1_END_OF_CYLINDER 0x80
#define ST2_WRONG_CYLINDER 0x10
#define ST2_DATA_ERROR 0x20
#define ST2_CONTROL_MARK 0x40
#define ST3_TRACK0 0x10
#define ST3_PROTECTED 0x40
#define ST3_ALWAYS 0x28

/* Bits of commands. */
#define CMD_MULTI_TRACK 0x80
#define CMD_MFM 0x40
#define CMD_SKIP 0x20
#define CMD_VERIFY_COUNT 0x80 /* in the second byte */
#define CMD_HEAD 0x04         /* likewise */
#define CMD_UNIT 0x03         /* likewise */
#define CONFIG_IMPLIED_SEEK 0x40
#define SPECIFY_NON_DMA 0x01 /* second parameter */

typedef struct FdcFormat {
    uint32_t bytes;
    uint8_t cylinders, heads, sectors; /* sectors: of a track */
    uint8_t rates; /* bit for each code of the data rate that reads it */
    uint8_t drive; /* CMOS type of the drive that it brings along */
    uint8_t fits;  /* CMOS types that take it, a bit each */
} FdcFormat;

/* A drive as the cable sees it; guarded by the controller's lock. */
typedef struct FdcDrive {
    Device *dev;             /* borrowed; NULL: none at this select */
    BlkNode *node;           /* borrowed; NULL: no medium */
    const FdcFormat *format; /* of the medium; NULL: none */
    uint64_t bytes;          /* of the image: the sectors past it are bad */
    bool read_only;
    uint8_t type; /* CMOS type */
} FdcDrive;

typedef struct FdcRegs {
    /* Deadlines in guest time; TIMER_NEVER: none. */
    int64_t start_ns, reset_ns;
    int64_t seek_ns[FDC_UNITS];
    uint16_t data_pos, data_len; /* in data[], non-DMA */
    uint8_t phase;               /* FdcPhase */
    uint8_t dor, tdr, rate;
    uint8_t cmd[FDC_COMMAND_MAX], cmd_pos;
    uint8_t result[FDC_RESULT_MAX], result_pos, result_len;
    uint8_t specify[2], config, pretrk, perpendicular;
    bool lock;
    uint8_t pcn[FDC_UNITS];    /* present cylinder number, the controller's */
    uint8_t target[FDC_UNITS]; /* of a seek under way */
    uint8_t track[FDC_UNITS];  /* where the head is, the drive's */
    bool changed[FDC_UNITS];   /* disk change line */
    uint8_t seek_end;          /* units whose seek waits to be sensed */
    uint8_t polled;            /* units whose change of readiness after a reset waits, likewise */
    uint8_t sense_st0[FDC_UNITS];
    bool irq_result, irq_sense;
    uint8_t eot; /* for DUMPREG */
    /* The transfer under way: */
    uint8_t c, h, r, n; /* ID that is looked for */
    uint8_t head;       /* selected side */
    uint8_t count;      /* sectors done */
    bool tc;            /* terminal count was seen */
    bool no_data;       /* READ TRACK met an ID that differs */
    bool gone;          /* the medium was changed under it */
    bool wrote;         /* a flush is due */
    bool ending;        /* status bytes are in result[], a flush may still be due */
    uint8_t data[FDC_SECTOR];
} FdcRegs;

struct Fdc {
    Device dev;
    /* Constant after realize: */
    BusRegion ports, dir;
    IrqLine *irq;      /* owned */
    LodgeTimer *timer; /* owned */
    /* Guarded by dev.lock: */
    FdcDrive drive[FDC_UNITS];
    FdcRegs regs;
    BlkReq req;
    struct iovec iov;
    uint8_t buf[FDC_SECTOR]; /* the block layer's while in_flight */
    bool in_flight;
    bool stale;       /* what is in flight belongs to a command that a reset ended */
    uint8_t quieting; /* a bit for each unit whose drive is to be quiet, or FDC_QUIET_SELF */
    uint8_t notify;   /* those of them that wait to be told */
};
#define FDC_QUIET_SELF (1u << FDC_UNITS)

_Static_assert(sizeof(FdcRegs) % 8 == 0, "no padding at the end");

/* The command that @opcode starts, and the bytes that it takes. */
FdcCommand fdc_decode(uint8_t opcode);
unsigned fdc_command_length(FdcCommand k);

/* All of these: dev.lock held. */
void fdc_update_irq(Fdc *f);
void fdc_rearm(Fdc *f);
void fdc_set_result(Fdc *f, unsigned len); /* the result phase begins */
void fdc_step(Fdc *f, unsigned unit, uint8_t track); /* the head moves at once */
void fdc_xfer_start(Fdc *f);                         /* the command's bytes are there */
void fdc_xfer_next(Fdc *f);                          /* in FDC_PHASE_NEXT: go on if nothing holds */
void fdc_xfer_data(Fdc *f);                          /* non-DMA: the buffer is used up or full */
void fdc_xfer_abort(Fdc *f);                         /* a reset ends what is in flight */
/* No lock held: tell who waits for quiet and has it. */
void fdc_tell_quiet(Fdc *f);

/* Drives. Main thread, no lock held. */
bool fdc_attach(Fdc *f, unsigned unit, const FdcDrive *drive, GError **error);
void fdc_detach(Fdc *f, unsigned unit);
void fdc_insert(Fdc *f, unsigned unit, const FdcDrive *drive);
void fdc_quiesce(Fdc *f, uint8_t who);
void fdc_resume(Fdc *f, uint8_t who);

#endif
