/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Makes qcow2 images whose clusters are scattered, without writing their data: header and
 * tables only, in a sparse file, from the format's specification.
 *
 *     scatter A FILE 64G      one cluster per 1/16384 of the disk (4 MiB of 64 GiB)
 *     scatter B FILE 64G      every cluster, in random order in the file
 *     ... [CLUSTER_BITS]      16 unless said
 *
 * Data clusters are holes: they read as zeros. The refcounts are right.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COPIED (UINT64_C(1) << 63)

typedef struct Image {
    int fd;
    unsigned bits;
    uint64_t cluster, size;
    uint64_t guest_clusters, stride, data; /* every stride-th guest cluster is mapped */
    uint64_t l1_entries, l1_clusters, tables, blocks, rt_clusters;
    uint64_t l1_at, rt_at, blocks_at, tables_at, data_at, end; /* in clusters */
    uint32_t *order; /* the n-th mapped cluster's place among the data */
} Image;

static uint64_t divide(uint64_t n, uint64_t by)
{
    return (n + by - 1) / by;
}

static void put(const Image *im, const void *buf, size_t len, uint64_t offset)
{
    if (pwrite(im->fd, buf, len, (off_t)offset) != (ssize_t)len) {
        fprintf(stderr, "scatter: %s\n", strerror(errno));
        exit(1);
    }
}

static void *zeros(size_t len)
{
    void *p = calloc(1, len);
    if (!p) {
        fprintf(stderr, "scatter: no memory\n");
        exit(1);
    }
    return p;
}

static void lay_out(Image *im, bool all)
{
    uint64_t per_table = im->cluster / 8, per_block = im->cluster / 2;
    im->guest_clusters = divide(im->size, im->cluster);
    im->stride = all || im->guest_clusters < 16384 ? 1 : im->guest_clusters / 16384;
    im->data = divide(im->guest_clusters, im->stride);
    im->l1_entries = im->tables = divide(im->guest_clusters, per_table);
    im->l1_clusters = divide(im->l1_entries * 8, im->cluster);
    for (im->blocks = 1;; im->blocks++) { /* they count themselves too */
        im->rt_clusters = divide(im->blocks * 8, im->cluster);
        im->l1_at = 1;
        im->rt_at = im->l1_at + im->l1_clusters;
        im->blocks_at = im->rt_at + im->rt_clusters;
        im->tables_at = im->blocks_at + im->blocks;
        im->data_at = im->tables_at + im->tables;
        im->end = im->data_at + im->data;
        if (im->blocks >= divide(im->end, per_block)) {
            return;
        }
    }
}

static void shuffle(Image *im)
{
    uint64_t state = 88172645463325252u;
    im->order = zeros(im->data * sizeof(*im->order));
    for (uint64_t i = 0; i < im->data; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        uint64_t other = (state >> 11) % (i + 1);
        im->order[i] = im->order[other];
        im->order[other] = (uint32_t)i;
    }
}

static void write_header(const Image *im)
{
    struct {
        uint32_t magic, version;
        uint64_t backing_offset;
        uint32_t backing_size, cluster_bits;
        uint64_t size;
        uint32_t crypt, l1_size;
        uint64_t l1_offset, rt_offset;
        uint32_t rt_clusters, nb_snapshots;
        uint64_t snapshots_offset, incompatible, compatible, autoclear;
        uint32_t refcount_order, header_length;
        uint64_t compression, end_of_extensions;
    } h = {.magic = htobe32(0x514649fb), .version = htobe32(3),
           .cluster_bits = htobe32(im->bits), .size = htobe64(im->size),
           .l1_size = htobe32((uint32_t)im->l1_entries),
           .l1_offset = htobe64(im->l1_at << im->bits),
           .rt_offset = htobe64(im->rt_at << im->bits),
           .rt_clusters = htobe32((uint32_t)im->rt_clusters), .refcount_order = htobe32(4),
           .header_length = htobe32(112)};
    put(im, &h, sizeof(h), 0);
}

static void write_tables(const Image *im)
{
    uint64_t per_table = im->cluster / 8, n = 0;
    uint64_t *table = zeros(im->cluster);
    for (uint64_t t = 0; t < im->tables; t++) {
        uint64_t l1 = htobe64(((im->tables_at + t) << im->bits) | COPIED);
        uint64_t first = t * per_table;
        put(im, &l1, 8, (im->l1_at << im->bits) + t * 8);
        memset(table, 0, im->cluster);
        for (uint64_t g = divide(first, im->stride) * im->stride;
             g < first + per_table && g < im->guest_clusters; g += im->stride) {
            uint64_t host = (im->data_at + im->order[n++]) << im->bits;
            table[g - first] = htobe64(host | COPIED);
        }
        put(im, table, im->cluster, (im->tables_at + t) << im->bits);
    }
    free(table);
}

static void write_refcounts(const Image *im)
{
    uint64_t per_block = im->cluster / 2;
    uint16_t *block = zeros(im->cluster);
    for (uint64_t b = 0; b < im->blocks; b++) {
        uint64_t entry = htobe64((im->blocks_at + b) << im->bits);
        put(im, &entry, 8, (im->rt_at << im->bits) + b * 8);
        for (uint64_t i = 0; i < per_block; i++) {
            block[i] = htobe16(b * per_block + i < im->end);
        }
        put(im, block, im->cluster, (im->blocks_at + b) << im->bits);
    }
    free(block);
}

static uint64_t parse_size(const char *text)
{
    char *end;
    uint64_t n = strtoull(text, &end, 10);
    return *end == 'T' ? n << 40 : *end == 'G' ? n << 30 : *end == 'M' ? n << 20 : n;
}

int main(int argc, char **argv)
{
    if (argc < 4 || (strcmp(argv[1], "A") && strcmp(argv[1], "B"))) {
        fprintf(stderr, "usage: scatter A|B FILE SIZE[M|G|T] [CLUSTER_BITS]\n");
        return 2;
    }
    Image im = {.size = parse_size(argv[3]),
                .bits = argc > 4 ? (unsigned)atoi(argv[4]) : 16};
    if (im.bits < 9 || im.bits > 21 || !im.size || im.size % 512) {
        fprintf(stderr, "scatter: no such image\n");
        return 2;
    }
    im.cluster = UINT64_C(1) << im.bits;
    im.fd = open(argv[2], O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (im.fd < 0) {
        perror(argv[2]);
        return 1;
    }
    lay_out(&im, argv[1][0] == 'B');
    if (ftruncate(im.fd, (off_t)(im.end << im.bits)) < 0) {
        perror(argv[2]);
        return 1;
    }
    shuffle(&im);
    write_header(&im);
    write_tables(&im);
    write_refcounts(&im);
    free(im.order);
    return close(im.fd) < 0;
}
