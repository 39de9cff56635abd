/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The NBD protocol as it travels.
 * spec: NetworkBlockDevice/nbd, doc/proto.md.
 */
#ifndef QDP_EXPORT_NBD_PROTOCOL_H
#define QDP_EXPORT_NBD_PROTOCOL_H

#include "block/base/endian.h"

#define NBD_MAGIC            UINT64_C(0x4e42444d41474943) /* "NBDMAGIC" */
#define NBD_OPTS_MAGIC       UINT64_C(0x49484156454f5054) /* "IHAVEOPT" */
#define NBD_REP_MAGIC        UINT64_C(0x0003e889045565a9)
#define NBD_REQUEST_MAGIC    0x25609513u
#define NBD_SIMPLE_MAGIC     0x67446698u
#define NBD_STRUCTURED_MAGIC 0x668e33efu

enum { NBD_FLAG_FIXED_NEWSTYLE = 1, NBD_FLAG_NO_ZEROES = 2 };

enum { /* options */
       NBD_OPT_EXPORT_NAME = 1,
       NBD_OPT_ABORT = 2,
       NBD_OPT_LIST = 3,
       NBD_OPT_STARTTLS = 5,
       NBD_OPT_INFO = 6,
       NBD_OPT_GO = 7,
       NBD_OPT_STRUCTURED_REPLY = 8,
       NBD_OPT_LIST_META_CONTEXT = 9,
       NBD_OPT_SET_META_CONTEXT = 10,
};

#define NBD_REP_ERR(n) (0x80000000u + (n))
enum {
    NBD_REP_ACK = 1,
    NBD_REP_SERVER = 2,
    NBD_REP_INFO = 3,
    NBD_REP_META_CONTEXT = 4,
};
#define NBD_REP_ERR_UNSUP   NBD_REP_ERR(1)
#define NBD_REP_ERR_POLICY  NBD_REP_ERR(2)
#define NBD_REP_ERR_INVALID NBD_REP_ERR(3)
#define NBD_REP_ERR_UNKNOWN NBD_REP_ERR(6)
#define NBD_REP_ERR_TOO_BIG NBD_REP_ERR(9)

enum { NBD_INFO_EXPORT, NBD_INFO_NAME, NBD_INFO_DESCRIPTION, NBD_INFO_BLOCK_SIZE };

enum { /* transmission flags */
       NBD_FLAG_HAS_FLAGS = 1 << 0,
       NBD_FLAG_READ_ONLY = 1 << 1,
       NBD_FLAG_SEND_FLUSH = 1 << 2,
       NBD_FLAG_SEND_FUA = 1 << 3,
       NBD_FLAG_SEND_TRIM = 1 << 5,
       NBD_FLAG_SEND_WRITE_ZEROES = 1 << 6,
       NBD_FLAG_SEND_DF = 1 << 7,
       NBD_FLAG_CAN_MULTI_CONN = 1 << 8,
       NBD_FLAG_SEND_CACHE = 1 << 10,
       NBD_FLAG_SEND_FAST_ZERO = 1 << 11,
};

enum { /* commands */
       NBD_CMD_READ,
       NBD_CMD_WRITE,
       NBD_CMD_DISC,
       NBD_CMD_FLUSH,
       NBD_CMD_TRIM,
       NBD_CMD_CACHE,
       NBD_CMD_WRITE_ZEROES,
       NBD_CMD_BLOCK_STATUS,
};

enum { /* command flags */
       NBD_CMD_FLAG_FUA = 1 << 0,
       NBD_CMD_FLAG_NO_HOLE = 1 << 1,
       NBD_CMD_FLAG_DF = 1 << 2,
       NBD_CMD_FLAG_REQ_ONE = 1 << 3,
       NBD_CMD_FLAG_FAST_ZERO = 1 << 4,
};

enum { /* error values in replies */
       NBD_OK = 0,
       NBD_EPERM = 1,
       NBD_EIO = 5,
       NBD_ENOMEM = 12,
       NBD_EINVAL = 22,
       NBD_ENOSPC = 28,
       NBD_EOVERFLOW = 75,
       NBD_ENOTSUP = 95,
       NBD_ESHUTDOWN = 108,
};

enum { NBD_REPLY_FLAG_DONE = 1 };
enum { /* structured reply chunks */
       NBD_REPLY_NONE = 0,
       NBD_REPLY_OFFSET_DATA = 1,
       NBD_REPLY_OFFSET_HOLE = 2,
       NBD_REPLY_BLOCK_STATUS = 5,
       NBD_REPLY_ERROR = (1 << 15) + 1,
};
enum { NBD_STATE_HOLE = 1, NBD_STATE_ZERO = 2 };

typedef struct NbdWireGreeting {
    be64 magic, opts_magic;
    be16 flags;
} NbdWireGreeting;
_Static_assert(sizeof(NbdWireGreeting) == 18, "greeting");

typedef struct NbdWireOption {
    be64 magic;
    be32 option, len;
} NbdWireOption;
_Static_assert(sizeof(NbdWireOption) == 16, "option header");

typedef struct NbdWireOptionReply {
    be64 magic;
    be32 option, type, len;
} NbdWireOptionReply;
_Static_assert(sizeof(NbdWireOptionReply) == 20, "option reply header");

typedef struct NbdWireRequest {
    be32 magic;
    be16 flags, type;
    be64 cookie, offset;
    be32 len;
} NbdWireRequest;
_Static_assert(sizeof(NbdWireRequest) == 28, "request header");

typedef struct NbdWireSimple {
    be32 magic, error;
    be64 cookie;
} NbdWireSimple;
_Static_assert(sizeof(NbdWireSimple) == 16, "simple reply");

typedef struct NbdWireChunk {
    be32 magic;
    be16 flags, type;
    be64 cookie;
    be32 len;
} NbdWireChunk;
_Static_assert(sizeof(NbdWireChunk) == 20, "structured reply chunk");

typedef struct NbdWireOffsetData {
    NbdWireChunk head;
    be64 offset;
} NbdWireOffsetData;
_Static_assert(sizeof(NbdWireOffsetData) == 28, "data chunk");

typedef struct NbdWireOffsetHole {
    NbdWireChunk head;
    be64 offset;
    be32 hole_len;
} NbdWireOffsetHole;
_Static_assert(sizeof(NbdWireOffsetHole) == 32, "hole chunk");

typedef struct NbdWireError {
    NbdWireChunk head;
    be32 error;
    be16 text_len; /* the text follows */
} NbdWireError;
_Static_assert(sizeof(NbdWireError) == 26, "error chunk");

typedef struct NbdWireExtent {
    be32 len, flags;
} NbdWireExtent;
_Static_assert(sizeof(NbdWireExtent) == 8, "extent");

typedef struct NbdWireInfoExport {
    be16 type;
    be64 size;
    be16 flags;
} NbdWireInfoExport;
_Static_assert(sizeof(NbdWireInfoExport) == 12, "info: export");

typedef struct NbdWireInfoBlockSize {
    be16 type;
    be32 min, preferred, max;
} NbdWireInfoBlockSize;
_Static_assert(sizeof(NbdWireInfoBlockSize) == 14, "info: block size");

typedef struct NbdWireExportName {
    be64 size;
    be16 flags;
    uint8_t zeroes[124];
} NbdWireExportName;
_Static_assert(sizeof(NbdWireExportName) == 134, "answer to EXPORT_NAME");

#define NBD_MAX_NAME    4096u
#define NBD_MAX_OPTION  (32u << 20) /* longer: the connection is dropped */
#define NBD_MAX_PAYLOAD (32u << 20)

#endif
