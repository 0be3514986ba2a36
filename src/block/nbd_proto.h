/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_NBD_PROTO_H
#define LODGE_NBD_PROTO_H

/* Numbers of the protocol, big-endian on the wire. Spec: NBD project, doc/proto.md, "Values". */

#define NBD_MAGIC UINT64_C(0x4e42444d41474943)        /* "NBDMAGIC" */
#define NBD_OPTION_MAGIC UINT64_C(0x49484156454f5054) /* "IHAVEOPT" */
#define NBD_REPLY_MAGIC UINT64_C(0x0003e889045565a9)  /* of an option */
#define NBD_REQUEST_MAGIC 0x25609513u
#define NBD_SIMPLE_MAGIC 0x67446698u
#define NBD_CHUNK_MAGIC 0x668e33efu

enum { NBD_FIXED_NEWSTYLE = 1, NBD_NO_ZEROES = 2 }; /* handshake flags, both ways */

enum {
    NBD_HAS_FLAGS = 1 << 0, NBD_READ_ONLY = 1 << 1, NBD_SEND_FLUSH = 1 << 2,
    NBD_SEND_FUA = 1 << 3, NBD_SEND_TRIM = 1 << 5, NBD_SEND_WRITE_ZEROES = 1 << 6,
    NBD_SEND_DF = 1 << 7, NBD_CAN_MULTI_CONN = 1 << 8, NBD_SEND_FAST_ZERO = 1 << 11,
};

enum {
    NBD_OPT_EXPORT_NAME = 1, NBD_OPT_ABORT = 2, NBD_OPT_LIST = 3, NBD_OPT_INFO = 6,
    NBD_OPT_GO = 7, NBD_OPT_STRUCTURED_REPLY = 8, NBD_OPT_LIST_META_CONTEXT = 9,
    NBD_OPT_SET_META_CONTEXT = 10,
};

#define NBD_REP_ACK 1u
#define NBD_REP_SERVER 2u
#define NBD_REP_INFO 3u
#define NBD_REP_META_CONTEXT 4u
#define NBD_REP_ERR_UNSUP 0x80000001u
#define NBD_REP_ERR_INVALID 0x80000003u
#define NBD_REP_ERR_UNKNOWN 0x80000006u
#define NBD_REP_ERR_TOO_BIG 0x80000009u

enum { NBD_INFO_EXPORT, NBD_INFO_NAME, NBD_INFO_DESCRIPTION, NBD_INFO_BLOCK_SIZE };

enum {
    NBD_CMD_READ, NBD_CMD_WRITE, NBD_CMD_DISC, NBD_CMD_FLUSH, NBD_CMD_TRIM, NBD_CMD_CACHE,
    NBD_CMD_WRITE_ZEROES, NBD_CMD_BLOCK_STATUS,
};
enum {
    NBD_FLAG_FUA = 1, NBD_FLAG_NO_HOLE = 2, NBD_FLAG_DF = 4, NBD_FLAG_REQ_ONE = 8,
    NBD_FLAG_FAST_ZERO = 16,
};

enum {
    NBD_CHUNK_NONE = 0, NBD_CHUNK_OFFSET_DATA = 1, NBD_CHUNK_BLOCK_STATUS = 5,
    NBD_CHUNK_ERROR = 0x8001,
};
#define NBD_CHUNK_DONE 1u /* the last of a reply */

enum { NBD_STATE_HOLE = 1, NBD_STATE_ZERO = 2 }; /* context base:allocation */
#define NBD_ALLOCATION "base:allocation"

enum {
    NBD_EPERM = 1, NBD_EIO = 5, NBD_ENOMEM = 12, NBD_EINVAL = 22, NBD_ENOSPC = 28,
    NBD_ENOTSUP = 95, NBD_ESHUTDOWN = 108,
};

#define NBD_STRING_MAX 4096u
#define NBD_OPTION_HEADER 16u
#define NBD_REQUEST_BYTES 28u
#define NBD_PAYLOAD_MAX ((uint32_t)32 << 20) /* what is told as the largest block */

#endif
