/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The qcow2 format as it lies on disk, pure: structs, constants, nothing that does I/O.
 * spec: "The qcow2 image file format" (docs/interop/qcow2 of the QEMU project).
 */
#ifndef BLOCK_QCOW2_FORMAT_H
#define BLOCK_QCOW2_FORMAT_H

#include <stddef.h>
#include "block/base/endian.h"

#define QCOW2_MAGIC 0x514649fbu /* "QFI\xfb" */

typedef struct Qcow2DiskHeader {
    be32 magic;
    be32 version;
    be64 backing_file_offset;
    be32 backing_file_size;
    be32 cluster_bits;
    be64 size;
    be32 crypt_method;
    be32 l1_size;
    be64 l1_table_offset;
    be64 refcount_table_offset;
    be32 refcount_table_clusters;
    be32 nb_snapshots;
    be64 snapshots_offset;
    /* version 3 */
    be64 incompatible_features;
    be64 compatible_features;
    be64 autoclear_features;
    be32 refcount_order;
    be32 header_length;
    uint8_t compression_type;
    uint8_t padding[7];
} Qcow2DiskHeader;
_Static_assert(offsetof(Qcow2DiskHeader, incompatible_features) == 72, "version 2 header");
_Static_assert(offsetof(Qcow2DiskHeader, compression_type) == 104, "version 3 header");
_Static_assert(sizeof(Qcow2DiskHeader) == 112, "version 3 header, padded");

#define QCOW2_V2_HEADER_LENGTH 72
#define QCOW2_V3_HEADER_LENGTH 104

enum { /* incompatible_features */
    QCOW2_INCOMPAT_DIRTY = 1,
    QCOW2_INCOMPAT_CORRUPT = 2,
    QCOW2_INCOMPAT_DATA_FILE = 4,
    QCOW2_INCOMPAT_COMPRESSION = 8,
    QCOW2_INCOMPAT_EXTENDED_L2 = 16,
};
enum { QCOW2_COMPAT_LAZY_REFCOUNTS = 1 };
enum { QCOW2_AUTOCLEAR_BITMAPS = 1, QCOW2_AUTOCLEAR_RAW_DATA = 2 };

/* Header extensions. */
enum {
    QCOW2_EXT_END = 0,
    QCOW2_EXT_BACKING_FORMAT = 0xe2792aca,
    QCOW2_EXT_FEATURE_NAMES = 0x6803f857,
    QCOW2_EXT_BITMAPS = 0x23852875,
    QCOW2_EXT_CRYPTO = 0x0537be77,
    QCOW2_EXT_DATA_FILE = 0x44415441,
};
typedef struct Qcow2DiskExtension {
    be32 type;
    be32 length;
} Qcow2DiskExtension;

typedef struct Qcow2DiskFeatureName {
    uint8_t type; /* 0 incompatible, 1 compatible, 2 autoclear */
    uint8_t bit;
    char name[46];
} Qcow2DiskFeatureName;
_Static_assert(sizeof(Qcow2DiskFeatureName) == 48, "feature name table entry");

/* The bitmaps extension, and an entry of the directory that it points to; behind the entry
 * come @extra_data_size bytes, the name, and padding to a multiple of 8. */
typedef struct Qcow2DiskBitmapsExt {
    be32 nb_bitmaps;
    be32 reserved;
    be64 directory_size;
    be64 directory_offset;
} Qcow2DiskBitmapsExt;
_Static_assert(sizeof(Qcow2DiskBitmapsExt) == 24, "bitmaps extension");

typedef struct Qcow2DiskBitmap {
    be64 table_offset;
    be32 table_size; /* entries */
    be32 flags;
    uint8_t type;
    uint8_t granularity_bits;
    be16 name_size;
    be32 extra_data_size;
} Qcow2DiskBitmap;
_Static_assert(sizeof(Qcow2DiskBitmap) == 24, "bitmap directory entry");
enum { QCOW2_BITMAP_IN_USE = 1, QCOW2_BITMAP_AUTO = 2 };
#define QCOW2_MAX_BITMAPS          65535u
#define QCOW2_MAX_BITMAP_DIRECTORY (64 * MiB)
#define QCOW2_MAX_BITMAP_TABLE     (128u << 20) /* entries */
#define QCOW2_MAX_BITMAP_NAME      1023u

typedef struct Qcow2DiskSnapshot {
    be64 l1_table_offset;
    be32 l1_size;
    be16 id_size;
    be16 name_size;
    be32 date_sec, date_nsec;
    be64 vm_clock_nsec;
    be32 vm_state_size;
    be32 extra_data_size;
} Qcow2DiskSnapshot;
_Static_assert(sizeof(Qcow2DiskSnapshot) == 40, "snapshot table entry");

/* L1, L2 and refcount table entries (host order). */
#define QCOW2_COPIED          (UINT64_C(1) << 63)
#define QCOW2_COMPRESSED      (UINT64_C(1) << 62)
#define QCOW2_ZERO            UINT64_C(1)
#define QCOW2_L1_OFFSET_MASK  UINT64_C(0x00fffffffffffe00)
#define QCOW2_L1_RESERVED     UINT64_C(0x7f000000000001ff)
#define QCOW2_L2_OFFSET_MASK  UINT64_C(0x00fffffffffffe00)
#define QCOW2_L2_RESERVED     UINT64_C(0x3f000000000001fe)
#define QCOW2_RT_OFFSET_MASK  UINT64_C(0xfffffffffffffe00)

/* Limits: what other programs accept too, so that images travel. */
#define QCOW2_MIN_CLUSTER_BITS 9
#define QCOW2_MAX_CLUSTER_BITS 21
#define QCOW2_MAX_L1_BYTES     (32u << 20)
#define QCOW2_MAX_RT_BYTES     (8u << 20)
#define QCOW2_MAX_SNAPSHOTS    65536
#define QCOW2_MAX_BACKING_NAME 1023
#define QCOW2_MAX_OFFSET       (UINT64_C(1) << 56)

#endif
