/* SPDX-License-Identifier: Apache-2.0 */
/* Scalar floating point. */
#include "bench.h"

#include <math.h>
#include <string.h>

static uint64_t bits(double d)
{
    uint64_t u;

    memcpy(&u, &d, sizeof(u));
    return u;
}

struct body {
    double p[3], v[3], mass;
};

static uint64_t run_nbody(uint64_t n)
{
    struct body b[5];
    uint64_t sum = 0;

    for (uint64_t i = 0; i < n; i++) {
        uint64_t seed = 99991;

        for (int k = 0; k < 5; k++) {
            for (int c = 0; c < 3; c++) {
                b[k].p[c] = (double)(bench_random(&seed) % 1000) / 100;
                b[k].v[c] = (double)(bench_random(&seed) % 1000) / 1000;
            }
            b[k].mass = 1 + k;
        }
        for (int step = 0; step < 50; step++) {
            for (int x = 0; x < 5; x++) {
                for (int y = x + 1; y < 5; y++) {
                    double d[3], r2 = 0.01, f;

                    for (int c = 0; c < 3; c++) {
                        d[c] = b[x].p[c] - b[y].p[c];
                        r2 += d[c] * d[c];
                    }
                    f = 0.001 / (r2 * sqrt(r2));
                    for (int c = 0; c < 3; c++) {
                        b[x].v[c] -= d[c] * b[y].mass * f;
                        b[y].v[c] += d[c] * b[x].mass * f;
                    }
                }
            }
            for (int x = 0; x < 5; x++)
                for (int c = 0; c < 3; c++)
                    b[x].p[c] += 0.001 * b[x].v[c];
        }
        sum = bits(b[0].p[0] + b[4].v[2]);
    }
    return sum;
}

#define DIM 48

static uint64_t run_matmul(uint64_t n)
{
    static double a[DIM][DIM], b[DIM][DIM], c[DIM][DIM];

    for (int i = 0; i < DIM; i++)
        for (int k = 0; k < DIM; k++) {
            a[i][k] = (i * k) % 17 + 0.5;
            b[i][k] = (i + k) % 13 - 0.25;
        }
    for (uint64_t r = 0; r < n; r++) {
        double(*out)[DIM] = c;

        for (int i = 0; i < DIM; i++)
            for (int j = 0; j < DIM; j++) {
                double s = 0;

                for (int k = 0; k < DIM; k++)
                    s += a[i][k] * b[k][j];
                c[i][j] = s;
            }
        BENCH_OPAQUE(out);
    }
    return bits(c[DIM / 2][DIM / 3]);
}

static uint64_t run_mandelbrot(uint64_t n)
{
    uint64_t sum = 0;

    for (uint64_t r = 0; r < n; r++) {
        for (int y = 0; y < 16; y++) {
            for (int x = 0; x < 16; x++) {
                double cr = x / 8.0 - 1.5, ci = y / 8.0 - 1, zr = 0, zi = 0;
                int k;

                for (k = 0; k < 100 && zr * zr + zi * zi < 4; k++) {
                    double t = zr * zr - zi * zi + cr;

                    zi = 2 * zr * zi + ci;
                    zr = t;
                }
                sum += (uint64_t)k;
            }
        }
    }
    return sum;
}

/* The library's transcendental functions: tables, polynomials, conversions between int and double.
 */
static uint64_t run_math(uint64_t n)
{
    double s = 0;

    for (uint64_t r = 0; r < n; r++) {
        s = 0;
        for (int k = 1; k <= 100; k++) {
            double x = k * 0.37;

            BENCH_OPAQUE(k);
            s += floor(exp(x * 0.01) * 100) + floor(log(x) * 100) + floor(sin(x) * 100);
        }
    }
    return bits(s);
}

/* x87: what 80-bit long double compiles to. */
static uint64_t run_x87(uint64_t n)
{
    long double s = 0;

    for (uint64_t r = 0; r < n; r++) {
        s = 1;
        for (int k = 1; k < 200; k++)
            s = s * 1.0001L + (long double)k / (s + 3.0L);
    }
    return bits((double)s);
}

const struct bench bench_fp[] = {
    {"nbody", "user-fp", run_nbody, NULL, NULL},
    {"matmul", "user-fp", run_matmul, NULL, NULL},
    {"mandelbrot", "user-fp", run_mandelbrot, NULL, NULL},
    {"math", "user-fp", run_math, NULL, NULL},
    {"x87", "user-fp", run_x87, NULL, NULL},
};
const size_t bench_fp_count = ARRAY_SIZE(bench_fp);
