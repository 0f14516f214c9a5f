/* SPDX-License-Identifier: Apache-2.0 */
/* Compressed clusters: read only; a write to one puts a plain cluster in its place. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "backend/block/qcow2.h"

/* Memory for decompressed clusters: 1 MiB, but two clusters at least. */
#define INFLATED_BYTES (1u << 20)

/* A frame may ask for memory: no more than 8 MiB. Encoders take 2 MiB by default. */
#define ZSTD_WINDOW_LOG 23

void qcow2_inflated_init(struct qcow2 *q)
{
    u64 n = INFLATED_BYTES >> q->cluster_bits;

    pthread_mutex_init(&q->inflated.lock, NULL);
    q->inflated.n = n < 2 ? 2 : n > QINFLATED_MAX ? QINFLATED_MAX : (unsigned)n;
}

void qcow2_inflated_free(struct qcow2 *q)
{
    for (unsigned i = 0; i < q->inflated.n; i++)
        free(q->inflated.slot[i].data);
    pthread_mutex_destroy(&q->inflated.lock);
}

/* A raw deflate stream with a window of 4 KiB; it may end before src does. */
static bool inflate_cluster(const u8 *src, size_t n, u8 *dst, size_t size)
{
    z_stream z = {.next_in = (u8 *)(uintptr_t)src,
                  .avail_in = (unsigned)n,
                  .next_out = dst,
                  .avail_out = (unsigned)size};
    int r;

    if (inflateInit2(&z, -12) != Z_OK)
        return false;
    r = inflate(&z, Z_FINISH);
    inflateEnd(&z);
    /* Z_BUF_ERROR: the cluster is complete, the end of the stream was not looked at. */
    return (r == Z_STREAM_END || r == Z_BUF_ERROR) && !z.avail_out;
}

/* One frame or several; what is behind them is not theirs. */
static bool unzstd_cluster(const u8 *src, size_t n, u8 *dst, size_t size)
{
    ZSTD_inBuffer in = {src, n, 0};
    ZSTD_outBuffer out = {dst, size, 0};
    ZSTD_DCtx *z = ZSTD_createDCtx();

    if (!z)
        return false;
    ZSTD_DCtx_setParameter(z, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG);
    while (out.pos < size) {
        size_t in_before = in.pos, out_before = out.pos;

        if (ZSTD_isError(ZSTD_decompressStream(z, &out, &in)) ||
            (in.pos == in_before && out.pos == out_before))
            break;
    }
    ZSTD_freeDCtx(z);
    return out.pos == size;
}

/* True: it was in memory, and the pieces are filled. */
static bool from_memory(struct qcow2 *q, u64 host, u64 at, const struct host_iov *iov, unsigned n,
                        size_t skip, size_t len)
{
    bool hit = false;

    pthread_mutex_lock(&q->inflated.lock);
    for (unsigned i = 0; i < q->inflated.n && !hit; i++)
        if (q->inflated.slot[i].off == host) {
            iov_put(iov, n, skip, q->inflated.slot[i].data + at, len);
            hit = true;
        }
    pthread_mutex_unlock(&q->inflated.lock);
    return hit;
}

/* Takes data over. */
static void remember(struct qcow2 *q, u64 host, u8 *data)
{
    u8 *old;

    pthread_mutex_lock(&q->inflated.lock);
    old = q->inflated.slot[q->inflated.next].data;
    q->inflated.slot[q->inflated.next].data = data;
    q->inflated.slot[q->inflated.next].off = host;
    q->inflated.next = (q->inflated.next + 1) % q->inflated.n;
    pthread_mutex_unlock(&q->inflated.lock);
    free(old);
}

int qcow2_read_compressed(struct qcow2 *q, const struct qmap *m, u64 at, const struct host_iov *iov,
                          unsigned n, size_t skip, size_t len)
{
    u8 *packed, *data;
    bool good;
    int r;

    if (from_memory(q, m->host, at, iov, n, skip, len))
        return 0;
    packed = malloc(m->csize);
    data = malloc(q->cluster_size);
    r = packed && data ? block_file_read(&q->f, packed, m->csize, m->host) : -ENOMEM;
    if (r) {
        free(packed);
        free(data);
        return r;
    }
    good = q->zstd ? unzstd_cluster(packed, m->csize, data, q->cluster_size)
                   : inflate_cluster(packed, m->csize, data, q->cluster_size);
    free(packed);
    if (!good) {
        free(data);
        qcow2_complain(q, "the compressed cluster at 0x%llx cannot be decompressed",
                       (unsigned long long)m->host);
        return -EIO;
    }
    iov_put(iov, n, skip, data + at, len);
    remember(q, m->host, data);
    return 0;
}
