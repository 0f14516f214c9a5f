/* SPDX-License-Identifier: Apache-2.0 */
/* Vector code: SSE2 always, AVX2 when the CPU shown to us has it. */
#include "bench.h"

#include <immintrin.h>
#include <string.h>

#define COUNT 4096
#define DIM 64

static float xs[COUNT] __attribute__((aligned(64))), ys[COUNT] __attribute__((aligned(64)));
static float a[DIM][DIM] __attribute__((aligned(64))), b[DIM][DIM] __attribute__((aligned(64))),
    c[DIM][DIM] __attribute__((aligned(64)));
static uint8_t bytes[COUNT * 4] __attribute__((aligned(64)));

static int setup_vectors(void)
{
    uint64_t seed = 4242;

    for (int i = 0; i < COUNT; i++) {
        xs[i] = (float)(i % 97) * 0.5f;
        ys[i] = (float)(i % 89) * 0.25f;
    }
    for (int i = 0; i < DIM; i++)
        for (int k = 0; k < DIM; k++) {
            a[i][k] = (float)((i * k) % 17) + 0.5f;
            b[i][k] = (float)((i + k) % 13) - 0.25f;
        }
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)bench_random(&seed);
    return 0;
}

static int setup_avx2(void)
{
    __builtin_cpu_init();
    return !__builtin_cpu_supports("avx2") || setup_vectors();
}

static uint64_t float_bits(float f)
{
    uint32_t u;

    memcpy(&u, &f, sizeof(u));
    return u;
}

/* y = x * 0.5 + y * 0.25 keeps the values bounded however often it runs. */
static uint64_t run_saxpy_sse2(uint64_t n)
{
    const __m128 half = _mm_set1_ps(0.5f), quarter = _mm_set1_ps(0.25f);

    for (uint64_t r = 0; r < n; r++)
        for (int i = 0; i < COUNT; i += 4)
            _mm_store_ps(ys + i, _mm_add_ps(_mm_mul_ps(_mm_load_ps(xs + i), half),
                                            _mm_mul_ps(_mm_load_ps(ys + i), quarter)));
    return float_bits(ys[7]);
}

__attribute__((target("avx2"))) static uint64_t run_saxpy_avx2(uint64_t n)
{
    const __m256 half = _mm256_set1_ps(0.5f), quarter = _mm256_set1_ps(0.25f);

    for (uint64_t r = 0; r < n; r++)
        for (int i = 0; i < COUNT; i += 8)
            _mm256_store_ps(ys + i, _mm256_add_ps(_mm256_mul_ps(_mm256_load_ps(xs + i), half),
                                                  _mm256_mul_ps(_mm256_load_ps(ys + i), quarter)));
    return float_bits(ys[7]);
}

static uint64_t run_matmul_sse2(uint64_t n)
{
    for (uint64_t r = 0; r < n; r++)
        for (int i = 0; i < DIM; i++)
            for (int j = 0; j < DIM; j += 4) {
                __m128 s = _mm_setzero_ps();

                for (int k = 0; k < DIM; k++)
                    s = _mm_add_ps(s, _mm_mul_ps(_mm_set1_ps(a[i][k]), _mm_load_ps(&b[k][j])));
                _mm_store_ps(&c[i][j], s);
            }
    return float_bits(c[DIM / 2][DIM / 3]);
}

__attribute__((target("avx2"))) static uint64_t run_matmul_avx2(uint64_t n)
{
    for (uint64_t r = 0; r < n; r++)
        for (int i = 0; i < DIM; i++)
            for (int j = 0; j < DIM; j += 8) {
                __m256 s = _mm256_setzero_ps();

                for (int k = 0; k < DIM; k++)
                    s = _mm256_add_ps(
                        s, _mm256_mul_ps(_mm256_set1_ps(a[i][k]), _mm256_load_ps(&b[k][j])));
                _mm256_store_ps(&c[i][j], s);
            }
    return float_bits(c[DIM / 2][DIM / 3]);
}

/* Counting a byte value: what strchr, memchr and parsers do. */
static uint64_t run_count_sse2(uint64_t n)
{
    uint64_t found = 0;

    for (uint64_t r = 0; r < n; r++) {
        __m128i needle = _mm_set1_epi8((char)r);

        for (size_t i = 0; i < sizeof(bytes); i += 16) {
            __m128i v = _mm_load_si128((const __m128i *)(const void *)(bytes + i));
            unsigned m = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(v, needle));

            while (m) {
                m &= m - 1;
                found++;
            }
        }
    }
    return found;
}

/* Pixel blending: 16-bit integer multiply, pack and unpack. */
static uint64_t run_blend_sse2(uint64_t n)
{
    static uint8_t out[COUNT * 4] __attribute__((aligned(64)));
    const __m128i zero = _mm_setzero_si128(), alpha = _mm_set1_epi16(77);

    for (uint64_t r = 0; r < n; r++) {
        for (size_t i = 0; i < sizeof(out); i += 16) {
            __m128i v = _mm_load_si128((const __m128i *)(const void *)(bytes + i));
            __m128i low = _mm_srli_epi16(_mm_mullo_epi16(_mm_unpacklo_epi8(v, zero), alpha), 8);
            __m128i high = _mm_srli_epi16(_mm_mullo_epi16(_mm_unpackhi_epi8(v, zero), alpha), 8);

            _mm_store_si128((__m128i *)(void *)(out + i), _mm_packus_epi16(low, high));
        }
    }
    return out[100] | (uint64_t)out[sizeof(out) - 1] << 8;
}

const struct bench bench_simd[] = {
    {"saxpy-sse2", "user-simd", run_saxpy_sse2, setup_vectors, NULL},
    {"saxpy-avx2", "user-simd", run_saxpy_avx2, setup_avx2, NULL},
    {"matmul-sse2", "user-simd", run_matmul_sse2, setup_vectors, NULL},
    {"matmul-avx2", "user-simd", run_matmul_avx2, setup_avx2, NULL},
    {"count-sse2", "user-simd", run_count_sse2, setup_vectors, NULL},
    {"blend-sse2", "user-simd", run_blend_sse2, setup_vectors, NULL},
};
const size_t bench_simd_count = ARRAY_SIZE(bench_simd);
